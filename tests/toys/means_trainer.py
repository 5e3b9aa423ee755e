"""Trains class means; tests.toys.means has its settings."""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.simple import SimpleTrainer


class MeansTrainer(SimpleTrainer):
    """A mean a class."""

    def begin(self) -> Tensor:
        return torch.zeros_like(self.is_of.T @ self.x)

    def step(self, weights: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        goal = (self.is_of.T @ self.x) / self.is_of.sum(0)[:, None].clamp(min=1)
        return weights + 0.9 * (goal - weights), (goal - weights).abs().mean()

    def logits(self, weights: Tensor, x: Tensor) -> Tensor:
        return -torch.cdist(x, weights)
