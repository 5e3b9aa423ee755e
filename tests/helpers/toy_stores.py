"""Stores of one short file each: in memory, and everything in one SQLite file. They show what a
store of another package takes.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from orchestrator.storage import locks
from orchestrator.storage.files import commit_file
from orchestrator.storage.locks import LockHeld
from orchestrator.storage.store import Store, check_name, missing

DIES = "SQLITE_STORE_DIES_AT"
"""Variable of the environment with the number of the write, from 1, before which its process kills
itself.
"""


def _last_act() -> None:
    left = int(os.environ.get(DIES, "0"))
    if left == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if left:
        os.environ[DIES] = str(left - 1)


def _below(name: str, folder: str) -> bool:
    return not folder or name == folder or name.startswith(f"{folder}/")


def _copy(data: bytes, name: str) -> Path:
    """A file of this machine with these bytes, named by them: what changes gets another file."""
    folder = Path(tempfile.gettempdir()) / f"toy-store-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}-{name.rpartition('/')[2]}"
    if not path.exists():
        commit_file(path, data, replace=True)
    return path


class MemoryStore(Store):
    """A dictionary."""

    location = "memory://toy"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self._locks: set[str] = set()
        self._lock = threading.Lock()

    def get(self, name: str, most: int | None = None) -> bytes:
        try:
            return self.held[check_name(name)][:most]
        except KeyError:
            raise missing(self, name) from None

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        with self._lock:
            if replace:
                self.held[check_name(name)] = data
            return self.held.setdefault(check_name(name), data) == data

    def names(self, folder: str = "") -> list[str]:
        return sorted(name for name in tuple(self.held) if _below(name, folder))

    def remove(self, name: str) -> None:
        for each in self.names(check_name(name)):
            del self.held[each]

    def local(self, name: str) -> Path:
        return _copy(self.get(name), name)

    @contextmanager
    def hold(self, name: str, *, wait: bool) -> Iterator[None]:
        if name in self._locks:
            raise LockHeld(Path(name), {})
        self._locks.add(name)
        try:
            yield
        finally:
            self._locks.remove(name)


class SqliteStore(Store):
    """One SQLite file, and a lock file beside it for each name that is held."""

    def __init__(self, location: str) -> None:
        self._path = Path(location.removeprefix("sqlite://"))

    def __reduce__(self) -> tuple[type[SqliteStore], tuple[str]]:
        # A process that has another working folder must find the same file.
        return type(self), (f"sqlite://{self._path.absolute()}",)

    @property
    def location(self) -> str:
        return f"sqlite://{self._path}"

    def _connect(self) -> AbstractContextManager[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = sqlite3.connect(self._path, timeout=120, isolation_level=None)
        found.execute("pragma synchronous = full")
        found.execute("create table if not exists held (name text primary key, data blob)")
        return closing(found)

    def get(self, name: str, most: int | None = None) -> bytes:
        with self._connect() as file:
            row = file.execute(
                "select data from held where name = ?", (check_name(name),)
            ).fetchone()
        if row is None:
            raise missing(self, name)
        return bytes(row[0])[:most]

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        verb = "replace" if replace else "ignore"
        with self._connect() as file:
            _last_act()
            file.execute(f"insert or {verb} into held values (?, ?)", (check_name(name), data))
        return self.get(name) == data

    def names(self, folder: str = "") -> list[str]:
        with self._connect() as file:
            return [
                name
                for (name,) in file.execute("select name from held order by name")
                if _below(name, folder)
            ]

    def remove(self, name: str) -> None:
        with self._connect() as file:
            for each in self.names(check_name(name)):
                file.execute("delete from held where name = ?", (each,))

    def local(self, name: str) -> Path:
        return _copy(self.get(name), name)

    def hold(self, name: str, *, wait: bool) -> AbstractContextManager[None]:
        return locks.hold(
            self._path.parent / f"{self._path.name}.{check_name(name).replace('/', '-')}", wait=wait
        )
