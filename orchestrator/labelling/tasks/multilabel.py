"""Several labels an image: is category k in image n?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.labelling.answers import NO, YES, Answers
from orchestrator.labelling.facts import Facts, Keys
from orchestrator.labelling.protocols import Learned, Scores
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.tasks.multiclass import rows_of
from trainers.metrics import MEAN_AVERAGE_PRECISION, Metric
from trainers.stage import Ids, StageInputs

Seconds = Annotated[float, Interval(ge=0, le=10**6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabel:
    """Every image has any number of L categories. Of each pair of an image and a category it is
    known that it is there, that it is not, or nothing; a question is about one pair, and a yes and
    a no are both definite.
    """

    name: ClassVar[str] = "multilabel"
    trained_as: ClassVar[str] = "multilabel"
    metric: ClassVar[Metric] = MEAN_AVERAGE_PRECISION
    needs: ClassVar[tuple[str, ...]] = ("probabilities",)
    makes: ClassVar[tuple[str, ...]] = ("confidence", "margin", "entropy")
    several_labels: ClassVar[bool] = True
    several_questions: ClassVar[bool] = True
    choices: ClassVar[tuple[str, ...]] = ("random", "uniform")
    yes_is_label: ClassVar[bool] = False
    validation_label: ClassVar[str] = "vector"

    label: Literal["vector", "positive"] = "vector"
    """What a label is. `vector`: all categories of the image, L bits. `positive`: one that it has,
    at random, log2 L bits; all others stay unknown. A validation split has vectors either way.
    """
    per_image: Annotated[int, Interval(ge=1, le=10**6)] = 2
    """Questions about one image in a round, at most: those that the strategy ranks first."""
    seconds_per_question: Seconds = 2.72
    """Of a person's time for an answer: measured for yes/no questions by Hu et al. 2020."""
    seconds_per_vector: Seconds = 60.0
    """Of a person's time for all categories of an image. The 60 s that a full label took in that
    study, where there were 1,000 classes: nothing was measured of several labels.
    """
    seconds_per_positive: Seconds = 60.0
    """Of a person's time to name one category of an image: the same 60 s, which are those of the
    search for one name among 1,000. Among few categories it takes less.
    """

    @property
    def in_words(self) -> str:
        """Returns what is bought and asked."""
        label = {
            "vector": "a label is all categories of an image (task.label: vector)",
            "positive": "a label is one category that an image has (task.label: positive)",
        }[self.label]
        return f"Images with several labels: {label}; a question is about one category of an image."

    @property
    def label_seconds(self) -> float:
        """Seconds for one label."""
        return self.seconds_per_vector if self.label == "vector" else self.seconds_per_positive

    def answer_seconds(self, classes: float) -> float:
        """Returns the seconds for one answer, which is always about one category."""
        return self.seconds_per_question

    def prices(self, num_classes: int) -> Mapping[str, float]:
        return {"vector": float(num_classes), "positive": math.log2(num_classes), "answer": 1.0}

    def know(self, facts: Facts, ids: Ids, labels: ClassSets) -> Facts:
        classes = facts.num_classes
        yes, no = _keys(facts)
        told = ids[labels.rows].astype(np.int64) * classes + labels.classes
        if self.label == "vector":
            every = (ids[:, None].astype(np.int64) * classes + np.arange(classes)).ravel()
            no = np.union1d(no, np.setdiff1d(every, told, assume_unique=True))
        return facts.with_keys(np.union1d(yes, told), no)

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
        """Returns a question for every pair of which nothing is known; where `mask_refused` is
        False also for those that were refused.
        """
        at = rows_of(images, scores)
        said, told = scores["probabilities"], known()
        free = np.ones((len(images), said.shape[1]), np.bool_)
        _strike(free, images, told.label_ids, told.labels)
        if mask_refused:
            _strike(free, images, told.negative_ids, told.negative_classes)
        rows, classes = np.nonzero(free)
        yes = said[at[rows], classes].astype(np.float32, copy=False)
        asked = Questions.singles(images[rows], classes, yes)
        return asked, {name: _array(name, yes, scores, at, rows) for name in needs}

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        keys = asked.ids.astype(np.int64) * facts.num_classes + asked.guesses
        yes, no = _keys(facts)
        said_yes, said_no = keys[answers == YES], keys[answers == NO]
        against = (np.isin(said_yes, no), np.isin(said_no, yes))
        conflicts = int(sum(map(np.count_nonzero, against)))
        same = int(np.count_nonzero(np.isin(said_yes, yes)) + np.isin(said_no, no).sum())
        # The later answer stands.
        return Learned(
            facts=facts.with_keys(
                np.union1d(np.setdiff1d(yes, said_no), said_yes),
                np.union1d(np.setdiff1d(no, said_yes), said_no),
            ),
            wasted=conflicts + same,
            conflicts=conflicts,
        )


def _keys(facts: Facts) -> tuple[Keys, Keys]:
    return facts.positives.keys(facts.num_classes), facts.negatives.keys(facts.num_classes)


def _strike(
    free: npt.NDArray[np.bool_], images: Ids, ids: Ids, classes: npt.NDArray[np.integer]
) -> None:
    """Sets `free` [n, L] to False at these pairs, those of other images left out."""
    if not len(images):
        return
    rows = np.minimum(np.searchsorted(images, ids), len(images) - 1)
    mine = images[rows] == ids
    free[rows[mine], classes[mine]] = False


def _array(
    name: str,
    yes: npt.NDArray[np.float32],
    scores: Scores,
    at: npt.NDArray[np.intp],
    rows: npt.NDArray[np.intp],
) -> npt.NDArray[Any]:
    """Returns a row for each pair of an array that a strategy needs. Yes and no are the two answers
    between which there is a margin, and over which there is an entropy.

    Args:
        yes: [m] the probability of the pair.
        at: [n] the row of each image in the model's arrays.
        rows: [m] the image of each pair.
    """
    if name == "confidence":
        return yes
    if name == "margin":
        return np.abs(2 * yes - 1)
    if name == "entropy":
        p = np.clip(yes, 1e-12, 1 - 1e-7)
        return np.asarray(-(p * np.log(p) + (1 - p) * np.log1p(-p)), np.float32)
    return np.asarray(scores[name][at[rows]])
