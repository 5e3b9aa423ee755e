"""A method that trains without labels: class means, which lie at the origin until something is
known of a class.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from trainers.method import StagePlan
from trainers.stage import POOL_ARRAYS


@dataclass(frozen=True, kw_only=True)
class Means:
    """Guesses the class whose labelled items are nearest on average."""

    name: ClassVar[str] = "means"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, "probabilities")
    trainer: ClassVar[str] = "tests.toys.means_trainer:MeansTrainer"
    without_labels: ClassVar[Literal["trains"]] = "trains"

    epochs: Annotated[int, Interval(ge=1)] = 2
    """Moves of the means."""

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        return StagePlan(asdict(self), (0, self.epochs))
