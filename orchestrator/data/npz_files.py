"""Reads the arrays of an .npz file: nothing in it is unpickled or evaluated, and no array is made
before its size is known to be that of the bytes stored for it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.storage.user_files import open_regular
from trainers.errors import DataError

Array = npt.NDArray[Any]

EXPECTED: Final = (
    "Expected numpy.savez(FILE, x=features [N, D], y=classes [N]), or y=labels [N, L] of 0 and 1"
    " where a row may have several, optionally with x_test, y_test and class_names"
)

_MAGIC: Final = b"\x93NUMPY"
_LONGEST_HEADER: Final = 10_000
_BLOCK_BYTES: Final = 1 << 25


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What stands before the values of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    """Whether the first axis runs fastest."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def row_blocks(path: Path, name: str) -> Iterator[tuple[int, Array]]:
    """(number of the first row, rows [n, D] as stored) of an array of rows (`x`, `x_test`,
    `scores`, `scores_test`), block by block, so that they need not fit in memory.

    Raises:
        DataError: the rows cannot be read.
    """
    with open_archive(path) as archive, archive.open(f"{name}.npy") as file:
        header = read_header(archive, file, path, name)
        if header.fortran:
            whole = read_values(file, path, name, header)
            yield 0, whole
            return
        count, row_bytes = header.shape[0], header.nbytes // header.shape[0]
        step = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, count, step):
            rows = min(step, count - start)
            yield (
                start,
                read_values(
                    file, path, name, ArrayHeader((rows, *header.shape[1:]), header.dtype, False)
                ),
            )


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with open_regular(path) as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                raise DataError(
                    f"{path}: holds one bare array. Write it with numpy.savez. {EXPECTED}."
                )
            try:
                archive = zipfile.ZipFile(file)
            except Exception:  # what is no archive can fail anywhere in its directory
                raise DataError(
                    f"{path}: not a readable .npz file (it is no archive, or one that was cut"
                    f" short). {EXPECTED}."
                ) from None
            with archive:
                yield archive
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file (features). Set dataset.path to where the data is."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). {EXPECTED}."
        ) from None
    except MemoryError:
        raise DataError(
            f"{path}: its arrays do not fit in this machine's memory. {EXPECTED}."
        ) from None
    except (
        Exception
    ) as error:  # zlib.error, LZMAError and the like: a damaged archive can fail anywhere
        raise DataError(
            f"{path}: damaged: {type(error).__name__}: {error}. Write the file again. {EXPECTED}."
        ) from None


_HEADER: Final = re.compile(
    r"\{(?:\s*+'(?:descr'\s*+:\s*+'(?P<descr>[^'\\]{1,32})'|fortran_order'\s*+:\s*+(?P<fortran>True|False)|shape'\s*+:\s*+\((?P<shape>[0-9L,\s]{0,400})\))"
    r"\s*+(?:,|(?=\})))++\s*+\}\s*+"
)
"""The header that the format prescribes: a dict literal of three keys."""


def read_header(archive: zipfile.ZipFile, file: IO[bytes], path: Path, name: str) -> ArrayHeader:
    """The header of the array, after which `file` stands at its values; they have as many bytes as
    it says.
    """
    start = file.read(8)
    width = (
        {1: 2, 2: 4, 3: 4}.get(start[6]) if len(start) == 8 and start.startswith(_MAGIC) else None
    )
    length = int.from_bytes(file.read(width), "little") if width else 0
    text = file.read(length).decode("latin-1") if 0 < length <= _LONGEST_HEADER else ""
    if re.search(r"'descr'\s*+:\s*+\[", text):
        raise DataError(f"{path}: {name} holds records; expected numbers. {EXPECTED}.")
    found = _HEADER.fullmatch(text)
    if width is None or found is None:
        raise DataError(
            f"{path}: {name} has no header of numpy's. Write the file again. {EXPECTED}."
        )
    if None in (found["descr"], found["fortran"], found["shape"]):
        raise DataError(
            f"{path}: {name} has a header that lacks descr, fortran_order or shape. Write the file"
            f" again. {EXPECTED}."
        )
    dtype = _dtype(path, name, found["descr"])
    shape = tuple(
        int(size.strip().removesuffix("L")) for size in found["shape"].split(",") if size.strip()
    )
    header = ArrayHeader(shape, dtype, found["fortran"] == "True")
    stored = archive.getinfo(f"{name}.npy").file_size - 8 - width - length
    if stored != header.nbytes:
        raise DataError(
            f"{path}: {name} is {dtype} {list(shape)}, which takes {header.nbytes:,} bytes, but"
            f" {stored:,} are stored. Write the file again."
        )
    return header


def _dtype(path: Path, name: str, descr: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(descr)
    except Exception:  # a mangled description can fail anywhere in numpy's parser
        raise DataError(
            f"{path}: {name} holds {descr!r}, which is no type of numpy's. Write the file again."
            f" {EXPECTED}."
        ) from None
    if dtype.hasobject:
        left_out = (
            ", or leave it out: a None is stored so, too"
            if name in ("x_test", "y_test", "class_names")
            else ""
        )
        raise DataError(
            f"{path}: {name} cannot be read without pickle, which could run code. Store plain"
            f" numbers{'' if name in ('x', 'y') else ' or strings'}{left_out}."
        )
    if dtype.fields or dtype.subdtype or not dtype.itemsize:
        raise DataError(
            f"{path}: {name} holds {descr}; expected numbers or, in class_names, strings."
        )
    return dtype


def read_values(file: IO[bytes], path: Path, name: str, header: ArrayHeader) -> Array:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if header.nbytes > memory:
        raise DataError(
            f"{path}: {name} takes {header.nbytes / 1e9:,.1f} GB, more than this machine's memory"
            f" ({memory / 1e9:,.1f} GB)."
        )
    content = file.read(header.nbytes)
    if len(content) != header.nbytes:
        raise DataError(f"{path}: {name} is cut short. Write the file again.")
    return np.frombuffer(content, header.dtype).reshape(
        header.shape, order="F" if header.fortran else "C"
    )


def read_list(
    archive: zipfile.ZipFile, path: Path, name: str, kinds: str, wanted: str, shape: str
) -> Array:
    """The array of one axis, read only if its header says that it is one, of one of the `kinds`."""
    with archive.open(f"{name}.npy") as file:
        header = read_header(archive, file, path, name)
        if header.dtype.kind not in kinds:
            raise DataError(f"{path}: {name} holds {header.dtype}; expected {wanted}.")
        if len(header.shape) != 1 or not header.shape[0]:
            raise DataError(f"{path}: {name} has shape {list(header.shape)}; expected {shape}.")
        return read_values(file, path, name, header)
