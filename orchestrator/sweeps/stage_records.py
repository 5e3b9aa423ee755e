"""The record of a finished stage: what it cost and what it reached, one file a stage, put once.
Written and read here alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.storage.store import Unreadable
from orchestrator.sweeps.layout import TrialLayout, checked_name
from orchestrator.sweeps.records import RecordsDamaged, put_object, read_object

TOP1: Final = "top-1"
"""Share of images whose class is guessed right, in percent: the metric of single-label tasks, and
of every record that names none.
"""

MEND: Final = (
    "restore it from a copy, or remove this one file: `orchestrate resume` makes it anew from the"
    " trial's ledger and stages, and asks nothing again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One finished stage: what it cost and what it reached. Accuracies are in percent, None where
    there is none.

    The fields after `wasted` that have a default are not in the records of 0.1.0.
    """

    stage: int
    key: str
    """Of the trained stage (sweep.stage_store)."""
    trained: bool
    """False: the stage was shared, another trial trained it."""
    label_bits: float
    question_bits: float
    validation_bits: float
    questions: int
    """Answered in the round just before this training, like yes, no, skipped and wasted; 0 for
    stage 0.
    """
    yes: int
    no: int
    skipped: int
    wasted: int
    guess_accuracy: float | None
    labelled: int
    negative_only: int
    unasked: int
    unspent: int
    validation: float | None
    """By the task's metric, after the last epoch."""
    validation_best: float | None
    test: float | None
    """By the task's metric, after the last epoch."""
    test_at_best_validation: float | None
    epochs: int
    seconds: float
    device: str
    precision: str
    backbone: str
    metric: str = TOP1
    """The task's word for what validation and test are."""
    trial: str | None = None
    parent: str | None = None
    """Key of the stage before."""
    data: str | None = None
    """Fingerprint of the data with its labels."""
    segments: int | None = None
    """Segments of the ledger when the stage trained."""
    ledger_sha256: str | None = None
    """Of the last of them."""
    test_correct_sha256: str | None = None
    """Of the file with a bit for each test image."""
    val_correct: str | None = None
    """Which validation images the model got right, by ascending id, as text (sweep.correctness);
    None without validation.
    """
    seed: int | None = None
    world_size: int | None = None
    images_per_second: float | None = None
    parameters: int | None = None
    resumed_from_epoch: int | None = None
    named: Mapping[str, float] = field(default_factory=dict)
    """The method's own figures (trainers.trainer.Figures)."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """Spent when this stage trained, without the validation labels beside the budget."""
        return self.label_bits + self.question_bits


def to_object(record: StageRecord) -> dict[str, Any]:
    """Returns the record as it is written; `from_object` is the inverse. Equal records give equal
    bytes, whichever version writes them.

    The names of accuracies are those of schema 2. `metric` is written where it is not top-1, and
    `named` where a method has figures of its own.
    """
    found = {
        "trial": record.trial,
        "stage": record.stage,
        "key": record.key,
        "parent": record.parent,
        "data": record.data,
        "ledger": {"segments": record.segments, "sha256": record.ledger_sha256},
        "trained": record.trained,
        "bits": {
            "labels": record.label_bits,
            "questions": record.question_bits,
            "total": record.bits,
        },
        "validation_bits": record.validation_bits,
        "questions": record.questions,
        "yes": record.yes,
        "no": record.no,
        "skipped": record.skipped,
        "wasted": record.wasted,
        "guess_accuracy": record.guess_accuracy,
        "labelled": record.labelled,
        "negative_only": record.negative_only,
        "unasked": record.unasked,
        "unspent": record.unspent,
        "val_top1": record.validation,
        "val_top1_best": record.validation_best,
        "val_correct": record.val_correct,
        "test_top1_last": record.test,
        "test_correct_sha256": record.test_correct_sha256,
        "test_top1_at_best_val": record.test_at_best_validation,
        "epochs": record.epochs,
        "seconds": record.seconds,
        "images_per_second": record.images_per_second,
        "device": record.device,
        "precision": record.precision,
        "backbone": record.backbone,
        "parameters": record.parameters,
        "resumed_from_epoch": record.resumed_from_epoch,
        "seed": record.seed,
        "world_size": record.world_size,
        "versions": dict(record.versions),
    }
    found |= {} if record.metric == TOP1 else {"metric": record.metric}
    return found | ({"named": dict(record.named)} if record.named else {})


def from_object(row: Mapping[str, Any]) -> StageRecord:
    """Returns the record that an object describes, this version's or an earlier one's.

    Raises:
        KeyError, TypeError, ValueError: a value is missing, or is of another kind or size than a
        stage can have.
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
        validation=_percent(row, "val_top1"),
        validation_best=_percent(row, "val_top1_best"),
        test=_percent(row, "test_top1_last"),
        test_at_best_validation=_percent(row, "test_top1_at_best_val"),
        epochs=_count(row, "epochs"),
        seconds=_amount("seconds", row.get("seconds") or 0.0),
        device=str(row.get("device") or ""),
        precision=str(row.get("precision") or ""),
        backbone=str(row.get("backbone") or ""),
        metric=str(row.get("metric", TOP1)),
        trial=row.get("trial"),
        parent=row.get("parent"),
        data=row.get("data"),
        segments=ledger.get("segments"),
        ledger_sha256=ledger.get("sha256"),
        test_correct_sha256=row.get("test_correct_sha256"),
        val_correct=row.get("val_correct"),
        seed=row.get("seed"),
        world_size=row.get("world_size"),
        images_per_second=row.get("images_per_second"),
        parameters=row.get("parameters"),
        resumed_from_epoch=row.get("resumed_from_epoch"),
        named={str(n): _finite(str(n), value) for n, value in (row.get("named") or {}).items()},
        versions=row.get("versions") or {},
    )


def read_stage(files: TrialLayout, number: int) -> StageRecord | None:
    """Returns the record of a trial's finished stage; None while there is none.

    Raises:
        RecordsDamaged: the file is not what was put there, or is another trial's or stage's.
    """
    place = files.place(files.stage(number))
    row = read_object(files.store, files.stage(number), MEND)
    if row is None:
        return None
    for name, value in (("trial", files.id), ("stage", number)):
        if row.get(name) != value:
            raise RecordsDamaged(
                place,
                f"it is the record of {name} {row.get(name)!r:.80}; files of two trials or stages"
                " were exchanged",
                MEND,
            )
    try:
        return from_object(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordsDamaged(place, f"{type(error).__name__}: {error}", MEND) from error


def stages_on_record(files: TrialLayout) -> Iterator[StageRecord]:
    """Yields the records of a trial's finished stages, in order, up to the first that is not there.

    Raises:
        RecordsDamaged: the next one is damaged or does not follow the one before; those before it
            have been given.
    """
    parent: str | None = None
    for number in itertools.count():
        record = read_stage(files, number)
        if record is None:
            return
        if number and record.parent != parent:
            raise RecordsDamaged(
                files.place(files.stage(number)),
                "it does not follow the record of the stage before",
                MEND,
            )
        parent = record.key
        yield record


def has_stages(files: TrialLayout, number: int) -> bool:
    """Returns whether the first `number` stages of a trial are on record; reads none of them."""
    return all(files.store.has(files.stage(stage)) for stage in reversed(range(number)))


def put_stage(files: TrialLayout, record: StageRecord) -> StageRecord:
    """Commits a record and returns the committed one, which a process that did the same may have
    put first.
    """
    return from_object(put_object(files.store, files.stage(record.stage), to_object(record)))


def _count(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} = {value!r:.40} is no count")
    return value


def _amount(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} = {value!r:.40} is no amount")
    return float(value)


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r:.40} is no finite number")
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
    """Says what is wrong with a trial's ledger beside one of its records; None where the two agree.
    Reads one segment.

    A record names the last segment that its stage was trained on. Each segment names the one
    before, so that `ledger verify` checks the others.
    """
    import hashlib

    from orchestrator.labelling.ledger import segment_name

    if record.segments is None or record.ledger_sha256 is None:
        return None
    wanted = [f"{files.ledger}/{segment_name(number)}" for number in range(record.segments)]
    held = set(files.store.names(files.ledger))
    for name in wanted:
        if name not in held:
            return (
                f"{files.place(name)}: missing, and the record of stage {record.stage} was made"
                " after it; restore it from a copy"
            )
    try:
        digest = hashlib.sha256(files.store.get(wanted[-1])).hexdigest()
    except Unreadable as error:
        return str(error)
    if digest != record.ledger_sha256:
        return (
            f"{files.place(wanted[-1])}: is not the segment that the record of stage {record.stage}"
            " was made after; ledgers of two trials were exchanged, or it was changed"
        )
    return None
