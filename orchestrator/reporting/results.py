"""What a sweep's folder says, finished or still running, as typed values. Reads only; never waits,
never locks, never needs the data.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from orchestrator.catalogue import Catalogue
from orchestrator.sweeps import old_sweeps, resolved, seal
from orchestrator.sweeps.candidates import Candidate, candidate_from_row, numbers, read_candidate
from orchestrator.sweeps.layout import SweepLayout, TrialLayout
from orchestrator.sweeps.records import RecordsDamaged, read_error
from orchestrator.sweeps.stage_records import (
    StageRecord,
    from_object,
    ledger_problem,
    stages_on_record,
)
from search_spaces.reading.config import ResourcesConfig, Trial
from trainers.errors import UserError, one_line

__all__ = [
    "CandidateResult",
    "Failure",
    "ResultsDamaged",
    "StageRecord",
    "SweepResults",
    "TrialResult",
    "load",
    "printable",
]

TrialState = Literal["finished", "failed", "running", "pending"]
"""`running`: has files and is neither finished nor failed. Says nothing about a live process.
"""


class ResultsDamaged(UserError):
    """Records of the sweep are not what was written; nothing is said of its results."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        shown = [printable(problem) for problem in problems[:20]]
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        super().__init__(
            "\n".join(
                [
                    "the sweep is damaged, and nothing is reported:",
                    *(f"  {line}" for line in [*shown, *more]),
                ]
            )
        )

    def __reduce__(self) -> tuple[type[ResultsDamaged], tuple[tuple[str, ...]]]:
        # Exceptions are otherwise pickled by their message alone.
        return ResultsDamaged, (self.problems,)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial ended before its last stage."""

    stage: int | None
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A trial and the stages that it has finished, in order and without gaps."""

    trial: Trial
    records: tuple[StageRecord, ...]
    failure: Failure | None
    begun: bool
    """The trial has left something on disk."""
    files: TrialLayout

    @property
    def stages(self) -> int:
        """Trainings of the whole schedule."""
        return len(self.trial.schedule.quotas) + 1

    @property
    def state(self) -> TrialState:
        if len(self.records) == self.stages:
            return "finished"
        if self.failure is not None:
            return "failed"
        return "running" if self.begun else "pending"

    @property
    def bits(self) -> float:
        """Spent so far, as of the last finished stage."""
        return self.records[-1].bits if self.records else 0.0


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One setting of the varied keys: all names it goes by, and a trial per seed."""

    id: str
    cases: tuple[str, ...]
    settings: Mapping[str, Any]
    trials: tuple[TrialResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResults:
    """Everything that the reports say is derived from this."""

    name: str
    layout: SweepLayout
    baseline: str | None
    """Case that differences are taken to; None in a search without cases."""
    orderings: tuple[tuple[str, str], ...]
    """Pairs of cases that are compared, the one that is expected to be higher first."""
    case_order: tuple[str, ...]
    algorithm: str
    num_candidates: int | None
    """How many a search will draw; None where the candidates are listed."""
    resources: ResourcesConfig
    candidates: tuple[CandidateResult, ...]
    damaged: tuple[str, ...]
    """What should be readable and is not, or does not fit the rest: the file, what is wrong and
    what to do, a line each.
    """
    repairable: frozenset[str]
    """Those of them that resuming the sweep repairs."""
    sha256: str
    """Of every record that this was read from: equal folders, equal results."""

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        return tuple(trial for candidate in self.candidates for trial in candidate.trials)

    @property
    def ended(self) -> bool:
        """Nothing is left to do: every trial has finished or failed, and a search has drawn all its
        candidates.
        """
        drawn = self.num_candidates is None or len(self.candidates) >= self.num_candidates
        return drawn and all(result.state in ("finished", "failed") for result in self.trials)

    def checked(self) -> SweepResults:
        """Returns itself; raises ResultsDamaged where anything is damaged."""
        if self.damaged:
            raise ResultsDamaged(self.damaged)
        return self


def load(
    layout: SweepLayout, known: Sequence[Candidate] = (), catalogue: Catalogue | None = None
) -> SweepResults:
    """Returns what the sweep's folder says now, with whatever is damaged in it.

    Args:
        known: its first candidates, as this process has read or put them before; they are not read
            again, though the seal is checked.
        catalogue: the plug-ins that it may name; None: those that are installed.

    Raises:
        SweepError: there is no sweep in the folder, or its resolved.yaml is damaged.
    """
    layout = SweepLayout(layout.store.view())
    layout.store.fetch(_read_soon)
    spec = resolved.read(layout)
    if catalogue is None:
        catalogue = resolved.catalogue_of(layout, spec)
    damaged = resolved.check_whole(layout, spec)
    drawn = (
        _old_candidates(layout, spec, damaged)
        if resolved.is_old(spec)
        else _candidates(layout, spec, known, catalogue, damaged)
    )
    candidates: dict[str, CandidateResult] = {}
    begun = set(layout.store.folders(layout.trials))
    for candidate in drawn:
        results = tuple(
            _trial(layout, trial, begun, old=resolved.is_old(spec), damaged=damaged)
            for trial in candidate.trials
        )
        candidates.setdefault(
            candidate.id,
            CandidateResult(candidate.id, candidate.cases, candidate.settings, results),
        )
    sealed = seal.check(layout)
    damaged += sealed.problems
    names = tuple(str(case) for case in spec.get("cases") or ()) or tuple(
        dict.fromkeys(case for member in candidates.values() for case in member.cases)
    )
    # An address is no path, though it too ends with a name.
    end = os.path.basename(os.path.abspath(layout.location))  # noqa: PTH100, PTH119
    return SweepResults(
        name=str(spec.get("name") or end),
        layout=layout,
        baseline=spec.get("baseline") or (names[0] if names else None),
        orderings=resolved.orderings(spec),
        case_order=names,
        algorithm=str(spec["search"].get("algorithm", "grid")),
        num_candidates=spec["search"].get("num_candidates"),
        resources=resolved.resources(spec),
        candidates=tuple(candidates.values()),
        damaged=tuple(damaged),
        repairable=sealed.repairable,
        sha256=sealed.sha256,
    )


def _read_soon(names: list[str]) -> Iterator[str]:
    """Yields the names of what is read below: records, and the last segment of each ledger."""
    last: dict[str, str] = {}
    for name in names:
        first, _, rest = name.partition("/")
        if not rest or first == "candidates":
            yield name
        elif first == "trials":
            folder = name.rpartition("/")[0]
            if folder.endswith("/ledger"):
                last[folder] = name
            else:
                yield name
    yield from last.values()


def _candidates(
    layout: SweepLayout,
    spec: Mapping[str, Any],
    known: Sequence[Candidate],
    catalogue: Catalogue,
    damaged: list[str],
) -> list[Candidate]:
    read: list[Candidate] = []
    listed = spec.get("listed")
    try:
        count = max(numbers(layout), default=-1) + 1 if listed is None else int(listed)
    except RecordsDamaged as error:
        damaged.append(str(error))
        return []
    read += known[:count]
    for number in range(len(read), count):
        try:
            read.append(read_candidate(layout, number, catalogue))
        except RecordsDamaged as error:
            damaged.append(str(error))
    return read


def _old_candidates(
    layout: SweepLayout, spec: Mapping[str, Any], damaged: list[str]
) -> list[Candidate]:
    read = []
    for row in old_sweeps.read_lines(layout.store, layout.candidate_lines, damaged):
        try:
            read.append(candidate_from_row(row))
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            damaged.append(
                f"{layout.place(layout.candidate_lines)}: damaged (a line is no candidate:"
                f" {type(error).__name__} {error}); restore it from a copy"
            )
    if not read:
        damaged.append(
            f"{layout.place(layout.candidate_lines)}: names no candidate; restore it from a copy"
        )
    # A file that was cut between two lines looks whole: the cases of the spec tell.
    lost = [
        case
        for case in spec.get("cases") or ()
        if not any(case in candidate.cases for candidate in read)
    ]
    if read and lost:
        names = ", ".join(map(repr, lost[:5]))
        damaged.append(
            f"{layout.place(layout.candidate_lines)}: damaged (no candidate is called {names}, as"
            " cases of the spec are); restore it from a copy"
        )
    return read


def _trial(
    layout: SweepLayout, trial: Trial, begun: Collection[str], *, old: bool, damaged: list[str]
) -> TrialResult:
    files = layout.trial(trial.id)
    records = _old_records(files, trial, damaged) if old else _records(files, trial, damaged)
    error = read_error(files)
    failure = None if error is None else Failure(error["stage"], error["kind"], error["message"])
    return TrialResult(trial, tuple(records), failure, files.root in begun, files)


def _records(files: TrialLayout, trial: Trial, damaged: list[str]) -> list[StageRecord]:
    records: list[StageRecord] = []
    try:
        for record in itertools.islice(stages_on_record(files), len(trial.schedule.quotas) + 1):
            records.append(record)
    except RecordsDamaged as error:
        damaged.append(str(error))
    # The last record names the ledger's head, and each segment the one before: one file tells.
    problem = ledger_problem(files, records[-1]) if records else None
    if problem is not None:
        damaged.append(problem)
    return records


def _old_records(files: TrialLayout, trial: Trial, damaged: list[str]) -> list[StageRecord]:
    by_stage: dict[int, StageRecord] = {}
    for row in old_sweeps.read_lines(files.store, files.stage_lines, damaged):
        try:
            record = from_object(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            damaged.append(
                f"{files.place(files.stage_lines)}: damaged (a line is no record of a stage:"
                f" {type(error).__name__} {error}); restore it from a copy"
            )
            continue
        by_stage[record.stage] = record
    records: list[StageRecord] = []
    while len(records) in by_stage and len(records) <= len(trial.schedule.quotas):
        records.append(by_stage[len(records)])
    return records


_SPACES: Final = str.maketrans("\t\n\r", "   ")


def printable(text: str) -> str:
    """Returns the text as a table or a terminal shows it: as `one_line`, with spaces in place of
    tabs and line ends.
    """
    return one_line(text.translate(_SPACES))
