"""Where prepared data lies in a store: in a sweep's own, or in one that several sweeps share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from orchestrator.storage.files import StorageError
from orchestrator.storage.opening import check_location, open_store
from orchestrator.storage.s3_client import parse
from orchestrator.storage.store import Store
from orchestrator.storage.user_files import expand, is_address

VARIABLE: Final = "ORCHESTRATE_DATA_STORE"
"""Folder or address below which prepared data is put and looked for."""
BESIDE: Final = "_data"
"""The same beside the sweeps of one prefix in S3."""
OWN: Final = "data"
"""The same in a sweep's own store."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store, and below which of its names the data is."""

    store: Store
    below: str = ""

    @property
    def location(self) -> str:
        return self.store.place(self.below)

    def name(self, *parts: str) -> str:
        """Returns the store's name of what lies here under these parts."""
        return "/".join((*filter(None, (self.below,)), *parts))

    def place(self, *parts: str) -> str:
        """Returns where that is, for messages."""
        return self.store.place(self.name(*parts))


def shelf_at(location: str) -> Shelf:
    """Returns the shelf that all of a store is.

    Raises:
        StorageError: there is no such store.
    """
    # Absolute: workers of a cluster have other working folders.
    return Shelf(open_store(location if is_address(location) else str(expand(location, VARIABLE))))


def shelf_of(store: Store, recorded: str | None) -> Shelf:
    """Returns where a sweep's data is put and looked for: where $ORCHESTRATE_DATA_STORE says, else
    where its records do, else beside the sweep in S3, so that all sweeps of a prefix share it. In
    any other store it is the sweep's own: what lies beside a folder is not this program's.

    Args:
        store: of the sweep.
        recorded: what the sweep's records say, if anything.

    Raises:
        StorageError: there is no such store.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        try:
            check_location(chosen)
        except StorageError as error:
            raise StorageError(f"{VARIABLE}: {error}") from None
    location = chosen or recorded or _beside(store.location)
    return Shelf(store, OWN) if location is None else shelf_at(location)


def _beside(location: str) -> str | None:
    if not location.startswith("s3://"):
        return None
    bucket, prefix = parse(location)
    if not prefix:
        return None
    return "/".join(("s3:/", bucket, *prefix.split("/")[:-1], BESIDE))
