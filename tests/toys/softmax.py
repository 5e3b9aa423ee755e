"""Softmax regression: the least that a method can be, from fresh weights at every stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from trainers.method import DatasetFacts, StagePlan
from trainers.stage import POOL_ARRAYS


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """Learns from labels, and from refused classes where it is told to."""

    name: ClassVar[str] = "softmax"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, "embedding")
    trainer: ClassVar[str] = "tests.toys.softmax_trainer:SoftmaxTrainer"

    epochs: Annotated[int, Interval(ge=1)] = 4
    """Passes over the labelled images, each one step."""
    rate: Annotated[float, Interval(gt=0)] = 1.0
    """Learning rate, lowered by a cosine."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Share of the inputs that a step leaves out."""
    refusals: Annotated[float, Interval(ge=0)] = 0.5
    """Weight of the refused classes; unread without any."""

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Every setting fits every data set."""

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        settings = asdict(self)
        if not has_negatives:
            del settings["refusals"]
        return StagePlan(settings, (0, self.epochs))
