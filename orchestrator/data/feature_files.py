"""Reads one .npz file of feature vectors: `x` [N, D], `y` [N] classes or [N, L] of 0 and 1 where a
row may have several, and optionally `x_test`, `y_test`, `class_names`, and prior scores of the
classes `scores` [N, C], `scores_test` [T, C].

The one reader of such files: what `plan` accepts, `data prepare` accepts, but for the values of the
vectors, which only the latter reads. Nothing in a file is unpickled or evaluated, and no array is
made before its size is known to be that of the bytes stored for it.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.data.label_matrices import (
    category_names,
    check_test_matrix,
    is_matrix,
    read_matrix,
)
from orchestrator.data.npz_files import (
    EXPECTED,
    ArrayHeader,
    open_archive,
    read_header,
    read_list,
)
from trainers.errors import DataError

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int32]

TEST_SHARE: Final = 5
"""Without x_test, one of so many rows is held out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureFile:
    """A file in which all is checked but the values of the vectors."""

    path: Path
    x: ArrayHeader
    y: Labels
    """[N] classes 0..C-1, each with a row; or [N, L] 1 for those that a row has, else 0."""
    class_names: tuple[str, ...]
    x_test: ArrayHeader | None
    """None: a fifth of every class is held out of x, or of the rows where they may have several."""
    y_test: Labels | None
    scores: ArrayHeader | None = None
    """Logits or probabilities of every class for each row of x; None: there are none."""
    scores_test: ArrayHeader | None = None
    """The same of x_test."""


def read_feature_file(path: Path) -> FeatureFile:
    """Opens the file and checks all but the values of x, x_test, scores and scores_test.

    Raises:
        DataError: it is not what it should be; names the file, the array and the row.
    """
    with open_archive(path) as archive:
        stored = set(archive.namelist())
        for name in ("x", "y"):
            if f"{name}.npy" not in stored:
                raise DataError(f"{path}: has no array {name}. {EXPECTED}.")
        if ("x_test.npy" in stored) != ("y_test.npy" in stored):
            raise DataError(
                f"{path}: x_test and y_test belong together, and only one of them is there."
                f" {EXPECTED}."
            )
        several = is_matrix(archive, path, "y")
        read = read_matrix if several else _classes
        x, y = _vectors(archive, path, "x"), read(archive, path, "y")
        _same_length(path, x, y, "x", "y")
        if several:
            names = category_names(archive, path, y)
        else:
            names = _class_names(archive, path, y, given="class_names.npy" in stored)
            _check_classes(path, y, names)
        if "x_test.npy" not in stored:
            _check_share(path, y, names)
            scores, _ = _prior(archive, path, (len(y), None), len(names))
            return FeatureFile(
                path=path, x=x, y=y, class_names=names, x_test=None, y_test=None, scores=scores
            )
        x_test, y_test = _vectors(archive, path, "x_test"), read(archive, path, "y_test")
        scores, scores_test = _prior(archive, path, (len(y), len(y_test)), len(names))
    _same_length(path, x_test, y_test, "x_test", "y_test")
    if x_test.shape[1] != x.shape[1]:
        raise DataError(
            f"{path}: x has {x.shape[1]} features a row and x_test {x_test.shape[1]}; both must"
            " come from the same model."
        )
    if several:
        check_test_matrix(path, y, y_test)
    elif y_test.max() >= len(names):
        row = int(np.argmax(y_test >= len(names)))
        raise DataError(
            f"{path}: y_test[{row}] is {y_test[row]}, but the classes are 0..{len(names) - 1}."
        )
    return FeatureFile(
        path=path,
        x=x,
        y=y,
        class_names=names,
        x_test=x_test,
        y_test=y_test,
        scores=scores,
        scores_test=scores_test,
    )


def has_scores(path: Path) -> bool:
    """Returns whether the file has prior scores; False too where it cannot be read."""
    try:
        with open_archive(path) as archive:
            return "scores.npy" in archive.namelist()
    except DataError:
        return False


def _vectors(archive: zipfile.ZipFile, path: Path, name: str) -> ArrayHeader:
    with archive.open(f"{name}.npy") as file:
        header = read_header(archive, file, path, name)
    if header.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} holds {header.dtype}; expected numbers.")
    if len(header.shape) != 2 or 0 in header.shape:
        form = "[N, C]" if name.startswith("scores") else "[N, D]"
        raise DataError(
            f"{path}: {name} has shape {list(header.shape)}; expected {form}, one row an item."
        )
    return header


def _prior(
    archive: zipfile.ZipFile, path: Path, rows: tuple[int, int | None], num_classes: int
) -> tuple[ArrayHeader | None, ArrayHeader | None]:
    """The headers of `scores` and `scores_test`, where the file has them.

    Args:
        rows: of x and of x_test.
    """
    stored = set(archive.namelist())
    found: list[ArrayHeader | None] = []
    for name, of, count in zip(("scores", "scores_test"), ("x", "x_test"), rows, strict=True):
        if f"{name}.npy" not in stored:
            found.append(None)
            continue
        if count is None:
            raise DataError(f"{path}: has scores_test and no x_test. Give both, or neither.")
        header = _vectors(archive, path, name)
        if header.shape != (count, num_classes):
            raise DataError(
                f"{path}: {name} has shape {list(header.shape)}; expected {[count, num_classes]}, a"
                f" row for each of {of} and a column for each of the {num_classes} classes."
            )
        found.append(header)
    scores, scores_test = found
    if (scores is None) != (scores_test is None) and rows[1] is not None:
        lacking, given = ("scores_test", "scores") if scores else ("scores", "scores_test")
        raise DataError(
            f"{path}: has {given} but no {lacking}; guesses by prior scores need those of x and of"
            " x_test. Give both, or neither."
        )
    return scores, scores_test


def _classes(archive: zipfile.ZipFile, path: Path, name: str) -> Labels:
    y = read_list(
        archive,
        path,
        name,
        "iu",
        "whole class numbers 0..C-1: of numbers y.astype('int64'), of names"
        " numpy.unique(y, return_inverse=True)[1]",
        "[N], one class a row, or [N, L] with L of at least 2, several labels a row",
    )
    if y.min() < 0:
        row = int(np.argmax(y < 0))
        raise DataError(
            f"{path}: {name}[{row}] is {y[row]}; expected class numbers 0..C-1, and every row needs"
            " its class."
        )
    if y.max() >= 2**31:
        row = int(np.argmax(y >= 2**31))
        raise DataError(f"{path}: {name}[{row}] is {y[row]}; expected class numbers 0..C-1.")
    return y.astype(np.int32)


def _class_names(
    archive: zipfile.ZipFile, path: Path, y: Labels, *, given: bool
) -> tuple[str, ...]:
    if not given:
        # A stray huge number must not become a list of as many names: it is found to leave gaps
        # first.
        if y.max() >= len(y):
            row = int(y.argmax())
            raise DataError(
                f"{path}: y[{row}] is {y[row]}, but {len(y)} rows cannot hold so many classes."
                " Expected class numbers 0..C-1, each with a row."
            )
        return tuple(str(c) for c in range(int(y.max()) + 1))
    names = read_list(archive, path, "class_names", "U", "strings", "[C], one a class")
    if y.max() >= len(names):
        row = int(y.argmax())
        raise DataError(
            f"{path}: y[{row}] is {y[row]}, but class_names has {len(names)} entries: classes are"
            f" 0..{len(names) - 1}."
        )
    return tuple(str(name) for name in names)


def _check_classes(path: Path, y: Labels, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DataError(f"{path}: y has one class only; there is nothing to ask. {EXPECTED}.")
    empty = np.flatnonzero(np.bincount(y, minlength=len(names)) == 0)
    if len(empty):
        hint = (
            " If your classes start at 1, subtract 1."
            if list(empty) == [0]
            else " numpy.unique(y, return_inverse=True)[1] numbers the classes that there are."
        )
        raise DataError(
            f"{path}: no row of y has class {empty[0]} ({names[empty[0]]}); each of the"
            f" {len(names)} classes 0..{len(names) - 1} needs some.{hint}"
        )


def _check_share(path: Path, y: Labels, names: tuple[str, ...]) -> None:
    """A test set can be held out of the rows."""
    if y.ndim > 1:
        if len(y) < TEST_SHARE:
            raise DataError(
                f"{path}: has {len(y)} rows, too few to hold some out as test set. Add rows, or"
                " give x_test and y_test."
            )
        return
    counts = np.bincount(y, minlength=len(names))
    if counts.min() < 2 or len(y) < TEST_SHARE:
        few = int(counts.argmin())
        raise DataError(
            f"{path}: class {few} ({names[few]}) has {counts[few]} of {len(y)} rows, too few to"
            " hold some out as test set. Add rows, or give x_test and y_test."
        )


def _same_length(path: Path, x: ArrayHeader, y: Labels, x_name: str, y_name: str) -> None:
    if x.shape[0] != len(y):
        raise DataError(
            f"{path}: {x_name} has {x.shape[0]} rows and {y_name} {len(y)}; each row needs"
            f" {'exactly one class' if y.ndim == 1 else 'its labels'}."
        )
