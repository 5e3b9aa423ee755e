"""Adam, as torch.optim.Adam computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Moves weights along their gradients, bit for bit as torch.optim.Adam does with its default
    decays (Kingma & Ba 2015, arXiv:1412.6980). Why not that class: trainers.sgd.Sgd.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = list(weights)
        self._means = [torch.zeros_like(weight) for weight in self._weights]
        self._squares = [torch.zeros_like(weight) for weight in self._weights]
        self._steps = [torch.zeros((), device=weight.device) for weight in self._weights]

    def zero_grad(self) -> None:
        for weight in self._weights:
            weight.grad = None

    def step(self, learning_rate: float) -> None:
        """Moves every weight that has a gradient."""
        moved = [index for index, weight in enumerate(self._weights) if weight.grad is not None]
        adam(
            [self._weights[index] for index in moved],
            [self._weights[index].grad for index in moved],  # type: ignore[misc]
            [self._means[index] for index in moved],
            [self._squares[index] for index in moved],
            [],
            [self._steps[index] for index in moved],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Any]:
        """Returns all that the next step depends on besides weights and gradients."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        for mine, held in (
            (self._means, state["means"]),
            (self._squares, state["squares"]),
            (self._steps, state["steps"]),
        ):
            for value, kept in zip(mine, held, strict=True):
                value.copy_(kept)
