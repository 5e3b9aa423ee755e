"""VGG-16 with batch norm (Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D)."""

from __future__ import annotations

from typing import Final

from torch import nn

_WIDTHS: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_HIDDEN: Final = 4096
_FULL_MAP: Final = 7
"""Side of the last map at 224 pixels, from which the two hidden layers are used."""


def vgg16(channels: int, height: int, width: int) -> tuple[nn.Module, int]:
    """Trunk and its width.

    From 224 pixels on: the two hidden layers of 4096 over the whole last map, without dropout,
    which batch norm stands in for. Smaller images: the mean over the last map, and as many of the
    five halvings as leave a pixel.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for widths in _WIDTHS:
        for outputs in widths:
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        if min(height, width) >= 2:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    if min(height, width) < _FULL_MAP:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        layers += [
            nn.Flatten(),
            nn.Linear(inputs * height * width, _HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(inplace=True),
        ]
        inputs = _HIDDEN
    trunk = nn.Sequential(*layers)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
    return trunk, inputs
