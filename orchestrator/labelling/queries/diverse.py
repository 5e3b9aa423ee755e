"""Strategies that draw images which are unsure and unlike one another: the seeding of k-means++
(Arthur & Vassilvitskii 2007) draws each with a chance that grows with the squared distance to the
nearest one so far, here between vectors that are the longer the less sure the model is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank
from orchestrator.labelling.queries.vectors import (
    Places,
    Vectors,
    number_of_candidates,
    one_thread,
    random_state,
    ranks,
    unit,
)

_AT_ONCE: Final = 256
"""Labelled images whose distances are computed together."""
_EQUAL: Final = 1e-6
"""Squares of distances that are a smaller share of the squares of the lengths are rounding."""


@dataclass(frozen=True, slots=True)
class Factored:
    """Vectors that are outer products of two each, which need not be formed: their inner products
    are the products of those of the factors.
    """

    left: Vectors
    """[n, A]"""
    right: Vectors
    """[n, B]"""

    @property
    def squares(self) -> npt.NDArray[np.float64]:
        """[n] the squared length of each."""
        return np.asarray(_squares(self.left) * _squares(self.right))

    def squared_distances(self, others: Factored) -> npt.NDArray[np.float64]:
        """Returns [n, m] those to the vectors of another set; 0 where they are rounding."""
        inner = (self.left @ others.left.T).astype(np.float64)
        inner *= self.right @ others.right.T
        lengths = self.squares[:, None] + others.squares
        found = lengths - 2 * inner
        return np.where(found > _EQUAL * lengths, found, 0.0)

    def take(self, at: Places | slice) -> Factored:
        """Returns those at some places."""
        return Factored(self.left[at], self.right[at])


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginDiverse:
    """Draws by k-means++ among embeddings that are scaled by 1 - margin; those of labelled images,
    scaled alike, are there already.
    """

    name: ClassVar[str] = "margin_diverse"
    needs: ClassVar[tuple[str, ...]] = ("embedding", "margin")
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding", "margin")

    normalise: bool = True
    """Whether embeddings are scaled to length 1 first."""
    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images that may be asked about, drawn at random where there are more; at least four a
    question.
    """

    def rank(self, draw: Draw) -> Rank:
        def vectors(
            embedding: npt.NDArray[np.float32], margin: npt.NDArray[np.float32]
        ) -> Factored:
            scale = (1 - np.clip(margin, 0, 1))[:, None].astype(np.float32)
            return Factored(scale, unit(embedding) if self.normalise else embedding)

        labelled = vectors(draw.labelled["embedding"], draw.labelled["margin"])
        order = _some(draw, self.candidates)
        some = vectors(draw.scores["embedding"][order], draw.scores["margin"][order])
        return by_seeding(draw, order, some, labelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """Draws by k-means++ among the gradients, by the weights of a linear last layer, of the loss of
    the guess: (probabilities - guess) x embedding (Ash et al. 2020, BADGE). Unlike there, the
    gradients of labelled images count as drawn already.
    """

    name: ClassVar[str] = "badge"
    needs: ClassVar[tuple[str, ...]] = ("embedding", "probabilities")
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding", "probabilities")

    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images that may be asked about, drawn at random where there are more; at least four a
    question.
    """

    def rank(self, draw: Draw) -> Rank:
        order = _some(draw, self.candidates)
        asked = draw.questions.sets.take(order)
        error = draw.scores["probabilities"][order].astype(np.float32, copy=True)
        error[asked.rows, asked.classes] -= 1
        some = Factored(error, draw.scores["embedding"][order])
        held = draw.labelled["probabilities"].astype(np.float32, copy=True)
        held[np.arange(len(held)), held.argmax(1) if held.size else []] -= 1
        return by_seeding(draw, order, some, Factored(held, draw.labelled["embedding"]))


def _some(draw: Draw, candidates: int) -> Places:
    """Returns the places of the images that may be asked about, in a random order."""
    return draw.order(np.zeros(draw.ids.size))[: number_of_candidates(candidates, draw)]


def by_seeding(draw: Draw, order: Places, some: Factored, labelled: Factored) -> Rank:
    """Returns the ranks of a draw by k-means++ among these vectors of the questions at `order`,
    where those of labelled images are drawn already.
    """
    nearest = None
    rng = np.random.default_rng(random_state("seeding", draw))
    with one_thread():
        for start in range(0, len(labelled.left), _AT_ONCE):
            part = labelled.take(slice(start, start + _AT_ONCE))
            distance = some.squared_distances(part).min(1)
            nearest = distance if nearest is None else np.minimum(nearest, distance)
        picked = seeds(some, nearest, draw.quota, rng)
    rank = np.full(draw.ids.size, draw.ids.size, np.int64)
    rank[order] = ranks(np.arange(order.size), picked)
    return rank


def seeds(
    some: Factored,
    nearest: npt.NDArray[np.float64] | None,
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """Returns up to `count` places of vectors, none twice; fewer where no other is left.

    Args:
        nearest: [n] the squared distance of each to the nearest that is there already; None: there
            is none, and the first is drawn by its squared length.
    """
    squares = some.squares
    mass = squares if nearest is None else nearest
    distances = _distances(some, squares)
    picked: list[int] = []
    while len(picked) < min(count, squares.size):
        total = np.cumsum(mass)
        if not total[-1] > 0:
            break
        drawn = np.searchsorted(total, rng.random() * total[-1], side="right")
        # The last one that has any chance, where rounding leads beyond it.
        at = min(int(drawn), int(np.flatnonzero(mass)[-1])) if drawn == total.size else int(drawn)
        picked.append(at)
        distance = distances(at)
        nearest = distance if nearest is None else np.minimum(nearest, distance)
        nearest[at] = 0
        mass = nearest
    return picked


def _distances(
    some: Factored, squares: npt.NDArray[np.float64]
) -> Callable[[int], npt.NDArray[np.float64]]:
    """Returns the squared distances to one of the vectors, as a function of its place."""

    def of(at: int) -> npt.NDArray[np.float64]:
        lengths = squares + squares[at]
        found = lengths - 2.0 * (some.left @ some.left[at]) * (some.right @ some.right[at])
        return np.where(found > _EQUAL * lengths, found, 0.0)

    return of


def _squares(vectors: Vectors) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
