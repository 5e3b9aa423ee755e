"""Checks everything that a sweep's folder holds against everything else in it: records, ledgers,
stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.commands.replay import read_segments, state_of
from orchestrator.labelling.ledger import LedgerError, Segment
from orchestrator.reporting import results
from orchestrator.reporting.results import SweepResults, TrialResult
from orchestrator.sweeps import resolved
from orchestrator.sweeps.correctness import CorrectnessError, of_trial
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_records import StageRecord
from orchestrator.sweeps.stage_store import StageStore
from search_spaces.reading.config import Trial
from trainers.artefacts import StageDamaged


def verify_sweep(layout: SweepLayout) -> dict[str, Any]:
    """Returns counts of what was checked, one checksum over all records, `problems`, a line each:
    none in a whole sweep, and `gone`, trained stages that are there no more.

    Raises:
        SweepError: there is no sweep in the folder.
    """
    spec, results_ = resolved.read(layout), results.load(layout)
    data = None if resolved.is_old(spec) else spec["data"]["fingerprint"]
    problems = list(results_.damaged)
    segments = questions = 0
    for result in results_.trials:
        checked, asked = _ledger(result, data, problems)
        segments, questions = segments + checked, questions + asked
    problems += _strangers(layout, results_)
    gone: list[str] = []
    stages = _stages(layout, results_, problems, gone)
    return {
        "trials": len(results_.trials),
        "segments": segments,
        "questions": questions,
        "stages": stages,
        "sha256": results_.sha256,
        "problems": list(dict.fromkeys(problems)),
        "gone": gone,
    }


def _ledger(result: TrialResult, data: str | None, problems: list[str]) -> tuple[int, int]:
    """Segments and answered questions of a trial's ledger; it is one chain, the trial's own, and
    what the trial's records say of it.
    """
    files, ledger = result.files, result.files.segments
    place = ledger.location
    if not files.store.names(files.ledger):
        if result.records:
            problems.append(
                f"{place}: missing, and {len(result.records)} stage(s) of the trial are on record;"
                " restore it from a copy"
            )
        return 0, 0
    try:
        segments = read_segments(ledger)
        state = state_of(segments, ledger)
    except LedgerError as error:
        problems.append(str(error))
        return 0, 0
    problems += [
        f"{place}: {problem}"
        for problem in _foreign_terms(result.trial, state.terms.to_mapping(), data)
    ]
    for record in result.records:
        problems += [
            f"{files.place(files.stage(record.stage))}: {problem}"
            for problem in _disagreements(record, segments)
        ]
        problems += _marks(result, record)
    counts = state.counts()
    return len(segments), counts.questions


def _foreign_terms(trial: Trial, terms: dict[str, Any], data: str | None) -> Iterator[str]:
    wanted: dict[str, Any] = {
        "trial": trial.id,
        "seed": trial.seed,
        "num_classes": trial.facts.num_classes,
        "pool_items": trial.facts.train_items,
    }
    wanted["initial_labels_per_class"] = trial.config.schedule.initial_labels_per_class
    if data is not None:
        wanted["data"] = data
    for key, value in wanted.items():
        if terms[key] != value:
            yield (
                f"was begun with {key} = {terms[key]!r:.80}, and its trial has {value!r:.80};"
                " ledgers of two trials or sweeps were exchanged"
            )


def _disagreements(record: StageRecord, segments: tuple[Segment, ...]) -> Iterator[str]:
    """Where the record of a stage and the ledger tell of different rounds."""
    before = [segment for segment in segments if segment.round <= record.stage]
    if record.segments is not None:
        if len(before) != record.segments:
            yield (
                f"was made after {record.segments} segments, and the ledger has {len(before)} up to"
                f" round {record.stage}"
            )
        elif before and before[-1].digest != record.ledger_sha256:
            yield f"was made after another segment than {before[-1].place}"
    answers = [segment.columns["answer"] for segment in before if segment.kind == "answers"]
    asked = sum(int((column >= 0).sum()) for column in answers)
    if asked != round(record.question_bits):
        yield (
            f"says that {record.question_bits:g} questions were charged, and the ledger has {asked}"
        )


def _marks(result: TrialResult, record: StageRecord) -> Iterator[str]:
    """What is wrong with the file of right and wrong guesses on the test images."""
    if record.test_correct_sha256 is None:
        return
    try:
        marks = of_trial(
            result.files,
            record.stage,
            result.trial.facts.test_items,
            record.test_correct_sha256,
        )
    except CorrectnessError as error:
        yield str(error)
        return
    if marks is None:
        yield (
            f"{result.files.place(result.files.test_correct(record.stage))}: missing; restore it"
            " from a copy. Without it the row has the interval of its seeds alone"
        )


def _stages(
    layout: SweepLayout, results_: SweepResults, problems: list[str], gone: list[str]
) -> int:
    """Trained stages whose files are what was committed. One that is gone is said and is no damage:
    what was recorded of it stands.
    """
    store = StageStore(layout.store)
    keys = {record.key: record for result in results_.trials for record in result.records}
    checked = 0
    for key in keys:
        try:
            artefact = store.find(key)
        except (StageDamaged, ValueError) as error:
            problems.append(str(error))
            continue
        if artefact is None:
            gone.append(
                f"{layout.place(store.folder(key))}/record.json: missing; no result needs it, and a"
                " stage that is needed again is trained again"
            )
            continue
        problems += [
            f"{layout.place(artefact.name(role))}: missing or damaged (its SHA-256 is not the"
            f" committed one); remove {layout.place(artefact.folder)} to train this stage again"
            for role in artefact.record["files"]
            if not artefact.is_whole(role)
        ]
        checked += 1
    return checked


def _strangers(layout: SweepLayout, results_: SweepResults) -> Iterator[str]:
    """Folders of trials that no candidate names."""
    known = {result.trial.id for result in results_.trials}
    for name in layout.store.folders(layout.trials):
        if name.rpartition("/")[2] not in known:
            yield f"{layout.place(name)}: no candidate of this sweep has such a trial"
