"""A sweep as a folder: made once, run until every trial is finished or failed, and gone on with from nothing but its own records."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.layout import SweepLayout
from orchestrator.records import read_error, read_lines, write_lines
from orchestrator.storage import ASIDE, commit_file
from orchestrator.trial import versions
from search_spaces.config import Spec, Trial
from search_spaces.spec import load_spec
from search_spaces.trials import enumerate_trials, trial_from_mapping, trial_to_mapping
from trainers.errors import UserError


class SweepError(UserError):
    """The sweep's folder cannot be used as asked."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One setting of the varied keys and its trials, one a seed."""

    id: str
    cases: tuple[str, ...]
    settings: dict[str, Any]
    trials: tuple[Trial, ...]


def group_candidates(trials: list[Trial]) -> list[Candidate]:
    """Trials grouped by candidate, in order of first appearance."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.candidate, []).append(trial)
    return [Candidate(key, members[0].cases, members[0].settings, tuple(members)) for key, members in grouped.items()]


def code_hash() -> str:
    """SHA-256 over the source of the three packages: changes whenever the code does."""
    h = hashlib.sha256()
    root = Path(__file__).resolve().parent.parent
    for package in ("trainers", "search_spaces", "orchestrator"):
        for path in sorted((root / package).rglob("*.py")):
            h.update(path.relative_to(root).as_posix().encode())
            h.update(path.read_bytes())
    return h.hexdigest()


def create(spec: Spec, layout: SweepLayout, *, engine: str, device: str) -> list[Candidate]:
    """The folder of the sweep exists and names its candidates; an adaptive search has none yet.

    A folder that already holds this very sweep is gone on with, so that a command may be given twice.

    Raises:
        SweepError: the folder holds something else, or cannot be written.
    """
    resolved = _resolved(spec)
    if layout.resolved.exists():
        if _read_resolved(layout) == resolved:
            return _whole(layout, spec)
        if not _nothing_recorded(layout):
            raise SweepError(
                f"{layout.root}: already holds another sweep (its resolved.yaml differs from what {spec.source} asks for). "
                f"Choose another folder with --out, or go on with that one: orchestrate resume {layout.root}"
            )
        # One that was refused before its first label: the corrected command takes its place.
        shutil.rmtree(layout.trials, ignore_errors=True)
    elif _foreign(layout):
        raise SweepError(f"{layout.root}: is not empty and holds no sweep. Choose another folder with --out.")
    trials = enumerate_trials(spec)
    layout.trials.mkdir(parents=True, exist_ok=True)
    manifest = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "engine": engine,
        "device": device,
        "threads_per_worker": spec.resources.cpus_per_worker,
        "world_size": spec.resources.workers,
        "cpus": os.cpu_count(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "versions": versions(),
        "code_sha256": code_hash(),
    }
    commit_file(layout.spec, spec.text.encode(), replace=True)
    commit_file(layout.manifest, json.dumps(manifest, indent=1).encode(), replace=True)
    candidates = group_candidates(trials or [])
    write_candidates(layout, candidates)
    # Last: its presence says that the folder is whole.
    commit_file(layout.resolved, yaml.safe_dump(resolved, sort_keys=False).encode(), replace=True)
    return candidates


def _nothing_recorded(layout: SweepLayout) -> bool:
    """Whether no label was bought and no stage trained."""
    return not any(path.is_file() for folder in (layout.trials, layout.stage_store) for path in folder.rglob("*"))


def _foreign(layout: SweepLayout) -> bool:
    """Whether the folder holds anything but what a creation that was cut short may have left."""
    ours = {layout.lock.name, layout.spec.name, layout.manifest.name, layout.candidates.name}
    return any(not (path.name in ours or path.name.startswith(ASIDE) or (path == layout.trials and not any(path.iterdir()))) for path in layout.root.iterdir())


def _resolved(spec: Spec) -> dict[str, Any]:
    plain = {
        "name": spec.name,
        "overrides": list(spec.overrides),
        "base": spec.base,
        "cases": spec.cases,
        "seeds": list(spec.seeds),
        "search": asdict(spec.search),
        "resources": asdict(spec.resources),
        "baseline": spec.baseline,
        "spec_sha256": hashlib.sha256(spec.text.encode()).hexdigest(),
    }
    loaded: dict[str, Any] = json.loads(json.dumps(plain))
    return loaded


def _read_resolved(layout: SweepLayout) -> dict[str, Any]:
    """Raises SweepError where resolved.yaml is not the mapping that a sweep wrote."""
    try:
        found = yaml.safe_load(layout.resolved.read_bytes())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SweepError(f"{layout.resolved}: cannot be read ({' '.join(str(error).split())}). Restore it from a copy.") from error
    if not isinstance(found, dict) or not {"overrides", "search", "spec_sha256"} <= found.keys():
        raise SweepError(f"{layout.resolved}: damaged: it is not whole. Restore it from a copy.")
    return found


def open_spec(root: Path) -> tuple[SweepLayout, Spec]:
    """The spec of a sweep that was created before, from its own records alone.

    Raises:
        SweepError: the folder holds no sweep, or its spec is not the one that it was created from.
    """
    layout = SweepLayout(root)
    if not os.path.lexists(layout.resolved):
        raise SweepError(f"{root}: holds no sweep (no resolved.yaml). Start one with: orchestrate sweep SPEC --out {root}")
    resolved = _read_resolved(layout)
    spec = load_spec(str(layout.spec), resolved["overrides"])
    if hashlib.sha256(spec.text.encode()).hexdigest() != resolved["spec_sha256"]:
        raise SweepError(f"{layout.spec}: is not the spec that this sweep was created from. Restore it from a copy; a changed spec is a new sweep.")
    return layout, spec


FREE_RESOURCES = ("max_concurrent", "start_timeout", "max_failures", "checkpoint_seconds")
"""Keys of `resources` that change no result: a sweep may be gone on with under others."""


def with_resources(layout: SweepLayout, spec: Spec, overrides: Sequence[str]) -> Spec:
    """The spec with other FREE_RESOURCES, for this run; nothing is recorded.

    Raises:
        SweepError: an override is of something else.
    """
    if not overrides:
        return spec
    changed = load_spec(str(layout.spec), [*spec.overrides, *overrides])
    free = {name: getattr(changed.resources, name) for name in FREE_RESOURCES}
    freed = replace(spec, resources=replace(spec.resources, **free))
    if _resolved(changed) | {"overrides": None} != _resolved(freed) | {"overrides": None}:
        names = ", ".join(f"resources.{name}" for name in FREE_RESOURCES)
        raise SweepError(f"--set {' '.join(overrides)}: a sweep that has begun can be gone on with under another {names}; anything else is another sweep.")
    return freed


def open_sweep(root: Path) -> tuple[SweepLayout, Spec, list[Candidate]]:
    """A sweep that was created before, with its candidates.

    Raises:
        SweepError: the folder holds no sweep, or its records are damaged.
    """
    layout, spec = open_spec(root)
    return layout, spec, _whole(layout, spec)


def _whole(layout: SweepLayout, spec: Spec) -> list[Candidate]:
    """The sweep's candidates; raises SweepError where some of a list are gone, which would leave them out of the report without a word."""
    candidates, listed = load_candidates(layout), enumerate_trials(spec)
    wanted = len({trial.candidate for trial in listed or ()})
    if len(candidates) < wanted:
        raise SweepError(f"{layout.candidates}: damaged: it lists {len(candidates)} of {wanted} candidates. Restore it from a copy.")
    return candidates


def candidate_to_row(candidate: Candidate) -> dict[str, Any]:
    """A line of candidates.jsonl."""
    trials = [trial_to_mapping(trial) for trial in candidate.trials]
    return {"candidate": candidate.id, "cases": list(candidate.cases), "settings": candidate.settings, "trials": trials}


def candidate_from_row(row: dict[str, Any]) -> Candidate:
    return Candidate(row["candidate"], tuple(row["cases"]), row["settings"], tuple(trial_from_mapping(trial) for trial in row["trials"]))


def write_candidates(layout: SweepLayout, candidates: list[Candidate]) -> None:
    write_lines(layout.candidates, [candidate_to_row(candidate) for candidate in candidates])


def load_candidates(layout: SweepLayout) -> list[Candidate]:
    """Raises SweepError where a line is not a candidate of this software."""
    candidates = []
    for row in read_lines(layout.candidates):
        try:
            candidates.append(candidate_from_row(row))
        except (KeyError, TypeError, ValueError) as error:
            raise SweepError(f"{layout.candidates}: damaged (a line is not a candidate: {type(error).__name__} {error}). Restore it from a copy.") from error
    return candidates


def is_finished(layout: SweepLayout, trial: Trial) -> bool:
    return len(read_lines(layout.trial(trial.id).stages)) == len(trial.schedule.quotas) + 1


def is_failed(layout: SweepLayout, trial: Trial) -> bool:
    return read_error(layout.trial(trial.id)) is not None


def forgive(layout: SweepLayout, candidates: list[Candidate]) -> int:
    """Failed trials are unfinished again; returns how many there were. Their records, ledgers and checkpoints are kept."""
    failed = [trial for candidate in candidates for trial in candidate.trials if is_failed(layout, trial)]
    for trial in failed:
        layout.trial(trial.id).error.unlink()
    return len(failed)


def extend(layout: SweepLayout, candidates: list[Candidate], more: int) -> tuple[Spec, list[Candidate]]:
    """The sweep asks for `more` candidates than before; a random search's are drawn, as a longer search would have drawn them.

    Raises:
        SweepError: the sweep is a list of cases or a grid, which has no more.
    """
    resolved = _read_resolved(layout)
    if resolved["search"]["algorithm"] == "grid":
        raise SweepError(f"{layout.root}: is a grid, which is complete; only a search (random, tpe) can be extended. Start a new sweep with more values.")
    total = resolved["search"]["num_candidates"] + more
    overrides = [*resolved["overrides"], f"search.num_candidates={total}"]
    spec = load_spec(str(layout.spec), overrides)
    drawn = enumerate_trials(spec)
    if drawn is not None:
        candidates = group_candidates(drawn)
        write_candidates(layout, candidates)
    commit_file(layout.resolved, yaml.safe_dump(_resolved(spec), sort_keys=False).encode(), replace=True)
    return spec, candidates
