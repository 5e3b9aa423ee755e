"""A lock that a dead process cannot keep."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.storage.files import StorageError
from trainers.errors import UserError


class TakenOver(StorageError):
    """Another process holds the lock now that this one had: it did not hear of this one for too
    long. What this one has recorded stands, and it must stop.
    """

    exit_status = 3


class LockHeld(UserError):
    """Another living process holds the lock; `holder` says which, as far as it is known."""

    def __init__(self, path: Path | str, holder: dict[str, object]) -> None:
        """`path`: of the lock's file, or its address."""
        self.path = path
        self.holder = holder
        who = (
            f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
            if holder
            else "another process"
        )
        place = str(path).rpartition("/")[0] or "."
        super().__init__(
            f"{place}: in use by {who}. Wait for it to end, or stop it; both cannot write the same"
            " sweep."
        )

    def __reduce__(self) -> tuple[type[LockHeld], tuple[Path | str, dict[str, object]]]:
        # Exceptions are otherwise pickled by their message alone.
        return LockHeld, (self.path, self.holder)


def _describe(fd: int) -> dict[str, object]:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host", "since"} <= holder.keys() else {}


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[None]:
    """Holds the lock file at `path` for the length of the block.

    The kernel frees it when the holder dies, however it dies, so no lock is ever stale and none is
    broken by guessing. The file's text (host, pid, time) is for messages only. The file itself
    stays: removing it would let two processes lock two files of one name.

    Raises:
        LockHeld: if another process has it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _try_lock(fd):
            if not wait:
                raise LockHeld(path, _describe(fd))
            time.sleep(0.05)
        text = json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
        )
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)
        yield
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock file at `path`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(fd)
    finally:
        os.close(fd)
