"""Who knows the true classes: sells full labels and answers "is this image of that class?"."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

import numpy as np

from orchestrator.labelling.answers import Answers
from orchestrator.labelling.hidden_labels import train_labels
from orchestrator.labelling.keyed import keyed_uint64, keyed_uniform
from search_spaces.reading.config import DatasetFacts, OracleConfig
from trainers.errors import DataError
from trainers.stage import Classes, Ids

USER_STUDY_FLIP: Final = 0.077
"""Share of wrong yes/no answers of people on ImageNet guesses: 92.3% were right (Hu et al. 2020, user study)."""

_VALIDATION_SEED: Final = 0


class Oracle(Protocol):
    """Answers depend on the question alone, never on how often or in which order it is put.

    A full label costs log2 C bits, an answer one; the pool keeps the account and asks nothing that the budget does not hold.
    """

    def validation_labels(self, per_class: int) -> tuple[Ids, Classes]:
        """`per_class` images of every class, ascending, and their labels: the same whatever the seed.

        To find them takes the labels of many others, which nobody pays for: a gift to every schedule alike.
        """
        ...

    def initial_labels(self, per_class: int, seed: int, without: Ids) -> tuple[Ids, Classes]:
        """`per_class` images of every class, ascending, none of them in `without`, and their labels; found by the same gift."""
        ...

    def full_labels(self, ids: Ids) -> Classes:
        """The class of each of these images."""
        ...

    def answer(self, ids: Ids, guesses: Classes, repeats: Classes) -> Answers:
        """YES, NO, SKIPPED or PENDING for each question "is image ids[i] of class guesses[i]?".

        repeats[i]: how often this very question has been answered before.
        """
        ...


class LabelsOracle:
    """A perfect annotator, simulated from the labels of the data set."""

    def __init__(self, labels: Classes, num_classes: int, source: str = "labels", *, first_labels: bool = False) -> None:
        """
        Args:
            first_labels: the initial labels are of the first images of each class, whatever the seed (the published code of Hu et al. 2020).
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

    def _balanced(self, purpose: str, per_class: int, seed: int, without: Ids) -> tuple[Ids, Classes]:
        """The `per_class` images of each class with the smallest keys, which are their ids where the first images are wanted."""
        free = np.ones(self._labels.size, np.bool_)
        free[without] = False
        ids = np.flatnonzero(free)
        labels = self._labels[ids]
        held = np.bincount(labels, minlength=self._num_classes)
        if held.min() < per_class:
            scarce = int(held.argmin())
            raise DataError(
                f"{self._source}: class {scarce} has {held[scarce]} images for the {purpose} labels, and {per_class} of each class are asked for; ask for fewer"
            )
        keys = ids.view(np.uint64) if purpose == "initial" and self._first_labels else keyed_uint64(purpose, seed, ids)
        order = np.lexsort((keys, labels))
        first_of_class = np.cumsum(held) - held
        rank = np.arange(ids.size) - first_of_class[labels[order]]
        chosen = np.sort(ids[order[rank < per_class]])
        return chosen, self._labels[chosen]


class NoisyOracle:
    """An annotator who errs: a true class is denied at rate `false_no`, a wrong one confirmed at rate `false_yes`. Full labels are right.

    Errors are drawn by (seed, image, class, repeat): the same question gives the same answer, a repeated one an independent draw.
    The preset is symmetric, false_yes = false_no = 0.077, from the user study of Hu et al. 2020 (92.3% of the answers were right).
    """

    def __init__(self, perfect: LabelsOracle, seed: int, false_yes: float = USER_STUDY_FLIP, false_no: float = USER_STUDY_FLIP) -> None:
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


def open_oracle(config: OracleConfig, labels_dir: Path, num_classes: int, seed: int, *, first_labels: bool = False) -> Oracle:
    """The oracle that a trial's spec names, over the labels in `labels_dir`."""
    labels = train_labels(labels_dir)
    source = str(labels_dir / "train.npy")
    _check_classes(labels, num_classes, source)
    perfect = LabelsOracle(labels, num_classes, source, first_labels=first_labels)
    if config.name == "labels":
        return perfect
    return NoisyOracle(perfect, seed, config.false_yes, config.false_no)


def check_labels(labels_dir: Path, facts: DatasetFacts) -> None:
    """The training labels are there, one for each training image, each a known class.

    Raises:
        DataError: naming the file, what it holds and what was expected.
    """
    labels = train_labels(labels_dir)
    source = str(labels_dir / "train.npy")
    if labels.size != facts.train_items:
        raise DataError(f"{source}: {labels.size} labels, expected {facts.train_items}, one for each training image of {facts.name}")
    _check_classes(labels, facts.num_classes, source)


def _check_classes(labels: Classes, num_classes: int, source: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(f"{source}: image {first} has class {labels[first]}, expected 0 to {num_classes - 1} ({wrong.size} such labels)")
