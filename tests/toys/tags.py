"""Images with several labels: a task, a data source and a training method, end to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.data.protocols import Loaded, Progress
from orchestrator.labelling.answers import NO, YES, Answers
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.protocols import Learned, Scores
from orchestrator.labelling.questions import ClassSets, Questions
from search_spaces.reading.config import Contents
from trainers.method import DatasetFacts, StagePlan
from trainers.metrics import MEAN_AVERAGE_PRECISION, Metric
from trainers.stage import Ids, StageInputs

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
class MultiLabel:
    """Is category k in image n? A yes and a no are both definite."""

    name: ClassVar[str] = "multilabel"
    trained_as: ClassVar[str] = "multilabel"
    metric: ClassVar[Metric] = MEAN_AVERAGE_PRECISION
    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    makes: ClassVar[tuple[str, ...]] = ("confidence",)
    several_labels: ClassVar[bool] = True
    several_questions: ClassVar[bool] = True
    choices: ClassVar[tuple[str, ...]] = ("random", "uniform")
    yes_is_label: ClassVar[bool] = False

    label: Literal["vector", "positive"] = "vector"
    """What round 0 buys of an image: all its categories, or one that it has."""
    per_image: Annotated[int, Interval(ge=1, le=100)] = 2
    """Questions about one image in a round, at most."""

    def prices(self, num_classes: int) -> Mapping[str, float]:
        return {"vector": float(num_classes), "positive": math.log2(num_classes), "answer": 1.0}

    def know(self, facts: Facts, ids: Ids, labels: ClassSets) -> Facts:
        yes = ids[labels.rows].astype(np.int64) * facts.num_classes + labels.classes
        every = (ids[:, None].astype(np.int64) * facts.num_classes) + np.arange(facts.num_classes)
        no = np.setdiff1d(every, yes) if self.label == "vector" else np.empty(0, np.int64)
        held = facts.positives.keys(facts.num_classes), facts.negatives.keys(facts.num_classes)
        return facts.with_keys(np.union1d(held[0], yes), np.union1d(held[1], no))

    def open(self, facts: Facts) -> npt.NDArray[np.bool_]:
        known = np.bincount(facts.positives.ids, minlength=facts.images)
        known += np.bincount(facts.negatives.ids, minlength=facts.images)
        return known < facts.num_classes

    def questions(
        self,
        images: Ids,
        scores: Scores,
        needs: tuple[str, ...],
        known: Callable[[], StageInputs],
        *,
        mask_refused: bool,
    ) -> tuple[Questions, Scores]:
        at = np.searchsorted(scores["item_ids"], images)
        wanted = np.array(scores["probabilities"][at], np.float64)
        inputs = known()
        for ids, classes in (
            (inputs.label_ids, inputs.labels),
            (inputs.negative_ids, inputs.negative_classes),
        ):
            row = np.searchsorted(images, ids)
            here = (row < images.size) & (images[np.minimum(row, images.size - 1)] == ids)
            wanted[row[here], classes[here]] = -1
        best = np.sort(np.argsort(-wanted, axis=1, kind="stable")[:, : self.per_image], axis=1)
        rows, classes = np.repeat(np.arange(images.size), best.shape[1]), best.ravel()
        free = wanted[rows, classes] >= 0
        rows, classes = rows[free], classes[free]
        confidence = wanted[rows, classes].astype(np.float32)
        asked = Questions.singles(images[rows], classes, confidence)
        return asked, {
            name: confidence if name == "confidence" else scores[name][at[rows]] for name in needs
        }

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        keys = asked.ids * facts.num_classes + asked.guesses
        yes, no = facts.positives.keys(facts.num_classes), facts.negatives.keys(facts.num_classes)
        said_yes, said_no = keys[answers == YES], keys[answers == NO]
        told = np.concatenate([said_yes, said_no])
        wasted = int(np.isin(told, np.concatenate([yes, no])).sum())
        conflicts = int(np.isin(said_yes, no).sum() + np.isin(said_no, yes).sum())
        yes = np.union1d(np.setdiff1d(yes, said_no), said_yes)
        no = np.union1d(np.setdiff1d(no, said_yes), said_no)
        return Learned(facts=facts.with_keys(yes, no), wasted=wasted, conflicts=conflicts)


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
