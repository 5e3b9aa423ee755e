"""Canvases of several digits are of real digits, of their own split, and their labels are what is
on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.data.prepare import prepare
from orchestrator.data.sources.digits import DigitsFeatures
from orchestrator.data.sources.digits_canvas import DigitsCanvas, DigitsCanvasFeatures


def test_a_canvas_has_the_digits_of_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    digits, canvases, pictures = map(
        prepare, (DigitsFeatures(), DigitsCanvasFeatures(), DigitsCanvas())
    )
    many = []
    for split in ("train", "test"):
        vectors, classes = (
            np.load(folder / f"{split}.npy") for folder in (digits.images_dir, digits.labels_dir)
        )
        class_of = {row.tobytes(): c for row, c in zip(vectors, classes.tolist(), strict=True)}
        pixels = np.load(canvases.images_dir / f"{split}.npy")
        labels = np.load(canvases.labels_dir / f"{split}.npy")
        cells = pixels.reshape(-1, 3, 8, 3, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 9, 64)
        for canvas, mine in zip(cells, labels, strict=True):
            held = [class_of[cell.tobytes()] for cell in canvas if cell.any()]
            many.append(len(held))
            assert set(held) == set(np.flatnonzero(mine).tolist())
        images = np.load(pictures.images_dir / f"{split}.npy")
        assert np.array_equal(images.reshape(len(images), -1), np.rint(pixels * 255))
        assert np.array_equal(labels, np.load(pictures.labels_dir / f"{split}.npy"))
    shares = np.bincount(many, minlength=6) / len(many)
    assert shares[0] == 0 and np.all(np.abs(shares[1:] - 0.2) < 0.03)
