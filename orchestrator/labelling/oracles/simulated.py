"""Oracles that know the labels of the data set, for experiments: one that is always right, and one
that errs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final

import numpy as np
from annotated_types import Interval

from orchestrator.labelling.answers import Answers
from orchestrator.labelling.hidden_labels import train_labels
from orchestrator.labelling.keyed import keyed_uint64, keyed_uniform
from orchestrator.labelling.protocols import Oracle, OraclePlace
from search_spaces.reading.config import DatasetFacts
from trainers.errors import DataError
from trainers.stage import Classes, Ids

USER_STUDY_FLIP: Final = 0.077
"""Share of wrong yes/no answers of people on ImageNet guesses: 92.3% were right (Hu et al. 2020,
user study).
"""

_VALIDATION_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """A perfect annotator, simulated from the labels of the data set."""

    name: ClassVar[str] = "labels"

    def open(self, place: OraclePlace) -> Oracle:
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

    def open(self, place: OraclePlace) -> Oracle:
        return NoisyOracle(_perfect(place), place.seed, self.false_yes, self.false_no)


class LabelsOracle:
    """A perfect annotator, simulated from the labels of the data set."""

    def __init__(
        self,
        labels: Classes,
        num_classes: int,
        source: str = "labels",
        *,
        first_labels: bool = False,
    ) -> None:
        """
        Args:
            first_labels: the initial labels are of the first images of each class, whatever the
                seed (the published code of Hu et al. 2020).
        """
        self._labels = labels
        self._num_classes = num_classes
        self._source = source
        self._first_labels = first_labels

    def validation_labels(self, per_class: int) -> tuple[Ids, Classes]:
        return self._balanced("validation", per_class, _VALIDATION_SEED, np.empty(0, np.int64))

    def initial_labels(self, per_class: int, seed: int, without: Ids) -> tuple[Ids, Classes]:
        return self._balanced("initial", per_class, seed, without)

    def full_labels(self, ids: Ids) -> Classes:
        return self._labels[ids]

    def answer(self, ids: Ids, guesses: Classes, repeats: Classes) -> Answers:
        return np.equal(self._labels[ids], guesses).astype(np.int8)

    def _balanced(
        self, purpose: str, per_class: int, seed: int, without: Ids
    ) -> tuple[Ids, Classes]:
        """The `per_class` images of each class with the smallest keys, which are their ids where
        the first images are wanted.
        """
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
        keys = (
            ids.view(np.uint64)
            if purpose == "initial" and self._first_labels
            else keyed_uint64(purpose, seed, ids)
        )
        order = np.lexsort((keys, labels))
        first_of_class = np.cumsum(held) - held
        rank = np.arange(ids.size) - first_of_class[labels[order]]
        chosen = np.sort(ids[order[rank < per_class]])
        return chosen, self._labels[chosen]


class NoisyOracle:
    """An annotator who errs: a true class is denied at rate `false_no`, a wrong one confirmed at
    rate `false_yes`. Full labels are right.

    Errors are drawn by (seed, image, class, repeat): the same question gives the same answer, a
    repeated one an independent draw. The preset is symmetric, false_yes = false_no = 0.077, from
    the user study of Hu et al. 2020 (92.3% of the answers were right).
    """

    def __init__(
        self,
        perfect: LabelsOracle,
        seed: int,
        false_yes: float = USER_STUDY_FLIP,
        false_no: float = USER_STUDY_FLIP,
    ) -> None:
        self._perfect = perfect
        self._seed = seed
        self._flip_rate = np.array([false_yes, false_no])

    def validation_labels(self, per_class: int) -> tuple[Ids, Classes]:
        return self._perfect.validation_labels(per_class)

    def initial_labels(self, per_class: int, seed: int, without: Ids) -> tuple[Ids, Classes]:
        return self._perfect.initial_labels(per_class, seed, without)

    def full_labels(self, ids: Ids) -> Classes:
        return self._perfect.full_labels(ids)

    def answer(self, ids: Ids, guesses: Classes, repeats: Classes) -> Answers:
        right = self._perfect.answer(ids, guesses, repeats)
        flipped = keyed_uniform("flip", self._seed, ids, guesses, repeats) < self._flip_rate[right]
        return np.where(flipped, 1 - right, right).astype(np.int8)


def _perfect(place: OraclePlace) -> LabelsOracle:
    labels = train_labels(place.labels_dir)
    source = str(place.labels_dir / "train.npy")
    _check_classes(labels, place.num_classes, source)
    return LabelsOracle(labels, place.num_classes, source, first_labels=place.first_labels)


def check_labels(labels_dir: Path, facts: DatasetFacts) -> None:
    """The training labels are there, one for each training image, each a known class.

    Raises:
        DataError: naming the file, what it holds and what was expected.
    """
    labels = train_labels(labels_dir)
    source = str(labels_dir / "train.npy")
    if labels.size != facts.train_items:
        raise DataError(
            f"{source}: {labels.size} labels, expected {facts.train_items}, one for each training"
            f" image of {facts.name}"
        )
    _check_classes(labels, facts.num_classes, source)


def _check_classes(labels: Classes, num_classes: int, source: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{source}: image {first} has class {labels[first]}, expected 0 to {num_classes - 1}"
            f" ({wrong.size} such labels)"
        )
