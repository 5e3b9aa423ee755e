"""Brings decoded data to the machines of a cluster by way of a store: put there once by the machine
that decoded it, fetched once by each of the others, checked against its digests.

Images and labels travel apart, and each is fetched by those alone that need it: images by the
machines that train, labels by the one that holds the pools, which fetches feature vectors too where
initial labels are chosen by them.

<shelf>/images/<name>-<fp16>/meta.json             put last: the rest is there
<shelf>/images/<name>-<fp16>/train.npy             an array of one part or less
<shelf>/images/<name>-<fp16>/parts/<sha256>        parts of the others, which meta.json then lists
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from orchestrator.data.cache import (
    PreparedData,
    building,
    encode_meta,
    intact,
    move_into_place,
    parse_meta,
)
from orchestrator.data.parts import PART_BYTES, Say, Tenths, fetch_parts, put_parts, to_stderr
from orchestrator.data.shelf import Shelf
from orchestrator.storage.store import Store, check_name
from orchestrator.storage.user_files import cache_root
from trainers.errors import DataError

Part = Literal["images", "labels"]

_META: Final = "meta.json"
_PARTS: Final = "parts"


def put(
    shelf: Shelf,
    data: PreparedData,
    part: Part,
    *,
    part_bytes: int = PART_BYTES,
    say: Say = to_stderr,
) -> None:
    """Puts one part of the data onto a shelf, unless it is there. What an earlier call has put
    before it died is not put again.

    Args:
        part_bytes: arrays that are larger are put in parts of so many bytes.
        say: called with a line at each tenth of large data.

    Raises:
        StorageError: the store cannot be written.
        DataError: the cache of this machine is gone.
    """
    folder = _folder(data, part)
    if is_offered(shelf, data, part):
        return
    meta = intact(folder, verify=False)
    if meta is None:
        raise DataError(
            f"{folder}: the decoded data is gone or damaged. Make it again with: orchestrate data"
            " prepare"
        )
    sizes = {name: int(meta["files"][name]["bytes"]) for name in sorted(meta["files"])}
    tenths = Tenths(f"{part} of {data.name} put into {shelf.location}", sum(sizes.values()), say)
    lists: dict[str, list[str]] = {}
    for name, size in sizes.items():
        if size > part_bytes:
            below = shelf.name(part, folder.name, _PARTS)
            lists[name] = put_parts(shelf.store, below, folder / name, part_bytes, tenths.add)
        else:
            shelf.store.put_file(shelf.name(part, folder.name, name), folder / name)
            tenths.add(size)
    described = (
        encode_meta(meta | {_PARTS: {"bytes": part_bytes, "files": lists}})
        if lists
        else (folder / _META).read_bytes()
    )
    # Last: its presence says that the rest is there.
    shelf.store.put(shelf.name(part, folder.name, _META), described)


def is_here(data: PreparedData, part: Part, *, verify: bool = False) -> PreparedData | None:
    """Returns the data as this machine has it: at the same place as on the one that decoded it, or
    in its own cache; None where it has it not.

    Args:
        verify: also read every byte of it and compare checksums.
    """
    there = _folder(data, part)
    # A cache that all machines share need not be fetched.
    for folder in dict.fromkeys((there, cache_root() / part / there.name)):
        meta = intact(folder, verify=verify)
        if meta is not None and (part == "labels" or meta["fingerprint"] == data.fingerprint):
            return _at(data, part, folder)
    return None


def is_offered(shelf: Shelf, data: PreparedData, part: Part) -> bool:
    """Returns whether the part is on the shelf, whole."""
    # The name tells the content: other images, or other labels, are other names.
    return shelf.store.has(shelf.name(part, _folder(data, part).name, _META))


def fetch(
    shelf: Shelf,
    data: PreparedData,
    part: Part,
    *,
    verify: bool = False,
    say: Say = to_stderr,
) -> PreparedData:
    """Returns the data as this machine has it, fetched from the shelf where it had it not. One
    process of a machine fetches while the others wait.

    Args:
        verify: also read every byte of what is here, and fetch anew what is damaged.
        say: called with a line at each tenth of large data.

    Raises:
        DataError: what was fetched is not what was decoded, or the cache cannot be written.
        StorageError: the store cannot be read.
    """
    here = is_here(data, part, verify=verify)
    if here is not None:
        return here
    root, name = cache_root(), _folder(data, part).name
    where = shelf.place(part, name)
    try:
        with building(root, f"fetch_{part}_{name}".replace("-", "_")) as built:
            here = is_here(data, part, verify=verify)
            if here is not None:
                return here
            folder = built / part
            folder.mkdir()
            meta = parse_meta(shelf.store.get(shelf.name(part, name, _META)))
            size = sum(int(file["bytes"]) for file in meta["files"].values())
            tenths = Tenths(f"{part} of {data.name} fetched from {shelf.location}", size, say)
            _take_all(shelf.store, shelf.name(part, name), meta, folder, tenths)
            meta.pop(_PARTS, None)
            (folder / _META).write_bytes(encode_meta(meta))
            if intact(folder, verify=True) is None:
                raise DataError(
                    f"{where}: is not the data that was put there. Remove it, and the"
                    " next run puts it again."
                )
            move_into_place(folder, root / part / name)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}/{_META}: damaged ({error})") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and str(error.filename).startswith(
            shelf.store.location
        ):
            raise DataError(
                f"{where}: the data is not there whole. Remove {where}/{_META}, and put what"
                " is gone there from a machine that has it: orchestrate data prepare"
                f" {data.name} --to {shelf.location}"
            ) from error
        raise DataError(
            f"{error.filename or root}: {error.strerror or error}. The cache of decoded data on"
            f" this machine is {root}; free some space, or set ORCHESTRATE_CACHE for its Ray"
        ) from error
    return _at(data, part, root / part / name)


def _take_all(store: Store, place: str, meta: dict[str, Any], folder: Path, tenths: Tenths) -> None:
    """Makes files of this machine of all that meta.json names. Data of earlier versions is in no
    parts, however large.
    """
    parts = meta.get(_PARTS, {"bytes": 1, "files": {}})
    for name, file in meta["files"].items():
        # It becomes a path.
        check_name(name)
        size = int(file["bytes"])
        if name in parts["files"]:
            fetch_parts(
                store,
                f"{place}/{_PARTS}",
                parts["files"][name],
                int(parts["bytes"]),
                folder / name,
                tenths.add,
                size,
            )
        else:
            _take(store, f"{place}/{name}", folder / name)
            tenths.add(size)


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
