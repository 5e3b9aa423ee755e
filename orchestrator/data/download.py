"""Raw data that lies in S3: a tar or the objects below a prefix for a folder, one object for a
file. It is brought to this machine once and is a local folder or file from then on.

A copy lies in $ORCHESTRATE_CACHE/remote under a name that is made of the listing, so that an object
that was exchanged is another copy; it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from orchestrator.data.cache import building
from orchestrator.data.unpack import unpack
from orchestrator.storage.files import StorageError, StorageLost, advice
from orchestrator.storage.s3_objects import S3Object, S3Objects
from orchestrator.storage.user_files import cache_root
from trainers.errors import DataError

REMOTE: Final = "remote"
"""Below which name of the cache the copies lie."""
TAR: Final = ".tar"
_LONGEST_NAME: Final = 255
"""Bytes of a file's name that every file system takes."""

Kind = Literal["file", "tar", "folder"]


@dataclass(frozen=True, slots=True)
class Remote:
    """Data in S3 as its listing says it is."""

    objects: S3Objects
    items: tuple[S3Object, ...]
    kind: Kind

    @property
    def address(self) -> str:
        return self.objects.address

    @property
    def signature(self) -> str:
        """Another one whenever the listing is."""
        said: list[Any] = [self.objects.endpoint, self.address, self.kind]
        said += [[item.key, item.size, item.tag] for item in self.items]
        return f"s3 {hashlib.sha256(json.dumps(said).encode()).hexdigest()}"

    def bring(self) -> Path:
        """Returns the folder or file of this machine that holds the data, fetched where it is not
        here. One process of a machine fetches while the others wait.

        Raises:
            DataError: it is not what was listed, is no archive that can be read, or does not fit.
            StorageError: it cannot be read.
        """
        name = self.signature.partition(" ")[2][:32]
        target = cache_root() / REMOTE / name
        with _said(target):
            if not target.is_dir():
                with building(cache_root(), f"{REMOTE}_{name}") as built:
                    # Another process may have brought it while this one waited.
                    if not target.is_dir():
                        self._fetch(built / "data", target)
        return self._root(target)

    def _fetch(self, folder: Path, target: Path) -> None:
        folder.mkdir()
        self._check_space(folder)
        size = sum(item.size for item in self.items)
        print(
            f"{self.address}: bringing {len(self.items):,} object(s), {size / 1e6:,.1f} MB, to"
            f" {target}",
            file=sys.stderr,
        )
        if self.kind == "tar":
            unpack(self.objects.open(self.items[0]), self.address, folder)
        else:
            self.objects.save(self._files(folder))
        # Before it is seen: a power cut must not leave a copy with holes.
        os.sync()
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)

    def _files(self, folder: Path) -> Sequence[tuple[S3Object, Path]]:
        """Returns where each object is written; makes the folders."""
        if self.kind == "file":
            return [(self.items[0], folder / _file_name(self.items[0].key))]
        start = len(self.objects.key) + 1 if self.objects.key else 0
        files = [(item, folder / item.key[start:]) for item in self.items]
        paths = {path for _, path in files}
        for parent in {path.parent for path in paths}:
            both = next((p for p in (parent, *parent.parents) if p in paths), None)
            if both is not None:
                raise DataError(
                    f"{self.address}/{both.relative_to(folder)}: is an object, and a prefix of"
                    " others; it cannot be a file and a folder. Rename one of them."
                )
            parent.mkdir(parents=True, exist_ok=True)
        return files

    def _check_space(self, folder: Path) -> None:
        needed, free = sum(item.size for item in self.items), shutil.disk_usage(folder).free
        if needed > free:
            raise DataError(
                f"{self.address}: has {needed / 1e9:.1f} GB; the cache {cache_root()} has"
                f" {free / 1e9:.1f} GB free. Set ORCHESTRATE_CACHE to a folder on a larger disk."
            )

    def _root(self, target: Path) -> Path:
        if self.kind == "file":
            return target / _file_name(self.items[0].key)
        if self.kind == "tar":
            # Of an archive of one folder, that folder is meant.
            shown = [path for path in target.iterdir() if not path.name.startswith(".")]
            if len(shown) == 1 and shown[0].is_dir():
                return shown[0]
        return target


def look(address: str, *, form: str, suffix: str = "") -> Remote:
    """Returns what lies at an address now; fetches none of it.

    Args:
        form: what the source reads: `folder`, `file`, or anything else for both.
        suffix: how the name of a file must end.

    Raises:
        StorageError: it is no address in S3, or the server does not answer.
        DataError: nothing is there that the source can read, or it may not be read.
    """
    objects = S3Objects(address)
    try:
        one = objects.itself()
        # An empty object may stand for the folder of its name.
        several = objects.below() if one is None or not one.size else []
    except StorageLost:
        raise
    except StorageError as error:
        raise DataError(str(error)) from None
    address = objects.address
    if several:
        if form == "file":
            raise DataError(
                f"{address}: is a prefix of {len(several):,} objects, and one{_ending(suffix)}"
                " object is needed. Name it in dataset.path."
            )
        start = len(objects.key) + 1 if objects.key else 0
        _check_names(objects, (item.key[start:] for item in several))
        return Remote(objects, tuple(several), "folder")
    if one is None:
        raise DataError(
            f"{address}: nothing is there, neither an object nor objects below it. Correct"
            f" dataset.path, or put the data there (aws s3 cp --recursive FOLDER {address})."
        )
    is_tar = one.key.lower().endswith(TAR)
    if is_tar and form != "file":
        return Remote(objects, (one,), "tar")
    if form == "folder" or is_tar or not one.key.lower().endswith(suffix):
        wanted = (
            f"a {TAR} of the class folders, or a prefix that holds them, is"
            if form == "folder"
            else f"one{_ending(suffix)} object is"
        )
        raise DataError(f"{address}: is an object of {one.size:,} bytes, and {wanted} needed.")
    _check_names(objects, [_file_name(one.key)])
    return Remote(objects, (one,), "file")


def _ending(suffix: str) -> str:
    return f" {suffix}" if suffix else ""


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]


def _check_names(objects: S3Objects, names: Iterable[str]) -> None:
    """Raises DataError where what follows the prefix in a key cannot be a path below a folder."""
    for name in names:
        for part in name.split("/"):
            if part in ("", ".", "..") or "\0" in part or len(part.encode()) > _LONGEST_NAME:
                raise DataError(
                    f"{objects.address}: the object {name!r:.300} there has a key that cannot be"
                    " the path of a file. Rename that object."
                )


@contextmanager
def _said(target: Path) -> Iterator[None]:
    """What the disk refuses is said with what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or target}: {error.strerror or error}. Data from S3 is copied to"
            f" {target}; {advice(error)}, or set ORCHESTRATE_CACHE to a larger disk."
        ) from error
