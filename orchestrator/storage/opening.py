"""Which store a location names: a folder, an S3 bucket, or what an installed package keeps under a
URL scheme.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from orchestrator.storage.files import StorageError
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.s3 import S3Store
from orchestrator.storage.s3_client import parse
from orchestrator.storage.store import Store
from trainers.errors import one_line

GROUP: Final = "orchestrate.stores"
"""Entry points by which a package offers a store: URL scheme -> subclass of Store."""

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOST: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
"""What a Path makes of an address."""
_INSIDE: Final = re.compile(r"(.+?)/(trials/[^/]+(?:/ledger)?)/?")
"""The address of a trial, or of its ledger."""


def open_store(location: str | Path) -> Store:
    """Returns the store at a location: `s3://bucket/prefix`, `scheme://...` as an installed package
    keeps it, anything else as a folder. Makes nothing.

    Raises:
        StorageError: no package has the scheme, or the one that has it is broken.
    """
    if _is_s3(location):
        return S3Store(str(location))
    point = _point(location)
    return FolderStore(location) if point is None else _opened(point, str(location))


def check_location(location: str | Path) -> None:
    """Raises StorageError where no store is known for such a location. Loads no package."""
    if _is_s3(location):
        parse(str(location))
    else:
        _point(location)


def _is_s3(location: str | Path) -> bool:
    return isinstance(location, str) and location.lower().startswith("s3://")


def _point(location: str | Path) -> EntryPoint | None:
    """Returns what a package offers for a location; None for a folder."""
    found = (_LOST if isinstance(location, Path) else _URL).match(str(location))
    if found is None:
        return None
    scheme, points = found[1].lower(), entry_points(group=GROUP)
    known = sorted({"s3://", *(f"{point.name.lower()}://" for point in points)})
    if isinstance(location, Path):
        raise StorageError(
            f"{str(location)!r} was an address before it was made a Path: give it as text, such as"
            f" '{scheme}://...'"
        )
    for point in points:
        if point.name.lower() == scheme:
            return point
    raise StorageError(
        f"{str(location)!r} is an address and not a folder, and no installed package keeps sweeps"
        f" at {scheme}://; addresses that can be used here begin with {', '.join(known)}, or name a"
        " folder, such as runs/mine"
    )


def open_new(location: str | Path) -> Store:
    """Returns the store at a location where there may be nothing yet; otherwise as `open_store`.

    A folder is named without `..`: made as it is written, `new/../x` would leave an empty folder
    `new` behind.
    """
    if _URL.match(str(location)) is None and ".." in Path(location).parts:
        return FolderStore(Path(location).resolve())
    return open_store(location)


def open_inside(location: str | Path) -> tuple[Store, str]:
    """Returns the store that holds a trial, given the trial's location or its ledger's, and the
    name of that; or the store at the location, and "".
    """
    found = _INSIDE.fullmatch(str(location)) if _URL.match(str(location)) else None
    # Any folder of a file system is a store of its own, wherever it was copied to.
    return (open_store(location), "") if found is None else (open_store(found[1]), found[2])


def _opened(point: EntryPoint, location: str) -> Store:
    owner = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    try:
        store = point.load()(location)
    except StorageError:
        raise
    except Exception as error:
        raise StorageError(
            f"{location}: the installed package {owner} keeps sweeps at such places and cannot be"
            f" used ({type(error).__name__}: {one_line(str(error))[:200]}); fix or uninstall it,"
            " or name a folder"
        ) from error
    if not isinstance(store, Store):
        raise StorageError(
            f"{location}: {point.value} of the installed package {owner} is no Store; fix or"
            " uninstall it, or name a folder"
        )
    return store
