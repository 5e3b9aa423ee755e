"""Strategies that look at how much the answer itself would tell: it is worth most where yes and no
are equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from orchestrator.labelling.keyed import keyed_uniform
from orchestrator.labelling.protocols import Draw, Rank
from orchestrator.labelling.queries.chance import take_turns

_LEAST: Final = 1e-12
"""Keeps logarithms finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenOdds:
    """The guesses whose probability is nearest one half first. Where guesses are poor, as early
    with many classes, those are the surest ones of few classes: `balanced` then pays.
    """

    name: ClassVar[str] = "even_odds"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)

    balanced: bool = False
    """Whether the guessed classes take turns."""

    @property
    def about_one_class(self) -> bool:
        return self.balanced

    def rank(self, draw: Draw) -> Rank:
        distance = np.abs(draw.scores["confidence"].astype(np.float64) - 0.5)
        return take_turns(draw, distance) if self.balanced else distance


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEntropy:
    """Random guesses, each with a chance in proportion to the entropy of its answer, without
    replacement (the keys of Efraimidis and Spirakis 2006): most often where yes and no are equally
    likely, and sometimes anywhere.
    """

    name: ClassVar[str] = "answer_entropy"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)

    balanced: bool = False
    """Whether the guessed classes take turns."""

    @property
    def about_one_class(self) -> bool:
        return self.balanced

    def rank(self, draw: Draw) -> Rank:
        yes = np.clip(draw.scores["confidence"].astype(np.float64), _LEAST, 1 - _LEAST)
        entropy = -(yes * np.log(yes) + (1 - yes) * np.log1p(-yes))
        uniform = keyed_uniform("answer_entropy", draw.keys().view(np.int64))
        # An exponential of this rate: the smallest are a sample in proportion to the rates.
        waited = -np.log1p(-uniform) / entropy
        return take_turns(draw, waited) if self.balanced else waited
