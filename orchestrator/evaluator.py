"""Scores guesses on the test images: the only way from test labels to the rest of the program, and it passes one number."""

from __future__ import annotations

from pathlib import Path

from orchestrator import test_labels
from trainers.errors import DataError
from trainers.stage import Classes


def test_top1(labels_dir: Path, guesses: Classes) -> float:
    """Percent of the test images whose class is guessed right.

    Args:
        labels_dir: of the prepared data (orchestrator.datasets.PreparedData).
        guesses: [T] one class a test image, in the order of the images.

    Raises:
        DataError: if the labels cannot be read, or there are more or fewer of them than guesses.
    """
    labels = test_labels.read(labels_dir)
    if labels.shape != guesses.shape:
        raise DataError(f"{labels_dir}: {len(labels)} test labels for guesses of shape {list(guesses.shape)}; the stage was trained on other data.")
    return 100.0 * float((labels == guesses).mean())
