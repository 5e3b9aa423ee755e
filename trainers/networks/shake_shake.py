"""Shake-Shake 26 2x96d: residual blocks whose two branches are mixed at random, forward and
backward apart.

Sources: Gastaldi 2017, "Shake-Shake regularization" (arXiv:1705.07485); the variant of Tarvainen &
Valpola 2017 (published settings), which has neither batch norm nor ReLU after the first convolution
and after the last block.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from trainers import randomness

_STREAM: Final = 31
_BLOCKS_PER_GROUP: Final = 4
_WIDTHS: Final = (96, 192, 384)


class _Mix(torch.autograd.Function):
    """g a + (1 - g) b, whose gradient is that of another draw of g."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, gate: Tensor, backward_gate: Tensor) -> Tensor:
        ctx.save_for_backward(backward_gate)
        return torch.lerp(b, a, gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gate,) = ctx.saved_tensors
        to_a = gradient * gate
        return to_a, gradient - to_a, None, None


def mix(a: Tensor, b: Tensor, gate: Tensor | None, backward_gate: Tensor | None) -> Tensor:
    """The two branches [n, c, h, w] mixed image by image; without gates (in eval mode) their mean.

    Args:
        gate, backward_gate: [n] in [0, 1), the share of `a` in the sum and in its gradient.
    """
    if gate is None or backward_gate is None:
        return (a + b) * 0.5
    mixed: Tensor = _Mix.apply(
        a, b, gate.to(a.dtype)[:, None, None, None], backward_gate.to(a.dtype)[:, None, None, None]
    )
    return mixed


def gates(keys: Tensor, blocks: int) -> Tensor:
    """float32 [2, blocks, n] uniform in [0, 1): forward and backward draws, each a function of an
    image's key and the block alone.

    Args:
        keys: int64 [n], one for each image and view of a step.
    """
    bits = randomness.draws(_STREAM, keys, torch.zeros_like(keys), 2 * blocks)
    return randomness.uniforms(bits).T.reshape(2, blocks, len(keys))


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),  # not in place: the block's input goes to both branches and to the shortcut
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _ShiftedShortcut(nn.Module):
    """Every second pixel, and every second pixel one to the lower right, side by side in the
    channels; halves the map.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Two groups: each half of the outputs comes from one of the two grids.
        self.conv = nn.Conv2d(2 * inputs, outputs, 1, groups=2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        # A side of odd length has one pixel fewer in the second grid: zeros fill it up.
        shifted = functional.pad(x[:, :, 1::2, 1::2], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        both = torch.cat([x[:, :, ::2, ::2], shifted], 1)
        normed: Tensor = self.norm(self.conv(functional.relu(both)))
        return normed


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _branch(inputs, outputs, stride), _branch(inputs, outputs, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = _ShiftedShortcut(inputs, outputs)
        elif inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor, gate: Tensor | None, backward_gate: Tensor | None) -> Tensor:
        total: Tensor = self.shortcut(x) + mix(self.first(x), self.second(x), gate, backward_gate)
        return total


class ShakeShake(nn.Module):
    """[n, channels, H, W] -> [n, 384]. In training each image needs a key for its gates."""

    width: Final = _WIDTHS[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        sizes = [
            (size, 2 if group and not block else 1)
            for group, size in enumerate(_WIDTHS)
            for block in range(_BLOCKS_PER_GROUP)
        ]
        inputs = [16, *(size for size, _ in sizes)]
        self.blocks = nn.ModuleList(
            _Block(before, size, stride)
            for before, (size, stride) in zip(inputs, sizes, strict=False)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        forward_gates: list[Tensor | None] = [None] * len(self.blocks)
        backward_gates = forward_gates
        if self.training:
            if keys is None:
                raise ValueError("in training, Shake-Shake needs a key for each image")
            drawn = gates(keys, len(self.blocks))
            forward_gates, backward_gates = list(drawn[0]), list(drawn[1])
        x = self.stem(x)
        for block, gate, backward_gate in zip(
            self.blocks, forward_gates, backward_gates, strict=True
        ):
            x = block(x, gate, backward_gate)
        return x.mean((2, 3))
