"""What a training method is, for those who write one: its settings and, for each stage, the plan of
the training. docs/extending.md has an example.

Imports numpy only: `plan`, the keys of stages and the prediction of what trials share need no more.
What trains is a `trainers.trainer.Trainer`, which a method names and does not import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

Reads = Literal["model", "state", "scores"]
"""Files of a stage: what predicts, all that a training goes on from, and what was said of the
pool.
"""

M = TypeVar("M")


class DatasetFacts(Protocol):
    """What a method may know of the data before anything is trained."""

    @property
    def kind(self) -> str:
        """`images` or `features`."""
        ...

    @property
    def num_classes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StagePlan:
    """All that one training reads besides its inputs, its seed and draw, and the data: equal plans,
    inputs, seeds, draws and data are one training (and equal parents, where it reads one).
    """

    settings: Mapping[str, Any]
    """Name -> value of every setting that the result can depend on, and no other."""
    epochs: tuple[int, int]
    """The first epoch of the method's own schedule, and the one after the last: a training from
    fresh weights is (0, n); one that is asked at several of its epochs has (0, 100), then (100,
    125), and so on. Equal numbers: nothing is trained, only scored.
    """
    reads: tuple[Reads, ...] = ()
    """Files of the stage before that it reads. With `state` it goes on where that one stopped.
    Stage 0 reads none.
    """


class Method(Protocol):
    """A training method: a frozen dataclass whose fields are its settings, with their limits and
    defaults.
    """

    name: ClassVar[str]
    """As a spec names it: `method: {name: NAME}`."""
    version: ClassVar[int]
    """Part of every stage key: raise it when the same settings would train differently."""
    tasks: ClassVar[tuple[str, ...]]
    """Names of the tasks that it can train for: `multiclass`, ..."""
    offers: ClassVar[tuple[str, ...]]
    """Score arrays that it can give: of trainers.stage.POOL_ARRAYS those that it fills, and of
    EXTRA_ARRAYS those that a query may ask for.
    """
    trainer: ClassVar[str]
    """`module:Class` of its Trainer, imported only where it trains."""

    # Optional, and read only where a method has them:
    #
    # keeps: ClassVar[tuple[str, ...]] = ("state",)
    #     A later stage reads the state of an earlier one: it is then stored with every stage.
    # leaves: ClassVar[tuple[str, ...]] = ("probabilities",)
    #     Arrays of EXTRA_ARRAYS that a later stage reads (`reads: ("scores",)`): every stage then
    #     writes them, whether or not a query asks for them.
    # without_labels: ClassVar[Literal["guesses", "trains"]]
    #     It can train where no image has a label, on answers "no" or on nothing. `guesses`: even
    #     then its guesses say something, so that a trial may start without labels.
    # needs_prior: ClassVar[bool] = True
    #     It guesses by prior scores, which the data must have.
    # def check(self, facts: DatasetFacts, workers: int = 1) -> None
    #     Raises SettingsError where the settings contradict one another, or do not fit the data or
    #     the number of ranks.

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        """Returns the plan of a stage: a function of the settings and these arguments alone.

        Args:
            number: 0 is the training before any question.
            rounds: of questions in the trial's schedule; the last stage has this number.
            has_negatives: whether a class has been answered "no" by then. Settings that only such
                answers give a meaning to are unread without.
        """
        ...


def keeps_state(method: Method) -> bool:
    """Returns whether a stage's state is stored for the stage after it."""
    return "state" in getattr(method, "keeps", ())


def left_scores(method: Method) -> tuple[str, ...]:
    """Returns the names of the extra score arrays that every stage writes for the stage after
    it.
    """
    return tuple(getattr(method, "leaves", ()))


def as_planned(method: M, plan: StagePlan) -> M:
    """Returns the settings with the values that the plan has of them; the others are unread."""
    planned = {
        item.name: plan.settings[item.name]
        for item in fields(method)  # type: ignore[arg-type]
        if item.name in plan.settings
    }
    return replace(method, **planned)  # type: ignore[type-var]
