"""Digits that ship inside scikit-learn, as images and as feature vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from orchestrator.data.arrays import Labels, held_out_rows, write_array
from orchestrator.data.protocols import Loaded, Progress
from search_spaces.reading.config import Contents
from trainers.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Handwritten digits that ship inside scikit-learn: 1,797 images of 8 x 8 pixels (UCI, Alpaydin
    and Kaynak 1998).
    """

    name: ClassVar[str] = "digits"
    holds: ClassVar[Contents] = Contents(
        kind="images",
        num_classes=10,
        train_items=1200,
        test_items=597,
        smallest_class=116,
        class_names=tuple(str(digit) for digit in range(10)),
    )

    def contents(self) -> Contents:
        return self.holds

    def signature(self) -> str:
        # The set never changes, so a cache that was brought here serves where scikit-learn is not
        # installed.
        return "digits"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        values, labels = read_digits(self.name)
        # 0..16 in the source.
        images = np.rint(values * 255 / 16).astype(np.uint8)[..., None]
        return Loaded(
            kind="images",
            labels=_write(folder, images, labels, self.holds.test_items, on_progress),
            class_names=self.holds.class_names,
            augment={"shift": 1, "flip": False},  # a mirrored 2 is no 2
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsFeatures:
    """The same digits as vectors of their 64 pixels, 0 to 1; ids, classes and test set are those of
    `digits`.
    """

    name: ClassVar[str] = "digits_features"
    holds: ClassVar[Contents] = replace(Digits.holds, kind="features")

    def contents(self) -> Contents:
        return self.holds

    def signature(self) -> str:
        return "digits_features"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        values, labels = read_digits(self.name)
        # Sixteenths are exact in float32.
        vectors = (values.reshape(len(values), -1) / 16).astype(np.float32)
        return Loaded(
            kind="features",
            labels=_write(folder, vectors, labels, self.holds.test_items, on_progress),
            class_names=self.holds.class_names,
        )


def read_digits(name: str) -> tuple[npt.NDArray[np.float64], Labels]:
    """Returns [N, 8, 8] pixels, 0..16, and [N] classes.

    Raises:
        DataError: scikit-learn cannot be imported; names the source.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"{name}: the images ship inside scikit-learn, which cannot be imported ({error})."
            " Install it: pip install scikit-learn"
        ) from None
    found = load_digits()
    return found.images, found.target.astype(np.int32)


def _write(
    folder: Path,
    items: npt.NDArray[Any],
    labels: Labels,
    test_items: int,
    on_progress: Progress,
) -> dict[str, Labels]:
    """Writes both splits of the items. Returns split -> the labels of its rows."""
    is_test = np.zeros(len(labels), bool)
    is_test[held_out_rows(labels, test_items)] = True
    write_array(folder / "train.npy", items[~is_test])
    write_array(folder / "test.npy", items[is_test])
    on_progress(len(items), len(items))
    return {"train": labels[~is_test], "test": labels[is_test]}
