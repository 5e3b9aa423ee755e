"""Strategies that cover: the images asked about, together with those that have a label, shall be
near to as many images as possible. Chosen greedily, each time the image that adds most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.labelling.protocols import Draw, Rank
from orchestrator.labelling.queries.vectors import (
    Floats,
    Images,
    Vectors,
    clusters,
    images_of,
    number_of_candidates,
    one_thread,
    random_state,
    ranks,
    spread_of,
    squared_distances,
)

Kernel = Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]]
"""Squared distances -> how far an image covers another one, in [0, 1]."""

_ENTRIES: Final = 1 << 27
"""Numbers in the largest table of images by images that is held: half a GiB."""
_ROWS: Final = 1 << 22
"""Numbers in a part of one that is worked on."""
_BALLS: Final = 2000
"""Images at which the purity of a radius is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxHerding:
    """Greatest coverage under a Gaussian kernel (Bae et al. 2024, MaxHerding): the sum, over the
    images, of the kernel to the nearest image that has a label or is asked about.
    """

    name: ClassVar[str] = "max_herding"
    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding",)
    starts_cold: ClassVar[bool] = True

    bandwidth: Annotated[float, Interval(gt=0)] = 0.5
    """Distance at which the kernel is 1/e, where 1 is the root mean square distance between two
    images.
    """
    normalise: bool = True
    """Whether embeddings are scaled to length 1 first."""
    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images that may be asked about, drawn at random where there are more; at least four a
    question. How well they cover is measured on the whole, or on as many as fit into half a GiB.
    """

    def rank(self, draw: Draw) -> Rank:
        found = images_of(draw, normalise=self.normalise)
        weights = np.ones(draw.ids.size)
        with one_thread():
            kernel = gaussian(self.bandwidth * spread_of(found.vectors))
            return by_coverage(draw, found, kernel, weights, self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class UHerding:
    """As max_herding, where each image to be covered counts by how unsure the model is of it (Bae
    et al. 2024, uncertainty herding). Unsureness is 1 - margin; equal ones make it max_herding.
    """

    name: ClassVar[str] = "uherding"
    needs: ClassVar[tuple[str, ...]] = ("embedding", "margin")
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding",)

    temperature: Annotated[float, Interval(gt=0)] = 1.0
    """The margin is that of the two best classes with their logits divided by this, as if there
    were no others: 1 leaves it, and the larger, the more alike all images count.
    """
    bandwidth: Annotated[float, Interval(gt=0)] = 0.5
    """Distance at which the kernel is 1/e, where 1 is the root mean square distance between two
    images.
    """
    normalise: bool = True
    """Whether embeddings are scaled to length 1 first."""
    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images that may be asked about, drawn at random where there are more; at least four a
    question. How well they cover is measured on the whole, or on as many as fit into half a GiB.
    """

    def rank(self, draw: Draw) -> Rank:
        found = images_of(draw, normalise=self.normalise)
        weights = unsureness(draw.scores["margin"][found.order], self.temperature)
        with one_thread():
            kernel = gaussian(self.bandwidth * spread_of(found.vectors))
            return by_coverage(draw, found, kernel, weights, self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbCover:
    """Greatest number of images within a radius of one that has a label or is asked about (Yehuda
    et al. 2022, ProbCover). What is left once all are covered is asked about at random.
    """

    name: ClassVar[str] = "probcover"
    needs: ClassVar[tuple[str, ...]] = ("embedding",)
    needs_of_labelled: ClassVar[tuple[str, ...]] = ("embedding",)
    starts_cold: ClassVar[bool] = True

    delta: Annotated[float, Interval(gt=0)] | None = None
    """The radius. Without one: the largest at which a share `purity` of the balls around images
    holds images of one cluster alone, of as many k-means clusters as there are classes.
    """
    purity: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    """That share."""
    normalise: bool = True
    """Whether embeddings are scaled to length 1 first; then no two are farther apart than 2."""
    candidates: Annotated[int, Interval(ge=1)] = 20_000
    """Images that may be asked about, drawn at random where there are more; at least four a
    question. How well they cover is measured on the whole, or on as many as fit into half a GiB.
    """

    def rank(self, draw: Draw) -> Rank:
        found = images_of(draw, normalise=self.normalise)
        with one_thread():
            radius = self.delta
            if radius is None:
                state = random_state("probcover", draw)
                seen = found.vectors[: self.candidates]
                radius = pure_radius(seen, classes_of(draw), self.purity, state)
            weights = np.ones(draw.ids.size)
            return by_coverage(draw, found, ball(radius), weights, self.candidates)


def gaussian(width: float) -> Kernel:
    """Returns exp(-(distance / width)^2)."""
    return lambda squares: np.exp(squares * (-1 / width**2))


def ball(radius: float) -> Kernel:
    """Returns 1 within the radius and 0 beyond."""
    # A hair more: an image is in its own ball, and rounding may say otherwise.
    return lambda squares: squares <= radius**2 + 1e-9


def unsureness(margin: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Returns 1 - margin at a temperature, [n]; where that is 0 of all, 1 of all."""
    with np.errstate(divide="ignore"):
        logits = np.arctanh(np.clip(margin.astype(np.float64), 0, 1))
    found = 1 - np.tanh(logits / temperature)
    return found if np.any(found > 0) else np.ones_like(found)


def classes_of(draw: Draw) -> int:
    """Returns the number of classes, or where the draw does not say it, of those asked about."""
    return draw.num_classes or int(np.unique(draw.questions.sets.codes()).size)


def pure_radius(vectors: Vectors, classes: int, purity: float, state: int) -> float:
    """Returns the largest radius at which a share `purity` of the balls around these vectors holds
    vectors of one k-means cluster alone; 0 where there is one cluster alone.
    """
    if len(vectors) < 2:
        return 0.0
    label, _ = clusters(vectors, max(2, classes), state)
    nearest = np.empty(min(_BALLS, len(vectors)))
    for part in _parts(len(nearest), len(vectors)):
        squares = squared_distances(vectors[part], vectors)
        squares[label[part][:, None] == label] = np.inf
        nearest[part] = squares.min(1)
    if not np.all(np.isfinite(nearest)):
        return 0.0
    # A ball is pure up to its nearest image of another cluster.
    return float(np.sqrt(np.quantile(nearest, 1 - purity, method="lower")))


def by_coverage(
    draw: Draw, found: Images, kernel: Kernel, weights: Floats, candidates: int
) -> Rank:
    """Returns the ranks of a greedy choice of greatest coverage, the sum over images of their
    weight times how far they are covered.
    """
    count = number_of_candidates(candidates, draw)
    if not count or not draw.quota:
        return ranks(found.order, [])
    targets = found.vectors[: max(1, _ENTRIES // count)]
    table = np.empty((count, len(targets)), np.float32)
    for part in _parts(count, len(targets)):
        table[part] = kernel(squared_distances(found.vectors[part], targets))
    covered = np.zeros(len(targets), np.float32)
    for part in _parts(len(found.labelled), len(targets)):
        held = kernel(squared_distances(found.labelled[part], targets))
        covered = np.maximum(covered, held.max(0).astype(np.float32))
    weight = weights[: len(targets)].astype(np.float32)
    return ranks(found.order, greedy(table, weight, covered, draw.quota))


def greedy(
    table: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    covered: npt.NDArray[np.float32],
    count: int,
) -> list[int]:
    """Returns up to `count` rows of a table, each the one that then adds most to the coverage;
    fewer where nothing is left to add.

    A gain only shrinks as rows are taken: the one before bounds it, and few are computed anew
    (Minoux 1978).

    Args:
        table: [m, t] how far each candidate covers each image.
        weight: [t] of the images.
        covered: [t] how far each is covered before.
    """
    bound = np.empty(len(table), np.float32)
    for part in _parts(len(table), table.shape[1]):
        bound[part] = _gain(table[part], covered, weight)
    picked: list[int] = []
    while len(picked) < min(count, len(table)):
        known, size = np.zeros(len(table), np.bool_), 16
        while not known[best := int(bound.argmax())] and bound[best] > 0:
            open_bound = np.where(known, -np.inf, bound)
            size = min(size, len(table))
            at = np.argpartition(open_bound, -size)[-size:]
            at = at[open_bound[at] > 0]
            bound[at] = _gain(table[at], covered, weight)
            known[at] = True
            size *= 2
        if bound[best] <= 0:
            break
        picked.append(best)
        bound[best] = -np.inf
        covered = np.maximum(covered, table[best])
    return picked


def _gain(
    rows: npt.NDArray[np.float32],
    covered: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    return np.asarray(np.maximum(rows - covered, 0) @ weight)


def _parts(rows: int, columns: int) -> list[slice]:
    """Parts of so many rows that each fits into the memory for work."""
    size = max(1, _ROWS // max(1, columns))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
