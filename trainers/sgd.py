"""Stochastic gradient descent with momentum, as torch.optim.SGD computes it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim.sgd import sgd


class Sgd:
    """Moves weights along their gradients, bit for bit as torch.optim.SGD does.

    The class of torch loads the compiler (torch._dynamo) when it is made: 1.2 s and 150 MB in every
    rank, for nothing here (docs/measurements.md).
    """

    def __init__(
        self, weights: Sequence[Tensor], *, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        self._weights = list(weights)
        self._momentum, self._nesterov, self._weight_decay = (
            momentum,
            nesterov and momentum > 0,
            weight_decay,
        )
        self.velocities: list[Tensor | None] = [None] * len(self._weights)
        """Momentum of each weight; None before its first step, and always without momentum."""

    def zero_grad(self) -> None:
        for weight in self._weights:
            weight.grad = None

    def step(self, learning_rate: float) -> None:
        """Moves every weight that has a gradient."""
        moved = [index for index, weight in enumerate(self._weights) if weight.grad is not None]
        velocities = [self.velocities[index] for index in moved]
        sgd(
            [self._weights[index] for index in moved],
            [self._weights[index].grad for index in moved],  # type: ignore[misc]
            velocities,
            fused=True,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=self._nesterov,
            maximize=False,
        )
        for index, velocity in zip(moved, velocities, strict=True):
            self.velocities[index] = velocity
