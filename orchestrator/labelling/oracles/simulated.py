"""Oracles that know the labels of the data set, for experiments: one that is always right, and one
that errs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from orchestrator.labelling.answers import SKIPPED, YES, Answers
from orchestrator.labelling.hidden_labels import train_labels
from orchestrator.labelling.keyed import keyed_uint64, keyed_uniform
from orchestrator.labelling.protocols import GivenLabels, OraclePlace, Simulation
from orchestrator.labelling.questions import ClassSets, Questions
from search_spaces.reading.config import DatasetFacts
from trainers.errors import DataError
from trainers.stage import Ids

USER_STUDY_FLIP: Final = 0.077
"""Share of wrong yes/no answers of people on ImageNet guesses: 92.3% were right (Hu et al. 2020,
user study).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """A perfect annotator, simulated from the labels of the data set."""

    name: ClassVar[str] = "labels"

    def open(self, place: OraclePlace) -> Simulation:
        return _perfect(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noisy:
    """An annotator who errs, simulated; full labels are right. The rates unless told otherwise are
    those of the user study of Hu et al. 2020.
    """

    name: ClassVar[str] = "noisy"

    false_yes: Annotated[float, Interval(ge=0, lt=1)] = USER_STUDY_FLIP
    """Rate at which a wrong class is confirmed."""
    false_no: Annotated[float, Interval(ge=0, lt=1)] = USER_STUDY_FLIP
    """Rate at which the true class is denied."""

    def open(self, place: OraclePlace) -> Simulation:
        return NoisyOracle(_perfect(place), place.seed, self.false_yes, self.false_no)


class LabelsOracle:
    """A perfect annotator, simulated from the labels of the data set."""

    def __init__(
        self,
        labels: npt.NDArray[np.integer],
        num_classes: int,
        source: str = "labels",
        seed: int = 0,
    ) -> None:
        """
        Args:
            labels: [N] the class of each image; or, where an image may have several, [N, C] 1 for
                those that it has.
            source: what messages call them.
            seed: of the trial: which of an image's classes is named where one is asked for.
        """
        self._labels = labels
        self._num_classes = num_classes
        self._source = source
        self._seed = seed

    def balanced(
        self,
        purpose: Literal["initial", "validation"],
        per_class: int,
        seed: int,
        without: Ids,
        *,
        first: bool = False,
    ) -> Ids:
        if self._labels.ndim > 1:
            # An image counts for every class that it has, so that none is missing; as many images
            # as with one class each.
            return self._spread(purpose, per_class, seed, without)
        free = np.ones(self._labels.size, np.bool_)
        free[without] = False
        ids = np.flatnonzero(free)
        labels = self._labels[ids]
        held = np.bincount(labels, minlength=self._num_classes)
        if held.min() < per_class:
            scarce = int(held.argmin())
            raise DataError(
                f"{self._source}: class {scarce} has {held[scarce]} images for the {purpose}"
                f" labels, and {per_class} of each class are asked for; ask for fewer"
            )
        # The first images are those with the smallest ids.
        keys = ids.view(np.uint64) if first else keyed_uint64(purpose, seed, ids)
        order = np.lexsort((keys, labels))
        first_of_class = np.cumsum(held) - held
        rank = np.arange(ids.size) - first_of_class[labels[order]]
        return np.sort(ids[order[rank < per_class]])

    def _spread(self, purpose: str, per_class: int, seed: int, without: Ids) -> Ids:
        ids = np.setdiff1d(np.arange(len(self._labels)), without, assume_unique=True)
        count = per_class * self._num_classes
        if ids.size < count:
            raise DataError(
                f"{self._source}: {count} images are asked for as {purpose} labels, and there are"
                f" {ids.size}; ask for fewer"
            )
        keys = keyed_uint64(purpose, seed, ids)
        return np.sort(ids[np.lexsort((ids, keys))[:count]])

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        held = self._labels[ids]
        if held.ndim == 1:
            return GivenLabels.all_of(held)
        rows, classes = np.nonzero(held)
        given = np.full(len(ids), YES, np.int8)
        if kind == "positive":
            # Nobody can name a category of an image that has none.
            given[~held.any(axis=1)] = SKIPPED
            # One of the image's classes, the same whenever it is asked for.
            keys = keyed_uint64("positive", self._seed, ids[rows], classes)
            order = np.lexsort((classes, keys, rows))
            rows, first = np.unique(rows[order], return_index=True)
            classes = classes[order][first]
        starts = np.searchsorted(rows, np.arange(len(ids) + 1))
        sets = ClassSets(starts.astype(np.int64), classes.astype(np.int32))
        return GivenLabels(given, sets)

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        if self._labels.ndim == 1 and asked.sets.single:
            same: Answers = np.equal(self._labels[asked.ids], asked.guesses).astype(np.int8)
            return same
        rows = asked.sets.rows
        held = self._labels[asked.ids[rows]]
        right = (
            held == asked.sets.classes
            if held.ndim == 1
            else held[np.arange(rows.size), asked.sets.classes] != 0
        )
        found: Answers = (np.bincount(rows, right, minlength=len(asked)) > 0).astype(np.int8)
        return found


class Around:
    """An oracle that does as another does; a subclass says in what it differs."""

    def __init__(self, inner: Simulation) -> None:
        self.inner = inner

    def balanced(
        self,
        purpose: Literal["initial", "validation"],
        per_class: int,
        seed: int,
        without: Ids,
        *,
        first: bool = False,
    ) -> Ids:
        return self.inner.balanced(purpose, per_class, seed, without, first=first)

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        return self.inner.label(ids, kind)

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        return self.inner.answer(asked, repeats)


class NoisyOracle(Around):
    """An annotator who errs: a true class is denied at rate `false_no`, a wrong one confirmed at
    rate `false_yes`. Full labels are right.

    Errors are drawn by (seed, image, classes, repeat): the same question gives the same answer, a
    repeated one an independent draw. The preset is symmetric, false_yes = false_no = 0.077, from
    the user study of Hu et al. 2020 (92.3% of the answers were right).
    """

    def __init__(
        self,
        perfect: Simulation,
        seed: int,
        false_yes: float = USER_STUDY_FLIP,
        false_no: float = USER_STUDY_FLIP,
    ) -> None:
        super().__init__(perfect)
        self._seed = seed
        self._flip_rate = np.array([false_yes, false_no])

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        right = super().answer(asked, repeats)
        codes = asked.sets.codes()
        flipped = (
            keyed_uniform("flip", self._seed, asked.ids, codes, repeats) < self._flip_rate[right]
        )
        return np.where(flipped, 1 - right, right).astype(np.int8)


def _perfect(place: OraclePlace) -> LabelsOracle:
    labels = train_labels(place.labels_dir)
    source = str(place.labels_dir / "train.npy")
    _check_classes(labels, place.num_classes, source)
    return LabelsOracle(labels, place.num_classes, source, place.seed)


def check_labels(labels_dir: Path, facts: DatasetFacts) -> None:
    """Checks that the training labels are there, one for each training image, each a known class.

    Raises:
        DataError: naming the file, what it holds and what was expected.
    """
    labels = train_labels(labels_dir)
    source = str(labels_dir / "train.npy")
    if len(labels) != facts.train_items:
        raise DataError(
            f"{source}: {len(labels)} labels, expected {facts.train_items}, one for each training"
            f" image of {facts.name}"
        )
    _check_classes(labels, facts.num_classes, source)


def _check_classes(labels: npt.NDArray[np.integer], num_classes: int, source: str) -> None:
    if labels.ndim == 2:
        if labels.shape[1] != num_classes or np.any((labels != 0) & (labels != 1)):
            raise DataError(
                f"{source}: expected 0 or 1 for each of {num_classes} classes, found"
                f" {list(labels.shape)} numbers from {labels.min()} to {labels.max()}"
            )
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{source}: image {first} has class {labels[first]}, expected 0 to {num_classes - 1}"
            f" ({wrong.size} such labels)"
        )
