"""A query strategy that reads what the network sees in an image, and has a setting of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank


@dataclass(frozen=True, kw_only=True)
class KCentre:
    """Asks about images that are far from one another (Sener & Savarese 2018, greedily)."""

    name: ClassVar[str] = "k_centre"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("embedding",)

    limit: Annotated[int, Interval(ge=1)] = 50
    """Images that are ranked; the others come after them."""

    def rank(self, draw: Draw) -> Rank:
        features = draw.scores["embedding"]
        distance = np.full(len(features), np.inf)
        rank = np.full(len(features), self.limit)
        at = int(draw.keys().argmin())
        for turn in range(min(self.limit, len(features))):
            rank[at] = turn
            distance = np.minimum(distance, ((features - features[at]) ** 2).sum(1))
            at = int(distance.argmax())
        return rank
