"""The files of a trained stage, as those read them who come after: whole and as they were
committed, or not at all.

Imports numpy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainers.errors import UserError

SCORES: Final = "scores"
"""First part of the role of each score array's file: `scores/guess`. Alone it is the role of the
one file that held all of them in earlier sweeps.
"""


class StageDamaged(UserError):
    """A committed artefact is missing or is not what was committed."""


@dataclass(frozen=True, slots=True)
class StageFile:
    """A committed file. Who reads it compares its bytes with `sha256`: a file that was changed or
    cut off is refused, wherever a store keeps it or a copy of it.
    """

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class StageFiles:
    """The committed files of a stage: role -> file."""

    files: Mapping[str, StageFile]

    def path(self, role: str) -> Path:
        """Returns where the file of a role is, whether or not it is whole."""
        return self._file(role).path

    def read(self, role: str) -> bytes:
        """Returns the content of the file of a role.

        Raises:
            StageDamaged: there is none, or it is not what was committed.
        """
        file = self._file(role)
        try:
            content = file.path.read_bytes()
        except OSError:
            raise _damaged(file) from None
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise _damaged(file)
        return content

    def scores(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns the score arrays by name. Each is read and checked when it is asked for."""
        return _Scores(self.files)

    def _file(self, role: str) -> StageFile:
        try:
            return self.files[role]
        except KeyError:
            folder = next(iter(self.files.values())).path.parent if self.files else "it"
            raise StageDamaged(
                f"{folder}: holds no file {role!r} of its stage, which the next one reads. Remove"
                " the folder to train this stage again."
            ) from None


class _Scores(Mapping[str, npt.NDArray[Any]]):
    """Score arrays, memory-mapped."""

    def __init__(self, files: Mapping[str, StageFile]) -> None:
        # Files are looked up when they are read: until then they may be on another machine.
        self._files = files
        self._roles = {
            role.removeprefix(f"{SCORES}/"): role for role in files if role.startswith(f"{SCORES}/")
        }
        self._together = SCORES in files
        self._read: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._read and name in self._roles:
            self._read[name] = _array(self._files[self._roles[name]])
        elif name not in self._read:
            self._read_together()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        self._read_together()
        return iter(dict.fromkeys([*self._roles, *self._read]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._roles or name in list(iter(self))

    def _read_together(self) -> None:
        if self._together:
            self._read = _arrays(self._files[SCORES]) | self._read
            self._together = False


def sha256_of(path: Path) -> str:
    """Returns the hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(file: StageFile) -> Path:
    """Returns the path of a file that is what was committed."""
    if not file.path.is_file() or sha256_of(file.path) != file.sha256:
        raise _damaged(file)
    return file.path


def _array(file: StageFile) -> npt.NDArray[Any]:
    return np.asarray(np.load(_whole(file), mmap_mode="r", allow_pickle=False))


def _arrays(file: StageFile) -> dict[str, npt.NDArray[Any]]:
    with np.load(_whole(file), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _damaged(file: StageFile) -> StageDamaged:
    return StageDamaged(
        f"{file.path}: missing or damaged (its SHA-256 is not the committed {file.sha256[:12]}...)."
        f" Remove the folder {file.path.parent} to train this stage again."
    )
