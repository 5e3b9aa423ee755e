"""Precomputed feature vectors in one .npz file, written row by row into the cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from annotated_types import MinLen

from orchestrator.data.arrays import Array, create_array, held_out_rows
from orchestrator.data.feature_files import (
    TEST_SHARE,
    ArrayHeader,
    FeatureFile,
    read_feature_file,
    row_blocks,
)
from orchestrator.data.place import existing
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.storage.user_files import check_regular, expand
from search_spaces.reading.config import Contents
from trainers.errors import DataError

CHUNK_ROWS: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One .npz file. Without `x_test` a fixed fifth of every class becomes the test set; rows keep
    their order.
    """

    name: ClassVar[str] = "features"
    form: ClassVar[str] = "file"
    suffix: ClassVar[str] = ".npz"

    path: Annotated[str, MinLen(1)]
    """An .npz file with arrays x [N, D] and y [N], and optionally x_test, y_test and class_names.
    """

    def contents(self) -> Contents:
        read = read_feature_file(expand(self.path, "dataset.path"))
        smallest, items = int(np.bincount(read.y).min()), len(read.y)
        if read.y_test is None:
            # A share of every class is held out, rounded either way.
            test_items = items // TEST_SHARE
            smallest -= -(-smallest // TEST_SHARE)
            items -= test_items
        else:
            test_items = len(read.y_test)
        return Contents(
            kind="features",
            num_classes=len(read.class_names),
            train_items=items,
            test_items=test_items,
            smallest_class=smallest,
            class_names=read.class_names,
        )

    def signature(self) -> str:
        path = existing(self)
        stat = path.stat()
        check_regular(path, stat.st_mode)
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        path = existing(self)
        file = read_feature_file(path)
        _check_space(file, folder)
        y = file.y
        if file.x_test is not None and file.y_test is not None:
            _write_rows(
                path, "x", file.x, {folder / "train.npy": np.ones(len(y), bool)}, on_progress
            )
            _write_rows(
                path,
                "x_test",
                file.x_test,
                {folder / "test.npy": np.ones(len(file.y_test), bool)},
                on_progress,
            )
            return Loaded(
                kind="features",
                labels={"train": y, "test": file.y_test},
                class_names=file.class_names,
            )
        is_test = np.zeros(len(y), bool)
        is_test[held_out_rows(y, len(y) // TEST_SHARE)] = True
        _write_rows(
            path,
            "x",
            file.x,
            {folder / "train.npy": ~is_test, folder / "test.npy": is_test},
            on_progress,
        )
        return Loaded(
            kind="features",
            labels={"train": y[~is_test], "test": y[is_test]},
            class_names=file.class_names,
        )


def _check_space(file: FeatureFile, folder: Path) -> None:
    rows = file.x.shape[0] + (file.x_test.shape[0] if file.x_test else 0)
    needed, free = rows * file.x.shape[1] * 4, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{file.path}: {rows:,} rows of {file.x.shape[1]:,} features take {needed / 1e9:.1f}"
            f" GB; the cache has {free / 1e9:.1f} GB free. Set ORCHESTRATE_CACHE to a folder on a"
            " larger disk."
        )


def _write_rows(
    path: Path, name: str, header: ArrayHeader, targets: dict[Path, Array], on_progress: Progress
) -> None:
    """Writes to each target, as float32, the rows of array `name` where its mask [N] is true, in
    their order.
    """
    rows, features = header.shape
    outs = [
        (create_array(target, (int(mask.sum()), features), np.float32), mask)
        for target, mask in targets.items()
    ]
    filled = [0] * len(outs)
    for first, stored in row_blocks(path, name):
        for start in range(0, len(stored), CHUNK_ROWS):
            part = stored[start : start + CHUNK_ROWS]
            block = _finite(path, name, first + start, part)
            for k, (out, mask) in enumerate(outs):
                chosen = block[mask[first + start : first + start + len(part)]]
                out[filled[k] : filled[k] + len(chosen)] = chosen
                filled[k] += len(chosen)
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
