"""Where immutable segments are kept: in a folder or in an S3 bucket, each written whole and at most once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from trainers.errors import UserError

ASIDE: Final = ".aside-"
"""Files being written carry this prefix, and nobody reads them."""

_ASIDE_SECONDS: Final = 3600.0
"""An aside file older than this was left by a process that died."""


class StorageError(UserError):
    """A place cannot hold committed files: no space, no permission, no server, or no put-if-absent."""


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
        from orchestrator.storage_s3 import S3Segments

        return S3Segments(str(location))
    return LocalSegments(Path(location))


def commit_file(path: Path, data: bytes, *, replace: bool) -> bool:
    """`path` exists whole and survives a power cut; True if it now holds `data`.

    With replace=False an existing file stays as it is and False is returned. Missing folders are made.
    """
    try:
        _make_folder(path.parent)
        aside = _write_aside(path.parent, data)
        try:
            if replace:
                os.replace(aside, path)  # noqa: PTH105 (every system call that a kill can hit goes through os)
                ours = True
            else:
                ours = _link(aside, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)  # noqa: PTH108
        # Also for the loser: it builds on the winner's file, which must not vanish in a power cut.
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}. What was recorded before is intact; {advice(error)} and run again."
        ) from error
    return ours


def commit_new_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Puts many files into a folder, each whole and only where there is none of its name; all survive a power cut once this returns.

    The disk is waited for twice in all and not twice a file, which matters for thousands.
    """
    asides: list[tuple[Path, Path]] = []
    try:
        _make_folder(folder)
        for name, data in files.items():
            asides.append((_aside(folder), folder / name))
            asides[-1][0].write_bytes(data)
        os.sync()
        for aside, path in asides:
            _link(aside, path)
        _sync_folder(folder)
    except OSError as error:
        where = asides[-1][1] if asides else folder
        raise StorageError(
            f"{where}: cannot be written: {error.strerror or error}. What was recorded before is intact; {advice(error)} and run again."
        ) from error
    finally:
        for aside, _ in asides:
            with contextlib.suppress(OSError):
                aside.unlink()


def advice(error: OSError) -> str:
    """Says what to do about a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make the place writable for this user, or choose another,"
    if error.errno in (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV):
        return "check the disk or the connection to it (the system's log says more)"
    return "mend this"


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
            _make_folder(self._folder)
            remove_leftovers(self._folder)
            honest = _links_once(self._folder)
        except OSError as error:
            raise StorageError(
                f"{self._folder}: cannot hold a ledger: {error.strerror or error}. It needs write permission and a file system with hard links "
                "(not FAT, exFAT or most FUSE mounts); choose another --out."
            ) from error
        if not honest:
            raise StorageError(f"{self._folder}: its file system lets a link replace a file, so answers could be charged twice; choose another --out.")
        self._probed = True


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _aside(folder: Path) -> Path:
    return folder / f"{ASIDE}{_host()}-{os.getpid()}-{secrets.token_hex(6)}"


def _write_aside(folder: Path, data: bytes) -> Path:
    aside = _aside(folder)
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)  # noqa: PTH108
        raise
    finally:
        os.close(handle)
    return aside


def _link(aside: Path, path: Path) -> bool:
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    return True


def _links_once(folder: Path) -> bool:
    """Whether a second link to an existing name is refused. Raises OSError where there are no hard links."""
    first, second = (_aside(folder) for _ in range(2))
    try:
        first.touch(exist_ok=False)
        os.link(first, second)
        return not _link(first, second)
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that died have left in a folder: at once where the writer ran on this machine, after an hour where it may live on another."""
    oldest = time.time() - _ASIDE_SECONDS
    for entry in folder.glob(f"{ASIDE}*"):
        with contextlib.suppress(FileNotFoundError):
            if _writer_is_dead(entry.name) or entry.stat().st_mtime < oldest:
                entry.unlink()


def _writer_is_dead(name: str) -> bool:
    host, _, rest = name.removeprefix(ASIDE).partition("-")
    number = rest.partition("-")[0]
    if host != _host() or not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _make_folder(folder: Path) -> None:
    """`folder` exists and its name is durable in every folder above that was made for it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
