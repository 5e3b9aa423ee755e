"""Files that are there whole or not at all, durably: written aside, synced, linked or renamed into
place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from trainers.errors import UserError

ASIDE: Final = ".aside-"
"""Files being written carry this prefix, and nobody reads them."""

_ASIDE_SECONDS: Final = 3600.0
"""An aside file older than this was left by a process that died."""


class StorageError(UserError):
    """A place cannot hold committed files: no space, no permission, no server, or no
    put-if-absent.
    """


class StorageLost(StorageError):
    """A place that could be used before does not answer any more, after all tries. What it holds is
    whole, and the same command goes on once it answers.
    """

    exit_status = 5


def commit_file(path: Path, data: bytes, *, replace: bool) -> bool:
    """Writes `path` whole, so that it survives a power cut. Returns True if it now holds `data`.

    With replace=False an existing file stays as it is and False is returned. Missing folders are
    made.
    """
    try:
        make_folder(path.parent)
        aside = _write_aside(path.parent, data)
        try:
            if replace:
                # Every system call that a kill can hit goes through os.
                os.replace(aside, path)  # noqa: PTH105
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
            f"{path}: cannot be written: {error.strerror or error}. What was recorded before is"
            f" intact; {advice(error)}, then run the command again."
        ) from error
    return ours


def commit_path(path: Path, source: Path) -> bool:
    """Puts a copy of a file at `path` unless something stands there; True if it was put. It is read
    in pieces: it may be large.
    """
    try:
        make_folder(path.parent)
        aside = _aside(path.parent)
        try:
            with source.open("rb") as file, aside.open("xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            ours = _link(aside, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)  # noqa: PTH108
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}. What was recorded before is"
            f" intact; {advice(error)}, then run the command again."
        ) from error
    return ours


def commit_new_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Puts many files into a folder, each whole and only where there is none of its name; all
    survive a power cut once this returns.

    The disk is waited for twice in all and not twice a file, which matters for thousands.
    """
    asides: list[tuple[Path, Path]] = []
    try:
        make_folder(folder)
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
            f"{where}: cannot be written: {error.strerror or error}. What was recorded before is"
            f" intact; {advice(error)}, then run the command again."
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
    return "fix this"


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


def links_once(folder: Path) -> bool:
    """Returns whether a second link to an existing name is refused. Raises OSError where there are
    no hard links.
    """
    first, second = (_aside(folder) for _ in range(2))
    try:
        first.touch(exist_ok=False)
        os.link(first, second)
        return not _link(first, second)
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that died have left in a folder: at once where the writer ran on this
    machine, after an hour where it may live on another.
    """
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


def make_folder(folder: Path) -> None:
    """Makes `folder`, and makes its name durable in every folder above that was made for it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
