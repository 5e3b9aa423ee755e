"""Settings of each training method: what may be set, what it means, and which of it a stage reads.

Imports nothing heavy: `plan` uses this module without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval, Len

from trainers.errors import SettingsError
from trainers.method import DatasetFacts, Reads, StagePlan
from trainers.networks.names import BACKBONES, FeatureBackbone, ImageBackbone
from trainers.stage import POOL_ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTeacherConfig:
    """Mean Teacher with optional negative label suppression (Hu et al. 2020; Tarvainen & Valpola
    2017).
    """

    name: ClassVar[str] = "mean_teacher"
    version: ClassVar[int] = 2
    """Part of every stage key: raise it when the same settings would train differently."""
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, "embedding", "probabilities")
    trainer: ClassVar[str] = "trainers.mean_teacher.method:MeanTeacher"

    backbone: Literal["auto", ImageBackbone, FeatureBackbone] = "auto"
    """`auto` picks by the data: `small_cnn` for digits, `resnet18` for other images, `mlp` for
    feature vectors; `linear` is a head on features. For images also `resnet50`, `shake_shake_26`
    (2x96d), `wide_resnet_28_2` and `vgg16`.
    """
    epochs: Annotated[int, Interval(ge=1, le=100_000)] = 20
    """Passes over the unlabelled images in one stage."""
    batch_size: Annotated[int, Interval(ge=2, le=10**6)] = 64
    """Images in one global batch, labelled and unlabelled together, over all ranks."""
    labelled_share: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Share of a batch drawn from the labelled images; None: |labelled| / N + 0.05."""
    labelled_per_batch: (
        Annotated[tuple[Annotated[int, Interval(ge=1, le=10**6)], ...], Len(1, 101)] | None
    ) = None
    """Labelled images in a batch, instead of a share: one number for each stage from 0 on, the last
    one for all that follow.
    """
    learning_rate: Annotated[float, Interval(gt=0, le=1000)] = 0.05
    """Highest learning rate of SGD; a cosine lowers it."""
    warmup_epochs: Annotated[float, Interval(ge=0, le=100_000)] = 0.0
    """The learning rate first rises to its full value over this many epochs."""
    warmup_start_rate: Annotated[float, Interval(ge=0, le=1000)] = 0.0
    """Where it starts; unread without `warmup_epochs`."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Of SGD."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's."""
    weight_decay: Annotated[float, Interval(ge=0, le=10)] = 2e-4
    """L2 penalty on the weights, as SGD adds it to the gradient."""
    cosine_horizon: Annotated[float, Interval(ge=1, le=1000)] = 210 / 180
    """The cosine reaches zero at this multiple of `epochs`."""
    consistency: Literal["mse", "kl"] = "mse"
    """Distance of student and teacher: mean squared difference, or Kullback-Leibler divergence, of
    their probabilities.
    """
    consistency_weight: Annotated[float, Interval(ge=0, le=10**9)] = 10.0
    """W, lambda of the consistency loss. The mean over classes is inside the loss, so W scales with
    C.
    """
    consistency_rampup_epochs: Annotated[float, Interval(ge=0, le=100_000)] = 5.0
    """Epochs over which the weight of the consistency loss rises to its full value."""
    logit_distance_weight: Annotated[float, Interval(ge=-1000, le=1000)] = 0.01
    """Weight of the squared distance of the two heads; negative: one head only."""
    negative_weight: Annotated[float, Interval(ge=0, le=10**6)] = 0.0
    """lambda of -log(1 - p_c) for each refused class c of the student's prediction; 0: the answers
    "no" act through the teacher alone.
    """
    entropy_weight: Annotated[float, Interval(ge=0, le=10**6)] = 0.0
    """lambda of the entropy of the student's prediction on images without a label."""
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.97
    """Share of the teacher's weights that a step keeps; the rest is the student's."""
    teacher_init: Literal["student", "random"] = "student"
    """Weights that the teacher starts from: the student's, or random ones of its own."""
    nls: bool = True
    """Negative label suppression: the teacher gives refused classes zero probability."""
    nls_positive: Literal["soft", "onehot"] = "soft"
    """What the teacher says of a labelled image: its own soft prediction, or the label alone."""
    init: Literal["scratch", "continue"] = "scratch"
    """Whether a later stage starts from fresh weights, drawn anew, or from those of the stage
    before. Batches and views are drawn anew in either.
    """
    feature_noise: Annotated[float, Interval(ge=0, le=1000)] = 0.1
    """Standard deviation, in units of each feature's own, of the noise that makes two views of a
    feature vector; unread for images.
    """
    precision: Literal["bf16", "fp32", "fp64"] = "bf16"
    """Arithmetic of the forward and backward pass; weights are kept in at least 32 bits."""
    compile: bool = False
    """Both networks are compiled in training (torch.compile), half a minute or more at the start of
    each process. Steps were then 1.18 times as fast on a CPU with bf16 arithmetic and 1.14 times
    slower on one without (docs/measurements.md). Needs a C++ compiler on a CPU. Rounds differently.
    """

    alternatives: ClassVar[tuple[tuple[str, str], ...]] = (
        ("labelled_share", "labelled_per_batch"),
    )
    """Settings that say one thing in two ways: writing one takes the other back."""

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Raises SettingsError where the settings contradict one another, or do not fit the data or
        the number of ranks.
        """
        if self.labelled_per_batch is not None:
            if self.labelled_share is not None:
                raise SettingsError(
                    "labelled_share",
                    "labelled_per_batch",
                    problem="give labelled_share or labelled_per_batch, not both",
                    hint="write one of them",
                )
            most = max(self.labelled_per_batch)
            if most >= self.batch_size:
                raise SettingsError(
                    "labelled_per_batch",
                    "batch_size",
                    problem=(
                        f"{most} labelled images leave no room for others in a batch of"
                        f" {self.batch_size}"
                    ),
                    hint="write fewer, or a larger batch_size",
                )
        fitting = ("auto", *BACKBONES[facts.kind])
        if self.backbone not in fitting:
            kind = "feature vectors" if facts.kind == "features" else facts.kind
            raise SettingsError(
                "backbone",
                problem=f"does not take {kind}",
                hint=f"write one of {', '.join(fitting)}",
            )
        if self.batch_size % workers:
            problem = (
                f"a batch of {self.batch_size} images cannot be shared equally by resources.workers"
                f" = {workers}"
            )
            raise SettingsError(
                "batch_size", problem=problem, hint="write a multiple of the number of workers"
            )

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        """Returns the settings that a stage can depend on.

        Of a list with one entry a stage it reads its own entry alone, and nothing else depends on
        its number. Without answers "no", `nls` and `negative_weight` are unread; `init` is unread
        where there is no stage before.
        """
        unread = {"init", "nls", "negative_weight"}
        if self.labelled_per_batch:
            unread.add("labelled_share")
        if not self.warmup_epochs:
            unread.add("warmup_start_rate")
        # The version stands among the settings in every key since schema 2, as well as beside them.
        read: dict[str, Any] = {"version": self.version} | {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in unread
        }
        if self.labelled_per_batch:
            listed = self.labelled_per_batch
            read["labelled_per_batch"] = (listed[min(number, len(listed) - 1)],)
        if has_negatives:
            read["nls"] = self.nls
            read["negative_weight"] = self.negative_weight
        read["init"] = self.init if number else "scratch"
        reads: tuple[Reads, ...] = ("model",) if read["init"] == "continue" else ()
        return StagePlan(read, (0, self.epochs), reads)
