"""Prepared data in a store, as `dataset.path` of a spec names it: PLACE/sets/NAME-....json. A
machine that has no raw data of its own runs a sweep from it.

PLACE/images/<name>-<fp16>/          train.npy, test.npy, meta.json, as in a cache
PLACE/labels/<name>-<fp16>-<l8>/     the same of the labels
PLACE/sets/<name>-<lfp16>-<s8>.json  which of them are one data set, of which source and settings;
                                     put last
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Final, TypeVar

from orchestrator.data import delivery
from orchestrator.data.cache import FORMAT, PreparedData, intact, labelled
from orchestrator.data.delivery import Part
from orchestrator.data.place import is_placed
from orchestrator.data.shelf import VARIABLE, Shelf, shelf_at
from orchestrator.storage.files import StorageError, StorageLost
from orchestrator.storage.store import Unreadable
from orchestrator.storage.user_files import cache_root
from search_spaces.reading.config import Contents, DatasetFacts
from trainers.errors import DataError

SETS: Final = "sets"
"""Below which name of a shelf the references are."""

_ADDRESS: Final = re.compile(rf"(.+)/{SETS}/([a-z0-9_]+-[0-9a-f]{{16}}-[0-9a-f]{{8}}\.json)")
_MOST_BYTES: Final = 1 << 26

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Reference:
    """One prepared data set on a shelf."""

    shelf: Shelf
    file: str
    """Its name below sets/."""

    @property
    def address(self) -> str:
        """What a spec writes as dataset.path."""
        return self.shelf.place(SETS, self.file)

    def contents(self, source: Any) -> Contents:
        """Returns what the data holds.

        Args:
            source: of the spec; its settings must be those that the data was prepared with.

        Raises:
            DataError: there is no such data, or it is of another source or other settings.
            StorageLost: the store does not answer.
        """
        return self._read(source)[1]

    def open(self, source: Any, *, images: bool = True, verify: bool = False) -> PreparedData:
        """Returns the data, its labels fetched to this machine.

        Args:
            images: whether the images are fetched too. Who only schedules needs none; each machine
                that trains fetches them for itself.
            verify: also read every byte of what is here, and fetch anew what is damaged.

        Raises:
            DataError: as `contents`; or the data is not there whole or not what was put.
            StorageLost: the store does not answer.
        """
        data = self._read(source)[0]
        parts: tuple[Part, ...] = ("images", "labels") if images else ("labels",)
        for part in parts:
            data = _guarded(partial(delivery.fetch, self.shelf, data, part, verify=verify))
        meta = intact(data.labels_dir, verify=False)
        digests = (
            {}
            if meta is None
            else {
                name.removesuffix(".npy"): str(file["sha256"])
                for name, file in meta["files"].items()
            }
        )
        if not digests or labelled(data.fingerprint, digests) != data.labelled_fingerprint:
            raise DataError(
                f"{self.address}: the labels at {self.shelf.place('labels', data.labels_dir.name)}"
                " are not those that it names. Put the data there again."
            )
        return data

    def _read(self, source: Any) -> tuple[PreparedData, Contents]:
        name = self.shelf.name(SETS, self.file)
        try:
            found = json.loads(_guarded(lambda: self.shelf.store.get(name, _MOST_BYTES)))
            if found["checksum"] != _checksum(found):
                raise ValueError("its content does not match its checksum")
            if found["format"] == FORMAT:
                data, contents = _data(found, self.shelf), _contents(found["contents"])
        except FileNotFoundError:
            raise DataError(
                f"{self.address}: no prepared data is there. Put it there from a machine that has"
                f" it (orchestrate data prepare {source.name} --path PATH --to"
                f" {self.shelf.location}), or set dataset.path to where the data is."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{self.address}: damaged ({error}). Remove it, and put the data there again."
            ) from None
        if found["format"] != FORMAT:
            raise DataError(
                f"{self.address}: was prepared by another version of orchestrate (format"
                f" {found['format']!r:.20}; this one has {FORMAT}). Put the data there again."
            )
        if (found["source"], found["settings"]) != (source.name, settings_of(source)):
            raise DataError(
                f"{self.address}: was prepared as {_spoken(found['source'], found['settings'])},"
                f" and the spec says {_spoken(source.name, settings_of(source))}. Make the spec"
                " say the same, or put the data there as the spec has it."
            )
        return data, contents


def reference_of(source: Any) -> Reference | None:
    """Returns what a source's path names, if that is prepared data in a store."""
    if not is_placed(source) or source.path is None:
        return None
    return parse_reference(source.path)


def parse_reference(text: str) -> Reference | None:
    """Returns the prepared data that a text names; None where it is no such name. Looks at no file.

    Raises:
        StorageError: no store is known for such a place.
    """
    found = _ADDRESS.fullmatch(text)
    return None if found is None else Reference(shelf_at(found[1]), found[2])


def reference_to(data: PreparedData, source: Any, shelf: Shelf) -> Reference:
    """Returns the name that a data set has on a shelf, whether it is there or not."""
    said = json.dumps(settings_of(source), sort_keys=True)
    which = f"{data.labelled_fingerprint[:16]}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    plain = re.sub("[^a-z0-9_]", "_", source.name.lower())
    return Reference(shelf, f"{plain}-{which}.json")


def put_reference(reference: Reference, data: PreparedData, source: Any, held: Contents) -> None:
    """Puts the description of a data set whose parts are on the shelf.

    Raises:
        StorageError: the store cannot be written.
    """
    plain = {
        "format": FORMAT,
        "source": source.name,
        "settings": settings_of(source),
        "images": data.images_dir.name,
        "labels": data.labels_dir.name,
        "fingerprint": data.fingerprint,
        "labelled_fingerprint": data.labelled_fingerprint,
        "facts": asdict(data.facts),
        "contents": asdict(held),
        "notes": list(data.notes),
    }
    said: dict[str, Any] = json.loads(json.dumps(plain))
    said["checksum"] = _checksum(said)
    store, name = reference.shelf.store, reference.shelf.name(SETS, reference.file)
    # A damaged one is replaced, and one that differs in its notes alone says the same.
    store.put(name, json.dumps(said, indent=1).encode(), replace=True)


def settings_of(source: Any) -> dict[str, Any]:
    """Returns the settings of a source that are no defaults, as JSON values, without its path: a
    setting that a later version adds changes no name.
    """
    changed = {
        item.name: getattr(source, item.name)
        for item in fields(source)
        if item.name != "path"
        and (item.default is MISSING or getattr(source, item.name) != item.default)
    }
    plain: dict[str, Any] = json.loads(json.dumps(changed))
    return plain


def _data(found: dict[str, Any], shelf: Shelf) -> PreparedData:
    for part in ("images", "labels"):
        # The names become paths: nothing that is read here leads out of the cache.
        if not re.fullmatch("[a-z0-9_]+(-[0-9a-f]+){1,2}", found[part]):
            raise ValueError(f"{part} is not the name of any")
    return PreparedData(
        name=str(found["facts"]["name"]),
        images_dir=cache_root() / "images" / found["images"],
        labels_dir=cache_root() / "labels" / found["labels"],
        fingerprint=str(found["fingerprint"]),
        labelled_fingerprint=str(found["labelled_fingerprint"]),
        facts=DatasetFacts(**found["facts"]),
        notes=tuple(str(note) for note in found["notes"]),
        shelf=shelf,
    )


def _contents(said: dict[str, Any]) -> Contents:
    found = Contents(**said)
    return replace(found, class_names=tuple(found.class_names))


def _spoken(name: str, settings: dict[str, Any]) -> str:
    return " ".join([str(name), *(f"{key}={value}" for key, value in settings.items())])


def _checksum(said: dict[str, Any]) -> str:
    plain = {key: value for key, value in said.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _guarded(act: Callable[[], Answer]) -> Answer:
    """Returns what `act` does; what a store refuses is a matter of the data's place."""
    try:
        return act()
    except (StorageLost, DataError):
        raise
    except (Unreadable, StorageError) as error:
        raise DataError(
            f"{error} (prepared data lies there; {VARIABLE} and dataset.path say where)"
        ) from None
