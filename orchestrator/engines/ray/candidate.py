"""A Tune trial: one candidate, which runs the stage loops of its seeds and owns their pool actors.
It never loads torch and holds no worker group while it waits.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError

from orchestrator.data.prepare import PreparedData
from orchestrator.engines.inline import label_of
from orchestrator.engines.ray.node import WANTED, data_here, data_of_pools, host_name
from orchestrator.engines.ray.pool_actor import RETRY_SECONDS, PoolActors, PoolClient, ProcessLost
from orchestrator.engines.ray.worker_group import first_line, remote_error
from orchestrator.sweeps.candidates import Candidate, is_failed, is_finished
from orchestrator.sweeps.layout import SweepLayout, TrialLayout
from orchestrator.sweeps.stage_records import StageRecord, has_stages, read_stage
from orchestrator.sweeps.stage_store import LimitReached, StageArtefact, StageStore, SweepStopped
from orchestrator.trial import TrialContext, TrialState, attempt_trial
from search_spaces.reading.config import ResourcesConfig, Trial
from trainers.errors import UserError
from trainers.stage import StageRequest

ASKED = "asked"
"""Kind of the event that says which stage, by its key, a trial now waits for."""
METRIC = "validation"
"""Key of the number that Tune is told of."""
FATAL = "fatal"
"""Key of a reported result that ends the sweep: a message that says why nothing can go on, and the
exit status.
"""
LIMIT = "limit"
"""Key of a reported result that says which limit of the sweep's own keeps the candidate from its
next stage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepContext:
    """What the driver hands to every candidate."""

    layout: SweepLayout
    data: PreparedData
    resources: ResourcesConfig
    device: str
    broker: Any
    """Handle of the BrokerActor."""


@dataclass(frozen=True, slots=True)
class BrokerStages:
    """Stages trained by the sweep's broker, found in its store."""

    store: StageStore
    broker: Any
    world_size: int
    device_kind: str
    stopped: threading.Event
    """Set when the trial must not go on in this process."""

    def obtain(self, request: StageRequest) -> StageArtefact:
        if self.stopped.is_set():
            raise SweepStopped("the trial is being stopped")
        # Another's training of the same stage, which this call may have waited for, need not have
        # made every array that is wanted here.
        for _ in range(1 + len(request.wants)):
            if self.store.left(request) is None:
                break
            self.broker.tell.remote((ASKED, request.trial, request.key))
            self._train(request)
        artefact = self.store.find(request.key)
        if artefact is None or self.store.left(request) is not None:
            raise SweepStopped(
                f"{self.store.place(request.key)}: was trained and is not there; all nodes of the"
                " cluster must see the same folder"
            )
        return artefact

    def _train(self, request: StageRequest) -> None:
        """Waits as long as the training takes; a broker that died is asked again once it is back,
        and then finds what was committed meanwhile.
        """
        while True:
            try:
                ray.get(self.broker.train.remote(request))
                return
            except RayTaskError as error:
                raise remote_error(error) from None
            except RayError:
                self._await_broker()

    def _await_broker(self) -> None:
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                ray.get(self.broker.answer.remote(), timeout=RETRY_SECONDS)
                return
            except RayError as error:
                if time.monotonic() > deadline:
                    raise ProcessLost(
                        f"the broker of the sweep could not be reached for {RETRY_SECONDS:g} s:"
                        f" {first_line(error)}"
                    ) from None
                time.sleep(0.5)


@dataclass(frozen=True, slots=True)
class BrokerObserver:
    """Passes on what a trial loop says, by way of the broker, to the driver's display; a lost event
    loses nothing else.
    """

    broker: Any
    reached: Any

    def stage_started(self, trial: Trial, stage: int) -> None:
        self.broker.tell.remote(("stage_started", label_of(trial), stage))

    def stage_finished(self, trial: Trial, record: StageRecord) -> None:
        self.broker.tell.remote(("stage_finished", label_of(trial), record))
        self.reached()


@dataclass(slots=True)
class SeedThread:
    """The stage loop of one seed in a thread of the candidate."""

    trial: Trial
    thread: threading.Thread | None = None
    state: TrialState | None = None
    crash: BaseException | None = None
    """What ended the loop other than a failure on record."""

    @property
    def limit(self) -> str | None:
        """The limit of the sweep's own that ended the loop."""
        return str(self.crash) if isinstance(self.crash, LimitReached) else None


@dataclass(slots=True)
class CandidateRun:
    """The seeds of one candidate, side by side; `advance` returns when all have reached the next
    stage.
    """

    candidate: Candidate
    context: SweepContext
    pools: PoolActors
    pool_data: PreparedData
    """The data as the pools of this machine read it: labels, and images where they need them."""
    loops: list[SeedThread] = field(default_factory=list)
    stage: int = -1
    stopped: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        for trial in self.candidate.trials:
            loop = SeedThread(trial)
            self.loops.append(loop)
            if is_finished(self.context.layout, trial) or is_failed(self.context.layout, trial):
                continue
            loop.thread = threading.Thread(
                target=self._run, args=(loop,), name=f"seed-{trial.seed}", daemon=True
            )
            loop.thread.start()

    def _run(self, loop: SeedThread) -> None:
        context, trial = self.context, loop.trial
        pool = PoolClient(
            trial, self.pool_data, context.layout.trial(trial.id).segments, self.pools, self.stopped
        )
        kind = context.device.partition(":")[0]
        stages = BrokerStages(
            StageStore(context.layout.store),
            context.broker,
            context.resources.workers,
            kind,
            self.stopped,
        )
        trial_context = TrialContext(
            layout=context.layout,
            data=context.data,
            stages=stages,
            resources=context.resources,
            observer=BrokerObserver(context.broker, self._notify),
            device=context.device,
        )
        try:
            loop.state = attempt_trial(
                trial, pool, trial_context, lambda message: self._tell_failure(trial, message)
            )
        except BaseException as error:
            loop.crash = error
        finally:
            pool.close()
            self._notify()

    def _tell_failure(self, trial: Trial, message: str) -> None:
        self.context.broker.tell.remote(("trial_failed", label_of(trial), message))

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _files(self, loop: SeedThread) -> TrialLayout:
        return self.context.layout.trial(loop.trial.id)

    def stop(self) -> None:
        """Stops every seed before its next step; a stage that is being trained is left to the
        broker.
        """
        self.stopped.set()

    def advance(self) -> dict[str, Any]:
        """Waits for the next stage of every seed that still runs, and reports the seeds' means; or,
        under FATAL, why no trial of the sweep can go on.

        Raises:
            whatever else ended a seed's loop without being recorded as its failure: started again,
            the candidate may get further.
        """
        self.stage += 1
        with self._changed:
            # A crash of one ends the wait for the others.
            self._changed.wait_for(
                lambda: (
                    any(loop.crash and loop.limit is None for loop in self.loops)
                    or all(self._ready(loop) for loop in self.loops)
                )
            )
        for loop in self.loops:
            if loop.crash is not None and loop.limit is None:
                self.stop()
                if isinstance(loop.crash, (UserError, OSError)) and not isinstance(
                    loop.crash, ProcessLost
                ):
                    # The metric that Tune insists on, though it has no value.
                    return {
                        "candidate": self.candidate.id,
                        FATAL: (_message(loop.crash), getattr(loop.crash, "exit_status", 2)),
                        METRIC: float("nan"),
                        "done": True,
                    }
                raise loop.crash
        reached = [
            record
            for loop in self.loops
            if (record := read_stage(self._files(loop), self.stage)) is not None
        ]
        # The other seeds finish what is in training.
        limit = next((loop.limit for loop in self.loops if loop.limit is not None), None)
        stopped = limit is not None and all(self._ended(loop) for loop in self.loops)
        last = self.stage >= len(self.candidate.trials[0].schedule.quotas)
        values = [record.validation for record in reached if record.validation is not None]
        return {
            "candidate": self.candidate.id,
            "stage": self.stage,
            "spent_bits": fmean(record.bits for record in reached) if reached else 0.0,
            # A mean over the seeds that got here would reward settings that fail on the others.
            METRIC: fmean(values) if len(values) == len(self.loops) else float("nan"),
            "seeds": len(reached),
            "done": last or not reached or stopped,
        } | ({} if limit is None else {LIMIT: limit})

    def _ended(self, loop: SeedThread) -> bool:
        return loop.thread is None or not loop.thread.is_alive() or loop.crash is not None

    def _ready(self, loop: SeedThread) -> bool:
        return self._ended(loop) or has_stages(self._files(loop), self.stage + 1)


def _message(error: UserError | OSError) -> str:
    if isinstance(error, OSError):
        unnamed = (
            "a file of the sweep's folder, or of a node's temporary folder (the system does not say"
            " which)"
        )
        named = error.filename or unnamed
        return (
            f"{named}: {error.strerror or error}. Everything recorded so far is kept; fix this"
            " and resume the sweep."
        )
    return str(error)


class CandidateTrainable(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """The shell that Tune schedules, stops and restarts; reused from one candidate to the next."""

    def setup(self, config: dict[str, Any], context: SweepContext | None = None) -> None:
        assert context is not None
        # The pool and the evaluator of this machine read labels here.
        broker = context.broker
        data = data_here(
            context.data, "labels", lambda: broker.tell.remote((WANTED, "labels", "head"))
        )
        self._context = replace(context, data=data)
        self._pools = PoolActors()
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        candidate, context = config["candidate"], self._context
        broker = context.broker
        data = data_of_pools(
            context.data,
            candidate.trials,
            lambda: broker.tell.remote((WANTED, "images", host_name())),
        )
        self._current = CandidateRun(candidate, context, self._pools, data)
        self._current.start()

    def step(self) -> dict[str, Any]:
        return self._current.advance()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._current.stop()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._current.stop()
        self._pools.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Does nothing: a candidate's state is the ledgers and records of its trials."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Does nothing, for the same reason."""
