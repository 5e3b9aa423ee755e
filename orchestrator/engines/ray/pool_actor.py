"""Pools of trials in Ray actors, and a client of one pool that starts a new actor and repeats the
call when one dies.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.data.prepare import PreparedData
from orchestrator.engines.ray.pool_threads import PoolThreads
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

IMAGES_PER_ACTOR = 1_000_000
"""As many images as the pools of one actor have in all, unless a single pool has more: pools share
one interpreter, which does the work of a single core, and only what is large takes long.
"""


class ProcessLost(SweepStopped):
    """A process that the trial needs cannot be had again; started on another node, the trial may
    find one.
    """


@ray.remote(num_cpus=0, max_restarts=0)
class PoolActor:
    """Oracles and pools of trials, by name. All it knows is in the trials' ledgers or follows from
    them, so a new one goes on where a dead one stopped.
    """

    def __init__(self) -> None:
        self._pools = PoolThreads()

    async def serve(self, name: str, trial: Trial, data: PreparedData, ledger: Segments) -> None:
        """Opens the pool that every later call of this name is about, until `release`."""
        from orchestrator.trial import open_pool

        await asyncio.wrap_future(
            self._pools.serve(name, lambda: open_pool(trial, data, ledger)),
        )

    async def call(self, name: str, method: str, *args: Any) -> Any:
        """Calls the pool's own method."""
        return await asyncio.wrap_future(self._pools.call(name, method, *args))

    async def release(self, name: str) -> None:
        self._pools.release(name)


def _start_here() -> Any:
    # A fresh name each time: an old one may still belong to an actor on a node that died and has
    # not been declared dead.
    node = ray.get_runtime_context().get_node_id()
    return PoolActor.options(  # type: ignore[attr-defined]
        name=f"pool:{new_name()}",
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    ).remote()


@dataclass(slots=True, eq=False)
class SharedActor:
    """A pool actor, and for how much of it is spoken."""

    handle: Any
    pools: int = 0
    images: int = 0
    """Of all its pools together."""


@dataclass(slots=True)
class PoolActors:
    """Pool actors of one candidate process, on its node. Trials of small data share one, so that
    its start is paid once; when it dies, each opens its pool anew in the next.
    """

    start: Callable[[], Any] = _start_here
    """Starts a pool actor and returns its handle."""
    _actors: list[SharedActor] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, images: int) -> SharedActor:
        """Returns an actor that has room for a pool of so many images."""
        with self._lock:
            room = IMAGES_PER_ACTOR - images
            actor = next((one for one in self._actors if not one.pools or one.images <= room), None)
            if actor is None:
                actor = SharedActor(self.start())
                self._actors.append(actor)
            actor.pools += 1
            actor.images += images
            return actor

    def give_back(self, actor: SharedActor, images: int) -> None:
        """Makes room for another pool."""
        with self._lock:
            actor.pools -= 1
            actor.images -= images

    def drop(self, actor: SharedActor) -> None:
        """Sees to it that the actor is given to no other trial."""
        with self._lock:
            if actor in self._actors:
                self._actors.remove(actor)

    def close(self) -> None:
        """Ends the actors without a pool."""
        with self._lock:
            for actor in self._actors:
                if not actor.pools:
                    ray.kill(actor.handle, no_restart=True)
            self._actors = [actor for actor in self._actors if actor.pools]


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
    _actor: SharedActor | None = field(default=None, init=False)
    _name: str = field(default_factory=new_name, init=False)
    """Of the pool in its actor. Not the trial's: one that is being stopped may have a pool still
    while the same trial begins anew.
    """

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
        """Frees the pool, and its place for another trial."""
        if self._actor is not None:
            self._actor.handle.release.remote(self._name)
            self.actors.give_back(self._actor, self.trial.facts.train_items)
            self._actor = None

    def _call(self, method: str, *args: Any) -> Any:
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            if self.stopped.is_set():
                raise SweepStopped("the trial is being stopped")
            try:
                actor = self._actor or self._served()
                called = actor.handle.call.remote(self._name, method, *args)
                return ray.get(called, timeout=RETRY_SECONDS)
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

    def _served(self) -> SharedActor:
        """Returns an actor that has the trial's pool open. The trial travels once, as it is."""
        actor = self._actor = self.actors.take(self.trial.facts.train_items)
        served = actor.handle.serve.remote(self._name, self.trial, self.data, self.ledger)
        try:
            ray.get(served, timeout=RETRY_SECONDS)
        except RayTaskError:
            self.close()
            raise
        return actor

    def _drop(self, error: RayError) -> None:
        if self._actor is None:
            return
        self.actors.drop(self._actor)
        # One that does not answer must not go on by itself.
        if isinstance(error, GetTimeoutError):
            ray.kill(self._actor.handle, no_restart=True)
        self._actor = None
