"""Randomness without a stream: a number depends on its key alone, so order, restarts and other
draws change nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keyed_uint64(purpose: str, *parts: int | npt.NDArray[np.integer]) -> Keys:
    """One uniform 64-bit number for each combination of parts, which broadcast; different purposes
    are independent.

    Source: the finaliser of SplitMix64 (Steele, Lea & Flood 2014), chained over the parts.
    """
    start = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    key = np.array([start], dtype=np.uint64)
    for part in parts:
        # An integer may be negative or wide: taken modulo 2^64.
        value = (
            np.array([part % 2**64], dtype=np.uint64)
            if isinstance(part, int)
            else np.atleast_1d(part).astype(np.int64).view(np.uint64)
        )
        key = _mix(key ^ _mix(value + _GOLDEN))
    return key


def keyed_uniform(purpose: str, *parts: int | npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """The same as a number in [0, 1), with 53 random bits."""
    return (keyed_uint64(purpose, *parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: Keys) -> Keys:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
