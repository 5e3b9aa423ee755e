"""Data sets: decoded once into a memory-mapped cache, images apart from their labels."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orchestrator.data.arrays import Progress, Source
from orchestrator.data.cache import (
    Entry,
    PreparedData,
    building,
    cache_root,
    commit,
    entries,
    open_cached,
    read_entry,
    source_key,
    write_entry,
)
from orchestrator.data.checks import check_content, check_loaded, check_sizes
from orchestrator.data.find import OWN, open_source, source_path
from search_spaces.reading.config import DatasetConfig
from search_spaces.reading.datasets import NAMES as DATASETS
from trainers.errors import DataError, one_line

__all__ = ["DataRow", "PreparedData", "list_data", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRow:
    """One line of `data list`."""

    name: str
    path: str | None
    state: Literal["prepared", "not prepared", "not found"]
    num_classes: int | None
    train_items: int | None
    test_items: int | None
    bytes: int
    """Of the decoded images on disk."""
    note: str
    """What is missing, or where the cache is."""


def _quiet(done: int, total: int) -> None:
    pass


def prepare(
    config: DatasetConfig, *, verify: bool = False, on_progress: Progress = _quiet
) -> PreparedData:
    """The data set is decoded, checked and in the cache; done at once if it already is and its
    source has not changed.

    What the user should know of how the data was read stands in the `notes` of what is returned;
    `decoded_now` says whether this call read it.

    May be called by many processes at once: one decodes, the others wait and use its files. A
    process that is killed leaves nothing half-written in sight.

    Args:
        verify: also read every cached byte and compare checksums; a damaged cache is made anew.
        on_progress: called with (items done, items in all) while decoding.

    Raises:
        DataError: if the data is missing, unreadable or not what its layout promises, or if the
            cache cannot be written. The message names the file.
    """
    source = open_source(config)
    root, path = cache_root(), source_path(config)
    where = str(path or config.name)
    key = source_key(config.name, path, config.image_size)
    signature = _signature(source, where)
    try:
        found = _cached(root, key, config, signature, verify=verify)
        if found is not None:
            return found
        with building(root, key) as built:
            # Another process may have decoded it while this one waited.
            signature = _signature(source, where)
            found = _cached(root, key, config, signature, verify=verify)
            if found is not None:
                return found
            (built / "images").mkdir()
            loaded = source.load(built / "images", on_progress)
            if _signature(source, where) != signature:
                raise DataError(
                    f"{where}: files changed while they were read. Wait until nothing writes there,"
                    " and try again."
                )
            check_loaded(where, config, loaded)
            notes = tuple(
                one_line(note)
                for note in (*loaded.notes, *check_content(where, built / "images", loaded))
            )
            images, labels = commit(root, built, config.name, loaded)
            entry = Entry(
                name=config.name,
                path=str(path) if path else None,
                image_size=config.image_size,
                signature=signature,
                images=images,
                labels=labels,
                notes=notes,
            )
            write_entry(root, key, entry)
            done = _cached(root, key, config, signature, verify=False)
    except OSError as error:
        raise _cache_error(root, error) from error
    if done is None:
        raise DataError(
            f"{root}: the cache was changed while it was written. Try again: orchestrate data"
            f" prepare {config.name}"
        )
    return replace(done, decoded_now=True)


def list_data() -> list[DataRow]:
    """A row for each built-in set, and for each folder or file that has been prepared on this
    machine. Decodes nothing and reads no image.
    """
    root = cache_root()
    known: dict[tuple[str, str | None], Entry | None] = {
        (entry.name, entry.path): entry for entry in entries(root)
    }
    for name in (name for name in DATASETS if name not in OWN):
        path = source_path(DatasetConfig(name=name))
        known.setdefault((name, str(path) if path else None), None)
    rows = [_row(root, name, path, entry) for (name, path), entry in known.items()]
    return sorted(rows, key=lambda row: (DATASETS.index(row.name), row.path or ""))


def _row(root: Path, name: str, path: str | None, entry: Entry | None) -> DataRow:
    data = open_cached(root, entry, verify=False) if entry else None
    facts = data.facts if data else None
    state: Literal["prepared", "not prepared", "not found"] = "not prepared"
    note = f"orchestrate data prepare {name}" + (f" --path {path}" if path else "")
    if data:
        state, note = "prepared", str(data.images_dir)
    else:
        try:
            open_source(DatasetConfig(name=name, path=path))
        except DataError as error:
            state, note = "not found", str(error)
    return DataRow(
        name=name,
        path=path,
        state=state,
        num_classes=facts.num_classes if facts else None,
        train_items=facts.train_items if facts else None,
        test_items=facts.test_items if facts else None,
        bytes=sum(file.stat().st_size for file in data.images_dir.iterdir()) if data else 0,
        note=note,
    )


def _signature(source: Source, where: str) -> str:
    try:
        return source.signature()
    except OSError as error:
        raise DataError(
            f"{error.filename or where}: cannot be read ({error.strerror or error})."
        ) from None


def _cached(
    root: Path, key: str, config: DatasetConfig, signature: str, *, verify: bool
) -> PreparedData | None:
    entry = read_entry(root, key)
    found = (
        open_cached(root, entry, verify=verify) if entry and entry.signature == signature else None
    )
    if found is not None:
        check_sizes(str(source_path(config) or config.name), config, found.facts)
    return found


def _cache_error(root: Path, error: OSError) -> DataError:
    where = error.filename or root
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"{where}: no space left for the decoded data. Free some, or set ORCHESTRATE_CACHE to a"
            " folder on a larger disk."
        )
    return DataError(
        f"{where}: {error.strerror or error}. The cache of decoded data is {root}; set"
        " ORCHESTRATE_CACHE to a folder that can be written."
    )
