"""Trains tests.toys.tags.Tagger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.toys.tags import Tagger
from trainers.artefacts import StageFiles
from trainers.data.items import StageData
from trainers.distributed.ranks import Ranks
from trainers.method import StagePlan
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer


class TaggerTrainer(Trainer):
    def __init__(
        self,
        plan: StagePlan,
        settings: Tagger,
        data: StageData,
        inputs: StageInputs,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks,
        parent: StageFiles | None,
    ) -> None:
        self.settings, self.data, self.steps = settings, data, 0
        x = torch.from_numpy(np.array(data.train)[inputs.pool_ids])
        self.x = torch.cat([x, torch.ones(len(x), 1)], 1)
        self.target = torch.zeros(len(x), data.num_classes)
        self.weight = torch.full_like(self.target, settings.unknown_weight)
        for ids, classes, value in (
            (inputs.label_ids, inputs.labels, 1.0),
            (inputs.negative_ids, inputs.negative_classes, 0.0),
        ):
            rows = torch.from_numpy(np.searchsorted(inputs.pool_ids, ids))
            columns = torch.from_numpy(classes.astype(np.int64))
            self.target[rows, columns] = value
            self.weight[rows, columns] = 1.0
        self.w = torch.zeros(self.x.shape[1], data.num_classes)

    def epoch(self, number: int) -> Mapping[str, Tensor]:
        p = torch.sigmoid(self.x @ self.w)
        loss = torch.nn.functional.binary_cross_entropy(p, self.target, self.weight)
        slope = self.x.T @ ((p - self.target) * self.weight) / len(self.x)
        self.w = self.w - self.settings.learning_rate * slope
        self.steps += 1
        return {"loss": loss[None]}

    def state(self) -> dict[str, Any]:
        return {"w": self.w, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.w, self.steps = state["w"], int(state["steps"])

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        items = np.array(self.data.test if split == "test" else self.data.train)[ids]
        x = torch.from_numpy(items)
        p = torch.sigmoid(torch.cat([x, torch.ones(len(x), 1)], 1) @ self.w)
        return {"probabilities": p.numpy()}

    def figures(self) -> Figures:
        images = self.steps * len(self.x)
        return Figures(
            backbone="linear",
            precision="fp32",
            parameters=self.w.numel(),
            steps=self.steps,
            images=images,
        )
