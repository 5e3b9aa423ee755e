"""The training of class means."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.simple import SimpleTrainer

FARTHEST = 1e300


class PrototypesTrainer(SimpleTrainer):
    """The mean of each class's labelled images, [C, D]; NaN where a class has none, which is then
    farther from every image than any other.
    """

    def begin(self) -> Tensor:
        return self.x.new_full((self.is_of.shape[1], self._train.shape[1]), torch.nan)

    def step(self, weights: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Returns the means, and the share of the labelled images' variance that is not between
        them.
        """
        means = (self.is_of.T @ self.x) / self.is_of.sum(0)[:, None]
        within = (self.x - means[self.is_of.argmax(1)]).square().sum()
        # Of one image, or none, there is no mean that is not its own.
        whole = (self.x - self.x.sum(0) / max(len(self.x), 1)).square().sum()
        return means, within / whole if whole > 0 else whole

    def logits(self, weights: Tensor, x: Tensor) -> Tensor:
        """Returns negative squared distances, [n, C], but for a term that all classes share."""
        near = 2 * x @ weights.T - weights.square().sum(1)
        return near.nan_to_num(nan=-FARTHEST)
