"""Wide residual network 28-2 (Zagoruyko & Komodakis 2016, arXiv:1605.07146): batch norm and ReLU
before each convolution, no dropout.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x))
        straight = x if self.shortcut is None else self.shortcut(active)
        total: Tensor = straight + self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return total


def wide_resnet_28_2(channels: int) -> tuple[nn.Module, int]:
    """Trunk and its width."""
    widths = (16, 32, 64, 128)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)]
    for group, (before, after) in enumerate(pairwise(widths)):
        layers += [
            _Block(after if block else before, after, 2 if group and not block else 1)
            for block in range(4)
        ]
    layers += [
        nn.BatchNorm2d(widths[-1]),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    trunk = nn.Sequential(*layers)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return trunk, widths[-1]
