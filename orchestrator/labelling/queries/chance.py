"""Strategies that look at no confidence: random images, or as many of each guessed class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from orchestrator.labelling.protocols import Draw, Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Images drawn at random (Hu et al. 2020)."""

    name: ClassVar[str] = "random"
    needs: ClassVar[tuple[str, ...]] = ()

    def rank(self, draw: Draw) -> Rank:
        return draw.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBalanced:
    """Round-robin over the guessed classes, random within each: an image's rank is its turn in its
    class.
    """

    name: ClassVar[str] = "class_balanced"
    needs: ClassVar[tuple[str, ...]] = ()
    about_one_class: ClassVar[bool] = True

    def rank(self, draw: Draw) -> Rank:
        return take_turns(draw, draw.keys())


def take_turns(draw: Draw, within: Rank) -> Rank:
    """Returns a rank in which the guessed classes take turns.

    Args:
        within: [n] in which order the questions of one class come; ties in a random order.
    """
    keys = draw.keys()
    order = np.lexsort((keys, within, draw.guesses))
    held = np.bincount(draw.guesses, minlength=1)
    turn = np.arange(draw.ids.size) - (np.cumsum(held) - held)[draw.guesses[order]]
    # Within one turn the keys decide, or small ids would be asked more often.
    rank = np.empty(draw.ids.size, np.int64)
    rank[order[np.lexsort((keys[order], turn))]] = np.arange(draw.ids.size)
    return rank
