"""Writes rows of a features file into the cache, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from orchestrator.data.arrays import Array, create_array
from orchestrator.data.npz_files import row_blocks
from orchestrator.data.protocols import Progress
from trainers.errors import DataError

CHUNK_ROWS: Final = 8192


def write_rows(
    path: Path, name: str, targets: dict[Path, Array], on_progress: Progress, *, log: bool = False
) -> None:
    """Writes to each target, as float32, the rows of array `name` where its mask [N] is true, in
    their order.

    Args:
        log: the logarithms of the numbers, which are probabilities; that of 0 is that of the
            smallest number.

    Raises:
        DataError: a number is not finite; names the row and the column.
    """
    outs: list[tuple[Array, Array]] = []
    filled = [0] * len(targets)
    for first, stored in row_blocks(path, name):
        if not outs:
            outs = [
                (create_array(target, (int(mask.sum()), stored.shape[1]), np.float32), mask)
                for target, mask in targets.items()
            ]
        for start in range(0, len(stored), CHUNK_ROWS):
            part = stored[start : start + CHUNK_ROWS]
            block = finite(path, name, first + start, part)
            if log:
                block = np.log(np.maximum(block, np.finfo(np.float32).tiny))
            for k, (out, mask) in enumerate(outs):
                chosen = block[mask[first + start : first + start + len(part)]]
                out[filled[k] : filled[k] + len(chosen)] = chosen
                filled[k] += len(chosen)
            on_progress(first + start + len(part), len(outs[0][1]))


def finite(path: Path, name: str, first: int, part: Array) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns the rows as float32, all of them finite.

    Args:
        first: number of the first of these rows.

    Raises:
        DataError: one is not; names the row and the column.
    """
    with np.errstate(over="ignore"):
        block: np.ndarray[Any, np.dtype[np.float32]] = part.astype(np.float32)
    bad = ~np.isfinite(block)
    if bad.any():
        row, column = (int(k) for k in np.argwhere(bad)[0])
        what = "score" if name.startswith("scores") else "feature"
        raise DataError(
            f"{path}: {name}[{first + row}, {column}] is {part[row, column]}; every {what} must be"
            " a finite float32."
        )
    return block
