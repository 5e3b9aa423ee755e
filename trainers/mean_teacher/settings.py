"""Settings of each training method: what may be set, what it means, and which of it a stage reads.

Imports nothing heavy: `plan` uses this module without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTeacherConfig:
    """Mean Teacher with optional negative label suppression (Hu et al. 2020; Tarvainen & Valpola 2017)."""

    name: ClassVar[str] = "mean_teacher"
    version: ClassVar[int] = 2
    """Part of every stage key: raise it when the same settings would train differently."""

    backbone: str = "auto"
    """`auto` picks by the data: `small_cnn` for digits, `resnet18` for other images, `mlp` for feature vectors; `linear` is a head on features. For images also
    `resnet50`, `shake_shake_26` (2x96d), `wide_resnet_28_2` and `vgg16`."""
    epochs: int = 20
    """Passes over the unlabelled images in one stage."""
    batch_size: int = 64
    """Images in one global batch, labelled and unlabelled together, over all ranks."""
    labelled_share: float | None = None
    """Share of a batch drawn from the labelled images; None: |labelled| / N + 0.05."""
    labelled_per_batch: tuple[int, ...] | None = None
    """Labelled images in a batch, instead of a share: one number for each stage from 0 on, the last one for all that follow."""
    learning_rate: float = 0.05
    warmup_epochs: float = 0.0
    """The learning rate first rises to its full value over this many epochs."""
    warmup_start_rate: float = 0.0
    """Where it starts; unread without `warmup_epochs`."""
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 2e-4
    cosine_horizon: float = 210 / 180
    """The cosine reaches zero at this multiple of `epochs`."""
    consistency: Literal["mse", "kl"] = "mse"
    consistency_weight: float = 10.0
    """W, lambda of the consistency loss. The mean over classes is inside the loss, so W scales with C."""
    consistency_rampup_epochs: float = 5.0
    logit_distance_weight: float = 0.01
    """Weight of the squared distance of the two heads; negative: one head only."""
    negative_weight: float = 0.0
    """lambda of -log(1 - p_c) for each refused class c of the student's prediction; 0: the answers "no" act through the teacher alone."""
    entropy_weight: float = 0.0
    """lambda of the entropy of the student's prediction on images without a label."""
    ema_decay: float = 0.97
    teacher_init: Literal["student", "random"] = "student"
    nls: bool = True
    """Negative label suppression: the teacher gives refused classes zero probability."""
    nls_positive: Literal["soft", "onehot"] = "soft"
    """What the teacher says of a labelled image: its own soft prediction, or the label alone."""
    init: Literal["scratch", "continue"] = "scratch"
    """Whether a later stage starts from fresh weights, drawn anew, or from those of the stage before. Batches and views are drawn anew in either."""
    feature_noise: float = 0.1
    """Standard deviation, in units of each feature's own, of the noise that makes two views of a feature vector; unread for images."""
    precision: Literal["bf16", "fp32", "fp64"] = "bf16"
    compile: bool = False
    """Both networks are compiled in training (torch.compile), half a minute or more at the start of each process. Steps were then 1.18 times as fast on a CPU
    with bf16 arithmetic and 1.14 times slower on one without (docs/measurements.md). Needs a C++ compiler on a CPU. Rounds differently."""

    def for_stage(self, stage: int) -> MeanTeacherConfig:
        """The settings as that stage reads them: of a list with one entry a stage, its own entry alone. Nothing else in a stage depends on its number."""
        listed = self.labelled_per_batch
        return self if not listed else replace(self, labelled_per_batch=(listed[min(stage, len(listed) - 1)],))

    def settings_read(self, *, has_negatives: bool, has_parent: bool) -> dict[str, Any]:
        """The settings that a stage with these inputs can depend on; equal dictionaries and equal inputs train the same.

        Of settings cut to a stage (`for_stage`). Without answers "no", `nls` and `negative_weight` are unread; `init` is unread where there is no stage before.
        """
        unread = {"init", "nls", "negative_weight"}
        if self.labelled_per_batch:
            unread.add("labelled_share")
        if not self.warmup_epochs:
            unread.add("warmup_start_rate")
        read: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in unread}
        if has_negatives:
            read["nls"] = self.nls
            read["negative_weight"] = self.negative_weight
        read["init"] = self.init if has_parent else "scratch"
        return read


MethodConfig = MeanTeacherConfig
"""The union of all methods' settings."""

METHODS: dict[str, type[MethodConfig]] = {MeanTeacherConfig.name: MeanTeacherConfig}
