"""What a sweep's folder says, finished or still running, as typed values. Reads only; never waits, never locks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.layout import SweepLayout, TrialLayout
from search_spaces.config import Trial
from search_spaces.trials import trial_from_mapping
from trainers.errors import UserError

TrialState = Literal["finished", "failed", "running", "pending"]
"""`running`: has left something on disk and is neither finished nor failed; whether a process is at it now, the disk cannot say."""


class ResultsError(UserError):
    """The folder holds no sweep that could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One finished stage. Accuracies in percent; None where there is none."""

    stage: int
    key: str
    trained: bool
    """False: the stage was shared, another trial trained it."""
    label_bits: float
    question_bits: float
    validation_bits: float
    questions: int
    """Answered in the round just before this training, like yes, no, skipped and wasted; 0 for stage 0."""
    yes: int
    no: int
    skipped: int
    wasted: int
    guess_accuracy: float | None
    labelled: int
    negative_only: int
    unasked: int
    unspent: int
    val_top1: float | None
    val_top1_best: float | None
    test_top1_last: float | None
    test_top1_at_best_val: float | None
    epochs: int
    seconds: float
    device: str
    precision: str
    backbone: str

    @property
    def bits(self) -> float:
        """Spent when this stage trained, without the validation labels beside the budget."""
        return self.label_bits + self.question_bits


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
    root: Path
    baseline: str | None
    """Case that differences are taken to; None in a search without cases."""
    case_order: tuple[str, ...]
    algorithm: str
    num_candidates: int | None
    """How many a search will draw; None where the candidates are listed."""
    candidates: tuple[CandidateResult, ...]
    damaged: tuple[str, ...]
    """Lines that should be readable and are not, as `file:line`; a half-written last line is none of them."""

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        return tuple(trial for candidate in self.candidates for trial in candidate.trials)

    @property
    def ended(self) -> bool:
        """Nothing is left to do: every trial has finished or failed, and a search has drawn all its candidates."""
        drawn = self.num_candidates is None or len(self.candidates) >= self.num_candidates
        return drawn and all(result.state in ("finished", "failed") for result in self.trials)


def load(layout: SweepLayout) -> SweepResults:
    """What the sweep's folder says now.

    Raises:
        ResultsError: there is no sweep in the folder.
    """
    if not layout.resolved.is_file() and not layout.candidates.is_file():
        raise ResultsError(f"{layout.root}: holds no sweep (no resolved.yaml, no candidates.jsonl). Give the folder that a sweep wrote, for example runs/NAME.")
    spec = _resolved(layout.resolved)
    damaged: list[str] = []
    candidates: dict[str, CandidateResult] = {}
    for place, row in _lines(layout.candidates, damaged):
        try:
            trials = tuple(trial_from_mapping(mapping) for mapping in row["trials"])
            cases, settings = tuple(str(case) for case in row["cases"]), dict(row["settings"])
        except (KeyError, TypeError, ValueError, UserError):
            damaged.append(place)
            continue
        results = tuple(_trial(layout, trial, damaged) for trial in trials)
        candidates.setdefault(str(row["candidate"]), CandidateResult(str(row["candidate"]), cases, settings, results))
    names = tuple(str(case) for case in spec.get("cases") or ()) or tuple(dict.fromkeys(case for found in candidates.values() for case in found.cases))
    search = spec.get("search") or {}
    return SweepResults(
        name=str(spec.get("name") or layout.root.resolve().name),
        root=layout.root,
        baseline=spec.get("baseline") or (names[0] if names else None),
        case_order=names,
        algorithm=str(search.get("algorithm", "grid")),
        num_candidates=search.get("num_candidates"),
        candidates=tuple(candidates.values()),
        damaged=tuple(damaged),
    )


def _resolved(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: is not readable YAML ({error}). It was written by the sweep; restore it from a copy.") from error
    if not isinstance(found, dict):
        raise ResultsError(f"{path}: is not a mapping. It was written by the sweep; restore it from a copy.")
    return found


def _trial(layout: SweepLayout, trial: Trial, damaged: list[str]) -> TrialResult:
    files = layout.trial(trial.id)
    by_stage: dict[int, StageRecord] = {}
    for place, row in _lines(files.stages, damaged):
        try:
            record = _record(row)
        except (KeyError, TypeError, ValueError):
            damaged.append(place)
            continue
        by_stage[record.stage] = record
    records: list[StageRecord] = []
    while len(records) in by_stage and len(records) <= len(trial.schedule.quotas):
        records.append(by_stage[len(records)])
    return TrialResult(trial, tuple(records), _failure(files), files.root.exists())


def _failure(files: TrialLayout) -> Failure | None:
    try:
        found = json.loads(files.error.read_bytes())
        return Failure(found.get("stage"), str(found.get("kind", "")), str(found.get("message", "")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        # The file's presence is the fact; its words are a help.
        return Failure(None, "", "the reason could not be read")


def _lines(path: Path, damaged: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Objects of a JSON-lines file, each with its place as `file:line`. A last line without its newline is still being written and is left out."""
    try:
        pieces = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError:
        damaged.append(f"{path}:1")
        return []
    rows = []
    for number, piece in enumerate(pieces[:-1], start=1):
        if not piece.strip():
            continue
        try:
            row = json.loads(piece)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append((f"{path}:{number}", row))
        else:
            damaged.append(f"{path}:{number}")
    return rows


def _record(row: Mapping[str, Any]) -> StageRecord:
    bits = row["bits"]

    def count(name: str) -> int:
        return int(row.get(name) or 0)

    return StageRecord(
        stage=int(row["stage"]),
        key=str(row.get("key", "")),
        trained=bool(row.get("trained", True)),
        label_bits=float(bits["labels"]),
        question_bits=float(bits["questions"]),
        validation_bits=float(row.get("validation_bits", 0.0)),
        questions=count("questions"),
        yes=count("yes"),
        no=count("no"),
        skipped=count("skipped"),
        wasted=count("wasted"),
        guess_accuracy=_finite(row.get("guess_accuracy")),
        labelled=count("labelled"),
        negative_only=count("negative_only"),
        unasked=count("unasked"),
        unspent=count("unspent"),
        val_top1=_finite(row.get("val_top1")),
        val_top1_best=_finite(row.get("val_top1_best")),
        test_top1_last=_finite(row.get("test_top1_last")),
        test_top1_at_best_val=_finite(row.get("test_top1_at_best_val")),
        epochs=count("epochs"),
        seconds=_finite(row.get("seconds")) or 0.0,
        device=str(row.get("device") or ""),
        precision=str(row.get("precision") or ""),
        backbone=str(row.get("backbone") or ""),
    )


def _finite(value: object) -> float | None:
    """A number that can be averaged: NaN and infinity say that there is no result."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def printable(text: str) -> str:
    """The text on one line without control characters, which a name from a file may carry."""
    return "".join(char if char.isprintable() else " " if char in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for char in text)
