"""Precomputed feature vectors in one .npz file, written row by row into the cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from orchestrator.data.arrays import Array, Loaded, Progress, create_array, held_out_rows
from search_spaces.reading.feature_files import (
    TEST_SHARE,
    ArrayHeader,
    FeatureFile,
    read_feature_file,
    row_blocks,
)
from search_spaces.reading.user_files import check_regular
from trainers.errors import DataError

CHUNK_ROWS: Final = 8192


@dataclass(frozen=True, slots=True)
class Features:
    """One .npz file. Without `x_test` a fixed fifth of every class becomes the test set; rows keep
    their order.
    """

    path: Path

    def signature(self) -> str:
        stat = self.path.stat()
        check_regular(self.path, stat.st_mode)
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        found = read_feature_file(self.path)
        _check_space(found, folder)
        y = found.y
        if found.x_test is not None and found.y_test is not None:
            _write_rows(
                self.path, "x", found.x, {folder / "train.npy": np.ones(len(y), bool)}, on_progress
            )
            _write_rows(
                self.path,
                "x_test",
                found.x_test,
                {folder / "test.npy": np.ones(len(found.y_test), bool)},
                on_progress,
            )
            return Loaded(
                kind="features",
                labels={"train": y, "test": found.y_test},
                class_names=found.class_names,
            )
        is_test = np.zeros(len(y), bool)
        is_test[held_out_rows(y, len(y) // TEST_SHARE)] = True
        _write_rows(
            self.path,
            "x",
            found.x,
            {folder / "train.npy": ~is_test, folder / "test.npy": is_test},
            on_progress,
        )
        return Loaded(
            kind="features",
            labels={"train": y[~is_test], "test": y[is_test]},
            class_names=found.class_names,
        )


def _check_space(found: FeatureFile, folder: Path) -> None:
    rows = found.x.shape[0] + (found.x_test.shape[0] if found.x_test else 0)
    needed, free = rows * found.x.shape[1] * 4, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{found.path}: {rows:,} rows of {found.x.shape[1]:,} features take {needed / 1e9:.1f}"
            f" GB; the cache has {free / 1e9:.1f} GB free. Set ORCHESTRATE_CACHE to a folder on a"
            " larger disk."
        )


def _write_rows(
    path: Path, name: str, header: ArrayHeader, targets: dict[Path, Array], on_progress: Progress
) -> None:
    """Each target holds, as float32, the rows of array `name` where its mask [N] is true, in their
    order.
    """
    rows, features = header.shape
    outs = [
        (create_array(target, (int(mask.sum()), features), np.float32), mask)
        for target, mask in targets.items()
    ]
    written = [0] * len(outs)
    for first, stored in row_blocks(path, name):
        for start in range(0, len(stored), CHUNK_ROWS):
            part = stored[start : start + CHUNK_ROWS]
            block = _finite(path, name, first + start, part)
            for k, (out, mask) in enumerate(outs):
                chosen = block[mask[first + start : first + start + len(part)]]
                out[written[k] : written[k] + len(chosen)] = chosen
                written[k] += len(chosen)
            on_progress(first + start + len(part), rows)


def _finite(
    path: Path, name: str, first: int, part: Array
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The rows as float32, all of them finite."""
    with np.errstate(over="ignore"):
        block: np.ndarray[Any, np.dtype[np.float32]] = part.astype(np.float32)
    bad = ~np.isfinite(block)
    if bad.any():
        row, column = (int(k) for k in np.argwhere(bad)[0])
        raise DataError(
            f"{path}: {name}[{first + row}, {column}] is {part[row, column]}; every feature must be"
            " a finite float32."
        )
    return block
