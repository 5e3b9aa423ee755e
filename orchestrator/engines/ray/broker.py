"""Who trains which stage where: one broker a sweep owns the worker groups and trains every stage
once, first come first served.

A stage is a pure function of its request, so the broker trains it on its own account: whoever asks
for a stage that is being trained waits for that training, and a candidate that dies while it waits
loses nothing, for the result is committed under the stage's key all the same. Plain asyncio without
Ray; the actor around it and the worker groups of Ray ranks are in
orchestrator.engines.ray.worker_group.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from orchestrator.engines.limits import Limits
from orchestrator.engines.patience import Deaths
from orchestrator.engines.ray.utilisation import Utilisation
from orchestrator.sweeps.stage_store import LimitReached, StageStore, SweepStopped, new_attempt
from trainers.errors import UserError
from trainers.stage import StageOutcome, StageRequest, TrainingFailed


class WorkerGroupBroken(Exception):
    """A rank of the worker group died or cannot be reached; the message says which and why."""


class Preempted(WorkerGroupBroken):
    """It broke through no fault of what it trained: a machine was lost or taken away."""

    def __init__(self, text: str, hosts: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.hosts = hosts
        """Names of the machines that were lost."""


class NoWorkerGroup(SweepStopped):
    """No worker group can be had: the cluster does not grant one, or each dies while it starts."""


class WorkerGroup(Protocol):
    """n ranks that train one stage at a time."""

    async def alive(self) -> bool:
        """Returns whether every rank of the idle worker group still answers."""
        ...

    async def train(self, request: StageRequest) -> StageOutcome:
        """Raises:
        WorkerGroupBroken: a rank died; the stage can go on elsewhere from its last checkpoint.
        TrainingFailed: the stage itself cannot be trained, here or anywhere.
        """
        ...

    def kill(self) -> None:
        """Ends every rank and frees its resources; may be called twice."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    """A stage that somebody asked for, until it is committed or has failed."""

    turn: int
    request: StageRequest
    """As it was asked for; once it waits in the queue, what is left of it."""
    wants: frozenset[str]
    done: asyncio.Future[bool]
    """Whether it was trained; False where all of it was there."""
    deaths: Deaths
    """Worker groups that broke while they trained it."""
    preemptions: Deaths
    """Those that broke through no fault of it."""


@dataclass(slots=True)
class Broker:
    """Leases at most `groups` worker groups, made when first needed and kept warm; a broken one is
    killed, never reused.
    """

    make_group: Callable[[], Awaitable[WorkerGroup]]
    """Raises NoWorkerGroup or WorkerGroupBroken; leaves nothing behind when it raises or is
    cancelled.
    """
    groups: int
    store: StageStore
    max_failures: int
    """Worker groups that one stage may break in a row, its checkpoints not moving on, and starts in
    a row that may break before there is no worker group to be had.
    """
    max_preemptions: int = 20
    """The same for worker groups whose machines were lost or taken away."""
    on_lost: Callable[[tuple[str, ...]], None] = lambda hosts: None
    """Called with the names of machines that were lost under a stage in training."""
    on_broken_start: Callable[[str], None] = lambda why: None
    """Called with the reason when a worker group broke while it started and another is tried."""
    limits: Limits = field(default_factory=Limits)
    """Reached, they leave what is in training to end, and start nothing else."""
    use: Utilisation = field(default_factory=Utilisation)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _asked: int = 0
    _queue: deque[_Job] = field(default_factory=deque)
    _idle: list[WorkerGroup] = field(default_factory=list)
    _live: int = 0
    """Worker groups that have started and have not been killed, at work or idle."""
    _starting: int = 0
    _broken_starts: int = 0
    _refused: NoWorkerGroup | None = None
    """Why no more worker groups are started; void once the last live one is gone."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: bool = False

    async def train(self, request: StageRequest) -> bool:
        """Has the stage of the request trained and committed to the store. Returns whether this
        call trained it; False if it was there or another call trained it.

        Raises:
            TrainingFailed: to everyone who waits for the stage.
            NoWorkerGroup: to everyone who waits.
            LimitReached: the stage is not to be started any more.
        """
        while (job := self._jobs.get(request.key)) is not None:
            # A caller that goes away must not take the training with it: others may wait for it.
            await asyncio.shield(job.done)
            if job.wants.issuperset(request.wants):
                return False
        if self._closed:
            raise SweepStopped("the sweep is being stopped")
        job = _Job(
            self._asked,
            request,
            frozenset(request.wants),
            asyncio.get_running_loop().create_future(),
            Deaths(self.max_failures, None),
            Deaths(self.max_preemptions, None),
        )
        # Before the store is looked at: who asks meanwhile finds this and trains nothing twice.
        self._asked += 1
        self._jobs[request.key] = job
        self._spawn(self._admit(job))
        return await asyncio.shield(job.done)

    async def _admit(self, job: _Job) -> None:
        """Puts a stage into the queue, unless nothing is left to do of it."""
        try:
            # Requests to a store take their time, in which others are to be answered.
            looked = await asyncio.to_thread(self._look, job.request)
        except Exception as error:
            self._end(job, error)
            return
        if looked is None:
            self._end(job, None, trained=False)
            return
        job.request, job.deaths.reached = looked
        job.preemptions.reached = job.deaths.reached
        self._enqueue(job)
        self._dispatch()

    def _look(self, request: StageRequest) -> tuple[StageRequest, int] | None:
        """Returns what is left of a request, and how many epochs are done; None without any."""
        left = self.store.left(request)
        if left is None:
            return None
        if not self.store.has_scratch(left.key):
            left.work_dir.mkdir(parents=True, exist_ok=True)
        return left, self.store.epochs_done(left.key)

    def _enqueue(self, job: _Job) -> None:
        """Gives a stage its place by when it was asked for, not by when the store answered."""
        insort(self._queue, job, key=lambda waiting: waiting.turn)

    def _dispatch(self) -> None:
        """Gives waiting stages to idle groups, and starts as many groups as the other waiting
        stages can use.
        """
        if self._closed:
            return
        try:
            self.limits.check()
        except LimitReached as reached:
            while self._queue:
                self._end(self._queue.popleft(), reached)
            return
        while self._queue and self._idle:
            self._spawn(self._work(self._queue.popleft(), self._idle.pop()))
        while (
            self._refused is None
            and len(self._queue) > self._starting
            and self._live + self._starting < self.groups
        ):
            self._starting += 1
            self._spawn(self._start())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self) -> None:
        try:
            group = await self.make_group()
        except NoWorkerGroup as error:
            # With others at work there is no hurry: this place is asked for again, and the stages
            # in the queue go to whoever is free first.
            self._refused = error if self._live == 0 else None
        except WorkerGroupBroken as error:
            self.use.broken += 1
            self._broken_starts += 1
            lost = isinstance(error, Preempted)
            if self._broken_starts > (self.max_preemptions if lost else self.max_failures):
                self._refused = NoWorkerGroup(
                    f"{self._broken_starts} worker groups in a row died while they started, at"
                    f" last: {error}"
                )
            else:
                self.on_broken_start(str(error))
        except UserError as error:
            # That machine's disk, data or sight of the store: to be mended by a person, and no
            # reason to try the next one.
            self._refused = NoWorkerGroup(str(error))
            self._refused.exit_status = error.exit_status
            self._give_up()
        except Exception as error:
            # An error of a start would otherwise be lost in this task, and those who
            # wait would wait for ever.
            self._refused = NoWorkerGroup(
                f"a worker group cannot be started: {type(error).__name__}: {error}"
            )
        else:
            self._live += 1
            self._idle.append(group)
            self._broken_starts, self._refused = 0, None
        finally:
            self._starting -= 1
        self._give_up_if_refused()
        self._dispatch()

    def _give_up_if_refused(self) -> None:
        if self._refused is None or self._live or self._starting:
            return
        self._give_up()

    def _give_up(self) -> None:
        """Tells all who wait why there is no worker group."""
        refused, self._refused, self._broken_starts = self._refused, None, 0
        while self._queue:
            self._end(self._queue.popleft(), refused)

    async def _work(self, job: _Job, group: WorkerGroup) -> None:
        if not await self._answers(group):
            # Died while idle: not this stage's doing, which keeps its place.
            self._discard(group)
            self._enqueue(job)
            self._dispatch()
            return
        broken: WorkerGroupBroken | None = None
        began = self.use.began()
        try:
            with self.limits.training():
                outcome = await group.train(replace(job.request, attempt=new_attempt()))
        except WorkerGroupBroken as error:
            group.kill()
            broken = error
        except asyncio.CancelledError:
            self._discard(group)
            raise
        except Exception as error:
            # Its ranks may still be running, so the group is discarded.
            self._discard(group)
            self._end(job, error)
        else:
            self._idle.append(group)
            self._spawn(self._commit(job, outcome))
        finally:
            self.use.ended(began)
        if broken is not None:
            try:
                await self._take_back(job, broken)
            finally:
                # Not before: nothing else is to be given the place of a stage that is taken back.
                self._discard(group)
        self._dispatch()

    async def _take_back(self, job: _Job, error: WorkerGroupBroken) -> None:
        """Queues a stage again whose worker group broke, unless that was one too many."""
        self.use.broken += 1
        deaths = job.preemptions if isinstance(error, Preempted) else job.deaths
        if isinstance(error, Preempted) and error.hosts:
            self.on_lost(error.hosts)
        try:
            reached = await asyncio.to_thread(self.store.epochs_done, job.request.key)
        except Exception as unread:
            self._end(job, unread)
            return
        if deaths.too_many(reached):
            problem = (
                f"{deaths.in_vain} worker groups in a row broke while training it, and no"
                f" checkpoint moved on in between; at last: {error}"
            )
            self._end(job, TrainingFailed(f"stage {job.request.stage}: {problem}"))
        else:
            self._enqueue(job)

    async def _answers(self, group: WorkerGroup) -> bool:
        try:
            return await group.alive()
        except asyncio.CancelledError:
            self._discard(group)
            raise

    async def _commit(self, job: _Job, outcome: StageOutcome) -> None:
        try:
            # Checksums of large models and fsync must not hold up the other worker groups.
            await asyncio.to_thread(self.store.commit, job.request, outcome)
        except Exception as error:
            self._end(job, error)
        else:
            self.use.trained += 1
            self._end(job, None)

    def _end(self, job: _Job, error: Exception | None, *, trained: bool = True) -> None:
        self._jobs.pop(job.request.key, None)
        if job.done.done():
            return
        if error is None:
            job.done.set_result(trained)
        else:
            job.done.set_exception(error)
            # Marked as seen: all who asked may have gone away, which is no fault.
            job.done.exception()

    def _discard(self, group: WorkerGroup) -> None:
        group.kill()
        self._live -= 1
        if self._live == 0:
            self._broken_starts, self._refused = 0, None

    async def close(self) -> None:
        """Ends all training and every worker group."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._idle:
            self._discard(self._idle.pop())
        for job in list(self._jobs.values()):
            self._end(job, SweepStopped("the sweep is being stopped"))
        self._queue.clear()
