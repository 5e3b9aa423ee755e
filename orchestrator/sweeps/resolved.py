"""resolved.yaml: what a sweep's spec came to, and which spec, data and machine it was begun with.
Written and read here alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import yaml

from orchestrator.catalogue import INSTALLED, Catalogue, load_spec
from orchestrator.storage.files import StorageLost
from orchestrator.storage.store import NoStore, Unreadable
from orchestrator.storage.user_files import is_address, is_here
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import CHECKSUM, MOST_BYTES, checksum
from search_spaces.reading.assemble import nest
from search_spaces.reading.config import Extended, ResourcesConfig, Spec
from search_spaces.reading.schema import SCHEMA as SETTINGS_SCHEMA
from search_spaces.reading.yaml_source import read_text
from trainers.errors import UserError

SCHEMA: Final = 2
"""Of a sweep's folder. A sweep of 0.1.0 has none; from 2 on every later version goes on with the
sweeps of the earlier ones.
"""

PATH_KEY: Final = "dataset.path"


_FILE: Final = re.compile(r"[0-9]+-[A-Za-z0-9._-]+")


class SweepError(UserError):
    """The sweep's folder cannot be used as asked."""


def describe(
    spec: Spec,
    *,
    manifest: bytes,
    data: str,
    prepared: str | None = None,
    listed: int | None,
) -> dict[str, Any]:
    """Returns what is recorded of a spec.

    Args:
        manifest: bytes of manifest.json.
        data: fingerprint of the data with its labels.
        prepared: address at which the prepared data is put where a machine lacks it.
        listed: number of candidates where the spec lists them; None for a search that learns.
    """
    where = {"path": spec.base.get(PATH_KEY), "fingerprint": data}
    plain = {
        "schema": SCHEMA,
        "settings_schema": SETTINGS_SCHEMA,
        "name": spec.name,
        "overrides": [text for text in spec.overrides if override_key(text) != PATH_KEY],
        "base": nest(spec.base),
        "cases": spec.cases,
        "seeds": list(spec.seeds),
        "search": (
            {
                "algorithm": spec.search.algorithm.name,
                "num_candidates": spec.search.num_candidates,
                "seed": spec.search.seed,
            }
            | asdict(spec.search.algorithm)
        ),
        "resources": asdict(spec.resources),
        "baseline": spec.baseline,
        "listed": listed,
        "data": where if prepared is None else where | {"prepared": prepared},
        "spec_sha256": hashlib.sha256(spec.text.encode()).hexdigest(),
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
    }
    if spec.orderings:
        plain["orderings"] = spec.orderings
    if spec.extended:
        plain["extended"] = extended_of(spec)
    if handed := plugins_of(spec):
        plain["plugins"] = handed
    loaded: dict[str, Any] = json.loads(json.dumps(plain))
    return loaded


def extended_of(spec: Spec) -> list[dict[str, Any]]:
    """Returns what is recorded of the files that a spec extends."""
    return [
        {
            "file": file.name,
            "sha256": hashlib.sha256(file.text.encode()).hexdigest(),
            "extended_by": [list(mention) for mention in file.extended_by],
        }
        for file in spec.extended
    ]


def read_spec(
    layout: SweepLayout, found: Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue
) -> Spec:
    """Returns the spec that a sweep was begun with, read from what its folder keeps alone.

    Args:
        overrides: `--set` of this run, over those that it was begun with.

    Raises:
        SpecError: it cannot be read. See also `check_whole`.
    """
    path, moved = found["data"]["path"], None
    if not any(override_key(text) == PATH_KEY for text in overrides):
        moved = _elsewhere(found["data"])
    shown = [] if path is None else [f"{PATH_KEY}={moved or path}"]
    try:
        return load_spec(
            str(layout.store.local(layout.spec)),
            [*found["overrides"], *shown, *overrides],
            recorded=True,
            extended=_texts(layout, found),
            catalogue=catalogue,
        )
    except UserError as error:
        if moved is None or isinstance(error, StorageLost):
            raise
        raise SweepError(
            f"{layout.location}: its data was at {path}, which is not on this machine, and"
            f" prepared for others it should be elsewhere: {error}"
        ) from None


def _texts(layout: SweepLayout, found: Mapping[str, Any]) -> tuple[Extended, ...]:
    return tuple(
        Extended(
            name=entry["file"],
            shown=layout.place(f"{layout.extended}/{entry['file']}"),
            text=read_text(layout.store.local(f"{layout.extended}/{entry['file']}"), entry["file"]),
            extended_by=tuple((by, written) for by, written in entry["extended_by"]),
        )
        for entry in _extended(found)
    )


def _elsewhere(data: Mapping[str, Any]) -> str | None:
    """Returns where the data was to be put for others, on a machine that has it not where it was;
    None on one that has.
    """
    path, prepared = data["path"], data.get("prepared")
    if path is None or prepared is None or is_address(path) or is_here(path):
        return None
    return str(prepared)


def plugins_of(spec: Spec) -> list[dict[str, Any]]:
    """Returns what is recorded of the plug-ins that were handed over in Python: a later process
    must be given the same classes.
    """
    added: Mapping[tuple[str, str], type[Any]] = spec.keys.catalogue.added
    return [
        {
            "kind": kind,
            "name": name,
            "class": qualified(cls),
            "version": getattr(cls, "version", None),
        }
        for (kind, name), cls in sorted(added.items())
    ]


def qualified(cls: type[Any]) -> str:
    """Returns module:Class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def catalogue_of(
    layout: SweepLayout, resolved: Mapping[str, Any], plugins: Sequence[type[Any]] = ()
) -> Catalogue:
    """Returns the plug-ins that a sweep may name: what is installed, and the classes that it was
    begun with from Python.

    Raises:
        SweepError: one of those classes is not among `plugins`; the message names it.
    """
    catalogue = INSTALLED
    for entry in resolved.get("plugins") or ():
        cls = next(
            (
                cls
                for cls in plugins
                if getattr(cls, "name", None) == entry["name"]
                and cls.__qualname__ == entry["class"].partition(":")[2]
            ),
            None,
        )
        if cls is None:
            raise SweepError(
                f"{layout.location}: {entry['kind']} {entry['name']} is the class {entry['class']},"
                " which was handed over in Python. Go on from Python, with"
                f" orchestrator.resume({layout.location!r},"
                f" plugins=[{entry['class'].partition(':')[2]}]), or install it as a plug-in"
            )
        if getattr(cls, "version", None) != entry["version"]:
            raise SweepError(
                f"{layout.location}: was begun with version {entry['version']} of {entry['class']},"
                f" and this is version {getattr(cls, 'version', None)}"
            )
        catalogue = catalogue.adding(entry["kind"], cls)
    return catalogue


def override_key(text: str) -> str:
    """Returns the key of a `--set KEY=VALUE`, without a `base.` in front."""
    return text.partition("=")[0].strip().removeprefix("base.")


def write(layout: SweepLayout, resolved: dict[str, Any]) -> None:
    """Puts the file in place, with a checksum of its content."""
    text = yaml.safe_dump(
        resolved | {CHECKSUM: checksum(resolved)}, sort_keys=False, allow_unicode=True
    )
    layout.store.put(layout.resolved, text.encode(), replace=True)


def is_old(resolved: Mapping[str, Any]) -> bool:
    """Returns whether the sweep is one of 0.1.0, which can be read and not resumed."""
    return "schema" not in resolved


def holds_sweep(layout: SweepLayout) -> bool:
    """Returns whether the store holds a sweep, or what is left of one."""
    has = layout.store.has
    return (
        has(layout.resolved)
        or has(layout.seal)
        or (has(layout.manifest) and bool(layout.store.folders(layout.trials)))
    )


def read(layout: SweepLayout) -> dict[str, Any]:
    """Returns what was recorded.

    Raises:
        SweepError: there is no sweep, or resolved.yaml is not what was written.
    """
    place = layout.place(layout.resolved)
    damaged = f"{place}: damaged: "
    try:
        resolved = yaml.safe_load(layout.store.get(layout.resolved, MOST_BYTES))
    except FileNotFoundError:
        if holds_sweep(layout):
            raise SweepError(
                f"{place}: missing, and records of a sweep are beside it; restore it from a copy."
            ) from None
        raise SweepError(
            f"{layout.location}: holds no sweep (no resolved.yaml). Name the folder that a sweep"
            " wrote, such as runs/NAME."
        ) from None
    except NoStore:
        raise SweepError(
            f"{layout.location}: is a file. Name the folder that a sweep wrote, such as runs/NAME."
        ) from None
    except (Unreadable, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = error.reason if isinstance(error, Unreadable) else " ".join(str(error).split())
        if isinstance(error, RecursionError):
            reason = "nested too deeply"
        raise SweepError(
            f"{place}: cannot be read ({reason[:200]}). Restore it from a copy."
        ) from error
    if (
        not isinstance(resolved, dict)
        or not {"overrides", "search", "spec_sha256"} <= resolved.keys()
    ):
        raise SweepError(f"{damaged}it is not whole. Restore it from a copy.")
    try:
        if not is_old(resolved):
            if not isinstance(resolved["schema"], int) or resolved["schema"] > SCHEMA:
                raise SweepError(
                    f"{place}: schema {resolved['schema']!r:.20} is newer than this version"
                    " of orchestrate; install the one that wrote it."
                )
            if resolved.get(CHECKSUM) != checksum(resolved):
                raise ValueError(
                    "it is not what the sweep wrote: its content does not match its checksum"
                )
        _check(resolved)
    except (TypeError, ValueError, RecursionError) as error:
        raise SweepError(
            f"{damaged}{str(error) or 'it is not what the sweep wrote'}. Restore it from a copy."
        ) from error
    return resolved


def _extended(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is recorded of the files that the spec extends; their names lead out of no folder."""
    entries: list[dict[str, Any]] = found.get("extended", [])
    for entry in entries:
        if not _FILE.fullmatch(entry.get("file", "")) or not {"sha256", "extended_by"} <= set(
            entry
        ):
            raise ValueError("extended names no files that the sweep keeps")
    return entries


def _check(resolved: Mapping[str, Any]) -> None:
    """Checks that the keys that readers use are of their kind; those of 0.1.0 have no checksum."""
    kinds: dict[str, tuple[type, ...]] = {
        "overrides": (list,),
        "search": (dict,),
        "spec_sha256": (str,),
    }
    kinds |= {
        "cases": (dict, type(None)),
        "resources": (dict, type(None)),
        "baseline": (str, type(None)),
        "name": (str, type(None)),
    }
    for key, allowed in kinds.items():
        if not isinstance(resolved.get(key), allowed):
            raise ValueError(f"{key} is not what the sweep wrote there")
    number = resolved["search"].get("num_candidates")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise ValueError("search.num_candidates is no number")
    resources(resolved)
    orderings(resolved)
    _extended(resolved)


def orderings(resolved: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of cases that the sweep was begun to compare; none where it has none."""
    pairs = resolved.get("orderings", [])
    if not isinstance(pairs, list) or any(
        not isinstance(pair, list)
        or len(pair) != 2
        or not all(isinstance(name, str) for name in pair)
        for pair in pairs
    ):
        raise ValueError("orderings is not what the sweep wrote there")
    return tuple((above, below) for above, below in pairs)


def resources(resolved: Mapping[str, Any]) -> ResourcesConfig:
    """Returns the resources that the sweep was begun with; a setting added since has its
    default.
    """
    recorded = resolved.get("resources") or {}
    return ResourcesConfig(
        **{
            item.name: recorded[item.name]
            for item in fields(ResourcesConfig)
            if item.name in recorded
        }
    )


def check_whole(layout: SweepLayout, resolved: Mapping[str, Any]) -> list[str]:
    """Says which of spec.yaml, the files that it extends and manifest.json is not the one that the
    sweep was begun with.
    """
    if is_old(resolved):
        return []
    return [
        problem
        for name, committed in (
            (layout.spec, resolved["spec_sha256"]),
            *(
                (f"{layout.extended}/{entry['file']}", entry["sha256"])
                for entry in _extended(resolved)
            ),
            (layout.manifest, resolved["manifest_sha256"]),
        )
        if (problem := _changed(layout, name, committed))
    ]


def _changed(layout: SweepLayout, name: str, committed: str) -> str | None:
    try:
        same = hashlib.sha256(layout.store.get(name)).hexdigest() == committed
    except FileNotFoundError:
        return f"{layout.place(name)}: missing; restore it from a copy"
    except Unreadable as error:
        return str(error)
    if same:
        return None
    return (
        f"{layout.place(name)}: is not the one that this sweep was begun with; restore it from a"
        " copy"
    )
