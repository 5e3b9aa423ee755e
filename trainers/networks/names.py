"""Names of the backbones, by the kind of data that they take. Loads no torch."""

from __future__ import annotations

import re
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

PUBLISHED: Final = ("resnet18", "resnet50")
"""Backbones whose trunk may start from weights that torchvision publishes. It is theirs for colour
images of more than 64 pixels.
"""

_WEIGHTS_FILE: Final = re.compile(r"([a-z0-9_]+)-([0-9a-f]{8})\.pth")


def weights_problem(name: str, backbone: str) -> str | None:
    """Says why a backbone cannot start from the weights in a file of this name; None: it can."""
    match = _WEIGHTS_FILE.fullmatch(name)
    if match is None:
        return "is no name that ends with eight digits of a SHA-256, as resnet50-0676ba61.pth does"
    if match[1] != backbone or backbone not in PUBLISHED:
        return f"holds weights of {match[1]}, and the backbone is {backbone}"
    return None


def weights_digest(name: str) -> str:
    """Returns the first digits of the SHA-256 of a weights file, from its name."""
    match = _WEIGHTS_FILE.fullmatch(name)
    return match[2] if match else ""
