"""Metrics: what a trained stage reaches on validation and test images, in percent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how good a model is; higher is better."""

    name: str
    array: str
    """The score array that it is made of, with no class left out."""
    score: Callable[[Values, Values], float]
    """(truth, array) -> percent. A function of a module: it travels to the processes that train."""
    correct: Callable[[Values, Values], npt.NDArray[np.bool_]] | None = None
    """(truth, array) -> of each image whether it is right, where the score is the share of these:
    then a report pairs rows by image. None: the score is of all images together.
    """


def top1(truth: Values, guesses: Values) -> float:
    """Returns the share of images whose class is guessed right, in percent.

    Args:
        truth: [n] classes.
        guesses: [n].
    """
    return 100.0 * int((truth == guesses).sum()) / len(truth)


def is_guessed(truth: Values, guesses: Values) -> npt.NDArray[np.bool_]:
    """Returns [n] whether each image's class is guessed right.

    Args:
        truth: [n] classes.
        guesses: [n].
    """
    correct: npt.NDArray[np.bool_] = np.equal(truth, guesses)
    return correct


def mean_average_precision(truth: Values, probabilities: Values) -> float:
    """Returns the mean average precision, in percent: the mean over all categories of the mean,
    over the images of each, of the precision among all images that score no lower. A category
    without an image counts 0, as in scikit-learn's average_precision_score. NaN where there are no
    images.

    Args:
        truth: 0 or 1 for each image and category, [n, C]; or [n] the one category of each.
        probabilities: [n, C].
    """
    if truth.ndim == 1:
        truth = truth[:, None] == np.arange(probabilities.shape[1])
    if not len(truth):
        return float("nan")
    ranks = np.arange(1, len(truth) + 1)
    total = 0.0
    for positive, scores in zip(truth.T.astype(bool), probabilities.T, strict=True):
        if not positive.any():
            continue
        order = np.argsort(-scores, kind="stable")
        hits = np.cumsum(positive[order])
        # Images of equal score have one place together, that of the last of them.
        last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        found = np.diff(hits[last], prepend=0)
        total += float((found * hits[last] / ranks[last]).sum()) / int(hits[-1])
    return 100.0 * total / int(truth.shape[1])


TOP1: Final = Metric("top-1", "guess", top1, is_guessed)
MEAN_AVERAGE_PRECISION: Final = Metric("mAP", "probabilities", mean_average_precision)

METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric for metric in (TOP1, MEAN_AVERAGE_PRECISION)
}
"""Name -> metric of those that ship with this program; a task may bring another."""
