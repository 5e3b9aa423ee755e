"""A data source that makes its data: points around a centre for each class. All that a source is
stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from orchestrator.data.protocols import Loaded, Progress
from orchestrator.labelling.keyed import keyed_uniform
from search_spaces.reading.config import Contents

FEATURES = 6


@dataclass(frozen=True, kw_only=True)
class Blobs:
    """Points in a box around the centre of their class."""

    name: ClassVar[str] = "blobs"
    version: ClassVar[int] = 1

    classes: Annotated[int, Interval(ge=2, le=100)] = 4
    """Classes, each with a centre."""
    train_per_class: Annotated[int, Interval(ge=1, le=10_000)] = 60
    """Training points of each class."""
    spread: Annotated[float, Interval(gt=0, le=10)] = 0.5
    """Half the side of the box; centres lie in a box of side 2."""

    def contents(self) -> Contents:
        return Contents(
            kind="features",
            num_classes=self.classes,
            train_items=self.classes * self.train_per_class,
            test_items=self.classes * 10,
            smallest_class=self.train_per_class,
            class_names=tuple(f"blob {c}" for c in range(self.classes)),
        )

    def signature(self) -> str:
        return "blobs 1"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        labels = {}
        for split, per_class in (("train", self.train_per_class), ("test", 10)):
            chosen = np.arange(self.classes * per_class) % self.classes
            centres = 2 * keyed_uniform("centre", chosen[:, None], np.arange(FEATURES)) - 1
            items = np.arange(len(chosen))[:, None]
            noise = 2 * keyed_uniform(f"blobs {split}", items, np.arange(FEATURES)) - 1
            points = centres + self.spread * noise
            np.save(folder / f"{split}.npy", points.astype(np.float32))
            labels[split] = chosen.astype(np.int32)
        on_progress(1, 1)
        return Loaded(kind="features", labels=labels, class_names=self.contents().class_names)
