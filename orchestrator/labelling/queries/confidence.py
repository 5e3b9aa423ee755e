"""Strategies that look at how sure the model is of its guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Easy:
    """The surest guesses first (Hu et al. 2020)."""

    name: ClassVar[str] = "easy"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)

    def rank(self, draw: Draw) -> Rank:
        return -draw.scores["confidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hard:
    """The least sure guesses first (Hu et al. 2020)."""

    name: ClassVar[str] = "hard"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)

    def rank(self, draw: Draw) -> Rank:
        return draw.scores["confidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The least difference of the two best classes first (`diff2` of the ObCP paper)."""

    name: ClassVar[str] = "margin"
    needs: ClassVar[tuple[str, ...]] = ("margin",)

    def rank(self, draw: Draw) -> Rank:
        return draw.scores["margin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """The highest entropy over the classes first."""

    name: ClassVar[str] = "entropy"
    needs: ClassVar[tuple[str, ...]] = ("entropy",)

    def rank(self, draw: Draw) -> Rank:
        return -draw.scores["entropy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """A share of the quota to the surest images, the rest to the least sure."""

    name: ClassVar[str] = "mixed"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)

    easy_share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of a quota that goes to the surest images; the rest goes to the least sure."""

    def rank(self, draw: Draw) -> Rank:
        confidence = draw.scores["confidence"]
        hard = draw.order(confidence)
        easy = draw.order(-confidence)[: round(self.easy_share * draw.quota)]
        rank = np.empty(draw.ids.size, np.int64)
        rank[hard] = np.arange(draw.ids.size)
        rank[easy] = -1
        return rank
