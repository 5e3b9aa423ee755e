"""A method whose later stages learn from what the stage before said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Interval

from tests.toys.softmax import Softmax
from trainers.method import StagePlan


@dataclass(frozen=True, kw_only=True)
class Student(Softmax):
    """A teacher at first, then students on what the model before is sure of."""

    name: ClassVar[str] = "student"
    trainer: ClassVar[str] = "tests.toys.student_trainer:StudentTrainer"

    sure: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability from which on a guess of the teacher is taken for a label; unread by it."""

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        plan = super().stage(number, rounds, has_negatives=has_negatives)
        if number:
            return replace(plan, reads=("scores",))
        return replace(plan, settings={k: v for k, v in plan.settings.items() if k != "sure"})
