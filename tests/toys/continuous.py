"""A method that trains once, and is asked about at some of its epochs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from tests.toys.softmax import Softmax
from trainers.method import StagePlan


@dataclass(frozen=True, kw_only=True)
class Continuous(Softmax):
    """Half of the epochs before the first question, the rest in equal parts after each round."""

    name: ClassVar[str] = "continuous"
    keeps: ClassVar[tuple[str, ...]] = ("state",)

    epochs: int = 8

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        half = self.epochs // 2 if rounds else self.epochs
        first, stop = (
            0 if at < 0 else half + (self.epochs - half) * at // max(rounds, 1)
            for at in (number - 1, number)
        )
        return StagePlan(asdict(self), (first, stop), ("state",) if number else ())
