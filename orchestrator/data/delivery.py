"""Brings decoded data to the machines of a cluster by way of the sweep's store: put there once by
the machine that decoded it, fetched once by each of the others, checked against its digests.

Images and labels travel apart, and each is fetched by those alone that need it: images by the
machines that train, labels by the one that holds the pools.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from orchestrator.data.cache import (
    PreparedData,
    building,
    intact,
    move_into_place,
)
from orchestrator.storage.store import Store
from orchestrator.storage.user_files import cache_root
from trainers.errors import DataError

Part = Literal["images", "labels"]

DATA: Final = "data"
"""Below which name of a store its data is."""
_META: Final = "meta.json"


def put(store: Store, data: PreparedData, part: Part) -> None:
    """Puts one part of the data into the store, unless it is there.

    Raises:
        StorageError: the store cannot be written.
        DataError: the cache of this machine is gone.
    """
    folder, below = _folder(data, part), _below(data, part)
    if store.has(f"{below}/{_META}"):
        return
    meta = intact(folder, verify=False)
    if meta is None:
        raise DataError(
            f"{folder}: the decoded data is gone or damaged. Make it again with: orchestrate data"
            " prepare"
        )
    for name in sorted(meta["files"]):
        store.put_file(f"{below}/{name}", folder / name)
    # Last: its presence says that the rest is there.
    store.put(f"{below}/{_META}", (folder / _META).read_bytes())


def is_here(data: PreparedData, part: Part) -> PreparedData | None:
    """Returns the data as this machine has it: at the same place as on the one that decoded it, or
    in its own cache; None where it has it not.
    """
    # A cache that all machines share need not be fetched.
    for folder in (_folder(data, part), cache_root() / part / _folder(data, part).name):
        meta = intact(folder, verify=False)
        if meta is not None and (part == "labels" or meta["fingerprint"] == data.fingerprint):
            return _at(data, part, folder)
    return None


def is_offered(store: Store, data: PreparedData, part: Part) -> bool:
    """Returns whether the part is in the store, whole."""
    return store.has(f"{_below(data, part)}/{_META}")


def fetch(store: Store, data: PreparedData, part: Part) -> PreparedData:
    """Returns the data as this machine has it, fetched from the store where it had it not. One
    process of a machine fetches while the others wait.

    Raises:
        DataError: what was fetched is not what was decoded, or the cache cannot be written.
        StorageError: the store cannot be read.
    """
    here = is_here(data, part)
    if here is not None:
        return here
    root, name, below = cache_root(), _folder(data, part).name, _below(data, part)
    try:
        with building(root, f"fetch_{part}_{name}".replace("-", "_")) as built:
            here = is_here(data, part)
            if here is not None:
                return here
            folder = built / part
            folder.mkdir()
            meta = json.loads(store.get(f"{below}/{_META}"))
            for file in meta["files"]:
                _take(store, f"{below}/{file}", folder / file)
            (folder / _META).write_bytes(store.get(f"{below}/{_META}"))
            if intact(folder, verify=True) is None:
                raise DataError(
                    f"{store.place(below)}: is not the data that was put there. Remove it, and the"
                    " next run puts it again."
                )
            move_into_place(folder, root / part / name)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{store.place(below)}/{_META}: damaged ({error})") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and str(error.filename).startswith(store.location):
            raise DataError(f"{store.place(below)}: the data is not there whole") from error
        raise DataError(
            f"{error.filename or root}: {error.strerror or error}. The cache of decoded data on"
            f" this machine is {root}; free some space, or set ORCHESTRATE_CACHE for its Ray"
        ) from error
    return _at(data, part, root / part / name)


def _take(store: Store, name: str, path: Path) -> None:
    """Makes a file of this machine of what is under a name."""
    found = store.local(name)
    if store.as_folder(name) is None:
        # A copy of this machine's already, and large: one of the two names is enough for it.
        with suppress(OSError):
            os.link(found, path)
            return
    shutil.copyfile(found, path)


def _folder(data: PreparedData, part: Part) -> Path:
    return data.images_dir if part == "images" else data.labels_dir


def _at(data: PreparedData, part: Part, folder: Path) -> PreparedData:
    if part == "images":
        return replace(data, images_dir=folder)
    return replace(data, labels_dir=folder)


def _below(data: PreparedData, part: Part) -> str:
    """The name tells the content: other images, or other labels, are other names."""
    return f"{DATA}/{part}/{_folder(data, part).name}"
