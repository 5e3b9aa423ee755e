"""A large file in a store: parts of it, each an object whose name is the SHA-256 of its bytes.

One put to S3 takes at most 5 GiB, and its own way of putting more in parts drops the condition
"where nothing is" on some servers. Such a part may be put twice by anybody, for its name allows it
no other bytes; so any store can hold it, and what was put before a death stays good.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from orchestrator.storage.store import Store
from trainers.errors import DataError

PART_BYTES: Final = 16 << 20
"""Of each part but the last."""
AT_ONCE: Final = 4
"""Parts that are held in memory, each by a thread that puts or gets it."""
_QUEUED: Final = 256
"""Parts that threads are told of at once: a task takes some kilobytes."""
LARGE_BYTES: Final = 1 << 30
"""Data that is larger is worth a line for each tenth of it."""

Say = Callable[[str], None]


class Tenths:
    """Says how far something has come, at the start and for each tenth of it. What is small is not
    worth a line.
    """

    def __init__(self, what: str, total: int, say: Say) -> None:
        self._what, self._total, self._say = what, total, say
        self._done, self._told = 0, -1
        self.add(0)

    def add(self, count: int) -> None:
        """Counts so many bytes more."""
        self._done += count
        tenth = 10 * self._done // max(1, self._total)
        if self._total >= LARGE_BYTES and tenth > self._told:
            self._told = tenth
            done, total = (f"{number / (1 << 30):.1f}" for number in (self._done, self._total))
            self._say(f"{self._what}: {done} of {total} GiB")


def to_stderr(text: str) -> None:
    """Writes a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def put_parts(
    store: Store, below: str, path: Path, part_bytes: int, on_bytes: Callable[[int], None]
) -> list[str]:
    """Puts the parts of a file below a name, those that are there not again. Returns the SHA-256 of
    each, in their order.

    Args:
        on_bytes: called with the size of each part that is there now.

    Raises:
        DataError: the file was written to meanwhile, or a part is there with other bytes.
        StorageError: the store cannot be written.
        OSError: the file cannot be read.
    """
    size, there = path.stat().st_size, frozenset(store.names(below))
    digests: list[str] = []
    with path.open("rb") as file, ThreadPoolExecutor(AT_ONCE) as threads:

        def put(start: int) -> str:
            # At its place: the threads share the file.
            data = os.pread(file.fileno(), part_bytes, start)
            if len(data) != _length(start, part_bytes, size):
                raise DataError(f"{path}: was cut while it was read. Give the command again.")
            digest = hashlib.sha256(data).hexdigest()
            name = f"{below}/{digest}"
            if name not in there and not store.put(name, data):
                raise DataError(
                    f"{store.place(name)}: holds other bytes than its name says. Remove it, and"
                    " give the command again."
                )
            return digest

        starts = range(0, size, part_bytes)
        for first in range(0, len(starts), _QUEUED):
            for digest in threads.map(put, starts[first : first + _QUEUED]):
                on_bytes(_length(starts[len(digests)], part_bytes, size))
                digests.append(digest)
    return digests


def fetch_parts(
    store: Store,
    below: str,
    digests: Sequence[str],
    part_bytes: int,
    path: Path,
    on_bytes: Callable[[int], None],
    size: int,
) -> None:
    """Makes a new file of this machine of the parts below a name.

    Args:
        digests: SHA-256 of each part, in their order.
        on_bytes: called with the size of each part that is here now.
        size: bytes of the file.

    Raises:
        ValueError: there are not as many parts as a file of that size has.
        DataError: a part is not what was put.
        FileNotFoundError: there is no such part.
        StorageError: the store cannot be read.
        OSError: the file cannot be written.
    """
    starts = range(0, size, part_bytes)
    if len(starts) != len(digests):
        raise ValueError(f"{len(digests)} parts for {size} bytes")

    def fetch(start: int, digest: str) -> int:
        length, name = _length(start, part_bytes, size), f"{below}/{digest}"
        data = store.get(name, length + 1)
        if len(data) != length or hashlib.sha256(data).hexdigest() != digest:
            raise DataError(
                f"{store.place(name)}: is not the part that was put there. Remove it and"
                f" {store.place(below.rpartition('/')[0])}/meta.json, and the next run puts it"
                " again."
            )
        with path.open("r+b") as file:
            file.seek(start)
            file.write(data)
        return length

    with path.open("xb") as file:
        file.truncate(size)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for first in range(0, len(starts), _QUEUED):
            queued = slice(first, first + _QUEUED)
            for length in threads.map(fetch, starts[queued], digests[queued]):
                on_bytes(length)


def _length(start: int, part_bytes: int, size: int) -> int:
    return min(part_bytes, size - start)
