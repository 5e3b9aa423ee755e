"""Names of the backbones, by the kind of data that they take. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

ImageBackbone = Literal[
    "small_cnn",
    "small_cnn_gn",
    "resnet18",
    "resnet50",
    "shake_shake_26",
    "wide_resnet_28_2",
    "vgg16",
]
FeatureBackbone = Literal["mlp", "linear"]

BACKBONES: Final[Mapping[str, tuple[str, ...]]] = {
    "images": get_args(ImageBackbone),
    "features": get_args(FeatureBackbone),
}
"""Kind of data -> backbones for it; `auto` picks one of them."""
