"""Trains a softmax regression; tests.toys.softmax has its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from trainers import predict, randomness
from trainers.artefacts import StageFiles
from trainers.data.items import StageData
from trainers.distributed.ranks import Ranks
from trainers.method import StagePlan
from trainers.negatives import Negatives
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer


class SoftmaxTrainer(Trainer):
    """The weights and their momentum. Every rank takes every step itself."""

    def __init__(
        self,
        plan: StagePlan,
        settings: Any,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        self.settings, self.seed = settings, seed
        self.x = {name: _rows(getattr(data, name), device) for name in ("train", "test")}
        self.negatives = Negatives(inputs, len(data.train), data.num_classes)
        self.ids, self.labels = inputs.label_ids, torch.from_numpy(inputs.labels).long().to(device)
        self.refused = self.negatives.pairs(np.unique(inputs.negative_ids))
        self.refused_ids = np.unique(inputs.negative_ids)
        draw = torch.Generator().manual_seed(seed & 0xFFFF_FFFF)
        shape = (self.x["train"].shape[1], data.num_classes)
        self.weight = (torch.randn(shape, generator=draw, dtype=torch.float64) / 100).to(device)
        self.velocity = torch.zeros_like(self.weight)
        self.steps = 0

    def epoch(self, number: int) -> dict[str, Tensor]:
        rate = self.settings.rate * math.cos(math.pi / 2 * number / (self.settings.epochs + 1))
        weight = self.weight.clone().requires_grad_()
        loss, by_label = self.loss(weight, number)
        (gradient,) = torch.autograd.grad(loss, weight)
        self.velocity = 0.5 * self.velocity + gradient
        self.weight = self.weight - rate * self.velocity
        self.steps += 1
        return {"loss": loss.detach()[None], "loss_class": by_label.detach()[None]}

    def loss(self, weight: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """The loss, and its part of the labels."""
        by_label = functional.cross_entropy(self.logits(weight, self.ids, number), self.labels)
        rows, classes = (torch.from_numpy(a).to(weight.device) for a in self.refused)
        if not len(rows):
            return by_label, by_label
        said = torch.softmax(self.logits(weight, self.refused_ids, number), 1)[rows, classes]
        return by_label - self.settings.refusals * torch.log(1.001 - said).mean(), by_label

    def logits(self, weight: Tensor, ids: Ids, number: int) -> Tensor:
        """Of training images, a part of whose inputs is left out."""
        x = self.x["train"][ids]
        stream = randomness.key(self.seed, number)
        at = torch.from_numpy(ids).to(x.device)
        bits = randomness.draws(stream, at, torch.zeros_like(at), x.shape[1])
        return (x * (randomness.uniforms(bits) >= self.settings.dropout)) @ weight

    def state(self) -> dict[str, Any]:
        # The seed too: whoever goes on from here goes on with its random numbers.
        own = ("weight", "velocity", "steps", "seed")
        return {name: getattr(self, name) for name in own}

    def load(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        x = self.x["test" if split == "test" else "train"][ids]
        refused = self.negatives.pairs(ids) if split == "pool" else None
        return predict.arrays(names, x @ self.weight, features=x, refused=refused)

    def figures(self) -> Figures:
        return Figures(
            backbone="linear",
            precision="fp64",
            parameters=self.weight.numel(),
            steps=self.steps,
            images=self.steps * len(self.ids),
        )


def _rows(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Images or vectors as float64 rows, with a constant at the end."""
    x = torch.from_numpy(np.asarray(array, np.float64).reshape(len(array), -1)).to(device)
    x = x / 255 if array.dtype == np.uint8 else x
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype, device=device)], 1)
