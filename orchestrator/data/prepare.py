"""Data sets: decoded once into a memory-mapped cache, images apart from their labels."""

from __future__ import annotations

import errno
import json
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from orchestrator.catalogue import INSTALLED, Catalogue
from orchestrator.data import prior_scores
from orchestrator.data.cache import (
    Entry,
    PreparedData,
    building,
    commit,
    entries,
    open_cached,
    read_entry,
    write_entry,
)
from orchestrator.data.checks import check_arrays, check_content, check_loaded, check_sizes
from orchestrator.data.locate import Located, locate
from orchestrator.data.place import address_of, check_existing, place_of
from orchestrator.data.protocols import Progress, Source
from orchestrator.data.references import reference_of
from orchestrator.storage.user_files import cache_root
from search_spaces.reading.config import Contents
from search_spaces.reading.errors import SpecError
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
    source: Source, *, images: bool = True, verify: bool = False, on_progress: Progress = _quiet
) -> PreparedData:
    """Decodes a data set into the cache and checks it; does nothing if it is there and its source
    has not changed. Data in S3 is brought here first, unless what was decoded of it is here.

    What the user should know of how the data was read stands in the `notes` of what is returned;
    `decoded_now` says whether this call read it.

    May be called by many processes at once: one decodes, the others wait and use its files. A
    process that is killed leaves nothing half-written in sight.

    Args:
        images: whether the images of data that was prepared elsewhere must be on this machine.
        verify: also read every cached byte and compare checksums; a damaged cache is made anew.
        on_progress: called with (items done, items in all) while decoding.

    Raises:
        DataError: if the data is missing, unreadable or not what its layout promises, or if the
            cache cannot be written. The message names the file.
        StorageError: the data lies in a store that does not answer, or in none.
    """
    reference = reference_of(source)
    if reference is not None:
        return reference.open(source, images=images, verify=verify)
    located = locate(source)
    root, path = cache_root(), located.path
    where = path or source.name
    entry = _entry(source, path, _signature(located, where))
    try:
        cached = _cached(root, source, where, entry, verify=verify)
        if cached is not None:
            return cached
        with building(root, entry.key) as built:
            # Another process may have decoded it while this one waited.
            entry = replace(entry, signature=_signature(located, where))
            cached = _cached(root, source, where, entry, verify=verify)
            if cached is not None:
                return cached
            (built / "images").mkdir()
            known = _contents(located, where)
            loaded = located.load(built / "images", on_progress)
            if _signature(located, where) != entry.signature:
                raise DataError(
                    f"{where}: files changed while they were read. Wait until nothing writes there,"
                    " and try again."
                )
            check_arrays(where, source, built / "images", loaded)
            check_loaded(where, source, known, loaded)
            prior_scores.check(where, built / "images", loaded, known, source.name)
            notes = tuple(
                one_line(note)
                for note in (*loaded.notes, *check_content(where, built / "images", loaded))
            )
            folders = commit(root, built, source.name, loaded)
            entry = replace(entry, images=folders[0], labels=folders[1], notes=notes)
            write_entry(root, entry)
            done = _cached(root, source, where, entry, verify=False)
    except OSError as error:
        raise _cache_error(root, error) from error
    if done is None:
        raise DataError(
            f"{root}: the cache was changed while it was written. Try again: orchestrate data"
            f" prepare {source.name}"
        )
    return replace(done, decoded_now=True)


_ENTRY_SETTINGS: Final = ("path", "image_size")
"""Settings that an entry of the cache has fields for."""


def _entry(source: Any, path: str | None, signature: str) -> Entry:
    """Returns the entry of a source that is not decoded yet."""
    settings = {
        item.name: getattr(source, item.name)
        for item in fields(source)
        if item.name not in _ENTRY_SETTINGS
    }
    return Entry(
        name=source.name,
        path=path,
        image_size=getattr(source, "image_size", None),
        signature=signature,
        images="",
        labels="",
        # As they come back from the file.
        settings=json.loads(json.dumps(settings)),
    )


def list_data(catalogue: Catalogue = INSTALLED) -> list[DataRow]:
    """A row for each set that needs no setting to be found, and for each folder or file that has
    been prepared on this machine. Decodes nothing and reads no image.
    """
    root, names = cache_root(), catalogue.names("source")
    known: dict[tuple[str, str | None], tuple[Entry | None, Source | None]] = {
        (entry.name, entry.path): (entry, _source(entry, catalogue)) for entry in entries(root)
    }
    for cls in filter(None, (_class(name, catalogue) for name in names)):
        if all(item.default is not MISSING for item in fields(cls)):
            source: Source = cls()
            known.setdefault((source.name, _where(source)), (None, source))
    rows = [
        _row(root, name, path, entry, source) for (name, path), (entry, source) in known.items()
    ]
    return sorted(
        rows,
        key=lambda row: (
            names.index(row.name) if row.name in names else len(names),
            row.name,
            row.path or "",
        ),
    )


def _where(source: Source) -> str | None:
    address = address_of(source)
    path = place_of(source) if address is None else None
    return address or (str(path) if path else None)


def _class(name: str, catalogue: Catalogue) -> type[Any] | None:
    """Returns the class of that name, or None where no package that can be loaded has it."""
    try:
        return catalogue.load("source", name)
    except (KeyError, SpecError):
        return None


def _source(entry: Entry, catalogue: Catalogue) -> Source | None:
    """Returns the source that an entry was made of, or None where it cannot be made any more."""
    cls = _class(entry.name, catalogue)
    if cls is None:
        return None
    settings = {"path": entry.path, "image_size": entry.image_size} | entry.settings
    known = {item.name for item in fields(cls)}
    try:
        source: Source = cls(**{key: value for key, value in settings.items() if key in known})
    except TypeError:
        return None
    return source


def _row(
    root: Path, name: str, path: str | None, entry: Entry | None, source: Source | None
) -> DataRow:
    data = open_cached(root, entry, verify=False) if entry else None
    facts = data.facts if data else None
    state: Literal["prepared", "not prepared", "not found"] = "not prepared"
    note = f"orchestrate data prepare {name}" + (f" --path {path}" if path else "")
    if data:
        state, note = "prepared", str(data.images_dir)
    elif source is None:
        state, note = "not found", f"no installed package has a data source {name}"
    else:
        try:
            # No server is asked for a list.
            if address_of(source) is None:
                check_existing(source)
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


def _signature(located: Located, where: str) -> str:
    try:
        return located.signature()
    except OSError as error:
        raise _unreadable(where, error) from None


def _contents(located: Located, where: str) -> Contents:
    try:
        return located.contents()
    except OSError as error:
        raise _unreadable(where, error) from None


def _unreadable(where: str, error: OSError) -> DataError:
    return DataError(f"{error.filename or where}: cannot be read ({error.strerror or error}).")


def _cached(
    root: Path, source: Source, where: str, wanted: Entry, *, verify: bool
) -> PreparedData | None:
    entry = read_entry(root, wanted.key)
    prepared = (
        open_cached(root, entry, verify=verify)
        if entry and entry.signature == wanted.signature
        else None
    )
    if prepared is not None:
        check_sizes(where, source, prepared.facts)
    return prepared


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
