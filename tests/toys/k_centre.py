"""A query strategy that reads what the network sees in an image, and has a setting of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank


@dataclass(frozen=True, kw_only=True)
class KCentre:
    """Asks about images that are far from one another and from those that have a label (Sener &
    Savarese 2018, greedily).
    """

    name: ClassVar[str] = "k_centre"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding",)

    limit: Annotated[int, Interval(ge=1)] = 50
    """Images that are ranked; the others come after them."""

    def rank(self, draw: Draw) -> Rank:
        features = draw.scores["embedding"]
        distance = np.full(len(features), np.inf)
        for centre in draw.labelled["embedding"]:
            distance = np.minimum(distance, ((features - centre) ** 2).sum(1))
        rank = np.full(len(features), self.limit)
        # Of images that are equally far, as all are where none is labelled, any.
        order = draw.order(np.zeros(len(features)))
        for turn in range(min(self.limit, len(features))):
            at = int(order[distance[order].argmax()])
            rank[at] = turn
            distance = np.minimum(distance, ((features - features[at]) ** 2).sum(1))
        return rank
