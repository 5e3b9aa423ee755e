"""Scores guesses on the test images: the only way from test labels to the rest of the program, and
it passes right or wrong alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.labelling import test_labels
from trainers.errors import DataError
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


def test_top1(labels_dir: Path, guesses: Classes) -> float:
    """Percent of the test images whose class is guessed right; arguments and errors as
    `test_correct`.
    """
    return 100.0 * float(test_correct(labels_dir, guesses).mean())
