"""The checked objects that a spec file becomes. No field has two types; every instance is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Interval, MaxLen

from search_spaces.reading.errors import Place
from search_spaces.reading.initial_choices import (
    InitialChoice,
    InitialChoiceName,
    OrStrategy,
    described,
)
from trainers.start import ByMethod

MOST_ROUNDS = 100
"""Rounds of questions in the longest schedule."""

DataKind = Literal["images", "features"]
"""What the items of a data set are: pictures, or vectors of numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    source: Literal["split", "share", "initial_labels", "none"] = "split"
    """`split`: `per_class` fixed images of each class, outside the pool; `share`: a fixed share of
    all images, of whatever classes, outside the pool; `initial_labels`: carved from D_S, inside the
    budget. Written `from:` in YAML.
    """
    per_class: Annotated[int, Interval(ge=1, le=10**9)] = 10
    """Validation images of each class. Where an image may be of several: this times their number,
    in all.
    """
    # The digests of states that older releases print are made of what this prints as.
    share: Annotated[float, Interval(gt=0, lt=1)] = field(default=0.2, repr=False)
    """With `from: share`: validation images by all training images, drawn as in Cole et al. 2021
    (numpy's generator with seed 1200).
    """

    @property
    def apart(self) -> bool:
        """Whether the images lie outside the pool, and their labels beside the budget."""
        return self.source in ("split", "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which data, and which of it validates."""

    source: Any
    """The data source: an object of a class that the catalogue has under its name."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetConfig:
    mode: Literal["exact", "table"] = "exact"
    """`exact`: the questions are what the budget leaves after the initial labels; `table`: both are
    given, as in a paper's table.
    """
    bits: Annotated[float, Interval(gt=0)] | None = None
    """The budget. A label costs what the task says (among C classes log2 C bits), a yes/no answer
    one.
    """
    full_labels: Annotated[int, Interval(ge=1, le=10**9)] | None = None
    """The budget as a number of full labels, in place of `bits`."""
    questions: Annotated[int, Interval(ge=0, le=10**9)] | None = None
    """Only in mode `table`, where |D_S| and the questions are given and their price is the budget.
    """


Bought = Literal["answers", "labels"]
"""What the rounds of a schedule buy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    initial_labels_per_class: Annotated[int, Interval(ge=0, le=10**9)]
    split: tuple[Annotated[float, Interval(ge=0, le=1)], ...]
    """Share of the questions in each round; empty: full labels only. As many rounds as shares."""
    initial_choice: str = "random"
    """Which images D_S takes. `random` and `first`: `initial_labels_per_class` of every class,
    keyed by the seed or the first ones of the data set (the published code); who finds them knows
    every label, which the budget does not pay for. `uniform`: as many images in all, drawn blindly;
    a class may be missing. `priced_balanced`: blind draws, each paid for and kept, until every
    class has its number; the rounds share what is left of the budget. The name of a query strategy
    that starts cold: as many images in all, chosen by their features.
    """
    initial_query: Any = None
    """That strategy, an object of the catalogue; else None."""
    rounds_buy: Bought = "answers"
    """What a round asks of each image that the strategy ranks first: whether the guess is right, or
    for its label, at the price of one of D_S.
    """

    @property
    def choice(self) -> InitialChoice:
        """What follows from `initial_choice`."""
        return described(self.initial_choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleWritten:
    """A schedule as it is written: `stages`, `split` or both."""

    initial_labels_per_class: Annotated[int, Interval(ge=0, le=10**9)]
    """Initial labels of each class: |D_S| is this times the number of classes. 0: none is bought,
    and `start` must make the guesses of stage 0.
    """
    stages: Annotated[int, Interval(ge=0, le=MOST_ROUNDS)] | None = None
    """Rounds of questions with equal shares."""
    split: (
        Annotated[tuple[Annotated[float, Interval(ge=0, le=1)], ...], MaxLen(MOST_ROUNDS)] | None
    ) = None
    """Share of the questions in each round; empty: full labels only."""
    initial_choice: Annotated[InitialChoiceName, OrStrategy()] = "random"
    """Which images are labelled before any question. `random` and `first`:
    `initial_labels_per_class` of every class, drawn by the seed, or the first ones of the data set
    (the published code); who finds them knows every label, which the budget does not pay for.
    `uniform`: as many images in all, drawn blindly; a class may be missing. `priced_balanced`:
    blind draws, each paid for and kept, until every class has its number; the rounds share the rest
    of the budget. A query strategy that needs no model (`typiclust`, `probcover`, `max_herding`):
    as many images in all as `uniform`, chosen by their features.
    """
    rounds_buy: Bought = "answers"
    """`answers`: a round asks whether the model's guesses are right, 1 bit each. `labels`: it buys
    the labels of the images that the strategy ranks first, each at the price of an initial label.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryConfig:
    """Which questions are asked."""

    strategy: Any
    """The query strategy: an object of a class that the catalogue has under its name."""
    requery: Literal["pool", "never"] = "pool"
    """`pool`: an image without a label may be asked again in a later round; `never`: one question
    an image.
    """
    mask_refused: bool = True
    """Refused classes are not guessed again. False is the published code's behaviour; repeats are
    then counted as wasted.
    """


class Plugin(Protocol):
    """What every plug-in has; its fields are its settings."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """One complete trial without its seed."""

    dataset: DatasetConfig
    budget: BudgetConfig
    method: Any
    """The training method, an object of the catalogue like `query.strategy`, `oracle`, `task`."""
    schedule: ScheduleConfig
    query: QueryConfig
    oracle: Any
    task: Any
    start: Any = field(default_factory=ByMethod)
    """What makes the guesses of stage 0: an object of the catalogue (trainers.start)."""

    def method_of(self, stage: int) -> Any:
        """Returns the method that a stage is of."""
        return self.method if stage else self.start.first(self.method)

    def label_bits(self, num_classes: int) -> float:
        """Returns the price of one label of round 0."""
        return float(self.task.prices(num_classes)[self.task.label])

    def validation_label_bits(self, num_classes: int) -> float:
        """Returns the price of one label of a `split` validation set."""
        kind = getattr(self.task, "validation_label", self.task.label)
        return float(self.task.prices(num_classes)[kind])

    def scores_needed(self) -> tuple[str, ...]:
        """Returns the names of the score arrays that the query strategy and the task read."""
        strategy = self.query.strategy
        needs: tuple[str, ...] = getattr(strategy, "needs", ())
        needed = [name for name in needs if name not in self.task.makes]
        labelled = getattr(strategy, "needs_of_labelled", ())
        return tuple(dict.fromkeys((*needed, *labelled, *self.task.needs)))


def draws(algorithm: Any) -> bool:
    """Returns whether an algorithm, or its class, draws `num_candidates` candidates; else those
    that there are are all.
    """
    return bool(getattr(algorithm, "draws", True))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """Where candidates come from."""

    algorithm: Any
    """The search algorithm: an object of the catalogue."""
    num_candidates: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    """Candidates to draw; a grid takes none."""
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)] = 0
    """Of the draws."""

    @property
    def draws(self) -> bool:
        """Whether `num_candidates` candidates are drawn; else those that there are are all."""
        return draws(self.algorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesConfig:
    """What a sweep may use; nothing of it changes a result but the number of workers."""

    workers: Annotated[int, Interval(ge=1, le=4096)] = 1
    """DDP ranks of one stage training."""
    gpus_per_worker: Annotated[float, Interval(ge=0, le=64)] = 0
    """GPUs of each rank; a fraction shares one."""
    cpus_per_worker: Annotated[int, Interval(ge=1, le=4096)] = 1
    """Threads of each rank."""
    max_concurrent: Annotated[int, Interval(ge=1, le=4096)] = 1
    """Stage trainings at once."""
    start_timeout: Annotated[float, Interval(ge=0, le=10**7)] = 300.0
    """Seconds to wait for resources that the cluster can grow to."""
    checkpoint_seconds: Annotated[float, Interval(ge=0, le=10**6)] = 5.0
    """Least time between two epoch checkpoints; 0 writes one after every epoch. Where the sweep is
    kept in no folder, one is put there at most every sixth time.
    """
    max_failures: Annotated[int, Interval(ge=0, le=10**6)] = 3
    """Restarts in a row of one candidate or stage whose process died, as long as it gets no further
    in between; others are not counted.
    """
    max_preemptions: Annotated[int, Interval(ge=0, le=10**6)] = 20
    """The same for what was lost with its machine, or was asked to end (SIGTERM), which is no
    failure.
    """
    max_hours: Annotated[float, Interval(gt=0, le=10**6)] | None = None
    """Hours of one run of the sweep (a `sweep` or a `resume`), after which no further stage is
    started; those in training end.
    """
    max_gpu_hours: Annotated[float, Interval(gt=0, le=10**9)] | None = None
    """The same by GPUs times hours in training, over all worker groups of this run; trainings that
    broke count.
    """
    price_per_hour: Annotated[float, Interval(ge=0, le=10**6)] | None = None
    """Price of one worker (a rank with its CPUs and GPUs) for an hour; `status` and the end of a
    sweep say what the training on record comes to.
    """
    share_stages: bool = True
    """Whether trials that need the same training share it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What arithmetic needs to know of a data set, without opening its images."""

    name: str
    num_classes: int
    train_items: int
    """Including validation images that a `split` takes out of the pool."""
    test_items: int
    kind: DataKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a data source says that it holds, before anything is decoded."""

    kind: DataKind
    num_classes: int
    train_items: int
    test_items: int
    smallest_class: int
    """Training items of the class that has the fewest, or a number below."""
    class_names: tuple[str, ...] = ()
    """Empty where only the data itself tells."""
    several_labels: bool = False
    """Whether an item may be of several classes. `smallest_class` is then the number of training
    items by the number of classes.
    """
    prior: bool = False
    """Whether it has prior scores of the classes for each item, by which stage 0 may guess."""

    def facts(self, name: str) -> DatasetFacts:
        """Returns what is known of the data set of that name."""
        return DatasetFacts(
            name=name,
            num_classes=self.num_classes,
            train_items=self.train_items,
            test_items=self.test_items,
            kind=self.kind,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule in whole numbers."""

    initial_labels: int
    """|D_S|; of `priced_balanced` what is expected of it."""
    quotas: tuple[int, ...]
    """Questions in each round; of `priced_balanced` those that the expected |D_S| leaves. What a
    trial may really ask is in its ledger. Labels in each round where `buys` says so.
    """
    buys: Bought = "answers"

    @property
    def questions(self) -> int:
        """Yes/no questions of all rounds."""
        return sum(self.quotas) if self.buys == "answers" else 0

    @property
    def labels(self) -> int:
        """Full labels, of D_S and of all rounds."""
        return self.initial_labels + (sum(self.quotas) if self.buys == "labels" else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate with one seed."""

    id: str
    """12 hex digits, a hash of the resolved settings and the seed."""
    candidate: str
    """12 hex digits, a hash of the resolved settings."""
    cases: tuple[str, ...]
    settings: dict[str, Any]
    """The varied keys and their values, where the sweep has `vary`; otherwise empty."""
    seed: int
    config: TrialConfig
    facts: DatasetFacts
    schedule: Schedule
    budget_bits: float
    bits: float
    """Price of all labels and all questions."""
    validation_bits: float
    """Price of the labels of a `split` validation set, beside the budget."""
    annotation_hours: float
    """The most, where the time of an answer depends on the classes that a question names."""

    @property
    def questions(self) -> int:
        return self.schedule.questions

    @property
    def label_bits(self) -> float:
        """Price of one label of round 0."""
        return self.config.label_bits(self.facts.num_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """A file that a spec extends, itself or by way of another."""

    name: str
    """Unlike that of every other, and fit to be a file's."""
    shown: str
    """Where it lies."""
    text: str
    """The file as given."""
    extended_by: tuple[tuple[str, str], ...]
    """Name of each file that says it, `spec.yaml` for the spec's own, and what is written there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A whole spec file, checked."""

    name: str
    source: Path
    """The file it came from, for messages."""
    text: str
    """The file as given, byte for byte (UTF-8)."""
    extended: tuple[Extended, ...] = ()
    """The files that it extends."""
    overrides: tuple[str, ...]
    """`--set` strings, in order."""
    base: dict[str, Any]
    """Key path -> value of the complete base trial; the schedule as written, with
    `schedule.stages`, `schedule.split` or both.
    """
    cases: dict[str, dict[str, Any]]
    vary: dict[str, Any]
    """Key path -> domain (see search_spaces.reading.domains)."""
    seeds: tuple[int, ...]
    search: SearchConfig
    resources: ResourcesConfig
    facts: DatasetFacts
    baseline: str | None
    """Case that differences are taken to; None: the first case."""
    orderings: tuple[tuple[str, str], ...]
    """Pairs of cases that are compared, the one that is expected to be higher first."""
    smallest_class: int
    """Training images of the class that has the fewest."""
    several_labels: bool
    """Whether an image of the data may be of several classes."""
    prior: bool = False
    """Whether the data has prior scores."""
    keys: Any
    """The keys that it may have (search_spaces.reading.settings.Keys), with the plug-ins that it
    was read with.
    """
    places: Mapping[tuple[str, ...], Place] = field(default_factory=dict)
    """("base", key), ("cases", name, key) or ("vary", key) -> where it was written; for messages.
    """
