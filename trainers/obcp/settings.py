"""Settings of `obcp`: what may be set, what it means, and which of it a stage reads.

Imports nothing heavy: `plan` uses this module without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from trainers.errors import SettingsError
from trainers.method import DatasetFacts, StagePlan
from trainers.networks.names import BACKBONES, FeatureBackbone
from trainers.stage import POOL_ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class ObcpConfig:
    """One-bit active query with contrastive pairs (Zhang et al. 2022): one training, asked at
    several of its epochs; answers "yes" make positive pairs, answers "no" hard negative ones.
    """

    name: ClassVar[str] = "obcp"
    version: ClassVar[int] = 1
    """Part of every stage key: raise it when the same settings would train differently."""
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    offers: ClassVar[tuple[str, ...]] = (*POOL_ARRAYS, "embedding", "probabilities", "uncertainty")
    trainer: ClassVar[str] = "trainers.obcp.trainer:ObcpTrainer"
    keeps: ClassVar[tuple[str, ...]] = ("state",)

    backbone: Literal[
        "auto",
        "small_cnn",
        "small_cnn_gn",
        "resnet18",
        "resnet50",
        "wide_resnet_28_2",
        "vgg16",
        FeatureBackbone,
    ] = "auto"
    """`auto` picks by the data: `small_cnn` for digits, `resnet18` for other images, `mlp` for
    feature vectors; `linear` is a head on features.
    """
    epochs: Annotated[int, Interval(ge=1, le=100_000)] = 200
    """Passes over the unlabelled images in the whole training, all stages together."""
    first_query_epoch: Annotated[int, Interval(ge=0, le=100_000)] | None = None
    """Epochs before the first question; the rounds are spread evenly over those that follow. Until
    then labelled images make pairs with their own views alone. None: half of `epochs`.
    """
    batch_size: Annotated[int, Interval(ge=2, le=10**6)] = 64
    """Images in one global batch, labelled and unlabelled together, over all ranks."""
    labelled_share: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Share of a batch drawn from the labelled images; None: |labelled| / N + 0.05."""
    learning_rate: Annotated[float, Interval(gt=0, le=1000)] = 0.03
    """Highest learning rate of SGD; one cosine lowers it to zero over all epochs."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Interval(ge=0, le=10)] = 5e-4
    """L2 penalty on the weights, as SGD adds it to the gradient."""
    contrastive_weight: Annotated[float, Interval(ge=0, le=10**6)] = 0.1
    """lambda of the contrastive loss."""
    negative_weight: Annotated[float, Interval(ge=0, le=10**6)] = 0.1
    """lambda of -log(1 - p_c) for each refused class c whose probability is 1 / C or more; unread
    without answers "no".
    """
    class_positives: bool = True
    """Whether a labelled image is also pulled to another one of its class, from the first question
    on (L_cl).
    """
    class_negatives: Annotated[int, Interval(ge=0, le=10**6)] | None = None
    """N: keys in the queue that give way to those of labelled images of a refused class, for an
    image with such a class (L_cn); None: half of the queue. Unread without answers "no".
    """
    with_replacement: bool = False
    """Whether a class with fewer than N labelled images has some of them several times; if not,
    fewer keys give way.
    """
    confirmed_labels: bool = True
    """Whether labels that an answer has confirmed count in the cross entropy, as initial ones do;
    if not, they make pairs alone.
    """
    queue_size: Annotated[int, Interval(ge=1, le=10**7)] = 256
    """K: keys of the latest batches that every image is held against; a multiple of
    `batch_size`.
    """
    mask_same_class: bool = False
    """Whether keys of a labelled image's own class are left out of what it is held against."""
    temperature: Annotated[float, Interval(gt=0, le=1000)] = 0.07
    """tau, by which similarities are divided."""
    key_momentum: Annotated[float, Interval(ge=0, le=1)] = 0.999
    """Share of the key encoder's weights that a step keeps; the rest is the trained encoder's."""
    projection: Literal["linear", "mlp"] = "linear"
    """Head of the contrastive features: one layer, or two with as many hidden units as features."""
    projection_dim: Annotated[int, Interval(ge=1, le=100_000)] = 128
    """Length of a contrastive feature."""
    crop_area: Annotated[float, Interval(gt=0, le=1)] = 0.2
    """Least share of an image that a contrastive view shows, stretched to full size; unread for
    features.
    """
    jitter: Annotated[float, Interval(ge=0, le=0.5)] = 0.4
    """Largest change of a contrastive view's brightness, contrast, saturation and hue; unread for
    features.
    """
    greyscale: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Chance that a contrastive view loses its colours; unread for features."""
    feature_noise: Annotated[float, Interval(ge=0, le=1000)] = 0.1
    """Standard deviation, in units of each feature's own, of the noise that makes views of a
    feature vector; unread for images.
    """
    predictions: Literal["eval", "online"] = "eval"
    """What `uncertainty` is made of: a pass over the images without a label at the end of an epoch,
    or what training said of its own views, which costs nothing.
    """
    mean_epochs: Annotated[int, Interval(ge=1, le=100_000)] = 30
    """m: epochs before a round over which an image's probabilities are averaged."""
    recent_epochs: Annotated[int, Interval(ge=1, le=100_000)] = 5
    """t: epochs before a round whose probabilities are held against that average."""
    precision: Literal["bf16", "fp32", "fp64"] = "bf16"
    """Arithmetic of the forward and backward pass; weights are kept in at least 32 bits."""

    def check(self, facts: DatasetFacts, workers: int = 1) -> None:
        """Raises SettingsError where the settings contradict one another, or do not fit the data or
        the number of ranks.
        """
        fitting = ("auto", *(name for name in BACKBONES[facts.kind] if name != "shake_shake_26"))
        if self.backbone not in fitting:
            kind = "feature vectors" if facts.kind == "features" else facts.kind
            raise SettingsError(
                "backbone",
                problem=f"does not take {kind}",
                hint=f"write one of {', '.join(fitting)}",
            )
        if self.stage_one > self.epochs:
            raise SettingsError(
                "first_query_epoch",
                "epochs",
                problem=f"the first question comes after the last of {self.epochs} epochs",
                hint=f"write {self.epochs} or less",
            )
        if self.queue_size % self.batch_size:
            raise SettingsError(
                "queue_size",
                "batch_size",
                problem=f"a queue of {self.queue_size} keys holds no whole number of batches of"
                f" {self.batch_size}",
                hint="write a multiple of batch_size",
            )
        if self.class_negatives is not None and self.class_negatives > self.queue_size:
            raise SettingsError(
                "class_negatives",
                "queue_size",
                problem=f"{self.class_negatives} keys cannot give way in a queue of"
                f" {self.queue_size}",
                hint=f"write {self.queue_size} or less",
            )
        if self.batch_size % workers:
            raise SettingsError(
                "batch_size",
                problem=f"a batch of {self.batch_size} images cannot be shared equally by"
                f" resources.workers = {workers}",
                hint="write a multiple of the number of workers",
            )

    @property
    def stage_one(self) -> int:
        """Epochs before the first question."""
        return self.epochs // 2 if self.first_query_epoch is None else self.first_query_epoch

    def query_epochs(self, rounds: int) -> tuple[int, ...]:
        """Returns after how many epochs each round asks: evenly from the first question on."""
        left = self.epochs - self.stage_one
        return tuple(self.stage_one + left * at // rounds for at in range(rounds))

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        """Returns the part of the one training that ends with this stage, and what it depends on.

        `mean_windows` and `recent_windows`, of its settings, are the epochs [first, stop) over
        which predictions are added up: those before each later round, where they begin in this
        stage or earlier. A stage that no round follows adds up none.
        """
        asked = self.query_epochs(rounds)
        ends = (0, *asked, self.epochs)
        first, stop = ends[number] if number else 0, ends[number + 1]
        unread = {"mean_epochs", "recent_epochs"}
        if not has_negatives or stop <= self.stage_one:
            unread |= {"negative_weight", "class_negatives", "with_replacement"}
        if stop <= self.stage_one:
            unread |= {"class_positives", "confirmed_labels", "mask_same_class"}
        windows = {
            name: tuple(
                (max(at - length, 0), at) for at in asked[number:] if max(at - length, 0) < stop
            )
            for name, length in (
                ("mean_windows", self.mean_epochs),
                ("recent_windows", self.recent_epochs),
            )
        }
        if not windows["mean_windows"]:
            unread.add("predictions")
        read: dict[str, Any] = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in unread
        }
        read["first_query_epoch"] = self.stage_one
        return StagePlan(read | windows, (first, stop), ("state",) if number else ())
