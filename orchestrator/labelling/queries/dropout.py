"""Images whose guess is not sure to stand when some of their features are dropped."""

from __future__ import annotations

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
    number_of_candidates,
    one_thread,
    random_state,
    squared_distances,
)

_FITTED: Final = 5000
"""Images from which the last layer is made out, and at least four a number of it."""
_LEAST: Final = 1e-38
"""Least probability that has a logarithm of full precision in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropQuery:
    """Images whose guess changes in more than half of a few passes in which features are dropped at
    random; of these the ones nearest to as many k-means centres as are asked about (Gupta et al.
    2024, DropQuery). Where they are fewer than the questions, those that change less often follow.

    The last layer is made out from the probabilities and the embeddings: exactly where it is
    linear, else nearly. Labelled images are not looked at.
    """

    name: ClassVar[str] = "dropquery"
    needs: ClassVar[tuple[str, ...]] = ("embedding", "probabilities")

    passes: Annotated[int, Interval(ge=1, le=1000)] = 3
    """Passes with dropped features."""
    rate: Annotated[float, Interval(gt=0, lt=1)] = 0.75
    """Share of the features that a pass drops."""
    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images that may be asked about, drawn at random where there are more; at least four a
    question.
    """

    def rank(self, draw: Draw) -> Rank:
        rank = np.full(draw.ids.size, 2 + self.passes, np.int64)
        count = number_of_candidates(self.candidates, draw)
        if not count or not draw.quota:
            return rank
        order = draw.order(np.zeros(draw.ids.size))[:count]
        vectors = draw.scores["embedding"][order].astype(np.float32, copy=False)
        state = random_state("dropquery", draw)
        with one_thread():
            weights, bias = last_layer(vectors, draw.scores["probabilities"][order])
            changes = self._changes(vectors, weights, bias, np.random.default_rng(state))
            rank[order] = 1 + self.passes - changes
            unsure = np.flatnonzero(2 * changes > self.passes)
            if unsure.size > draw.quota:
                rank[order[unsure[_central(vectors[unsure], draw.quota, state)]]] = 0
        return rank

    def _changes(
        self, vectors: Vectors, weights: Vectors, bias: Vectors, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Returns [n] in how many passes the guess of each is another one."""
        whole = (vectors @ weights + bias).argmax(1)
        changes = np.zeros(len(vectors), np.int64)
        for _ in range(self.passes):
            kept = rng.random(vectors.shape, np.float32) >= self.rate
            logits = (vectors * kept / np.float32(1 - self.rate)) @ weights + bias
            changes += logits.argmax(1) != whole
        return changes


def last_layer(vectors: Vectors, probabilities: npt.NDArray[np.float32]) -> tuple[Vectors, Vectors]:
    """Returns the weights [D, C] and the bias [C] of the linear layer whose softmax comes nearest
    to these probabilities, by least squares between their logarithms, to a common shift.
    """
    count = max(_FITTED, 4 * (1 + vectors.shape[1]))
    inputs = np.ones((len(vectors[:count]), 1 + vectors.shape[1]))
    inputs[:, 1:] = vectors[:count]
    logits = np.log(np.maximum(probabilities[:count].astype(np.float64), _LEAST))
    logits -= logits.mean(1, keepdims=True)
    layer = np.linalg.lstsq(inputs, logits, rcond=None)[0].astype(np.float32)
    return layer[1:], layer[0]


def _central(vectors: Vectors, count: int, state: int) -> Places:
    """Returns the place of the vector nearest to the centre of each of `count` clusters."""
    label, centres = clusters(vectors, count, state)
    order = np.argsort(label, kind="stable")
    edges = np.flatnonzero(np.diff(label[order])) + 1
    return np.array(
        [
            members[squared_distances(vectors[members], centres[label[members[:1]]]).argmin()]
            for members in np.split(order, edges)
        ],
        np.intp,
    )
