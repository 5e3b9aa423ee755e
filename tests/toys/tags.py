"""Images with several labels: a data source and a training method, end to end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Interval

from orchestrator.data.protocols import Loaded, Progress
from search_spaces.reading.config import Contents
from trainers.method import DatasetFacts, StagePlan

CLASSES = 6


@dataclass(frozen=True, kw_only=True)
class Tags:
    """Vectors of 16 numbers, each with one to six of six tags that follow from them."""

    name: ClassVar[str] = "tags"

    items: Annotated[int, Interval(ge=60)] = 300
    """Training items."""

    def contents(self) -> Contents:
        return Contents(
            kind="features",
            num_classes=CLASSES,
            train_items=self.items,
            test_items=150,
            smallest_class=self.items // CLASSES,
            several_labels=True,
        )

    def signature(self) -> str:
        return f"1:{self.items}"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(16, CLASSES))
        labels = {}
        for split, items in (("train", self.items), ("test", 150)):
            x = rng.normal(size=(items, 16)).astype(np.float32)
            score = x @ directions
            has = score > 2.0
            has[np.arange(items), score.argmax(axis=1)] = True
            np.save(folder / f"{split}.npy", x)
            labels[split] = has.astype(np.int32)
        names = tuple(f"tag {c}" for c in range(CLASSES))
        return Loaded(kind="features", labels=labels, class_names=names)


@dataclass(frozen=True, kw_only=True)
class Tagger:
    """Logistic regression by category. What is unknown counts as absent, at less weight."""

    name: ClassVar[str] = "tagger"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multilabel",)
    offers: ClassVar[tuple[str, ...]] = ("probabilities",)
    trainer: ClassVar[str] = "tests.toys.tags_trainer:TaggerTrainer"

    epochs: Annotated[int, Interval(ge=1)] = 60
    learning_rate: Annotated[float, Interval(gt=0)] = 1.0
    unknown_weight: Annotated[float, Interval(ge=0, le=1)] = 0.1

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Everything fits."""

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        return StagePlan(asdict(self), (0, self.epochs))
