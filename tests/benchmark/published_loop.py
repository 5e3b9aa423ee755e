"""The published Mean Teacher loop and its data path, rebuilt to measure against.

As Tarvainen & Valpola 2017 (arXiv:1703.01780) and Hu et al. 2020 (arXiv:2009.06168) describe them,
with the habits of their published programs and none of their code. What makes it slow is kept:
images one by one as PIL images through torchvision's transforms in DataLoader workers, the
teacher's logits brought to the CPU and masked there image by image, a Python loop over parameters
for the EMA, and losses read from the device at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from tests.benchmark.random_stage import SHIFT, labelled_rows
from trainers.data.items import StageData
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.networks import backbones as networks
from trainers.stage import StageInputs

NO_LABEL = -1

Sample = tuple[Tensor, Tensor, int, int]


class TwoViews(Dataset[Sample]):
    """Each item: two independent draws of the transform, its label or -1, and its id."""

    def __init__(self, data: StageData, inputs: StageInputs) -> None:
        height, width, _ = data.shape
        self.images = data.train
        self.labels = dict(zip(inputs.label_ids.tolist(), inputs.labels.tolist(), strict=True))
        self.transform: Any = transforms.Compose(
            [
                transforms.RandomCrop((height, width), padding=SHIFT, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> Sample:
        image = Image.fromarray(self.images[item])
        return self.transform(image), self.transform(image), self.labels.get(item, NO_LABEL), item


class TwoStreams(Sampler[list[int]]):
    """Batches of ids: one shuffled pass over the images without a label, and beside it endless
    reshuffles of the labelled ones.
    """

    def __init__(self, inputs: StageInputs, batch: int) -> None:
        self.labelled, self.rows = inputs.label_ids, labelled_rows(batch)
        self.unlabelled, self.other_rows = (
            np.setdiff1d(inputs.pool_ids, inputs.label_ids),
            batch - labelled_rows(batch),
        )

    def __len__(self) -> int:
        return len(self.unlabelled) // self.other_rows

    def __iter__(self) -> Iterator[list[int]]:
        first, second = np.random.permutation(self.unlabelled).tolist(), self._endless()
        for step in range(len(self)):
            yield first[step * self.other_rows : (step + 1) * self.other_rows] + [
                next(second) for _ in range(self.rows)
            ]

    def _endless(self) -> Iterator[int]:
        while True:
            yield from np.random.permutation(self.labelled).tolist()


class PublishedLoop:
    """Student, teacher and optimiser in float32 with contiguous images. Call `train_epoch` under
    the settings of torch that a plain script has.
    """

    def __init__(
        self,
        config: MeanTeacherConfig,
        data: StageData,
        inputs: StageInputs,
        *,
        device: torch.device,
        workers: int,
    ) -> None:
        self.config, self.device = config, device

        def network(seed: int) -> networks.TwoHeads:
            return networks.build(config.backbone, data, single_head=False, seed=seed).to(device)

        self.student, self.teacher = network(1), network(2)
        for weight in self.teacher.parameters():
            weight.detach_()
        self.optimizer = torch.optim.SGD(
            self.student.parameters(),
            config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
        # Workers live on from epoch to epoch: their start, which the published loop pays in every
        # epoch, is not held against it.
        self.loader = DataLoader(
            TwoViews(data, inputs),
            batch_sampler=TwoStreams(inputs, config.batch_size),
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )
        self.refused: dict[int, list[int]] = {}
        for item, refused in zip(
            inputs.negative_ids.tolist(), inputs.negative_classes.tolist(), strict=True
        ):
            self.refused.setdefault(item, []).append(refused)
        self.meters: dict[str, list[float]] = {}
        self.step = 0

    def train_epoch(self) -> int:
        """One pass; returns its steps."""
        config = self.config
        self.student.train()
        self.teacher.train()
        steps = 0
        for view, teacher_view, labels, ids in self.loader:
            rows = len(ids)
            view, teacher_view, labels = (
                values.to(self.device) for values in (view, teacher_view, labels)
            )
            with torch.no_grad():
                teacher_logits, _ = self.teacher(teacher_view, self._keys(rows))
            class_logits, consistency_logits = self.student(view, self._keys(rows))
            target = torch.softmax(self._suppressed(teacher_logits, ids), 1)
            class_loss = (
                functional.cross_entropy(
                    class_logits, labels, reduction="sum", ignore_index=NO_LABEL
                )
                / rows
            )
            self._meter("class", class_loss)
            distance = (
                config.logit_distance_weight
                * functional.mse_loss(class_logits, consistency_logits, reduction="sum")
                / class_logits.numel()
            )
            self._meter("distance", distance)
            consistency = (
                functional.mse_loss(torch.softmax(consistency_logits, 1), target, reduction="sum")
                / class_logits.numel()
            )
            consistency = config.consistency_weight * consistency
            self._meter("consistency", consistency)
            loss = class_loss + distance + consistency
            self._meter("loss", loss)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            self._average(min(1 - 1 / (self.step + 1), config.ema_decay))
            steps += 1
        return steps

    def _suppressed(self, logits: Tensor, ids: Tensor) -> Tensor:
        """The teacher's logits by way of the CPU, where each image's refused classes are set to
        -1e6.
        """
        values = logits.cpu().numpy()
        for row, item in enumerate(ids.tolist()):
            for refused in self.refused.get(item, ()):
                values[row, refused] = -1e6
        return torch.from_numpy(values).to(self.device)

    def _average(self, keep: float) -> None:
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.data.mul_(keep).add_(new.data, alpha=1 - keep)

    def _meter(self, name: str, value: Tensor) -> None:
        self.meters.setdefault(name, []).append(value.item())

    def _keys(self, rows: int) -> Tensor | None:
        """What Shake-Shake of this project draws its gates from; other networks draw nothing."""
        keyed: bool = self.student.keyed
        return torch.randint(1 << 62, (rows,), device=self.device) if keyed else None
