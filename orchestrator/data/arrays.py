"""The arrays that a data source writes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.labelling.keyed import keyed_uint64

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int32]

SPLITS: Final = ("train", "test")


def create_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    """Creates a .npy file of that shape, mapped for writing, with its disk space already taken.

    Raises:
        OSError: if the disk is too full. Without taking the space first, a full disk would kill the
            process by SIGBUS at some later write.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        )
        file.flush()
        start, size = file.tell(), math.prod(shape) * np.dtype(dtype).itemsize
        if size:
            os.posix_fallocate(file.fileno(), start, size)
    return np.lib.format.open_memmap(path, mode="r+")


def write_array(path: Path, array: Array) -> None:
    """Writes `array` to a .npy file; for arrays that are small enough to be in memory."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def held_out_rows(
    labels: npt.NDArray[np.integer[Any]], count: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Ascending numbers of exactly `count` rows, each class by its share (largest remainder), the
    same on every machine and numpy version.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    shares = sizes * count / len(labels)
    quotas = np.floor(shares).astype(np.int64)
    largest_first = np.argsort(quotas - shares, kind="stable")
    quotas[largest_first[: count - int(quotas.sum())]] += 1
    order = shuffled(len(labels), seed)
    chosen = [order[labels[order] == c][:quota] for c, quota in zip(classes, quotas, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def shuffled(count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """[count] the numbers 0..count-1 in an order that is fixed on every machine and looks
    random.
    """
    return np.argsort(keyed_uint64("order of a data set", np.arange(count), seed), kind="stable")
