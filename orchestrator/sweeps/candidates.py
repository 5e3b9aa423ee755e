"""The candidates of a sweep: one setting of the varied keys each, with a trial per seed; one file
each, put once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.catalogue import INSTALLED, Catalogue
from orchestrator.storage.store import Store, Unreadable
from orchestrator.sweeps.layout import SweepLayout, checked_name
from orchestrator.sweeps.records import RecordsDamaged, encode_object, read_error, read_object
from orchestrator.sweeps.stage_records import has_stages
from search_spaces.reading.config import Trial
from search_spaces.reading.settings import PLUGINS
from search_spaces.reading.trials import trial_to_mapping, trials_from_mappings
from trainers.errors import UserError

_NAME: Final = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One setting of the varied keys and its trials, one a seed."""

    id: str
    cases: tuple[str, ...]
    settings: dict[str, Any]
    trials: tuple[Trial, ...]


def group_candidates(trials: list[Trial]) -> list[Candidate]:
    """Returns trials grouped by candidate, in order of first appearance."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.candidate, []).append(trial)
    return [
        Candidate(key, members[0].cases, members[0].settings, tuple(members))
        for key, members in grouped.items()
    ]


def candidate_to_row(candidate: Candidate) -> dict[str, Any]:
    """Returns the candidate as JSON values; candidate_from_row is the inverse."""
    trials = [trial_to_mapping(trial) for trial in candidate.trials]
    return {
        "candidate": candidate.id,
        "cases": list(candidate.cases),
        "settings": candidate.settings,
        "trials": trials,
    }


def candidate_from_row(row: dict[str, Any], catalogue: Catalogue = INSTALLED) -> Candidate:
    """Returns the candidate that a row describes.

    Raises:
        KeyError, TypeError, ValueError, UserError: the row describes none, or an id in it is no
        plain name.
    """
    trials = trials_from_mappings(row["trials"], catalogue)
    for name in (
        row["candidate"],
        *(trial.id for trial in trials),
        *(trial.candidate for trial in trials),
    ):
        checked_name(name)
    if not trials or any(trial.candidate != row["candidate"] for trial in trials):
        raise ValueError("its trials are another candidate's")
    return Candidate(
        row["candidate"], tuple(str(case) for case in row["cases"]), dict(row["settings"]), trials
    )


def put_candidates(
    layout: SweepLayout,
    candidates: Sequence[Candidate],
    first: int = 0,
    *,
    catalogue: Catalogue = INSTALLED,
) -> list[Candidate]:
    """Commits candidates under the numbers from `first` on; returns the committed ones.

    Raises:
        RecordsDamaged: another candidate stands under one of the numbers.
    """
    rows = {
        layout.candidate(number): encode_object(candidate_to_row(candidate) | {"number": number})
        for number, candidate in enumerate(candidates, start=first)
    }
    held = _put(layout.store, rows)
    committed = []
    for number, candidate in enumerate(candidates, start=first):
        if layout.candidate(number) in held:
            committed.append(candidate)
            continue
        present = read_candidate(layout, number, catalogue)
        if present.id != candidate.id:
            raise RecordsDamaged(
                layout.place(layout.candidate(number)),
                f"it holds candidate {present.id}, and {candidate.id} was to be put there",
            )
        committed.append(present)
    return committed


def _put(store: Store, rows: Mapping[str, bytes]) -> set[str]:
    """Puts facts, each only where its name is free; returns the names that hold just these bytes
    now.
    """
    if len(rows) == 1:
        # As a search draws them: one write says whose bytes won, and waits for no other file of
        # this machine.
        [(name, data)] = rows.items()
        with suppress(Unreadable):
            return {name} if store.put(name, data) else set()
        return set()
    store.put_new(rows)
    return {name for name, data in rows.items() if _holds(store, name, data)}


def _holds(store: Store, name: str, data: bytes) -> bool:
    try:
        return store.get(name) == data
    except (FileNotFoundError, Unreadable):
        return False


def numbers(layout: SweepLayout) -> list[int]:
    """Returns the numbers of the candidates on record, ascending."""
    try:
        names = layout.store.names(layout.candidates)
        # A folder under the name of a candidate is damage, and no less a number.
        names += layout.store.folders(layout.candidates)
    except Unreadable as error:
        raise RecordsDamaged(error.place, error.reason) from error
    below = len(layout.candidates) + 1
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name, below)))


def read_candidate(layout: SweepLayout, number: int, catalogue: Catalogue = INSTALLED) -> Candidate:
    """Raises RecordsDamaged where the file is missing or is not the candidate that was put
    there.
    """
    row = read_object(layout.store, layout.candidate(number))
    if row is None:
        raise RecordsDamaged(layout.place(layout.candidate(number)), "it is missing")
    return _decoded(layout, number, row, catalogue)


def load_candidates(layout: SweepLayout, catalogue: Catalogue = INSTALLED) -> list[Candidate]:
    """Returns every candidate on record, in order.

    Raises:
        RecordsDamaged: one is missing or damaged.
    """
    layout = SweepLayout(layout.store.view())
    layout.store.fetch(lambda names: (n for n in names if n.startswith(f"{layout.candidates}/")))
    return [
        read_candidate(layout, number, catalogue)
        for number in range(max(numbers(layout), default=-1) + 1)
    ]


def _decoded(
    layout: SweepLayout, number: int, row: dict[str, Any], catalogue: Catalogue
) -> Candidate:
    place = layout.place(layout.candidate(number))
    if row.get("number") != number:
        raise RecordsDamaged(
            place, f"it is candidate number {row.get('number')!r:.20}; two files were exchanged"
        )
    try:
        return candidate_from_row(row, catalogue)
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        _check_installed(place, row, catalogue)
        raise RecordsDamaged(
            place, f"it is no candidate: {type(error).__name__} {error}"
        ) from error


def _check_installed(place: str, row: dict[str, Any], catalogue: Catalogue) -> None:
    """Raises UserError where the candidate names a plug-in that is not installed here: the record
    is whole, and another process could read it.
    """
    for config in _configs(row):
        for section, plugin in PLUGINS.items():
            name = config.get(section, {}).get(plugin.key.partition(".")[2])
            if isinstance(name, str) and name not in catalogue.names(plugin.kind):
                raise UserError(
                    f"{place}: names {plugin.noun} {name!r:.100}, which is not installed here."
                    " Install the package that offers it; from Python, hand its class over:"
                    " plugins=[...]"
                )


def _configs(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    trials = row.get("trials")
    for trial in trials if isinstance(trials, list) else []:
        config = trial.get("config") if isinstance(trial, dict) else None
        if isinstance(config, dict) and all(isinstance(part, dict) for part in config.values()):
            yield config


def is_finished(layout: SweepLayout, trial: Trial) -> bool:
    """Returns whether every stage of the trial is on record."""
    return has_stages(layout.trial(trial.id), len(trial.schedule.quotas) + 1)


def is_failed(layout: SweepLayout, trial: Trial) -> bool:
    """Returns whether the trial has left a reason why it cannot go on."""
    return read_error(layout.trial(trial.id)) is not None
