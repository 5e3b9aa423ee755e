"""Mean Teacher with negative label suppression: the training of one stage, epoch by epoch.

Sources: Tarvainen & Valpola 2017 (arXiv:1703.01780) and its published settings; Hu et al. 2020
    (arXiv:2009.06168) for negative label suppression.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers import checkpoint, predict, randomness
from trainers.artefacts import StageFiles
from trainers.data.items import Items, StageData, to_device
from trainers.data.sampler import Epoch, TwoStreamSampler
from trainers.distributed.parallel import data_parallel
from trainers.distributed.ranks import Ranks
from trainers.errors import DataError, UserError
from trainers.mean_teacher import ema, losses
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.method import StagePlan
from trainers.negatives import Negatives, suppress_negatives
from trainers.networks import backbones as networks
from trainers.networks.precision import precision_used
from trainers.sgd import Sgd
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer

_STUDENT_VIEW, _TEACHER_VIEW = 11, 12
_STUDENT_INIT, _TEACHER_INIT = 21, 22
_STUDENT_DRAWS, _TEACHER_DRAWS = 31, 32


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's rows of one step, on the device; b rows, the unlabelled first."""

    student_view: Tensor
    teacher_view: Tensor
    labels: Tensor
    """int64 [b_l] of the last b_l rows."""
    negative_rows: Tensor
    """int64 [M]."""
    negative_classes: Tensor
    """int64 [M]."""
    student_keys: Tensor | None = None
    """int64 [b], what the networks' own random draws depend on, image by image; None where the
    network draws nothing.
    """
    teacher_keys: Tensor | None = None

    @property
    def unlabelled(self) -> int:
        return len(self.student_view) - len(self.labels)


class MeanTeacher(Trainer):
    """Student, teacher and optimiser of one stage. After `epoch` of every epoch in order, `teacher`
    is the model that predicts.
    """

    if_it_diverges: ClassVar[str] = (
        "a lower method.learning_rate, a lower method.consistency_weight, or method.precision fp32"
    )
    if_memory_is_short: ClassVar[str] = "a smaller method.batch_size or backbone"

    def __init__(
        self,
        plan: StagePlan,
        settings: MeanTeacherConfig,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        config = settings
        _check_labels(inputs, data)
        if config.batch_size < 2 * ranks.world_size:
            raise DataError(
                f"method.batch_size: {config.batch_size} images cannot be shared by"
                f" {ranks.world_size} workers; at least two each are needed"
            )
        self.config, self.seed, self.device, self.ranks = config, seed, device, ranks
        self.data = data
        self.precision = precision_used(config.precision, str(device), data.kind)
        dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self.autocast = self.precision == "bf16"
        self.items = Items(
            data, "train", device=device, dtype=dtype, feature_noise=config.feature_noise
        )
        self.negatives = Negatives(inputs, len(data.train), data.num_classes)
        self.label_of = np.full(len(data.train), -1, np.int64)
        self.label_of[inputs.label_ids] = inputs.labels
        self.sampler = TwoStreamSampler(
            unlabelled_ids=np.setdiff1d(inputs.pool_ids, inputs.label_ids, assume_unique=True),
            labelled_ids=inputs.label_ids,
            batch_size=config.batch_size,
            labelled_share=config.labelled_share,
            labelled_rows=config.labelled_per_batch[0] if config.labelled_per_batch else None,
            seed=seed,
        )
        self.backbone = networks.backbone_name(config.backbone, data)

        def network(purpose: int) -> networks.TwoHeads:
            net = networks.build(
                self.backbone,
                data,
                single_head=config.logit_distance_weight < 0,
                seed=randomness.key(seed, purpose),
            )
            net.to(device=device, dtype=dtype)
            return (
                net.to(memory_format=torch.channels_last)
                if networks.channels_last(self.backbone)
                else net
            )

        self.student = network(_STUDENT_INIT)
        self.teacher = network(_TEACHER_INIT)
        if config.teacher_init == "student":
            self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.student_weights, self.teacher_weights = (
            list(self.student.parameters()),
            list(self.teacher.parameters()),
        )
        self.optimizer = Sgd(
            self.student_weights,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        self.forward, self.teach = (
            _compiled(net) if config.compile else net for net in (self.student, self.teacher)
        )
        self.forward = data_parallel(self.forward, ranks)
        self.step = 0
        if "model" in plan.reads and parent is not None:
            self._take_over(parent)

    def epoch(self, number: int) -> dict[str, Tensor]:
        """One pass over the images without a label."""
        loss, by_class, by_consistency = self.train_epoch(number).unbind(1)
        return {"loss": loss, "loss_class": by_class, "loss_consistency": by_consistency}

    def train_epoch(self, number: int) -> Tensor:
        """Trains one pass over the images without a label. Returns loss, class loss and consistency
        loss of each step, [steps, 3] on the device.
        """
        config = self.config
        epoch = self.sampler.epoch(number)
        consistency_weight = config.consistency_weight * losses.consistency_ramp(
            number, config.consistency_rampup_epochs
        )
        rate_horizon = config.cosine_horizon * config.epochs
        history = torch.zeros(epoch.steps, 3, device=self.device, dtype=torch.float64)
        self.student.train()
        self.teacher.train()  # its batch norm statistics are its own, from its own views
        for step, batch in enumerate(self.batches(number, epoch)):
            at = number + step / epoch.steps
            peak = losses.warmed_up(
                config.learning_rate, at, config.warmup_epochs, config.warmup_start_rate
            )
            history[step] = self.take_step(
                batch,
                consistency_weight=consistency_weight,
                learning_rate=losses.cosine_rate(peak, at, rate_horizon),
                # DDP averages gradients over ranks: dividing by B / world_size makes that the
                # gradient of the sum over the whole batch, divided by B.
                batch_size=epoch.batch_size / self.ranks.world_size,
            )
        self.ranks.mean([history, *self._statistics()])
        return history

    def take_step(
        self, batch: Batch, *, consistency_weight: float, learning_rate: float, batch_size: float
    ) -> Tensor:
        """Moves student and teacher by one batch. Returns `stage_loss`'s terms, [3] on the device.
        Nothing here waits for the device.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            with torch.no_grad():
                teacher_logits, _ = self.teach(batch.teacher_view, batch.teacher_keys)
            class_logits, consistency_logits = self.forward(batch.student_view, batch.student_keys)
        terms = stage_loss(
            self.config,
            batch,
            class_logits,
            consistency_logits,
            teacher_logits,
            consistency_weight=consistency_weight,
            batch_size=batch_size,
        )
        self.optimizer.zero_grad()
        terms[0].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(learning_rate)
        self.step += 1
        ema.update(
            self.teacher_weights,
            self.student_weights,
            ema.decay_at(self.step, self.config.ema_decay),
        )
        return terms.detach()

    def batches(self, number: int, epoch: Epoch) -> Iterator[Batch]:
        """This rank's batches, views made for many steps at once."""
        mine = epoch.share(self.ranks.rank, self.ranks.world_size)
        rows = mine.batch_size
        student_stream, teacher_stream = (
            randomness.key(self.seed, view, number) for view in (_STUDENT_VIEW, _TEACHER_VIEW)
        )
        labels, all_ids, all_visits = (
            to_device(a, self.device)
            for a in (self.label_of[mine.ids[:, mine.unlabelled :]], mine.ids, mine.visits)
        )
        negative_rows, negative_classes = self.negatives.pairs(mine.ids.reshape(-1))
        cuts = np.searchsorted(negative_rows, np.arange(mine.steps + 1) * rows).tolist()
        in_batch, refused = (
            to_device(a, self.device) for a in (negative_rows % rows, negative_classes)
        )
        at_once = max(self.items.at_once // rows, 1)  # whole batches
        starts = range(0, mine.steps, at_once)
        stored = self.items.rows(
            [mine.ids[start : start + at_once].reshape(-1) for start in starts]
        )
        for start, items in zip(starts, stored, strict=True):
            ids, visits = (a[start : start + at_once].view(-1) for a in (all_ids, all_visits))
            student_views = _by_batch(self.items.view(items, ids, visits, student_stream), rows)
            teacher_views = _by_batch(self.items.view(items, ids, visits, teacher_stream), rows)
            student_keys, teacher_keys = (
                self._draws(ids, visits, purpose, number, rows)
                for purpose in (_STUDENT_DRAWS, _TEACHER_DRAWS)
            )
            for i, (student_view, teacher_view) in enumerate(
                zip(student_views, teacher_views, strict=True)
            ):
                part = slice(cuts[start + i], cuts[start + i + 1])
                yield Batch(
                    student_view,
                    teacher_view,
                    labels[start + i],
                    in_batch[part],
                    refused[part],
                    student_keys[i],
                    teacher_keys[i],
                )

    def _draws(
        self, ids: Tensor, visits: Tensor, purpose: int, number: int, rows: int
    ) -> Sequence[Tensor | None]:
        """For each step a key of each row, which depends on seed, epoch, image and visit alone;
        None where the network draws nothing.
        """
        if not self.student.keyed:
            return [None] * (len(ids) // rows)
        return list(
            randomness.draws(randomness.key(self.seed, purpose, number), ids, visits, 1).view(
                -1, rows
            )
        )

    def _statistics(self) -> list[Tensor]:
        """Batch norm statistics of both nets; ranks that saw other images have others, so their
        mean is used.
        """
        return [
            buffer
            for net in (self.student, self.teacher)
            for buffer in net.buffers()
            if buffer.is_floating_point()
        ]

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, besides the request."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "momentum": self.optimizer.velocities,
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.velocities = [
            None if momentum is None else momentum.to(self.device) for momentum in state["momentum"]
        ]
        self.step = int(state["step"])

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        """Returns what the teacher says, of the pool without refused classes."""
        self.teacher.eval()
        items = self._test if split == "test" else self.items
        negatives = self.negatives if split == "pool" else None
        return predict.judge(self.teacher, items, ids, names, self.ranks, negatives)

    @cached_property
    def _test(self) -> Items:
        return Items(
            self.data, "test", device=self.device, dtype=self.items.dtype, feature_noise=0.0
        )

    def figures(self) -> Figures:
        """Returns the figures of the training so far."""
        return Figures(
            backbone=self.backbone,
            precision=self.precision,
            parameters=sum(weight.numel() for weight in self.student_weights),
            steps=self.step,
            images=self.step * self.config.batch_size,
        )

    def model(self) -> dict[str, Any]:
        """Returns what a later stage or prediction needs: weights of both nets, and which network
        they are of.
        """
        return {
            "method": type(self.config).name,
            "backbone": self.backbone,
            "num_classes": self.data.num_classes,
            "shape": list(self.data.shape),
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
        }

    def predictor(self) -> dict[str, Any]:
        """Returns the teacher's weights."""
        return {"teacher": self.teacher.state_dict()}

    def predict_with(self, model: dict[str, Any]) -> None:
        """Lets scores be those of another teacher."""
        self.teacher.load_state_dict(model["teacher"])

    def _take_over(self, parent: StageFiles) -> None:
        """Starts from the weights and statistics of an earlier stage; optimiser, ramps and
        averaging start anew.
        """
        try:
            model = checkpoint.from_bytes(parent.read("model"), self.device)
            student, teacher = (_weights(model, name) for name in ("student", "teacher"))
            self.student.load_state_dict(student)
            self.teacher.load_state_dict(teacher)
        except (ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise DataError(
                f"{parent.path('model')}: expected the model of the stage before, with backbone"
                f" {self.backbone!r}, to continue from; {reason}"
            ) from None


def _weights(model: dict[str, Any], name: str) -> dict[str, Tensor]:
    weights = model.get(name)
    if not isinstance(weights, dict):
        raise ValueError(f"it has no {name!r} weights")
    return weights


def _check_labels(inputs: StageInputs, data: StageData) -> None:
    """Raises DataError where an image has several classes."""
    twice = np.flatnonzero(np.diff(inputs.label_ids) == 0)
    if len(twice):
        at = twice[0]
        raise DataError(
            f"{data.folder}: method mean_teacher trains images of one class each, and image"
            f" {inputs.label_ids[at]} has the classes {inputs.labels[at]} and"
            f" {inputs.labels[at + 1]}; choose a method for images of several classes"
        )
    if inputs.validation_labels.ndim != 1:
        raise DataError(
            f"{data.folder}: method mean_teacher trains images of one class each, and the"
            " validation images have several; choose a method for images of several classes"
        )


def _compiled(net: nn.Module) -> nn.Module:
    """The same network and weights, its passes compiled at the first step.

    Raises:
        UserError: this machine has no compiler for them.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"method.compile: needs a C++ compiler, and there is no {compiler} on this machine."
            " Install g++, or set CXX, or leave it out."
        )
    compiled: Any = torch.compile(net)
    module: nn.Module = compiled
    return module


def _by_batch(values: Tensor, rows: int) -> Tensor:
    return values.reshape(-1, rows, *values.shape[1:])


def stage_loss(
    config: MeanTeacherConfig,
    batch: Batch,
    class_logits: Tensor,
    consistency_logits: Tensor,
    teacher_logits: Tensor,
    *,
    consistency_weight: float,
    batch_size: float,
) -> Tensor:
    """[3]: the loss L = L_cls + w L_cons + v L_res (+ negative and entropy terms), L_cls and
    L_cons. The order of rows within a stream does not matter.

    Logits are [b, C]; the teacher's carry no gradient. batch_size is what the sums are divided by.
    """
    wide = torch.float64 if class_logits.dtype == torch.float64 else torch.float32
    class_logits, consistency_logits = class_logits.to(wide), consistency_logits.to(wide)
    target = teacher_target(config, batch, teacher_logits)
    by_class = losses.class_loss(class_logits[batch.unlabelled :], batch.labels, batch_size)
    distance = losses.consistency_mse if config.consistency == "mse" else losses.consistency_kl
    by_consistency = distance(consistency_logits, target, batch_size)
    loss = by_class + consistency_weight * by_consistency
    if config.logit_distance_weight > 0:
        loss = loss + config.logit_distance_weight * losses.logit_distance(
            class_logits, consistency_logits, batch_size
        )
    if config.negative_weight > 0:
        loss = loss + config.negative_weight * losses.negative_loss(
            class_logits, batch.negative_rows, batch.negative_classes, batch_size
        )
    if config.entropy_weight > 0:
        loss = loss + config.entropy_weight * losses.entropy_loss(
            class_logits[: batch.unlabelled], batch_size
        )
    return torch.stack([loss, by_class, by_consistency])


@torch.no_grad()
def teacher_target(config: MeanTeacherConfig, batch: Batch, teacher_logits: Tensor) -> Tensor:
    """Probabilities [b, C] that the student is pulled to: the teacher's, with zero for refused
    classes under `nls`, and the label alone under `onehot`.
    """
    logits = teacher_logits.to(
        torch.float64 if teacher_logits.dtype == torch.float64 else torch.float32
    )
    if config.nls:
        logits = suppress_negatives(logits, batch.negative_rows, batch.negative_classes)
    target = torch.softmax(logits, 1)
    if config.nls_positive == "onehot":
        target[batch.unlabelled :] = functional.one_hot(batch.labels, target.shape[1]).to(
            target.dtype
        )
    return target
