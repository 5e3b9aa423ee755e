"""Which test images are guessed right and the accuracy in percent, and nothing else of the test
labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.labelling import evaluator
from trainers.errors import DataError
from trainers.metrics import TOP1


@pytest.fixture
def labels_dir(tmp_path: Path) -> Path:
    np.save(tmp_path / "test.npy", np.array([0, 1, 2, 2], np.int32))
    return tmp_path


@pytest.mark.parametrize(
    ("guesses", "percent"), [([0, 1, 2, 2], 100.0), ([0, 1, 2, 0], 75.0), ([1, 2, 0, 0], 0.0)]
)
def test_accuracy_is_the_percentage_guessed_right(
    labels_dir: Path, guesses: list[int], percent: float
) -> None:
    assert evaluator.test_score(labels_dir, TOP1, np.array(guesses, np.int32)) == percent


def test_each_image_is_right_or_wrong_in_the_order_of_the_images(labels_dir: Path) -> None:
    correct = evaluator.test_correct(labels_dir, TOP1, np.array([0, 2, 2, 0], np.int32))
    assert (correct.dtype, correct.tolist()) == (np.bool_, [True, False, True, False])


@pytest.mark.parametrize(
    "guesses",
    [
        np.zeros(3, np.int32),
        np.zeros(5, np.int32),
        np.zeros((4, 1), np.int32),
        np.zeros((1, 4), np.int32),
    ],
)
def test_guesses_for_other_images_are_refused(labels_dir: Path, guesses: np.ndarray) -> None:
    with pytest.raises(DataError, match="4 test labels for predictions of shape"):
        evaluator.test_score(labels_dir, TOP1, guesses)
    with pytest.raises(DataError, match="4 test labels for predictions of shape"):
        evaluator.test_correct(labels_dir, TOP1, guesses)


def test_damaged_test_labels_are_named(tmp_path: Path) -> None:
    guesses = np.zeros(4, np.int32)
    with pytest.raises(DataError, match=rf"{tmp_path}/test.npy: the test labels cannot be read"):
        evaluator.test_score(tmp_path, TOP1, guesses)
    (tmp_path / "test.npy").write_bytes(b"")
    with pytest.raises(DataError, match=rf"{tmp_path}/test.npy: the test labels cannot be read"):
        evaluator.test_score(tmp_path, TOP1, guesses)
    np.save(tmp_path / "test.npy", np.zeros(4))
    with pytest.raises(DataError, match=r"expected int32 \[T\], found float64 \[4\]"):
        evaluator.test_score(tmp_path, TOP1, guesses)
