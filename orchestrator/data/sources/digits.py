"""Digits that ship inside scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from orchestrator.data.arrays import held_out_rows, write_array
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
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(
                f"digits: the images ship inside scikit-learn, which cannot be imported ({error})."
                " Install it: pip install scikit-learn"
            ) from None
        found = load_digits()
        # 0..16 in the source.
        images = np.rint(found.images * 255 / 16).astype(np.uint8)[..., None]
        labels = found.target.astype(np.int32)
        is_test = np.zeros(len(labels), bool)
        is_test[held_out_rows(labels, self.holds.test_items)] = True
        write_array(folder / "train.npy", images[~is_test])
        write_array(folder / "test.npy", images[is_test])
        on_progress(len(images), len(images))
        return Loaded(
            kind="images",
            labels={"train": labels[~is_test], "test": labels[is_test]},
            class_names=self.holds.class_names,
            augment={"shift": 1, "flip": False},  # a mirrored 2 is no 2
        )
