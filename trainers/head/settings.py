"""Settings of `head`, a linear head trained to convergence.

Imports nothing heavy: `plan` uses this module without loading torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from trainers.method import DatasetFacts, StagePlan
from trainers.stage import EXTRA_ARRAYS, POOL_ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A linear head on frozen features, trained to convergence on the labels and on the answers
    "no".
    """

    name: ClassVar[str] = "head"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, *EXTRA_ARRAYS)
    trainer: ClassVar[str] = "trainers.head.trainer:HeadTrainer"
    without_labels: ClassVar[Literal["trains"]] = "trains"

    negatives: bool = True
    """Whether refused classes are learned from: such an image adds -log of the probability of the
    classes that are left to it.
    """
    balanced: bool = True
    """Whether the labels of a class count the less the more of them there are, so that all classes
    with a label count the same. Answers confirm guesses, and models guess some classes more often.
    """
    l2: Annotated[float, Interval(gt=0, le=10**6)] | None = None
    """Weight of half the sum of squared weights, beside a loss that is summed over the images and
    divided by the number of labels; None: 0.3 / that number.
    """
    scaling: Literal["common", "each", "rows"] = "common"
    """What the features are divided by once their mean over the training images is taken off: one
    number for all, their own standard deviation, or the length of each image's vector. The mean
    square length of a vector is then 1.
    """
    unlabelled_weight: Annotated[float, Interval(ge=0, le=1000)] = 0.0
    """Weight of the mean loss of the images without a label, beside that of the labels; 0: they are
    left out.
    """
    neighbours: Annotated[int, Interval(ge=1, le=1000)] = 10
    """Of each image in the graph that labels spread through to those images."""

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Every setting fits every data set: of images it takes the pixels."""

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        """Returns the settings; without answers "no", `negatives` is unread. One epoch is the whole
        training.
        """
        read = asdict(self)
        if not has_negatives:
            del read["negatives"]
        if not self.unlabelled_weight:
            del read["neighbours"]
        return StagePlan(read, (0, 1))
