"""A query strategy that asks about the images with the smallest numbers: the least that a plug-in
can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank


@dataclass(frozen=True, kw_only=True)
class FirstIds:
    """Asks about images by their number."""

    name: ClassVar[str] = "first_ids"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()

    start: Annotated[int, Interval(ge=0)] = 0
    """Number from which on they are asked."""

    def rank(self, draw: Draw) -> Rank:
        return (draw.ids - self.start) % 10_000
