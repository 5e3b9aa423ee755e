"""A trial's pool as a Ray actor, and a client that starts a new actor and repeats the call when one
dies.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.data.prepare import PreparedData
from orchestrator.engines.ray.worker_group import first_line, new_name, remote_error
from orchestrator.labelling.pool import PoolCounts, Round
from orchestrator.labelling.questions import Questions
from orchestrator.storage.segments import Segments
from orchestrator.sweeps.stage_store import SweepStopped
from search_spaces.reading.config import Trial
from trainers.stage import Ids, StageInputs

RETRY_SECONDS = 180.0
"""Longer than a cluster takes to notice that a node is dead (about 45 s when its link is cut), with
room to start anew elsewhere.
"""


class ProcessLost(SweepStopped):
    """A process that the trial needs cannot be had again; started on another node, the trial may
    find one.
    """


@ray.remote(num_cpus=0, max_restarts=0)
class PoolActor:
    """Oracle and pool of one trial at a time. All it knows is in the trial's ledger or follows from
    it, so a new one goes on where a dead one stopped.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def serve(self, trial: Trial, data: PreparedData, ledger: Segments) -> None:
        """Opens the pool that every later call is about, until the next `serve`."""
        from orchestrator.trial import open_pool

        self._pool = open_pool(trial, data, ledger)

    def call(self, method: str, *args: Any) -> Any:
        """Calls the pool's own method."""
        return getattr(self._pool, method)(*args)


@dataclass(slots=True)
class PoolActors:
    """Pool actors of one candidate process, on its node: each serves one trial until it is handed
    back, then another, so that its start is paid once.
    """

    _idle: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        # A fresh name each time: an old one may still belong to an actor on a node that died and
        # has not been declared dead.
        node = ray.get_runtime_context().get_node_id()
        return PoolActor.options(  # type: ignore[attr-defined]
            name=f"pool:{new_name()}",
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote()

    def give_back(self, actor: Any) -> None:
        with self._lock:
            self._idle.append(actor)

    def close(self) -> None:
        """Ends the idle actors."""
        with self._lock:
            while self._idle:
                ray.kill(self._idle.pop(), no_restart=True)


@dataclass(slots=True)
class PoolClient:
    """The pool service (orchestrator.labelling.pool.PoolService) of a trial, in an actor on this
    node.

    Every call may be repeated without harm, and is, after a death.
    """

    trial: Trial
    data: PreparedData
    ledger: Segments
    actors: PoolActors
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the trial must not go on in this process."""
    _actor: Any = field(default=None, init=False)

    def open(self) -> bool:
        found: bool = self._call("open")
        return found

    def training_inputs(self, after_round: int | None = None) -> StageInputs:
        inputs: StageInputs = self._call("training_inputs", after_round)
        return inputs

    def eligible(self) -> Ids:
        ids: Ids = self._call("eligible")
        return ids

    def quota(self, number: int) -> int:
        questions: int = self._call("quota", number)
        return questions

    def round(self, number: int) -> Round | None:
        committed: Round | None = self._call("round", number)
        return committed

    def ask(self, number: int, asked: Questions) -> Round:
        answered: Round = self._call("ask", number, asked)
        return answered

    def counts(self, after_round: int | None = None) -> PoolCounts:
        total: PoolCounts = self._call("counts", after_round)
        return total

    def head(self, after_round: int | None = None) -> tuple[int, str]:
        committed: tuple[int, str] = self._call("head", after_round)
        return committed

    def close(self) -> None:
        """Frees the actor for another trial."""
        if self._actor is not None:
            self.actors.give_back(self._actor)
            self._actor = None

    def _call(self, method: str, *args: Any) -> Any:
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            if self.stopped.is_set():
                raise SweepStopped("the trial is being stopped")
            try:
                if self._actor is None:
                    self._actor = self._served(self.actors.take())
                return ray.get(self._actor.call.remote(method, *args), timeout=RETRY_SECONDS)
            except RayTaskError as error:
                raise remote_error(error) from None
            except RayError as error:
                self._drop(error)
                if time.monotonic() > deadline:
                    raise ProcessLost(
                        f"the pool of trial {self.trial.id} could not be reached for"
                        f" {RETRY_SECONDS:g} s: {first_line(error)}"
                    ) from None
                time.sleep(0.2)

    def _served(self, actor: Any) -> Any:
        """Returns the actor, which has the trial's pool open. The trial travels once, as it is."""
        ray.get(actor.serve.remote(self.trial, self.data, self.ledger), timeout=RETRY_SECONDS)
        return actor

    def _drop(self, error: RayError) -> None:
        # One that does not answer must not be handed to another trial, nor go on by itself.
        if self._actor is not None and isinstance(error, GetTimeoutError):
            ray.kill(self._actor, no_restart=True)
        self._actor = None
