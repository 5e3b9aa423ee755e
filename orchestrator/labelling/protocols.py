"""What a query strategy and an oracle are, for those who write one. docs/extending.md has an
example of each.

The class of a plug-in is its settings: a frozen dataclass whose fields are the keys of a spec, with
defaults and, beside the types, limits:
`share: Annotated[float, Interval(ge=0, le=1)] = 0.5`. Rules between its fields, or with the data,
    go into a method `check(facts)` that raises SettingsError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import Answers
from orchestrator.labelling.keyed import keyed_uint64
from trainers.stage import Classes, Ids

Rank = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Draw:
    """The questions that a round may ask, one an image, in parallel arrays; ids ascend."""

    ids: Ids
    """[n]"""
    guesses: Classes
    """[n] the class that each image would be asked about."""
    scores: Mapping[str, npt.NDArray[Any]]
    """Name -> [n, ...]: the arrays that the strategy needs."""
    seed: int
    round: int
    quota: int
    """How many of them will be asked, at most."""

    def order(self, rank: Rank) -> npt.NDArray[np.intp]:
        """Returns the places of the images by ascending rank, ties in a random order: ids may
        follow the order of a file, which may follow the classes.
        """
        return np.lexsort((self.ids, self.keys(), rank))

    def keys(self) -> npt.NDArray[np.uint64]:
        """Returns a random number an image, which depends on seed, round and id alone: whichever
        others may be asked, it stays.
        """
        return keyed_uint64("query", self.seed, self.round, self.ids)


class Query(Protocol):
    """A query strategy: which images of the pool are asked about."""

    name: ClassVar[str]
    """As a spec names it: `query: {strategy: NAME}`."""
    needs: ClassVar[tuple[str, ...]]
    """Score arrays that it reads (trainers.stage.SCORE_ARRAYS). Where refused classes may be
    guessed again, `confidence`, `margin` and `entropy` are those of all classes, under the same
    name.
    """

    def rank(self, draw: Draw) -> Rank:
        """Returns one number a question, [n]: those with the smallest are asked, ties in a random
        order. A function of its arguments alone.
        """
        ...


class Oracle(Protocol):
    """Whoever answers, with the labels or the connection that it needs. What it says of a question
    depends on the question alone, never on how often or in which order it is put. A full label
    costs log2 C bits, an answer one; the pool keeps the account and asks nothing that the budget
    does not hold.
    """

    def validation_labels(self, per_class: int) -> tuple[Ids, Classes]:
        """`per_class` images of every class, ascending, and their labels: the same whatever the
        seed.

        To find them takes the labels of many others, which nobody pays for: a gift to every
        schedule alike.
        """
        ...

    def initial_labels(self, per_class: int, seed: int, without: Ids) -> tuple[Ids, Classes]:
        """`per_class` images of every class, ascending, none of them in `without`, and their
        labels; found by the same gift.
        """
        ...

    def full_labels(self, ids: Ids) -> Classes:
        """The class of each of these images."""
        ...

    def answer(self, ids: Ids, guesses: Classes, repeats: Classes) -> Answers:
        """YES, NO, SKIPPED or PENDING for each question "is image ids[i] of class guesses[i]?".

        repeats[i]: how often this very question has been answered before.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OraclePlace:
    """Where an oracle is opened."""

    labels_dir: Path
    """Holds the true classes of the training images. Simulations read them; nothing else may."""
    num_classes: int
    seed: int
    """Of the trial."""
    first_labels: bool = False
    """Whether the initial labels are of the first images of each class (schedule.initial_choice:
    first).
    """


class OracleSettings(Protocol):
    """An oracle as a spec names it: `oracle: {name: NAME}`."""

    name: ClassVar[str]

    def open(self, place: OraclePlace) -> Oracle:
        """Returns the oracle of one trial; called wherever the trial's pool is opened, which may be
        several times.
        """
        ...
