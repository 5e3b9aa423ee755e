"""Labels of items that may have several: a matrix `y` [N, L] of 0 and 1 in an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.data.arrays import Labels
from orchestrator.data.npz_files import read_header, read_list, read_values
from trainers.errors import DataError

_EXPECTED: Final = "1 where the row has the category, else 0"


def is_matrix(archive: zipfile.ZipFile, path: Path, name: str) -> bool:
    """Returns whether an array of the file has a column a category; reads its header alone. One
    column is no matrix: it is a list of classes that was not made flat.
    """
    with archive.open(f"{name}.npy") as file:
        shape = read_header(archive, file, path, name).shape
    return len(shape) == 2 and shape[1] != 1


def read_matrix(archive: zipfile.ZipFile, path: Path, name: str) -> Labels:
    """Returns the labels of every row, [N, L] 0 or 1.

    Raises:
        DataError: it is no such array, or holds another number; names the row and the column.
    """
    with archive.open(f"{name}.npy") as file:
        header = read_header(archive, file, path, name)
        if header.dtype.kind not in "iub":
            raise DataError(
                f"{path}: {name} holds {header.dtype} {list(header.shape)}; a matrix of labels is"
                f" of whole numbers, {_EXPECTED}: {name}.astype('uint8')."
            )
        if len(header.shape) != 2 or not header.shape[0]:
            raise DataError(
                f"{path}: {name} has shape {list(header.shape)}; expected [N, L] as y has, a row an"
                " item and a column a category."
            )
        values = read_values(file, path, name, header)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        row, column = (int(k) for k in np.argwhere(wrong)[0])
        raise DataError(
            f"{path}: {name}[{row}, {column}] is {values[row, column]}; expected {_EXPECTED}"
            f" ({int(wrong.sum()):,} such numbers). What is unknown has no place in it: the budget"
            " buys what may be known."
        )
    return np.ascontiguousarray(values).astype(np.int32)


def category_names(archive: zipfile.ZipFile, path: Path, y: Labels) -> tuple[str, ...]:
    """Returns the names that the file gives, or else the numbers of the columns.

    Raises:
        DataError: there are not as many as columns, or some column is empty.
    """
    count = y.shape[1]
    names = tuple(str(c) for c in range(count))
    if "class_names.npy" in archive.namelist():
        given = read_list(archive, path, "class_names", "U", "strings", "[L], one a column of y")
        names = tuple(str(name) for name in given)
    if len(names) != count:
        raise DataError(
            f"{path}: y has {count} columns, but class_names has {len(names)} entries; each"
            " category needs its name."
        )
    empty = np.flatnonzero(~y.any(axis=0))
    if empty.size:
        raise DataError(
            f"{path}: no row of y has category {empty[0]} ({names[empty[0]]}); leave the column out"
            f" ({empty.size} of {count} are empty)."
        )
    return names


def check_test_matrix(path: Path, y: Labels, y_test: Labels) -> None:
    """Checks that both have the same categories."""
    if y_test.shape[1:] != y.shape[1:]:
        raise DataError(
            f"{path}: y has {y.shape[1]} columns and y_test {y_test.shape[1]}; both have a column"
            " for each category, in one order."
        )
