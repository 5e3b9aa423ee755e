"""Scores guesses on the test images as right or wrong. Only this module may read test labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.labelling import test_labels
from trainers.errors import DataError
from trainers.metrics import Metric


def test_correct(
    labels_dir: Path, metric: Metric, values: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """Returns [T] whether each test image is right, in the order of the images, by a metric that
    says so.

    Args:
        labels_dir: of the prepared data (orchestrator.data.prepare.PreparedData).
        values: [T, ...] the metric's array, in the order of the images.

    Raises:
        DataError: the labels cannot be read, or the values are not those of as many images.
    """
    assert metric.correct is not None
    labels = _labels(labels_dir, values)
    correct = metric.correct(labels, values)
    if correct.shape != labels.shape[:1]:
        raise DataError(
            f"{labels_dir}: {len(labels)} test labels for predictions of shape"
            f" {list(values.shape)}; the stage was trained on other data."
        )
    return correct


def test_score(labels_dir: Path, metric: Metric, values: npt.NDArray[Any]) -> float:
    """Returns what these predictions for the test images come to by a metric, in percent.

    Args:
        labels_dir: of the prepared data (orchestrator.data.prepare.PreparedData).
        values: [T, ...] the metric's array, in the order of the images.

    Raises:
        DataError: as `test_correct`.
    """
    if metric.correct is not None:
        # As in every record so far, to the last digit.
        return 100.0 * float(test_correct(labels_dir, metric, values).mean())
    return metric.score(_labels(labels_dir, values), values)


def _labels(labels_dir: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    labels = test_labels.read(labels_dir)
    if len(labels) != len(values):
        raise DataError(
            f"{labels_dir}: {len(labels)} test labels for predictions of shape"
            f" {list(values.shape)}; the stage was trained on other data."
        )
    return labels
