"""A base for small training methods: all but how a model begins, learns and predicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers import predict
from trainers.artefacts import StageFiles
from trainers.data.items import StageData
from trainers.distributed.ranks import Ranks
from trainers.method import StagePlan
from trainers.negatives import Negatives
from trainers.stage import Ids, StageInputs
from trainers.trainer import Figures, Split, Trainer


class SimpleTrainer(Trainer):
    """Trains a model that is one tensor, by one step an epoch on all labelled images at once. Every
    rank takes every step itself. In float64 all along; D: numbers an image, C: classes, L: labels.
    """

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
        self.settings, self.seed, self.inputs = settings, seed, inputs
        self._train, self._test = (_rows(array, device) for array in (data.train, data.test))
        self.x = self._train[inputs.label_ids]
        """[L, D] the labelled images, pixels in 0..1."""
        classes = torch.from_numpy(inputs.labels).long().to(device)
        self.is_of = torch.nn.functional.one_hot(classes, data.num_classes).double()
        """[L, C] 1 at the class of each, else 0."""
        self.negatives = Negatives(inputs, len(data.train), data.num_classes)
        self.weights = self.begin()
        self.steps = 0

    @abstractmethod
    def begin(self) -> Tensor:
        """Returns the model before the first epoch. What is random in it follows from `seed`."""
        ...

    @abstractmethod
    def step(self, weights: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns the model after an epoch, given the one before it, and the loss, one number."""
        ...

    @abstractmethod
    def logits(self, weights: Tensor, x: Tensor) -> Tensor:
        """Returns [n, C] what the model says of the images [n, D]; a softmax makes probabilities of
        it.
        """
        ...

    def epoch(self, number: int) -> Mapping[str, Tensor]:
        self.weights, loss = self.step(self.weights, number)
        self.steps += 1
        return {"loss": loss.detach().reshape(1)}

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.weights, self.steps = state["weights"], int(state["steps"])

    def scores(
        self, split: Split, ids: Ids, names: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.generic]]:
        x = self._test[ids] if split == "test" else self._train[ids]
        refused = self.negatives.pairs(ids) if split == "pool" else None
        return predict.arrays(names, self.logits(self.weights, x), features=x, refused=refused)

    def figures(self) -> Figures:
        """Returns the figures so far; the method's name stands for a network."""
        return Figures(
            backbone=self.settings.name,
            precision="fp64",
            parameters=self.weights.numel(),
            steps=self.steps,
            images=self.steps * len(self.x),
        )


def _rows(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Images or feature vectors as rows [n, D]; pixels come as 0..1."""
    x = torch.from_numpy(np.asarray(array, np.float64).reshape(len(array), -1)).to(device)
    return x / 255 if array.dtype == np.uint8 else x
