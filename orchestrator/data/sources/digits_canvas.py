"""Canvases with several handwritten digits, made of those that ship inside scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from orchestrator.data.arrays import SPLITS, Labels, held_out_rows, write_array
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.data.sources.digits import Digits, read_digits
from orchestrator.labelling.keyed import keyed_uint64
from search_spaces.reading.config import Contents

_SIDE: Final = 3
"""Cells in a row and in a column of a canvas, each for one digit."""
_MOST: Final = 5
"""Digits on a canvas: one to so many, each number as often."""
_PIXELS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsCanvas:
    """5,000 canvases of 24 x 24 pixels with one to five handwritten digits each, in nine cells: the
    digits of `digits`, those of its test set on test canvases alone. The categories of a canvas are
    the digits on it, 2.6 on average.
    """

    name: ClassVar[str] = "digits_canvas"
    holds: ClassVar[Contents] = Contents(
        kind="images",
        num_classes=10,
        train_items=4000,
        test_items=1000,
        smallest_class=400,
        class_names=Digits.holds.class_names,
        several_labels=True,
    )

    def contents(self) -> Contents:
        return self.holds

    def signature(self) -> str:
        return "1"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        drawn = _canvases(self.name, self.holds)
        for split, (pixels, _) in drawn.items():
            # 0..16 in the source.
            write_array(
                folder / f"{split}.npy", np.rint(pixels * 255 / 16).astype(np.uint8)[..., None]
            )
        on_progress(*[self.holds.train_items + self.holds.test_items] * 2)
        return Loaded(
            kind="images",
            labels={split: labels for split, (_, labels) in drawn.items()},
            class_names=self.holds.class_names,
            augment={"shift": 1, "flip": False},  # a mirrored 2 is no 2
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsCanvasFeatures:
    """The same canvases as vectors of their 576 pixels, 0 to 1; ids, labels and test set are those
    of `digits_canvas`.
    """

    name: ClassVar[str] = "digits_canvas_features"
    holds: ClassVar[Contents] = replace(DigitsCanvas.holds, kind="features")

    def contents(self) -> Contents:
        return self.holds

    def signature(self) -> str:
        return "1"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        drawn = _canvases(self.name, self.holds)
        for split, (pixels, _) in drawn.items():
            # Sixteenths are exact in float32.
            vectors = (pixels.reshape(len(pixels), -1) / 16).astype(np.float32)
            write_array(folder / f"{split}.npy", vectors)
        on_progress(*[self.holds.train_items + self.holds.test_items] * 2)
        return Loaded(
            kind="features",
            labels={split: labels for split, (_, labels) in drawn.items()},
            class_names=self.holds.class_names,
        )


def _canvases(name: str, holds: Contents) -> dict[str, tuple[npt.NDArray[np.float64], Labels]]:
    """Returns split -> its canvases [n, 24, 24], 0..16, and their labels [n, 10], 0 or 1."""
    values, classes = read_digits(name)
    is_test = np.zeros(len(classes), bool)
    is_test[held_out_rows(classes, Digits.holds.test_items)] = True
    found = {}
    for split, count, mine in zip(
        SPLITS, (holds.train_items, holds.test_items), (~is_test, is_test), strict=True
    ):
        found[split] = _compose(split, count, values[mine], classes[mine])
    return found


def _compose(
    split: str, count: int, digits: npt.NDArray[np.float64], classes: Labels
) -> tuple[npt.NDArray[np.float64], Labels]:
    """Returns canvases with digits that are drawn by the number of the canvas alone."""
    rows = np.arange(count)

    def drawn(purpose: str, *parts: Any) -> npt.NDArray[np.uint64]:
        return keyed_uint64(f"digits on a canvas: {purpose} {split}", rows[:, None], *parts)

    held = drawn("how many")[:, 0] % np.uint64(_MOST)
    # The cells of a canvas in a random order.
    cells = np.argsort(drawn("cell", np.arange(_SIDE**2)[None]), axis=1, kind="stable")
    picked = (drawn("digit", np.arange(_MOST)[None]) % np.uint64(len(digits))).astype(np.intp)
    pixels = np.zeros((count, _SIDE, _PIXELS, _SIDE, _PIXELS))
    labels = np.zeros((count, len(Digits.holds.class_names)), np.int32)
    for number in range(_MOST):
        here = rows[held >= np.uint64(number)]
        digit, cell = picked[here, number], cells[here, number]
        pixels[here, cell // _SIDE, :, cell % _SIDE] = digits[digit]
        labels[here, classes[digit]] = 1
    return pixels.reshape(count, _SIDE * _PIXELS, _SIDE * _PIXELS), labels
