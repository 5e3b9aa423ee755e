"""Query strategies: which images of the pool to ask about, and with which guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.keyed import keyed_uint64
from trainers.stage import Classes, Ids

Scores = Mapping[str, npt.NDArray[Any]]
Rank = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A ranking of the eligible images: those with the smallest rank are asked, ties in a random order."""

    needs: tuple[str, ...]
    """Score arrays it reads besides the guess and its confidence; where refused classes may be guessed again, those of that name with `raw_` before it."""
    rank: Callable[[Scores, Draw], Rank]


@dataclass(frozen=True, slots=True)
class Draw:
    """What a ranking sees of the eligible images, in parallel arrays, ids ascending."""

    ids: Ids
    guesses: Classes
    confidences: npt.NDArray[np.float32]
    seed: int
    round: int
    quota: int
    easy_share: float

    def order(self, rank: Rank) -> npt.NDArray[np.intp]:
        """Places of the images by ascending rank, ties in a random order: ids may follow the order of a file, which may follow the classes."""
        return np.lexsort((self.ids, self.keys(), rank))

    def keys(self) -> npt.NDArray[np.uint64]:
        """A random number an image, which depends on seed, round and id alone: whichever others are eligible, it stays."""
        return keyed_uint64("query", self.seed, self.round, self.ids)


def choose(
    strategy: str, scores: Scores, eligible: Ids, quota: int, *, seed: int, round: int, mask_refused: bool, easy_share: float = 0.5
) -> tuple[Ids, Classes, npt.NDArray[np.float32]]:
    """Ids ascending, the class to ask each about, and the model's probability of it; min(quota, |eligible|) of them.

    Args:
        strategy: a key of STRATEGIES.
        scores: SCORE_ARRAYS of the pool, by ascending item id.
        mask_refused: guess, and rank, by the classes not refused. False: by all classes, the best of which may have been refused before (the published code).
        easy_share: part of the quota that `mixed` gives to the surest images.

    Raises:
        ValueError: an eligible image has no scores.

    Source: Hu et al. 2020, section on query strategies: random, easy (highest confidence), hard (lowest).
    """
    ids = np.sort(eligible)
    at = np.searchsorted(scores["item_ids"], ids)
    if np.any(at >= scores["item_ids"].size) or not np.array_equal(scores["item_ids"][at], ids):
        raise ValueError("the scores do not cover every eligible image")
    # Only what is read: the file may leave out arrays that no strategy of the sweep needs.
    prefix = "" if mask_refused else "raw_"
    chosen = STRATEGIES[strategy]
    draw = Draw(ids, scores[f"{prefix}guess"][at], scores[f"{prefix}confidence"][at], seed, round, min(quota, ids.size), easy_share)
    rank = chosen.rank({name: scores[f"{prefix}{name}"][at] for name in chosen.needs}, draw)
    first = np.sort(draw.order(rank)[:quota])
    return ids[first], draw.guesses[first].astype(np.int32), draw.confidences[first].astype(np.float32)


def _random(scores: Scores, draw: Draw) -> Rank:
    return draw.keys()


def _easy(scores: Scores, draw: Draw) -> Rank:
    return -draw.confidences


def _hard(scores: Scores, draw: Draw) -> Rank:
    return draw.confidences


def _mixed(scores: Scores, draw: Draw) -> Rank:
    """A share of the quota to the surest images, the rest to the least sure."""
    hard = draw.order(draw.confidences)
    easy = draw.order(-draw.confidences)[: round(draw.easy_share * draw.quota)]
    rank = np.empty(draw.ids.size, np.int64)
    rank[hard] = np.arange(draw.ids.size)
    rank[easy] = -1
    return rank


def _margin(scores: Scores, draw: Draw) -> Rank:
    """Least difference of the two best classes first (`diff2` of the ObCP paper)."""
    return np.asarray(scores["margin"])


def _entropy(scores: Scores, draw: Draw) -> Rank:
    return -np.asarray(scores["entropy"])


def _class_balanced(scores: Scores, draw: Draw) -> Rank:
    """Round-robin over the guessed classes, random within each: rank is the image's turn in its class."""
    order = np.lexsort((draw.keys(), draw.guesses))
    held = np.bincount(draw.guesses, minlength=1)
    turn = np.arange(draw.ids.size) - (np.cumsum(held) - held)[draw.guesses[order]]
    # Within one turn the keys decide, or small ids would be asked more often.
    rank = np.empty(draw.ids.size, np.int64)
    rank[order[np.lexsort((draw.keys()[order], turn))]] = np.arange(draw.ids.size)
    return rank


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        "random": Strategy((), _random),
        "easy": Strategy((), _easy),
        "hard": Strategy((), _hard),
        "margin": Strategy(("margin",), _margin),
        "entropy": Strategy(("entropy",), _entropy),
        "class_balanced": Strategy((), _class_balanced),
        "mixed": Strategy((), _mixed),
    }
)
"""Every strategy by its name in a spec."""
