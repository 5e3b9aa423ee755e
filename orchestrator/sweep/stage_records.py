"""The record of a finished stage: what it cost and what it reached, one file a stage, put once. Written and read here alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.sweep.layout import TrialLayout, checked_name
from orchestrator.sweep.records import RecordsDamaged, put_object, read_object

MEND: Final = "restore it from a copy, or remove this one file: `orchestrate resume` makes it anew from the trial's ledger and stages, and asks nothing again"


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
    test_correct_sha256: str | None
    """Of the file with a bit for each test image; None where there is no such file (sweeps of 0.1.0)."""
    val_correct: str | None
    """Which validation images the model got right, by ascending id, as text (sweep.correctness); None without validation, and in sweeps of 0.1.0."""
    segments: int | None
    """Segments of the ledger when the stage trained; None in a sweep of 0.1.0."""
    ledger_sha256: str | None
    """Of the last of them."""

    @property
    def bits(self) -> float:
        """Spent when this stage trained, without the validation labels beside the budget."""
        return self.label_bits + self.question_bits


def read_stage(files: TrialLayout, number: int) -> dict[str, Any] | None:
    """Returns the record of a trial's finished stage; None while there is none.

    Raises:
        RecordsDamaged: the file is not what was put there, or is another trial's or stage's.
    """
    path = files.stage(number)
    record = read_object(path, MEND)
    if record is None:
        return None
    for name, value in (("trial", files.root.name), ("stage", number)):
        if record.get(name) != value:
            raise RecordsDamaged(path, f"it is the record of {name} {record.get(name)!r:.80}; files of two trials or stages were exchanged", MEND)
    try:
        typed(record)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordsDamaged(path, f"{type(error).__name__}: {error}", MEND) from error
    return record


def stages_on_record(files: TrialLayout) -> Iterator[dict[str, Any]]:
    """Yields the records of a trial's finished stages, in order, up to the first that is not there.

    Raises:
        RecordsDamaged: the next one is damaged or does not follow the one before; those before it have been given.
    """
    parent: str | None = None
    for number in itertools.count():
        record = read_stage(files, number)
        if record is None:
            return
        if number and record.get("parent") != parent:
            raise RecordsDamaged(files.stage(number), "it does not follow the record of the stage before", MEND)
        parent = record["key"]
        yield record


def has_stages(files: TrialLayout, number: int) -> bool:
    """Returns whether the first `number` stages of a trial are on record; reads none of them."""
    return all(files.stage(stage).is_file() for stage in reversed(range(number)))


def put_stage(files: TrialLayout, record: dict[str, Any]) -> dict[str, Any]:
    """Commits a record and returns the committed one, which a process that did the same may have put first."""
    return put_object(files.stage(record["stage"]), record)


def typed(row: Mapping[str, Any]) -> StageRecord:
    """Returns a record's values with their types.

    Raises:
        KeyError, TypeError, ValueError: one is missing, or is of another kind or size than a stage can have.
    """
    bits, ledger = row["bits"], row.get("ledger") or {}
    return StageRecord(
        stage=_count(row, "stage"),
        key=checked_name(row["key"]),
        trained=bool(row.get("trained", True)),
        label_bits=_amount("bits.labels", bits["labels"]),
        question_bits=_amount("bits.questions", bits["questions"]),
        validation_bits=_amount("validation_bits", row.get("validation_bits", 0.0)),
        questions=_count(row, "questions"),
        yes=_count(row, "yes"),
        no=_count(row, "no"),
        skipped=_count(row, "skipped"),
        wasted=_count(row, "wasted"),
        guess_accuracy=_percent(row, "guess_accuracy"),
        labelled=_count(row, "labelled"),
        negative_only=_count(row, "negative_only"),
        unasked=_count(row, "unasked"),
        unspent=_count(row, "unspent"),
        val_top1=_percent(row, "val_top1"),
        val_top1_best=_percent(row, "val_top1_best"),
        test_top1_last=_percent(row, "test_top1_last"),
        test_top1_at_best_val=_percent(row, "test_top1_at_best_val"),
        epochs=_count(row, "epochs"),
        seconds=_amount("seconds", row.get("seconds") or 0.0),
        device=str(row.get("device") or ""),
        precision=str(row.get("precision") or ""),
        backbone=str(row.get("backbone") or ""),
        test_correct_sha256=row.get("test_correct_sha256"),
        val_correct=row.get("val_correct"),
        segments=ledger.get("segments"),
        ledger_sha256=ledger.get("sha256"),
    )


def _count(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} = {value!r:.40} is no count")
    return value


def _amount(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} = {value!r:.40} is no amount")
    return float(value)


def _percent(row: Mapping[str, Any], name: str) -> float | None:
    """A number that can be averaged: NaN and infinity say that there is no result."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if not 0 <= value <= 100:
        raise ValueError(f"{name} = {value:g} is no accuracy in percent")
    return float(value)


def ledger_problem(files: TrialLayout, record: StageRecord) -> str | None:
    """Says what is wrong with a trial's ledger beside one of its records; None where the two agree. Reads one segment.

    A record names the last segment that its stage was trained on. Each segment names the one before, so that `ledger verify` checks the others.
    """
    import hashlib

    from orchestrator.labelling.ledger import segment_name

    if record.segments is None or record.ledger_sha256 is None:
        return None
    for number in range(record.segments):
        path = files.ledger / segment_name(number)
        if not path.is_file():
            return f"{path}: missing, and the record of stage {record.stage} was made after it; restore it from a copy"
    last: Path = files.ledger / segment_name(record.segments - 1)
    try:
        digest = hashlib.sha256(last.read_bytes()).hexdigest()
    except OSError as error:
        return f"{last}: cannot be read: {error.strerror or error}"
    if digest != record.ledger_sha256:
        return f"{last}: is not the segment that the record of stage {record.stage} was made after; ledgers of two trials were exchanged, or it was changed"
    return None
