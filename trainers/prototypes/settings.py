"""`prototypes`, the baseline of class means. It has no settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trainers.method import DatasetFacts, StagePlan
from trainers.stage import EXTRA_ARRAYS, POOL_ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prototypes:
    """Guesses the class whose labelled images are nearest on average. Learns nothing from answers
    "no".
    """

    name: ClassVar[str] = "prototypes"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, *EXTRA_ARRAYS)
    trainer: ClassVar[str] = "trainers.prototypes.trainer:PrototypesTrainer"
    without_labels: ClassVar[Literal["trains"]] = "trains"

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Fits every data set: of images it takes the pixels."""

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        return StagePlan({}, (0, 1))
