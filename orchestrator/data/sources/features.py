"""Precomputed feature vectors in one .npz file, written row by row into the cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import MinLen

from orchestrator.data import prior_scores
from orchestrator.data.arrays import Array, Labels, held_out_rows, shuffled
from orchestrator.data.feature_files import (
    TEST_SHARE,
    FeatureFile,
    has_scores,
    read_feature_file,
)
from orchestrator.data.feature_rows import write_rows
from orchestrator.data.place import existing
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.storage.user_files import check_regular, expand
from search_spaces.reading.config import Contents
from trainers.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One .npz file. Without `x_test` a fixed fifth of every class becomes the test set, or of the
    rows where they may have several labels; rows keep their order.
    """

    name: ClassVar[str] = "features"
    form: ClassVar[str] = "file"
    suffix: ClassVar[str] = ".npz"

    path: Annotated[str, MinLen(1)]
    """An .npz file with arrays x [N, D] and y [N], and optionally x_test, y_test and class_names;
    where a row may have several labels y is [N, L], 1 for those that it has and 0 for the others;
    scores [N, C] (and scores_test, where x_test is given) are prior scores of the classes, logits
    or probabilities, by which stage 0 may guess (start.name: prior).
    """

    def contents(self) -> Contents:
        read = read_feature_file(expand(self.path, "dataset.path"))
        several, items = read.y.ndim > 1, len(read.y)
        test_items = items // TEST_SHARE if read.y_test is None else len(read.y_test)
        if read.y_test is None:
            items -= test_items
        if several:
            smallest = items // len(read.class_names)
        else:
            smallest = int(np.bincount(read.y).min())
            if read.y_test is None:
                # A share of every class is held out, rounded either way.
                smallest -= -(-smallest // TEST_SHARE)
        return Contents(
            kind="features",
            num_classes=len(read.class_names),
            train_items=items,
            test_items=test_items,
            smallest_class=smallest,
            class_names=read.class_names,
            several_labels=several,
            prior=read.scores is not None,
        )

    def signature(self) -> str:
        path = existing(self)
        stat = path.stat()
        check_regular(path, stat.st_mode)
        # Earlier versions left scores out of what they decoded.
        scores = " scores" if has_scores(path) else ""
        return f"{stat.st_size} {stat.st_mtime_ns}{scores}"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        path = existing(self)
        file = read_feature_file(path)
        _check_space(file, folder)
        labels, masks = _splits(file)
        # Array of the file -> what the names of its parts in the folder end in.
        arrays = {"x": ""} | ({"scores": "_scores"} if file.scores else {})
        as_logs = file.scores is not None and prior_scores.are_probabilities(path, file)
        for name, ending in arrays.items():
            targets = {folder / f"{split}{ending}.npy": mask for split, mask in masks.items()}
            log = as_logs and name == "scores"
            if file.y_test is None:
                write_rows(path, name, targets, on_progress, log=log)
                continue
            for array, target in zip((name, f"{name}_test"), targets, strict=True):
                write_rows(path, array, {target: targets[target]}, on_progress, log=log)
        return Loaded(kind="features", labels=labels, class_names=file.class_names)


def _splits(file: FeatureFile) -> tuple[dict[str, Labels], dict[str, Array]]:
    """The labels of each split, and which rows of its arrays are its own."""
    y = file.y
    if file.y_test is not None:
        labels = {"train": y, "test": file.y_test}
        return labels, {split: np.ones(len(found), bool) for split, found in labels.items()}
    is_test, count = np.zeros(len(y), bool), len(y) // TEST_SHARE
    is_test[held_out_rows(y, count) if y.ndim == 1 else shuffled(len(y))[:count]] = True
    masks = {"train": ~is_test, "test": is_test}
    return {split: y[mask] for split, mask in masks.items()}, masks


def _check_space(file: FeatureFile, folder: Path) -> None:
    rows = file.x.shape[0] + (file.x_test.shape[0] if file.x_test else 0)
    numbers = file.x.shape[1] + (file.scores.shape[1] if file.scores else 0)
    needed, free = rows * numbers * 4, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{file.path}: {rows:,} rows of {file.x.shape[1]:,} features take {needed / 1e9:.1f}"
            f" GB; the cache has {free / 1e9:.1f} GB free. Set ORCHESTRATE_CACHE to a folder on a"
            " larger disk."
        )
