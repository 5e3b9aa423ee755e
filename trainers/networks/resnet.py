"""Residual networks of torchvision as trunks (He et al. 2016, arXiv:1512.03385; in the 50-layer one
the 3x3 convolution has the stride, "v1.5").
"""

from __future__ import annotations

import math
from typing import Any, Final

from torch import nn

LARGEST_SMALL_IMAGE: Final = 64
"""Pixels of the longer side up to which a network for small images is meant: no early halving of
the map.
"""


def resnet18(channels: int, side: int) -> tuple[nn.Module, int]:
    """Trunk and its width."""
    from torchvision.models import resnet18 as torchvision_resnet18  # slow to import, and only here

    return _trunk(torchvision_resnet18(weights=None), channels, side), 512


def resnet50(channels: int, side: int) -> tuple[nn.Module, int]:
    """Trunk and its width; convolutions start as N(0, sqrt(2 / (k k outputs)))."""
    from torchvision.models import resnet50 as torchvision_resnet50

    return _trunk(torchvision_resnet50(weights=None), channels, side), 2048


def _trunk(net: Any, channels: int, side: int) -> nn.Module:
    if side <= LARGEST_SMALL_IMAGE:
        # Stem for small images (He et al. 2016, section 4.2): 3x3 at stride 1 and no max-pooling.
        net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    elif channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    net.fc = nn.Identity()
    trunk: nn.Module = net
    return trunk


def start_head(head: nn.Linear) -> None:
    """A head of the 50-layer network starts as N(0, sqrt(2 / (outputs inputs))), its bias at 0
    (Tarvainen & Valpola 2017, published settings).
    """
    nn.init.normal_(head.weight, 0.0, math.sqrt(2.0 / head.weight.numel()))
    nn.init.zeros_(head.bias)
