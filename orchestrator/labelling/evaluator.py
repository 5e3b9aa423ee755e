"""Scores guesses on the test images as right or wrong. Only this module may read test labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.labelling import test_labels
from trainers.errors import DataError
from trainers.metrics import Metric
from trainers.stage import Classes


def test_correct(labels_dir: Path, guesses: Classes) -> npt.NDArray[np.bool_]:
    """[T] whether each test image's class is guessed right, in the order of the images.

    Args:
        labels_dir: of the prepared data (orchestrator.data.prepare.PreparedData).
        guesses: [T] one class a test image, in the order of the images.

    Raises:
        DataError: if the labels cannot be read, or there are more or fewer of them than guesses.
    """
    labels = test_labels.read(labels_dir)
    if labels.shape != guesses.shape:
        raise DataError(
            f"{labels_dir}: {len(labels)} test labels for guesses of shape {list(guesses.shape)};"
            " the stage was trained on other data."
        )
    correct: npt.NDArray[np.bool_] = labels == guesses
    return correct


def test_score(labels_dir: Path, metric: Metric, values: npt.NDArray[Any]) -> float:
    """Returns what these predictions for the test images come to by a metric, in percent.

    Args:
        labels_dir: of the prepared data (orchestrator.data.prepare.PreparedData).
        values: [T, ...] the metric's array, in the order of the images.

    Raises:
        DataError: as `test_correct`.
    """
    if metric.array == "guess":
        # As in every record so far, to the last digit.
        return 100.0 * float(test_correct(labels_dir, values).mean())
    labels = test_labels.read(labels_dir)
    if len(labels) != len(values):
        raise DataError(
            f"{labels_dir}: {len(labels)} test labels for {len(values)} predictions; the stage was"
            " trained on other data."
        )
    return metric.score(labels, values)
