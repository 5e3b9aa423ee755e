"""What a task, a query strategy and an oracle are, for those who write one. docs/extending.md has
an example of each.

The class of a plug-in is its settings: a frozen dataclass whose fields are the keys of a spec, with
defaults and, beside the types, limits:
`share: Annotated[float, Interval(ge=0, le=1)] = 0.5`. Rules between its fields, or with the data,
go into a method `check(facts)` that raises SettingsError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.answers import PENDING, YES, Answers
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.keyed import keyed_uint64
from orchestrator.labelling.questions import ClassSets, Questions
from trainers.metrics import Metric
from trainers.stage import Classes, Ids, StageInputs

Rank = npt.NDArray[Any]
Scores = Mapping[str, npt.NDArray[Any]]
"""Name -> [n, ...] an array with one row an image or a question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What answers came to."""

    facts: Facts
    wasted: int = 0
    """Questions that were answered, and whose answer followed from what was known before."""
    conflicts: int = 0
    """Answers that contradict an earlier one. The later answer stands."""


class Task(Protocol):
    """What a label is: what it costs, what may be asked, and what an answer teaches."""

    name: ClassVar[str]
    """As a spec names it: `task: {name: NAME}`."""
    trained_as: ClassVar[str]
    """Which methods train for it: those that have this name among their `tasks`. A task whose
    labels are those of another, and that only asks otherwise, has the other's name here.
    """
    metric: ClassVar[Metric]
    """How models are judged: one of trainers.metrics, or the task's own under another name."""
    needs: ClassVar[tuple[str, ...]]
    """Score arrays that its questions are made of (trainers.stage)."""
    makes: ClassVar[tuple[str, ...]]
    """Arrays for query strategies that it makes itself of those: no method need offer them."""
    several_labels: ClassVar[bool]
    """Whether an image may be of several classes."""
    several_questions: ClassVar[bool]
    """Whether a round may ask about an image more than once."""
    choices: ClassVar[tuple[str, ...]]
    """Values of schedule.initial_choice that make sense."""

    @property
    def yes_is_label(self) -> bool:
        """Whether a yes to each of its questions is the label of the image, and a no rules out one
        of its classes: then a report says from what share of right guesses on questions pay.
        """
        ...

    # Optional, of a task whose rounds may ask about an image more than once:
    #
    # per_image: int
    #     How often a round may, at most: of each image those questions are asked that the strategy
    #     ranks first. Without it as often as there are questions.
    #
    # Optional:
    #
    # validation_label: str
    #     The price by which a `split` validation set, which is beside the budget, is labelled.
    #     Without it that of `label`.
    #
    # in_words: str
    #     What a label is and what a question is about, in a sentence for plan and report, where
    #     that is not one class an image.
    #
    # Optional: seconds of people's time, for plan and report.
    #
    # label_seconds: float
    #     Of a label, at the price `label`. Without it the 60 s of Hu et al. 2020.
    # def answer_seconds(self, classes: float) -> float
    #     Returns those of an answer about so many classes, linear in their number. Without it an
    #     answer takes the 2.72 s of Hu et al. 2020.
    #
    # Optional, of a task whose questions are about several classes:
    #
    # one_class: ClassVar[bool] = False
    #     Strategies that look at the class of each question are refused.
    # def most_classes(self, num_classes: int) -> int
    #     Returns how many classes a question may name, for a plan of the time.

    @property
    def label(self) -> str:
        """The price by which a label is bought."""
        ...

    def prices(self, num_classes: int) -> Mapping[str, float]:
        """Returns what each kind of information costs, in bits, by names that the task chooses.
        `label` is one of them. A yes/no answer costs one bit in every task.
        """
        ...

    def know(self, facts: Facts, ids: Ids, labels: ClassSets) -> Facts:
        """Returns the facts once these images have these labels too. Ids ascend."""
        ...

    def open(self, facts: Facts) -> npt.NDArray[np.bool_]:
        """Returns [images] whether anything may still be asked about an image."""
        ...

    def questions(
        self,
        images: Ids,
        scores: Scores,
        needs: tuple[str, ...],
        known: Callable[[], StageInputs],
        *,
        mask_refused: bool,
    ) -> tuple[Questions, Scores]:
        """Returns every question that a model would ask, ascending, and for each of them a row of
        the arrays that a query strategy needs.

        Args:
            images: those that may be asked about, ascending.
            scores: the model's arrays over the pool, by ascending `item_ids`.
            needs: names of the arrays that the strategy ranks by.
            known: what is known of the pool.
            mask_refused: what is known to be wrong is not guessed again.

        Raises:
            ValueError: an image has no scores.
        """
        ...

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        """Returns what is known after these answers, YES, NO or SKIPPED, one a question. A function
        of its arguments alone: it is applied again whenever a ledger is read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Draw:
    """The questions that a round may ask. A strategy ranks them."""

    questions: Questions
    scores: Scores
    """Name -> [n, ...]: the arrays that the strategy needs, a row a question."""
    seed: int
    round: int
    quota: int
    """How many of them will be asked, at most. Of a round that buys labels: of how many of their
    images.
    """
    several: bool = False
    """Whether an image may stand in several questions."""
    labelled: Scores = field(default_factory=dict)
    """Name -> [L, ...]: the arrays of `needs_of_labelled`, a row for each image of the pool that
    has a label, by ascending id.
    """
    num_classes: int = 0
    """Of the data set; 0 where nobody said it."""

    @property
    def ids(self) -> Ids:
        """[n] the image of each question, ascending."""
        return self.questions.ids

    @property
    def guesses(self) -> Classes:
        """[n] the class that each is about; ValueError where one is about several."""
        return self.questions.guesses

    def order(self, rank: Rank) -> npt.NDArray[np.intp]:
        """Returns the places of the questions by ascending rank, ties in a random order: ids may
        follow the order of a file, which may follow the classes.
        """
        return np.lexsort((self.ids, self.keys(), rank))

    def keys(self) -> npt.NDArray[np.uint64]:
        """Returns a random number a question, which depends on seed, round and the question alone:
        whichever others may be asked, it stays.
        """
        if self.several:
            codes = self.questions.sets.codes()
            return keyed_uint64("query", self.seed, self.round, self.ids, codes)
        return keyed_uint64("query", self.seed, self.round, self.ids)


class Query(Protocol):
    """A query strategy: which questions are asked of those that a round may ask."""

    name: ClassVar[str]
    """As a spec names it: `query: {strategy: NAME}`."""
    needs: ClassVar[tuple[str, ...]]
    """Score arrays that it reads (trainers.stage.SCORE_ARRAYS). Where refused classes may be
    guessed again, `confidence`, `margin` and `entropy` are those of all classes, under the same
    name.

    A strategy that compares with labelled images, such as a k-centre choice, names the arrays that
    it wants of them in a second class attribute, `needs_of_labelled`. One that looks at the guesses
    says `about_one_class: ClassVar[bool] = True`: it ranks no questions about several classes.

    One that needs no array but `embedding` may say `starts_cold: ClassVar[bool] = True`: its name
    is then a value of schedule.initial_choice, and it ranks the feature vectors of the data, under
    that name, in a round 0 of which no image is labelled and every guess is class 0.
    """

    def rank(self, draw: Draw) -> Rank:
        """Returns one number a question, [n]: those with the smallest are asked, ties in a random
        order. A function of its arguments alone.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class GivenLabels:
    """What an oracle says when it is asked for labels."""

    given: Answers
    """[n] YES where there is one, SKIPPED where whoever was asked could not say, PENDING where it
    is still to come.
    """
    sets: ClassSets
    """[n] the label: the class of the image, or the set of its classes. Empty where none is given.
    """

    @classmethod
    def all_of(cls, classes: npt.NDArray[np.integer]) -> GivenLabels:
        """Returns one class an image, from [n] classes."""
        return cls(np.full(len(classes), YES, np.int8), ClassSets.singles(classes))

    @classmethod
    def none(cls, count: int) -> GivenLabels:
        """Returns labels that are all still to come."""
        return cls(np.full(count, PENDING, np.int8), ClassSets.of([()] * count))

    @classmethod
    def of(cls, labels: Mapping[int, tuple[int, ...]], ids: Ids) -> GivenLabels:
        """Returns, for these images, the labels that a mapping holds, the rest still to come."""
        held = [labels.get(int(image)) for image in ids]
        given = np.array([PENDING if one is None else YES for one in held], np.int8)
        return cls(given, ClassSets.of(one or () for one in held))


class Oracle(Protocol):
    """Whoever answers, with the labels or the connection that it needs. What it says of a question
    depends on the question alone, never on how often or in which order it is put. The pool keeps
    the account of what that costs and asks nothing that the budget does not hold.

    What is PENDING is asked for again later, in another process or in days.
    """

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        """Returns the label of each of these images.

        Args:
            ids: [n] in any order.
            kind: the price by which they are bought, one of the task's `prices`.
        """
        ...

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        """Returns YES, NO, SKIPPED or PENDING for each question, [n].

        repeats[i]: how often this very question has been answered before.
        """
        ...


class Simulation(Oracle, Protocol):
    """An oracle that knows every label, and can therefore find images of each class."""

    def balanced(
        self,
        purpose: Literal["initial", "validation"],
        per_class: int,
        seed: int,
        without: Ids,
        *,
        first: bool = False,
    ) -> Ids:
        """Returns `per_class` images of every class, ascending, none of them in `without`. To find
        them takes the labels of many others, which nobody pays for: a gift to every schedule alike.

        Args:
            first: the first images of each class, whatever the seed.

        Raises:
            DataError: a class has too few images.
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
    trial: str = ""
    """Id of the trial, for an oracle that keeps questions and answers somewhere."""


class OracleSettings(Protocol):
    """An oracle as a spec names it: `oracle: {name: NAME}`. One whose class attribute
    `simulated` is False cannot find images of each class: `validation: {from: split}` and
    `initial_choice: random` or `first` are then refused.
    """

    name: ClassVar[str]

    def open(self, place: OraclePlace) -> Oracle:
        """Returns the oracle of one trial; called wherever the trial's pool is opened, which may be
        several times.
        """
        ...
