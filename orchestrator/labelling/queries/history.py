"""A strategy that looks at what the model said over many epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.labelling.protocols import Draw, Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """The images first whose predictions are least sure and change most from epoch to epoch (Zhang
    et al. 2022, Eq. 7).
    """

    name: ClassVar[str] = "uncertainty"
    needs: ClassVar[tuple[str, ...]] = ("uncertainty",)

    def rank(self, draw: Draw) -> Rank:
        return -draw.scores["uncertainty"]
