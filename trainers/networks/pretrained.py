"""Weights that a trunk starts from, in a file of this machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import nn

from trainers import checkpoint
from trainers.errors import DataError
from trainers.networks.names import weights_digest


def folder() -> Path:
    """Returns where torch keeps the weights that it downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def start_from(trunk: nn.Module, name: str) -> None:
    """Gives a trunk the weights of the file of this name, but for those of a head.

    Raises:
        DataError: there is none, its content is not what the name says, or it is of another
            network.
    """
    path = folder() / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}), and method.weights names it. Put the file"
            " there on every machine that trains, or set TORCH_HOME"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(weights_digest(name)):
        raise DataError(
            f"{path}: its SHA-256 begins with {digest[:8]}, and its name says"
            f" {weights_digest(name)}; download it again, or name it after its content"
        )
    try:
        weights = checkpoint.from_bytes(content, torch.device("cpu"))
        trunk.load_state_dict({k: v for k, v in weights.items() if not k.startswith("fc.")})
    except (ValueError, RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise DataError(
            f"{path}: holds no weights of this network for images of this size ({reason})"
        ) from None
