"""The loop over the stages of one trial: train, guess, ask, learn from yes and from no, train
again.

Plain Python without Ray: a debugger can step through it, and every engine runs this same loop. Each
step may be done twice without harm: what is committed (a stage, a round) is found again, so a trial
that died anywhere goes on from its own records.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.data.prepare import PreparedData
from orchestrator.labelling.answers import NO, SKIPPED, YES
from orchestrator.labelling.choose import choose
from orchestrator.labelling.cold_start import choice_of
from orchestrator.labelling.evaluator import test_correct, test_score
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.pool import Pool, PoolService, PoolTerms, Round
from orchestrator.labelling.protocols import OraclePlace
from orchestrator.storage.files import StorageError
from orchestrator.storage.segments import Segments
from orchestrator.sweeps import correctness
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import RecordsDamaged, write_error
from orchestrator.sweeps.stage_records import StageRecord, put_stage, read_stage
from orchestrator.sweeps.stage_store import (
    StageArtefact,
    StageProvider,
    StageStore,
    SweepStopped,
    new_attempt,
    stage_key,
)
from orchestrator.sweeps.versions import versions
from search_spaces.reading.config import ResourcesConfig, Trial
from trainers.stage import POOL_ARRAYS, StageRequest


class TrialState(enum.Enum):
    """Where a trial stands when its loop returns."""

    FINISHED = "finished"
    WAITING = "waiting"
    """A round is open: answers are still to come, and the loop may be called again in days."""


class TrialObserver(Protocol):
    """Who is told how a trial goes. Must not raise."""

    def stage_started(self, trial: Trial, stage: int) -> None: ...

    def stage_finished(self, trial: Trial, record: StageRecord) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """What all trials of a sweep share: data, stages, places and limits."""

    layout: SweepLayout
    data: PreparedData
    stages: StageProvider
    resources: ResourcesConfig
    observer: TrialObserver
    device: str


def open_pool(trial: Trial, data: PreparedData, ledger: Segments) -> Pool:
    """Returns the pool service of a trial, in the state that its ledger says."""
    schedule = trial.config.schedule
    terms = PoolTerms(
        trial=trial.id,
        seed=trial.seed,
        num_classes=trial.facts.num_classes,
        pool_items=trial.facts.train_items,
        initial_labels_per_class=schedule.initial_labels_per_class,
        validation=trial.config.dataset.validation,
        budget_bits=trial.budget_bits,
        quotas=trial.schedule.quotas,
        buys=trial.schedule.buys,
        data=data.labelled_fingerprint,
        requery=trial.config.query.requery,
        initial_choice=schedule.initial_choice,
        split=schedule.split if schedule.choice.bits_decide else (),
        task=trial.config.task,
    )
    place = OraclePlace(
        labels_dir=data.labels_dir,
        num_classes=trial.facts.num_classes,
        seed=trial.seed,
        trial=trial.id,
    )
    oracle = trial.config.oracle.open(place)
    choice = choice_of(schedule.initial_choice, schedule.initial_query, data.images_dir)
    return Pool(terms, Ledger(ledger), oracle, choice)


def run_trial(trial: Trial, pool: PoolService, context: TrialContext) -> TrialState:
    """Trains every stage of the trial's schedule that is not on record, or returns while it waits
    for answers.

    Raises:
        TrainingFailed: a stage cannot be trained; what was asked before stays in the ledger.
    """
    files = context.layout.trial(trial.id)
    records: list[StageRecord] = []
    if not pool.open():
        return TrialState.WAITING
    for stage in range(len(trial.schedule.quotas) + 1):
        record = read_stage(files, stage)
        if record is None:
            asked = _ask(trial, stage, records, pool, context) if stage else None
            if asked is not None and not asked.over:
                return TrialState.WAITING
            context.observer.stage_started(trial, stage)
            request = _request(trial, stage, records, pool, context)
            artefact = context.stages.obtain(request)
            record = put_stage(
                files, _record(trial, request, artefact, records, asked, pool, context)
            )
            context.observer.stage_finished(trial, record)
        records.append(record)
    return TrialState.FINISHED


def attempt_trial(
    trial: Trial, pool: PoolService, context: TrialContext, on_failure: Callable[[str], None]
) -> TrialState | None:
    """Runs the trial; None if it failed, with its reason on record. What breaks one trial must not
    end the sweep, except a store that cannot be written.
    """
    files = context.layout.trial(trial.id)
    try:
        return run_trial(trial, pool, context)
    except (StorageError, OSError, SweepStopped, RecordsDamaged):
        # Nothing more can be recorded or trained, for this trial or any other.
        raise
    except Exception as error:
        stage = next(
            number for number in itertools.count() if not files.store.has(files.stage(number))
        )
        record = write_error(files, stage=stage, error=error)
        on_failure(record["message"])
        return None


def _ask(
    trial: Trial, number: int, records: list[StageRecord], pool: PoolService, context: TrialContext
) -> Round:
    """Asks round `number`, unless its plan is already committed: then that plan stands, whatever
    this model would choose.

    Answers that came since the process before ended were recorded when the pool was opened.
    """
    committed = pool.round(number)
    if committed is not None:
        return committed
    store = StageStore(context.layout.store)
    before = store.find(records[-1].key)
    if before is None:
        raise FileNotFoundError(
            f"{store.place(records[-1].key)}: the stage before round {number} is"
            " recorded but its folder is gone"
        )
    asked = choose(
        trial.config.task,
        trial.config.query.strategy,
        before.scores(),
        pool.eligible(),
        pool.quota(number),
        known=pool.training_inputs,
        seed=trial.seed,
        # Rounds without questions do not count: they must not change what the others ask.
        round=1 + pool.counts().rounds,
        mask_refused=trial.config.query.mask_refused,
        num_classes=trial.facts.num_classes,
        buys=trial.schedule.buys,
    )
    return pool.ask(number, asked)


def _request(
    trial: Trial, stage: int, records: list[StageRecord], pool: PoolService, context: TrialContext
) -> StageRequest:
    inputs, draw = pool.training_inputs(stage), pool.counts(stage).rounds
    parent = records[-1].key if records else None
    method = trial.config.method_of(stage)
    plan = method.stage(
        stage, len(trial.schedule.quotas), has_negatives=bool(inputs.negative_ids.size)
    )
    key = stage_key(
        method=method,
        plan=plan,
        fingerprint=context.data.fingerprint,
        inputs=inputs,
        seed=trial.seed,
        draw=draw,
        parent=parent,
        world_size=context.stages.world_size,
        device_kind=context.stages.device_kind,
        metric=trial.config.task.metric.name,
        salt="" if context.resources.share_stages else trial.id,
    )
    store = StageStore(context.layout.store)
    before = store.find(parent) if parent is not None and plan.reads else None
    if plan.reads and before is None:
        raise FileNotFoundError(
            f"{store.place(str(parent))}: stage {stage} reads the stage before, and its folder is"
            " gone"
        )
    return StageRequest(
        key=key,
        stage=stage,
        seed=trial.seed,
        draw=draw,
        method=method,
        plan=plan,
        data_dir=context.data.images_dir,
        inputs=inputs,
        work_dir=store.work(key),
        attempt=new_attempt(),
        parent=before.files() if before is not None else None,
        threads=context.resources.cpus_per_worker,
        device=context.device,
        checkpoint_seconds=context.resources.checkpoint_seconds,
        trial=trial.id,
        metric=trial.config.task.metric,
        wants=tuple(name for name in trial.config.scores_needed() if name not in POOL_ARRAYS),
    )


def _record(
    trial: Trial,
    request: StageRequest,
    artefact: StageArtefact,
    records: list[StageRecord],
    asked: Round | None,
    pool: PoolService,
    context: TrialContext,
) -> StageRecord:
    """Returns what is put on record of a stage: what it cost and what it reached.

    A function of the ledger up to the stage's round, of the trained stage and of the data: made
    anew, at whatever time, it is the same.
    """
    stage, inputs = request.stage, request.inputs
    counts, metrics, scores = pool.counts(stage), artefact.metrics, artefact.scores()
    segments, digest = pool.head(stage)
    metric = request.metric
    last, best = (scores[f"test_{metric.array}_{which}"] for which in ("last", "best_val"))
    # Only a metric that says of each image whether it is right lets the report pair images.
    correct = val_correct = None
    if metric.correct is not None:
        correct = correctness.pack(test_correct(context.data.labels_dir, metric, last))
        # Before the record that names it; the same bytes whoever puts them.
        files = context.layout.trial(trial.id)
        files.store.put(files.test_correct(stage), correct)
        right = metric.correct(inputs.validation_labels, scores[f"val_{metric.array}_last"])
        val_correct = correctness.to_hex(right) if inputs.validation_ids.size else None
    yes, no, skipped = (
        int((asked.answers == answer).sum()) if asked is not None else 0
        for answer in (YES, NO, SKIPPED)
    )
    if trial.schedule.buys == "labels":
        yes = no = 0
    return StageRecord(
        trial=trial.id,
        stage=stage,
        key=artefact.record["key"],
        parent=records[-1].key if records else None,
        data=context.data.labelled_fingerprint,
        segments=segments,
        ledger_sha256=digest,
        trained=artefact.trained_for(trial.id, stage),
        label_bits=counts.label_bits,
        question_bits=counts.question_bits,
        validation_bits=counts.validation_bits,
        questions=yes + no,
        yes=yes,
        no=no,
        skipped=skipped,
        wasted=asked.wasted if asked is not None else 0,
        guess_accuracy=100 * yes / (yes + no) if yes + no else None,
        labelled=counts.labelled,
        negative_only=counts.negative_only,
        unasked=counts.unasked,
        unspent=counts.unspent,
        validation=metrics["validation_last"],
        validation_best=metrics["validation_best"],
        val_correct=val_correct,
        test=test_score(context.data.labels_dir, metric, last),
        test_correct_sha256=None if correct is None else hashlib.sha256(correct).hexdigest(),
        test_at_best_validation=test_score(context.data.labels_dir, metric, best),
        metric=metric.name,
        epochs=metrics["epochs"],
        seconds=metrics["seconds"],
        images_per_second=metrics["images_per_second"],
        device=metrics["device"],
        precision=metrics["precision"],
        backbone=metrics["backbone"],
        parameters=metrics["parameters"],
        resumed_from_epoch=metrics["resumed_from_epoch"],
        named=metrics.get("named", {}),
        seed=trial.seed,
        world_size=context.stages.world_size,
        versions=versions(),
    )
