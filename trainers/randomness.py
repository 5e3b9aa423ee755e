"""Random numbers that are a function of what they are for, so that no order of work, number of
processes or restart changes them.

The counter-based generator is the finaliser of SplitMix64 (Steele, Lea & Flood 2014, "Fast
splittable pseudorandom number generators"), in int64 arithmetic that wraps: the same bits on every
device.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainers.stage import Ids


def _signed(x: int) -> int:
    x &= 0xFFFF_FFFF_FFFF_FFFF
    return x - (1 << 64) if x >> 63 else x


_GOLDEN: Final = _signed(0x9E37_79B9_7F4A_7C15)
_FIRST: Final = _signed(0xBF58_476D_1CE4_E5B9)
_SECOND: Final = _signed(0x94D0_49BB_1331_11EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # int64 has the arithmetic shift only; the mask drops the copies of the sign.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def key(*words: int) -> int:
    """An int64 that is a function of the words and of their order."""
    state = torch.zeros((), dtype=torch.int64)
    for word in words:
        state = _mix((state ^ _signed(word)) + _GOLDEN)
    return int(state)


def draws(stream: int, ids: Tensor, visits: Tensor, count: int) -> Tensor:
    """64 random bits for each (stream, id, visit, 0..count-1): int64 [n, count], on the device of
    `ids`, the same in any batch.

    Args:
        ids: int64 [n].
        visits: int64 [n], tells apart several uses of one id.
    """
    state = _mix(ids * _GOLDEN + stream)
    state = _mix(state ^ (visits + 1) * _SECOND)
    counter = torch.arange(1, count + 1, device=ids.device, dtype=torch.int64)
    return _mix(state[:, None] + counter * _GOLDEN)


def integers(bits: Tensor, bound: int | Tensor) -> Tensor:
    """Uniform integers in [0, bound) from random bits, elementwise; bound (int64 if a tensor) is
    far below 2**31.
    """
    return _shift_right(bits, 33) % bound


def uniforms(bits: Tensor) -> Tensor:
    """Uniform float32 values in [0, 1) from random bits, elementwise."""
    return _shift_right(bits, 40).float() * (1.0 / (1 << 24))


def normals(bits: Tensor) -> Tensor:
    """Standard normal float32 values from random bits, elementwise (Box & Muller 1958: one value
    from two 24-bit halves).
    """
    scale = 1.0 / (1 << 24)
    radius = (_shift_right(bits, 40).float() + 0.5) * scale
    angle = ((_shift_right(bits, 16) & 0xFF_FFFF).float() + 0.5) * scale
    return torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * torch.pi * angle)


def shuffled(ids: Ids, stream: int) -> Ids:
    """The ids in an order keyed by (stream, id): leaving some out does not change the order of the
    others.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(ids))
    rank = draws(stream, tensor, torch.zeros_like(tensor), 1)[:, 0].numpy()
    order: Ids = ids[np.lexsort((ids, rank))]
    return order
