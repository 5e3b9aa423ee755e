"""Where the segments of one ledger are kept: below a name of a store, each written whole and at
most once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.storage.opening import open_store
from orchestrator.storage.store import Store


class Segments(Protocol):
    """Named immutable byte strings. What one process has put, every other sees, whole; nothing is
    ever replaced.
    """

    @property
    def location(self) -> str:
        """Folder or URL, for messages."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """`name` exists, durably; True if it holds `data`, False if another had put different bytes
        first.
        """
        ...

    def get(self, name: str) -> bytes:
        """Raises FileNotFoundError when `name` was never put."""
        ...

    def names(self) -> list[str]:
        """Names put so far, sorted."""
        ...


@dataclass(frozen=True, slots=True)
class StoredSegments:
    """The segments directly below a name of a store."""

    store: Store
    folder: str = ""
    """"": the segments are all that the store holds."""

    @property
    def location(self) -> str:
        return self.store.place(self.folder)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        return self.store.put(self._full(name), data)

    def get(self, name: str) -> bytes:
        return self.store.get(self._full(name))

    def names(self) -> list[str]:
        below = f"{self.folder}/" if self.folder else ""
        return [
            name
            for full in self.store.names(self.folder)
            if "/" not in (name := full.removeprefix(below))
        ]

    def _full(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def open_segments(location: str | Path) -> Segments:
    """The segments at `location`, which hold nothing else. Nothing is created until the first
    put.
    """
    return StoredSegments(open_store(location))
