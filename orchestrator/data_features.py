"""Precomputed feature vectors in one .npz file: `x` [N, D], `y` [N], and optionally `x_test`, `y_test`, `class_names`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from orchestrator.data_arrays import Array, Labels, Loaded, Progress, create_array, held_out_rows
from trainers.errors import DataError

EXPECTED: Final = "Expected numpy.savez(FILE, x=features [N, D], y=classes [N]), optionally with x_test, y_test and class_names"

ARRAYS: Final[tuple[str, ...]] = ("x", "y", "x_test", "y_test", "class_names")

CHUNK_ROWS: Final = 8192


@dataclass(frozen=True, slots=True)
class Features:
    """One .npz file. Without `x_test` a fixed fifth of every class becomes the test set; rows keep their order."""

    path: Path

    def signature(self) -> str:
        stat = self.path.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        arrays = _read(self.path)
        x, y = _features(self.path, arrays, "x"), _classes(self.path, arrays, "y")
        names = _class_names(self.path, arrays, y)
        _check_classes(self.path, y, names)
        _same_length(self.path, x, y, "x", "y")
        if ("x_test" in arrays) != ("y_test" in arrays):
            raise DataError(f"{self.path}: x_test and y_test belong together, and only one of them is there. {EXPECTED}.")
        if "x_test" in arrays:
            x_test, y_test = self._test(arrays, x, names)
            _write_rows(self.path, "x", x, np.arange(len(x)), folder / "train.npy", on_progress)
            _write_rows(self.path, "x_test", x_test, np.arange(len(x_test)), folder / "test.npy", on_progress)
            return Loaded(kind="features", labels={"train": y, "test": y_test}, class_names=names)
        is_test = self._held_out(y, names)
        _write_rows(self.path, "x", x, np.flatnonzero(~is_test), folder / "train.npy", on_progress)
        _write_rows(self.path, "x", x, np.flatnonzero(is_test), folder / "test.npy", on_progress)
        return Loaded(kind="features", labels={"train": y[~is_test], "test": y[is_test]}, class_names=names)

    def _test(self, arrays: dict[str, Array], x: Array, names: tuple[str, ...]) -> tuple[Array, Labels]:
        x_test, y_test = _features(self.path, arrays, "x_test"), _classes(self.path, arrays, "y_test")
        _same_length(self.path, x_test, y_test, "x_test", "y_test")
        if x_test.shape[1] != x.shape[1]:
            raise DataError(f"{self.path}: x has {x.shape[1]} features a row and x_test {x_test.shape[1]}; both must come from the same model.")
        if y_test.max() >= len(names):
            row = int(np.argmax(y_test >= len(names)))
            raise DataError(f"{self.path}: y_test[{row}] is {y_test[row]}, but the classes are 0..{len(names) - 1}.")
        return x_test, y_test

    def _held_out(self, y: Labels, names: tuple[str, ...]) -> Array:
        counts = np.bincount(y, minlength=len(names))
        if counts.min() < 2 or len(y) < 5:
            few = int(counts.argmin())
            raise DataError(
                f"{self.path}: class {few} ({names[few]}) has {counts[few]} of {len(y)} rows, too few to hold some out as test set. "
                "Add rows, or give x_test and y_test."
            )
        is_test = np.zeros(len(y), bool)
        is_test[held_out_rows(y, len(y) // 5)] = True
        return is_test


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: holds one bare array. {EXPECTED}.")
            arrays: dict[str, Array] = {}
            for name in ARRAYS:
                if name in found.files:
                    try:
                        arrays[name] = found[name]
                    except ValueError:
                        raise DataError(f"{path}: {name} cannot be read without pickle, which could run code. Store plain numbers or strings.") from None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        # numpy takes whatever it does not know for a pickle, and advises to load it unsafely.
        reason = "it is neither an archive nor an array of numpy's" if "pickle" in str(error) else error
        raise DataError(f"{path}: not a readable .npz file ({reason}). {EXPECTED}.") from None
    except Exception as error:  # zlib.error and the like: a damaged archive can fail anywhere
        raise DataError(f"{path}: damaged: {type(error).__name__}: {error}. Write the file again. {EXPECTED}.") from None
    for name in ("x", "y"):
        if name not in arrays:
            raise DataError(f"{path}: has no array {name}. {EXPECTED}.")
    return arrays


def _features(path: Path, arrays: dict[str, Array], name: str) -> Array:
    x = arrays[name]
    if x.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} holds {x.dtype}; expected numbers.")
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(f"{path}: {name} has shape {list(x.shape)}; expected [N, D], one row an item.")
    return x


def _classes(path: Path, arrays: dict[str, Array], name: str) -> Labels:
    y = arrays[name]
    if y.dtype.kind not in "iu":
        raise DataError(f"{path}: {name} holds {y.dtype}; expected whole class numbers 0..C-1, for example y.astype('int64').")
    if y.ndim != 1 or not len(y):
        raise DataError(f"{path}: {name} has shape {list(y.shape)}; expected [N], one class a row.")
    if y.min() < 0:
        row = int(np.argmax(y < 0))
        raise DataError(f"{path}: {name}[{row}] is {y[row]}; expected class numbers 0..C-1, and every row needs its class.")
    if y.max() >= 2**31:
        row = int(np.argmax(y >= 2**31))
        raise DataError(f"{path}: {name}[{row}] is {y[row]}; expected class numbers 0..C-1.")
    return y.astype(np.int32)


def _class_names(path: Path, arrays: dict[str, Array], y: Labels) -> tuple[str, ...]:
    if "class_names" not in arrays:
        # A stray huge number must not become a list of as many names: it is found to leave gaps first.
        if y.max() >= len(y):
            row = int(y.argmax())
            raise DataError(f"{path}: y[{row}] is {y[row]}, but {len(y)} rows cannot hold so many classes. Expected class numbers 0..C-1, each with a row.")
        return tuple(str(c) for c in range(int(y.max()) + 1))
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{path}: class_names holds {names.dtype} {list(names.shape)}; expected [C] strings.")
    if y.max() >= len(names):
        row = int(y.argmax())
        raise DataError(f"{path}: y[{row}] is {y[row]}, but class_names has {len(names)} entries: classes are 0..{len(names) - 1}.")
    return tuple(str(name) for name in names)


def _check_classes(path: Path, y: Labels, names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DataError(f"{path}: y has one class only; there is nothing to ask. {EXPECTED}.")
    empty = np.flatnonzero(np.bincount(y, minlength=len(names)) == 0)
    if len(empty):
        hint = " If your classes start at 1, subtract 1." if list(empty) == [0] else ""
        raise DataError(f"{path}: no row of y has class {empty[0]} ({names[empty[0]]}); each of the {len(names)} classes 0..{len(names) - 1} needs some.{hint}")


def _same_length(path: Path, x: Array, y: Labels, x_name: str, y_name: str) -> None:
    if len(x) != len(y):
        raise DataError(f"{path}: {x_name} has {len(x)} rows and {y_name} {len(y)}; each row needs exactly one class.")


def _write_rows(path: Path, name: str, x: Array, rows: Array, target: Path, on_progress: Progress) -> None:
    out = create_array(target, (len(rows), x.shape[1]), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        chosen = rows[start : start + CHUNK_ROWS]
        with np.errstate(over="ignore"):
            block: np.ndarray[Any, np.dtype[np.float32]] = x[chosen].astype(np.float32)
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = (int(k) for k in np.argwhere(bad)[0])
            raise DataError(f"{path}: {name}[{chosen[row]}, {column}] is {x[chosen[row], column]}; every feature must be a finite float32.")
        out[start : start + len(chosen)] = block
        on_progress(start + len(chosen), len(rows))
