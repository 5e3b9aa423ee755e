"""Where immutable segments are kept: in a folder or in an S3 bucket, each written whole and at most once."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from orchestrator.storage.files import StorageError, commit_file, links_once, make_folder, remove_leftovers


class Segments(Protocol):
    """Named immutable byte strings. What one process has put, every other sees, whole; nothing is ever replaced."""

    @property
    def location(self) -> str:
        """Folder or URL, for messages."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """`name` exists, durably; True if it holds `data`, False if another had put different bytes first."""
        ...

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError when `name` was never put."""
        ...

    def names(self) -> list[str]:
        """Names put so far, sorted."""
        ...


def open_segments(location: str | Path) -> Segments:
    """The segments at `location`: a folder, or `s3://bucket/prefix`. Nothing is created until the first put."""
    if str(location).startswith("s3://"):
        from orchestrator.storage.s3 import S3Segments

        return S3Segments(str(location))
    return LocalSegments(Path(location))


class LocalSegments:
    """Segments as files of one folder, on a file system with hard links (NFS has them)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._probed = False

    @property
    def location(self) -> str:
        return str(self._folder)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        if not self._probed:
            self._prepare()
        return commit_file(self._folder / name, data, replace=False) or self.get(name) == data

    def get(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{self._folder / name}: cannot be read: {error.strerror or error}") from error

    def names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._folder.iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self._folder}: cannot be read: {error.strerror or error}") from error

    def _prepare(self) -> None:
        """The folder exists, can link only-if-absent, and is free of what killed writers left."""
        try:
            make_folder(self._folder)
            remove_leftovers(self._folder)
            honest = links_once(self._folder)
        except OSError as error:
            raise StorageError(
                f"{self._folder}: cannot hold a ledger: {error.strerror or error}. It needs write permission and a file system with hard links "
                "(not FAT, exFAT or most FUSE mounts); choose another --out."
            ) from error
        if not honest:
            raise StorageError(f"{self._folder}: its file system lets a link replace a file, so answers could be charged twice; choose another --out.")
        self._probed = True
