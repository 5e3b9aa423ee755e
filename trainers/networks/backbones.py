"""Backbones with the two linear heads of Mean Teacher. Each returns (class logits, consistency
logits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from trainers.data.items import StageData, holds_images
from trainers.errors import DataError
from trainers.networks import resnet
from trainers.networks.names import BACKBONES
from trainers.networks.shake_shake import ShakeShake
from trainers.networks.vgg import vgg16
from trainers.networks.wide_resnet import wide_resnet_28_2


class TwoHeads(nn.Module):
    """A trunk [n, ...] -> [n, width] under a class head and, unless `single`, a consistency head; a
    single head gives both outputs.
    """

    def __init__(self, trunk: nn.Module, width: int, num_classes: int, *, single: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.class_head = nn.Linear(width, num_classes)
        self.consistency_head = None if single else nn.Linear(width, num_classes)

    @property
    def keyed(self) -> bool:
        """Whether the trunk draws random numbers in training, and so needs a key for each image."""
        return isinstance(self.trunk, ShakeShake)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.trunk(x) if keys is None else self.trunk(x, keys)
        class_logits = self.class_head(features)
        return (
            class_logits,
            class_logits if self.consistency_head is None else self.consistency_head(features),
        )


def backbone_name(setting: str, data: StageData) -> str:
    """The backbone that the setting means for this data.

    Raises:
        DataError: that backbone does not take data of this kind.
    """
    if setting == "auto":
        if not holds_images(data.kind):
            return "mlp"
        return "small_cnn" if max(data.shape[:2]) <= 16 else "resnet18"
    if setting not in BACKBONES[data.kind]:
        raise DataError(
            f"backbone {setting!r} does not take the data set {data.name!r}, which holds"
            f" {data.kind}; choose auto, {', '.join(BACKBONES[data.kind])}"
        )
    return setting


def build(name: str, data: StageData, *, single_head: bool, seed: int) -> TwoHeads:
    """The network with weights that are a function of (name, shapes, seed) alone, on the CPU in
    float32.
    """
    # The layers draw from torch's global generator: lend them one of our own.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk, width = _TRUNKS[name](data)
        net = TwoHeads(trunk, width, data.num_classes, single=single_head)
        if name == "resnet50":
            for head in net.children():
                if isinstance(head, nn.Linear):
                    resnet.start_head(head)
        return net


def channels_last(name: str) -> bool:
    """Whether the network is faster with channels last; group norm is slower (measured on CPUs with
    bf16 units).
    """
    return name not in ("small_cnn_gn", *BACKBONES["features"])


def _small_cnn(data: StageData) -> tuple[nn.Module, int]:
    return _small(data.shape[-1], 16, nn.BatchNorm2d)


def _small_cnn_gn(data: StageData) -> tuple[nn.Module, int]:
    return _small(data.shape[-1], 16, lambda width: nn.GroupNorm(8, width))


def _small(channels: int, width: int, norm: Callable[[int], nn.Module]) -> tuple[nn.Module, int]:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            norm(outputs),
            nn.ReLU(inplace=True),
        ]

    layers = [
        *block(channels, width),
        *block(width, 2 * width),
        nn.MaxPool2d(2),
        *block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers), 4 * width


def _mlp(data: StageData) -> tuple[nn.Module, int]:
    width = 256
    layers = [
        nn.Linear(data.shape[0], width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers), width


def _linear(data: StageData) -> tuple[nn.Module, int]:
    return nn.Identity(), data.shape[0]


_TRUNKS: Final[dict[str, Callable[[StageData], tuple[nn.Module, int]]]] = {
    "small_cnn": _small_cnn,
    "small_cnn_gn": _small_cnn_gn,
    "resnet18": lambda data: resnet.resnet18(data.shape[-1], max(data.shape[:2])),
    "resnet50": lambda data: resnet.resnet50(data.shape[-1], max(data.shape[:2])),
    "shake_shake_26": lambda data: (ShakeShake(data.shape[-1]), ShakeShake.width),
    "wide_resnet_28_2": lambda data: wide_resnet_28_2(data.shape[-1]),
    "vgg16": lambda data: vgg16(data.shape[-1], *data.shape[:2]),
    "mlp": _mlp,
    "linear": _linear,
}
