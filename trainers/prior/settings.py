"""Settings of guesses by prior scores. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from trainers.method import Method, StagePlan
from trainers.stage import EXTRA_ARRAYS, POOL_ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorScores:
    """Guesses by the prior scores that the data brings (of features: `scores` [N, C]), such as
    those of a zero-shot classifier. As a start it gives the guesses of stage 0 alone, before any
    label; as a method it never trains.
    """

    name: ClassVar[str] = "prior"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, *EXTRA_ARRAYS)
    trainer: ClassVar[str] = "trainers.prior.method:PriorTrainer"
    needs_prior: ClassVar[bool] = True
    without_labels: ClassVar[Literal["guesses"]] = "guesses"

    temperature: Annotated[float, Interval(gt=0, le=10**6)] | None = 1.0
    """What scores are divided by before the softmax: 0.01 for cosines of images and texts. null:
    the one by which the labels of the validation images are likeliest, or 1 where there are none.
    """

    def first(self, method: Method) -> Method:
        """Returns what makes the guesses of stage 0: these settings, whatever trains later."""
        return self

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        """Returns one epoch, in which the temperature is fitted if it is to be."""
        return StagePlan({"temperature": self.temperature}, (0, 1))
