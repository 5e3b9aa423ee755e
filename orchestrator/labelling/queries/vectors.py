"""The vectors of a round's images, and what several strategies make of them: distances, clusters,
ranks. Numerics are those of one thread, so that a choice is the same on every engine.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.keyed import keyed_uint64
from orchestrator.labelling.protocols import Draw, Rank

Vectors = npt.NDArray[np.float32]
"""[n, D] a row an image."""
Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.intp]

A_QUESTION: Final = 4
"""So many candidates there are at least for each question that is asked."""

_ALONE: Final = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Holds linear algebra to one thread while the block runs: sums in another order are other
    sums. Blocks of several threads take turns, for the number is the process's.
    """
    with _ALONE, _libraries().limit(limits=1):
        yield


@cache
def _libraries() -> Any:
    # Loaded first: one that comes later would not be held.
    import sklearn.cluster  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a draw in a random order, by which ties go."""

    order: Places
    """[n] the place of each in the draw."""
    vectors: Vectors
    """[n, D] in that order."""
    labelled: Vectors
    """[L, D] those that have a label."""


def images_of(draw: Draw, *, normalise: bool) -> Images:
    """Returns the images of a draw by their `embedding`, where wanted of length 1; a vector of
    zeros stays.
    """
    order = draw.order(np.zeros(draw.ids.size))
    vectors, labelled = (
        unit(one) if normalise else np.asarray(one, np.float32)
        for one in (draw.scores["embedding"][order], draw.labelled["embedding"])
    )
    return Images(order, vectors, labelled)


def unit(vectors: Floats) -> Vectors:
    """Returns vectors [n, D] of length 1, or 0 where they have none."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def random_state(purpose: str, draw: Draw) -> int:
    """Returns a seed of 32 bits that depends on purpose, seed and round alone."""
    return int(keyed_uint64(purpose, draw.seed, draw.round)[0] >> np.uint64(32))


def number_of_candidates(least: int, draw: Draw) -> int:
    """Returns how many images of a draw are looked at: all, or `least`, and more where the quota
    needs a choice.
    """
    return min(draw.ids.size, max(least, A_QUESTION * draw.quota))


def ranks(order: Places, picked: Sequence[int] | Places) -> Rank:
    """Returns a rank a question, [n]: those at `picked` of the order one after the other, then all
    others at random.
    """
    rank = np.full(order.size, len(picked), np.int64)
    rank[order[np.asarray(picked, np.intp)]] = np.arange(len(picked))
    return rank


def squared_distances(some: Floats, others: Floats) -> npt.NDArray[np.float64]:
    """Returns the squared distance of each vector of one set to each of another, [n, m]."""
    # In double precision: of near images a difference of squares leaves only rounding otherwise.
    a, b = some.astype(np.float64), others.astype(np.float64)
    found = a @ (-2 * b.T)
    found += (a * a).sum(1)[:, None]
    found += (b * b).sum(1)
    return np.asarray(np.maximum(found, 0, out=found))


def spread_of(vectors: Vectors) -> float:
    """Returns the root mean square distance between two images, 1 where all are one."""
    if not len(vectors):
        return 1.0
    variance = float(vectors.var(axis=0, dtype=np.float64).sum())
    return (2 * variance) ** 0.5 or 1.0


def clusters(
    vectors: Vectors, count: int, random_state: int, *, of: int | None = None
) -> tuple[npt.NDArray[np.int32], Vectors]:
    """Returns the k-means cluster of each vector, [n], and the centres, [count, D]. The centres are
    found on the first `of` vectors.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    fitted = vectors if of is None or of >= len(vectors) else vectors[:of]
    means = KMeans(min(count, len(fitted)), n_init=1, max_iter=30, random_state=random_state)
    with warnings.catch_warnings():
        # Fewer different vectors than clusters: some stay empty, which does no harm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(fitted)
        found = means.labels_ if fitted is vectors else means.predict(vectors)
    return found, means.cluster_centers_
