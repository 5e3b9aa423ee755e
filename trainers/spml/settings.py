"""Settings of `spml`: losses for images of which a few labels are known, and pseudo labels.

Imports nothing heavy: `plan` uses this module without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from annotated_types import Interval

from trainers.errors import SettingsError
from trainers.method import DatasetFacts, StagePlan
from trainers.networks.names import (
    BACKBONES,
    FeatureBackbone,
    ImageBackbone,
    weights_problem,
)
from trainers.stage import EXTRA_ARRAYS

Loss = Literal["an", "wan", "an_ls", "iu", "epr", "role", "em", "em_apl"]

READS: Final[Mapping[str, tuple[str, ...]]] = {
    "an": (),
    "wan": (),
    "an_ls": ("smoothing",),
    "iu": (),
    "epr": ("expected_positives",),
    "role": ("expected_positives", "estimator_rate"),
    "em": ("entropy_weight",),
    "em_apl": ("entropy_weight", "pseudo_weight", "pseudo_share", "warmup_epochs"),
}
"""Loss -> the settings that it alone reads."""

_TRAINING: Final = ("backbone", "epochs", "batch_size", "learning_rate", "scaling", "precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spml:
    """Single-positive multi-label learning (Cole et al. 2021; Zhou et al. 2022), and pseudo
    multi-labels (Arroyo 2023), from definite labels of any number.
    """

    name: ClassVar[str] = "spml"
    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("multilabel",)
    offers: ClassVar[tuple[str, ...]] = EXTRA_ARRAYS
    leaves: ClassVar[tuple[str, ...]] = ("probabilities",)
    trainer: ClassVar[str] = "trainers.spml.trainer:SpmlTrainer"

    loss: Loss = "em"
    """What is made of unknown labels. `an`: they are absent; `wan`: the same, at a weight of 1 /
    (categories - 1); `an_ls`: the same, with smoothed labels; `iu`: nothing; `epr`: their sum is
    what is expected; `role`: they are estimated, each by a number that is learned too; `em`: their
    predictions are to be unsure; `em_apl`: the same, and the least likely are taken for absent in
    later epochs. Unread by students.
    """
    student: Literal["none", "last", "all"] = "none"
    """Which stages after the first learn from pseudo labels, the predictions of the stage before.
    `last`: the last one; a schedule without rounds has none.
    """
    threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.75
    """tau: a pseudo label is positive where the predicted probability is above it; unread without
    students.
    """
    keep_observed: bool = True
    """Whether a label that is known stays positive whatever the stage before predicts; what is
    known to be absent stays so. Unread without students.
    """
    smoothing: Annotated[float, Interval(ge=0, le=0.5)] = 0.1
    """Of `an_ls`: the share of each label that goes to its opposite."""
    expected_positives: Annotated[float, Interval(gt=0, le=10**6)] | None = None
    """Of `epr` and `role`, which need it: categories of an image on average."""
    estimator_rate: Annotated[float, Interval(gt=0, le=10**6)] = 10.0
    """Of `role`: learning rate of the estimated labels as a multiple of the network's."""
    entropy_weight: Annotated[float, Interval(ge=0, le=1000)] = 0.2
    """alpha of `em` and `em_apl`."""
    pseudo_weight: Annotated[float, Interval(ge=0, le=1000)] = 0.02
    """beta of `em_apl`: weight of the unknown labels that are taken for absent."""
    pseudo_share: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Of `em_apl`: share of the unknown labels of a category that are taken for absent in the end.
    """
    warmup_epochs: Annotated[int, Interval(ge=1, le=100_000)] = 5
    """Of `em_apl`: epochs before the first of them are."""
    backbone: Literal["auto", ImageBackbone, FeatureBackbone] = "auto"
    """`auto` picks by the data: `linear`, a head, for feature vectors; `small_cnn` for digits and
    `resnet18` for other images.
    """
    weights: str | None = None
    """Name of a file of weights that a `resnet18` or `resnet50` starts from, as torchvision
    publishes them (resnet50-0676ba61.pth): the last eight digits are the first of its SHA-256, so
    that the name says the content. It lies where torch keeps what it downloads,
    ~/.cache/torch/hub/checkpoints or $TORCH_HOME/hub/checkpoints, on every machine that trains.
    """
    epochs: Annotated[int, Interval(ge=1, le=100_000)] = 10
    """Passes over the images of which a label is known; of a student, over the whole pool."""
    batch_size: Annotated[int, Interval(ge=1, le=10**6)] = 64
    """Images in one global batch, over all ranks."""
    learning_rate: Annotated[float, Interval(gt=0, le=1000)] = 1e-3
    """Of Adam."""
    patience: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    """Epochs without a gain on validation after which a training ends; null: never."""
    scaling: Literal["common", "each"] = "common"
    """What feature vectors are divided by once their mean is taken off: one number for all, or the
    standard deviation of each; unread for images.
    """
    precision: Literal["bf16", "fp32", "fp64"] = "bf16"
    """Arithmetic of the forward and backward pass; weights are kept in at least 32 bits."""

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Raises SettingsError where the settings contradict one another, or do not fit the data or
        the number of ranks.
        """
        if "expected_positives" in READS[self.loss] and self.expected_positives is None:
            raise SettingsError(
                "expected_positives",
                "loss",
                problem=f"loss {self.loss} needs the number of categories of an image on average",
                hint="write it, as in expected_positives: 2.9",
            )
        if "expected_positives" in READS[self.loss]:
            assert self.expected_positives is not None
            if self.expected_positives > facts.num_classes:
                raise SettingsError(
                    "expected_positives",
                    problem=f"an image has {facts.num_classes} categories at most",
                    hint="write how many it has on average",
                )
        if self.loss == "em_apl" and self.warmup_epochs >= self.epochs:
            raise SettingsError(
                "warmup_epochs",
                "epochs",
                problem=f"no label is taken for absent in {self.epochs} epochs of which"
                f" {self.warmup_epochs} are warm-up",
                hint="write fewer, or loss: em",
            )
        fitting = ("auto", *BACKBONES[facts.kind])
        if self.backbone not in fitting:
            kind = "feature vectors" if facts.kind == "features" else facts.kind
            raise SettingsError(
                "backbone",
                problem=f"does not take {kind}",
                hint=f"write one of {', '.join(fitting)}",
            )
        if self.weights and (problem := weights_problem(self.weights, self.backbone)):
            raise SettingsError(
                "weights", "backbone", problem=problem, hint="write another file, or weights: null"
            )
        if self.batch_size % workers:
            raise SettingsError(
                "batch_size",
                problem=f"a batch of {self.batch_size} images cannot be shared equally by"
                f" resources.workers = {workers}",
                hint="write a multiple of the number of workers",
            )

    def is_student(self, number: int, rounds: int) -> bool:
        """Returns whether a stage learns from pseudo labels."""
        return number > 0 and (self.student == "all" or (self.student, number) == ("last", rounds))

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        """Returns the settings that a stage can depend on: teachers read the loss and its own,
        students what makes pseudo labels.
        """
        student = self.is_student(number, rounds)
        own = ("threshold", "keep_observed") if student else ("loss", *READS[self.loss])
        names = [*own, *_TRAINING]
        names += [name for name in ("weights", "patience") if getattr(self, name) is not None]
        settings = {name: getattr(self, name) for name in names}
        return StagePlan(settings, (0, self.epochs), ("scores",) if student else ())
