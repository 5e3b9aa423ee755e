"""A sweep's folder: created once, resumed from its own files."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from orchestrator.catalogue import Catalogue
from orchestrator.machine import usable_cpus
from orchestrator.storage.store import NoStore
from orchestrator.storage.user_files import expand, is_address
from orchestrator.sweeps import resolved as resolved_file
from orchestrator.sweeps.candidates import (
    Candidate,
    group_candidates,
    load_candidates,
    numbers,
    put_candidates,
)
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import read_error
from orchestrator.sweeps.resolved import PATH_KEY, SweepError, override_key
from orchestrator.sweeps.versions import versions
from search_spaces.reading.config import Spec
from search_spaces.reading.trials import enumerate_trials

FREE_RESOURCES: Final = (
    "max_concurrent",
    "start_timeout",
    "max_failures",
    "max_preemptions",
    "checkpoint_seconds",
    "max_hours",
    "max_gpu_hours",
    "price_per_hour",
)
"""Keys of `resources` that change no result: a sweep may be resumed under others."""

_FREE_KEYS: Final = (PATH_KEY, *(f"resources.{name}" for name in FREE_RESOURCES))


def code_hash() -> str:
    """Returns the SHA-256 over the source of the three packages: changes whenever the code does."""
    h = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    for package in ("trainers", "search_spaces", "orchestrator"):
        for path in sorted((root / package).rglob("*.py")):
            h.update(path.relative_to(root).as_posix().encode())
            h.update(path.read_bytes())
    return h.hexdigest()


def located(spec: Spec) -> Spec:
    """Returns the spec with the data's path absolute, so that the sweep means the same data from
    whatever folder it is resumed.
    """
    path = spec.base.get(PATH_KEY)
    if path is None or is_address(path):
        return spec
    # Not resolve(): it would follow links, which may be moved on purpose.
    absolute = str(Path(os.path.abspath(expand(path, "dataset.path"))))  # noqa: PTH100
    return replace(spec, base=spec.base | {PATH_KEY: absolute})


def examine(spec: Spec, layout: SweepLayout) -> dict[str, Any] | None:
    """Returns the resolved.yaml of this very sweep where the folder holds it already; None where it
    may be created. Writes nothing.

    Raises:
        SweepError: the folder holds another sweep or anything else, or its sweep is damaged or too
            old to be resumed.
    """
    try:
        if layout.store.is_empty():
            return None
    except NoStore:
        raise SweepError(
            f"{layout.location}: is not a folder. Choose another with --out."
        ) from None
    if not layout.store.has(layout.resolved):
        _check_unused(spec, layout)
        return None
    resolved = resolved_file.read(layout)
    _check_schema(layout, resolved)
    overrides = [text for text in spec.overrides if override_key(text) != PATH_KEY]
    if (
        resolved["spec_sha256"] == hashlib.sha256(spec.text.encode()).hexdigest()
        and resolved.get("extended", []) == resolved_file.extended_of(spec)
        and resolved["overrides"] == overrides
    ):
        return resolved
    if not _nothing_recorded(layout):
        raise SweepError(
            f"{layout.location}: already holds another sweep (its resolved.yaml differs from what"
            f" {spec.source} asks for). Choose another folder with --out, or resume that one:"
            f" orchestrate resume {layout.location}"
        )
    return None


def create(
    spec: Spec,
    layout: SweepLayout,
    *,
    data: str,
    prepared: str | None = None,
    engine: str,
    device: str,
) -> list[Candidate]:
    """Puts the folder of the sweep in place and returns its candidates; an adaptive search has none
    yet.

    A folder that already holds this very sweep is resumed, so that a command may be given
    twice.

    Args:
        data: fingerprint of the data with its labels.
        prepared: address at which the prepared data is put where a machine lacks it; None: in the
            sweep's own store.

    Raises:
        SweepError: as `examine`, or the data is not what the sweep was begun with.
    """
    resolved = examine(spec, layout)
    if resolved is not None:
        check_data(layout, resolved, data, spec)
        return _whole(layout, resolved, spec.keys.catalogue)
    # What a creation that was cut short left, or one that was refused before its first label: the
    # corrected command takes its place.
    for folder in (layout.trials, layout.candidates, layout.extended):
        layout.store.remove(folder)
    candidates = group_candidates(enumerate_trials(spec) or [])
    manifest = json.dumps(_manifest(spec, engine, device), indent=1).encode()
    for file in spec.extended:
        layout.store.put(f"{layout.extended}/{file.name}", file.text.encode(), replace=True)
    layout.store.put(layout.spec, spec.text.encode(), replace=True)
    layout.store.put(layout.manifest, manifest, replace=True)
    candidates = put_candidates(layout, candidates, catalogue=spec.keys.catalogue)
    listed = None if spec.search.algorithm.adaptive else len(candidates)
    # Last: its presence says that the folder is whole.
    resolved_file.write(
        layout,
        resolved_file.describe(
            spec, manifest=manifest, data=data, prepared=prepared, listed=listed
        ),
    )
    return candidates


def _manifest(spec: Spec, engine: str, device: str) -> dict[str, Any]:
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "engine": engine,
        "device": device,
        "threads_per_worker": spec.resources.cpus_per_worker,
        "world_size": spec.resources.workers,
        "cpus": usable_cpus(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "versions": versions(),
        "code_sha256": code_hash(),
    }


def begun_on(layout: SweepLayout) -> str:
    """Returns the name of the engine that a sweep, found whole, was begun on."""
    engine: str = json.loads(layout.store.get(layout.manifest))["engine"]
    return engine


def _check_schema(layout: SweepLayout, resolved: dict[str, Any]) -> None:
    if resolved_file.is_old(resolved):
        raise SweepError(
            f"{layout.location}: is a sweep of version 0.1.0, which can be reported and verified,"
            " not resumed; start a new one in another folder: --out DIR"
        )


def _nothing_recorded(layout: SweepLayout) -> bool:
    """Returns whether no label was bought and no stage trained."""
    return not any(layout.store.names(folder) for folder in (layout.trials, layout.stages))


def _check_unused(spec: Spec, layout: SweepLayout) -> None:
    """Raises SweepError where the folder holds anything but what a creation of this sweep that was
    cut short may have left.
    """
    if resolved_file.holds_sweep(layout):
        raise SweepError(
            f"{layout.place(layout.resolved)}: missing, and records of a sweep are beside it;"
            " restore it from a copy, or choose another folder with --out."
        )

    store = layout.store
    ours = (layout.lock, layout.spec, layout.manifest, layout.candidates, layout.extended)
    if store.has_others(ours, layout.lock):
        raise SweepError(
            f"{layout.location}: is not empty and holds no sweep. Choose another folder with --out."
        )
    if store.has(layout.spec) and store.get(layout.spec) != spec.text.encode():
        raise SweepError(
            f"{layout.place(layout.spec)}: is another spec than {spec.source}, and would be"
            " overwritten. Choose another folder with --out, or remove that one."
        )


def check_data(layout: SweepLayout, resolved: dict[str, Any], data: str, spec: Spec) -> None:
    """Raises SweepError where the data, labels included, is not what the sweep was begun with."""
    begun_with = resolved["data"]["fingerprint"]
    if data != begun_with:
        where = spec.base.get(PATH_KEY) or spec.facts.name
        raise SweepError(
            f"{layout.location}: the data at {where} is not what this sweep was begun with"
            f" (fingerprint {data[:12]}, and {begun_with[:12]} is on record): an item or a label"
            " differs. Put the old data back, or say where it lies now with --set"
            " dataset.path=PATH; new data is a new sweep: --out DIR"
        )


def open_sweep(
    layout: SweepLayout, overrides: Sequence[str] = (), plugins: Sequence[type[Any]] = ()
) -> tuple[Spec, list[Candidate], dict[str, Any]]:
    """Returns a sweep that was created before: its spec, its candidates and its resolved.yaml.

    Args:
        overrides: `--set` of this run: FREE_RESOURCES, or where the data lies now.
        plugins: classes that the sweep was begun with from Python.

    Raises:
        SweepError: the folder holds no sweep that can be resumed, its records are damaged, or
            an override is of something else.
    """
    resolved = resolved_file.read(layout)
    _check_schema(layout, resolved)
    for problem in resolved_file.check_whole(layout, resolved):
        raise SweepError(problem)
    for text in overrides:
        if override_key(text) not in _FREE_KEYS:
            raise SweepError(
                f"--set {text}: a sweep that has begun can be resumed under another"
                f" {', '.join(_FREE_KEYS)}; anything else is another sweep."
            )
    catalogue = resolved_file.catalogue_of(layout, resolved, plugins)
    spec = resolved_file.read_spec(layout, resolved, overrides, catalogue)
    return located(spec), _whole(layout, resolved, catalogue), resolved


def is_as_read(
    layout: SweepLayout, resolved: dict[str, Any], candidates: Sequence[Candidate]
) -> bool:
    """Returns whether a sweep that was opened is still what it was: its resolved.yaml, and how many
    candidates it has, which are never replaced.
    """
    return resolved_file.read(layout) == resolved and (
        resolved["listed"] is not None or len(numbers(layout)) == len(candidates)
    )


def _whole(layout: SweepLayout, resolved: dict[str, Any], catalogue: Catalogue) -> list[Candidate]:
    """Returns the sweep's candidates; raises SweepError where some of a list are gone, which would
    leave them out of the report without a word.
    """
    candidates, listed = load_candidates(layout, catalogue), resolved["listed"]
    if listed is not None and len(candidates) < listed:
        raise SweepError(
            f"{layout.place(layout.candidates)}: damaged: it holds {len(candidates)} of {listed}"
            " candidates. Restore it from a copy."
        )
    # More than are listed: an `extend` was cut short, and will draw the same ones again.
    return candidates[:listed]


def prepared_at(resolved: dict[str, Any] | None) -> str | None:
    """Returns the address on record at which the prepared data is put where a machine lacks it;
    None where that is the sweep's own store.
    """
    found = None if resolved is None else resolved["data"].get("prepared")
    return None if found is None else str(found)


def relocate(
    layout: SweepLayout, resolved: dict[str, Any], spec: Spec, *, prepared: str | None
) -> dict[str, Any]:
    """Records where the data lies now, which may have been moved; returns resolved.yaml's
    content.
    """
    data = resolved["data"] | {"path": spec.base.get(PATH_KEY)}
    data.pop("prepared", None)
    data |= {} if prepared is None else {"prepared": prepared}
    if resolved["data"] == data:
        return resolved
    moved = resolved | {"data": data}
    resolved_file.write(layout, moved)
    return moved


def clear_failures(layout: SweepLayout, candidates: list[Candidate]) -> list[str]:
    """Makes failed trials unfinished again; returns of what kind each failure was. Their records,
    ledgers and checkpoints are kept.
    """
    failed = {
        trial.id: failure["kind"]
        for candidate in candidates
        for trial in candidate.trials
        if (failure := read_error(layout.trial(trial.id))) is not None
    }
    for trial_id in failed:
        layout.store.remove(layout.trial(trial_id).error)
    return list(failed.values())


def check_extendable(layout: SweepLayout, resolved: dict[str, Any]) -> None:
    """Raises SweepError where the sweep is a list of cases or a grid, which has no more
    candidates.
    """
    if resolved["search"]["num_candidates"] is None:
        raise SweepError(
            f"{layout.location}: is a grid, which is complete; only a search (random, tpe) can be"
            " extended. Start a new sweep with more values."
        )


def extend(
    layout: SweepLayout,
    resolved: dict[str, Any],
    spec: Spec,
    candidates: list[Candidate],
    more: int,
) -> tuple[Spec, list[Candidate]]:
    """Asks for `more` candidates than before; a random search's are drawn, as a longer search would
    have drawn them.

    Raises:
        SweepError: the sweep is a list of cases or a grid, which has no more.
    """
    check_extendable(layout, resolved)
    total = resolved["search"]["num_candidates"] + more
    text = f"search.num_candidates={total}"
    longer = located(resolved_file.read_spec(layout, resolved, [text], spec.keys.catalogue))
    drawn = enumerate_trials(longer)
    listed = None
    if drawn is not None:
        known = {candidate.id for candidate in candidates}
        fresh = [candidate for candidate in group_candidates(drawn) if candidate.id not in known]
        candidates = candidates + put_candidates(
            layout, fresh, first=len(candidates), catalogue=spec.keys.catalogue
        )
        listed = len(candidates)
    search = resolved["search"] | {"num_candidates": total}
    resolved_file.write(
        layout,
        resolved
        | {"overrides": [*resolved["overrides"], text], "search": search, "listed": listed},
    )
    return replace(longer, resources=spec.resources), candidates
