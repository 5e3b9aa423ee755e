"""The most typical image of each cluster that has no label."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank
from orchestrator.labelling.queries.vectors import (
    Places,
    Vectors,
    clusters,
    images_of,
    number_of_candidates,
    one_thread,
    random_state,
    ranks,
)

_MEMBERS: Final = 4000
"""Images of one cluster among which neighbours are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypiClust:
    """As many k-means clusters as there are labelled images and questions; of those with the fewest
    labels, the largest first, the image whose nearest neighbours are nearest (Hacohen et al. 2022,
    TypiClust).
    """

    name: ClassVar[str] = "typiclust"
    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding",)
    starts_cold: ClassVar[bool] = True

    clusters: Annotated[int, Interval(ge=1)] = 500
    """Clusters at most. Where there are more questions, they take turns."""
    neighbours: Annotated[int, Interval(ge=1)] = 20
    """Nearest images of the same cluster, whose mean distance says how typical one is. Of a cluster
    of more than 4000 images, a random 4000 count.
    """
    normalise: bool = True
    """Whether embeddings are scaled to length 1 first."""
    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images on which the clusters are found, drawn at random where there are more, and at least
    four a question. All images belong to one.
    """

    def rank(self, draw: Draw) -> Rank:
        found = images_of(draw, normalise=self.normalise)
        if not found.order.size or not draw.quota:
            return ranks(found.order, [])
        # Labelled ones first: none of them may be in a cluster that was found without it.
        every = np.concatenate([found.labelled, found.vectors])
        old = len(found.labelled)
        with one_thread():
            label, _ = clusters(
                every,
                min(self.clusters, old + draw.quota),
                random_state("typiclust", draw),
                of=old + number_of_candidates(self.candidates, draw),
            )
            turns = _Turns(every, label, old, self.neighbours)
            return ranks(found.order, turns.take(min(draw.quota, found.order.size)))


class _Turns:
    """Clusters that take turns: those with the fewest labels first, of these the largest."""

    def __init__(
        self, vectors: Vectors, label: npt.NDArray[np.int32], old: int, neighbours: int
    ) -> None:
        """The first `old` vectors have a label."""
        self._vectors, self._old, self._neighbours = vectors, old, neighbours
        order = np.argsort(label, kind="stable")
        edges = np.flatnonzero(np.diff(label[order])) + 1
        self._members: list[Places] = np.split(order, edges)
        self._left: dict[int, list[int]] = {}

    def take(self, count: int) -> list[int]:
        """Returns `count` places among the vectors without a label, in the order of the turns."""
        turns = [
            (int(np.count_nonzero(members < self._old)), -len(members), number)
            for number, members in enumerate(self._members)
            if members[-1] >= self._old
        ]
        heapq.heapify(turns)
        picked: list[int] = []
        while turns and len(picked) < count:
            labels, size, number = heapq.heappop(turns)
            left = self._by_typicality(number)
            picked.append(left.pop() - self._old)
            if left:
                heapq.heappush(turns, (labels + 1, size, number))
        return picked

    def _by_typicality(self, number: int) -> list[int]:
        """Returns those of a cluster that are left, the most typical last."""
        if number not in self._left:
            # In a random order, those with a label first.
            seen = self._members[number][-_MEMBERS:]
            distance = _mean_distance(self._vectors[seen], self._neighbours)
            ascending = seen[np.argsort(distance, kind="stable")]
            self._left[number] = ascending[ascending >= self._old][::-1].tolist()
        return self._left[number]


def _mean_distance(vectors: Vectors, neighbours: int) -> npt.NDArray[np.float64]:
    """Returns [n] the mean distance of each vector to its nearest others; 0 where it is alone."""
    from sklearn.neighbors import NearestNeighbors

    count = min(neighbours, len(vectors) - 1)
    if not count:
        return np.zeros(len(vectors))
    found = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(vectors).kneighbors()
    return np.asarray(found[0].mean(axis=1, dtype=np.float64))
