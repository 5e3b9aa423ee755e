"""Worker groups of Ray actors that train stages together, and the actor around the broker that owns
them.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.data.prepare import PreparedData
from orchestrator.engines.limits import Limits
from orchestrator.engines.ray.broker import Broker, NoWorkerGroup, Preempted
from orchestrator.engines.ray.events import EventQueue, Reply
from orchestrator.engines.ray.hosts import Asked, Place, here, named, why_broken
from orchestrator.engines.ray.node import (
    WANTED,
    CheckpointCopies,
    Token,
    data_here,
    host_name,
)
from orchestrator.storage.store import Store
from orchestrator.sweeps.stage_store import StageStore
from search_spaces.reading.config import ResourcesConfig
from trainers.errors import UserError
from trainers.stage import Interrupted, StageOutcome, StageRequest

LOST_SECONDS = 1.5
"""Within which the worker groups of a machine that was lost have all broken."""

HEAD = {"node:__internal_head__": 0.001}
"""A sliver of what only the head node has: keeps an actor there, off spot nodes, without taking a
CPU from the worker groups.
"""


@ray.remote(max_restarts=0)
class Rank:
    """One DDP rank: a warm process that has torch loaded and its data set open."""

    def __init__(self, stages: StageStore, data: PreparedData) -> None:
        self._stages = stages
        self._data = data
        self._group = ExitStack()
        self._ranks: Any = None
        self._asked = Asked()

    def place(self) -> Place:
        return here()

    def address(self) -> tuple[str, int]:
        """Where rank 0 of a new process group can listen."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def prepare(self, token: Token, broker: Any) -> str:
        """Shows that this machine sees the sweep's store, and sees to it that the images are here.
        Returns the machine's name.

        Raises:
            StoreNotSeen: it does not see the store.
            DataError, StorageError: the images cannot be had.
        """
        host = host_name()
        token.show(self._stages.store, host)
        self._data = data_here(
            self._data, "images", lambda: broker.tell.remote((WANTED, "images", host))
        )
        return host

    def join(self, rank: int, world_size: int, address: str, port: int, device: str) -> None:
        """This process is rank `rank` of the group for the rest of its life."""
        import trainers.run  # noqa: F401 (loaded before the first stage, whose time would count it)
        from trainers.distributed.process_group import process_group

        self._asked.listen()
        self._ranks = self._group.enter_context(
            process_group(
                rank=rank, world_size=world_size, address=address, port=port, device=device
            )
        )

    def answer(self) -> None:
        """Returns: the process is there and idle."""

    def train(self, request: StageRequest) -> StageOutcome:
        with named(), self._asked.training() as asked:
            return self._train(request, asked)

    def _train(self, request: StageRequest, asked: Callable[[], bool]) -> StageOutcome:
        from trainers.run import run_stage

        # Whoever asks may be another machine, with other folders.
        work = self._stages.work(request.key)
        request = replace(request, data_dir=self._data.images_dir, work_dir=work)
        work.mkdir(parents=True, exist_ok=True)
        if not self._ranks.first:
            return run_stage(request, self._ranks, is_asked_to_end=asked)
        with CheckpointCopies(self._stages, request).kept():
            outcome = run_stage(request, self._ranks, is_asked_to_end=asked)
        self._stages.keep(request, outcome)
        return outcome


def remote_error(error: RayTaskError) -> Exception:
    """What a remote call raised, as it was raised: Ray's own copy has the remote traceback in its
    text.
    """
    cause = error.cause
    return cause if isinstance(cause, Exception) else error


def first_line(error: BaseException) -> str:
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


@dataclass(slots=True)
class RayWorkerGroup:
    """n rank actors in one placement group, granted whole."""

    placement: PlacementGroup
    ranks: list[Any] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    """Of each rank."""

    async def alive(self) -> bool:
        try:
            await asyncio.gather(*[rank.answer.remote() for rank in self.ranks])
        except RayError:
            return False
        return True

    async def train(self, request: StageRequest) -> StageOutcome:
        try:
            outcomes = await asyncio.gather(*[rank.train.remote(request) for rank in self.ranks])
        except RayTaskError as error:
            cause = remote_error(error)
            if isinstance(cause, Interrupted):
                raise Preempted(str(cause)) from None
            if self._lost_another(cause):
                text = f"{type(cause).__name__}: {first_line(cause)}"
                raise await why_broken(text, self.ranks, self.places) from None
            raise cause from None
        except RayError as error:
            raise await why_broken(first_line(error), self.ranks, self.places) from None
        first: StageOutcome = outcomes[0]
        return first

    def _lost_another(self, cause: Exception) -> bool:
        """Returns whether the error may follow from another rank's death: survivors raise
        RuntimeError or ConnectionError, often before Ray reports it.
        """
        return len(self.ranks) > 1 and isinstance(cause, (RuntimeError, ConnectionError))

    def kill(self) -> None:
        for rank in self.ranks:
            ray.kill(rank, no_restart=True)
        remove_placement_group(self.placement)


async def make_worker_group(
    prefix: str,
    stages: StageStore,
    resources: ResourcesConfig,
    device: str,
    data: PreparedData,
    token: Token,
    broker: Any,
) -> RayWorkerGroup:
    """Starts a worker group whose ranks have joined one process group. Nothing is left of it when
    this raises or is cancelled.

    Raises:
        NoWorkerGroup: the cluster did not grant its resources in resources.start_timeout seconds.
        WorkerGroupBroken: a rank died while it started.
        StoreNotSeen: a machine does not see the sweep's store.
        DataError, StorageError: the images cannot be had there.
    """
    bundle = {"CPU": float(resources.cpus_per_worker)} | (
        {"GPU": float(resources.gpus_per_worker)} if resources.gpus_per_worker else {}
    )
    placement = placement_group(
        [bundle] * resources.workers, strategy="PACK", name=f"{prefix}{new_name()}"
    )
    group = RayWorkerGroup(placement)
    try:
        await asyncio.wait_for(
            asyncio.wrap_future(placement.ready().future()), timeout=resources.start_timeout
        )
        for index in range(resources.workers):
            placed = PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=index)
            group.ranks.append(
                Rank.options(  # type: ignore[attr-defined]
                    num_cpus=resources.cpus_per_worker,
                    num_gpus=resources.gpus_per_worker,
                    scheduling_strategy=placed,
                ).remote(stages, data)
            )
        group.places = await asyncio.gather(*[rank.place.remote() for rank in group.ranks])
        hosts = await asyncio.gather(*[rank.prepare.remote(token, broker) for rank in group.ranks])
        for host in set(hosts):
            await asyncio.to_thread(token.check, stages.store, host)
        address, port = await group.ranks[0].address.remote()
        await asyncio.gather(
            *[
                rank.join.remote(index, len(group.ranks), address, port, device)
                for index, rank in enumerate(group.ranks)
            ]
        )
    except TimeoutError:
        group.kill()
        raise NoWorkerGroup(_not_granted(resources, bundle)) from None
    except RayError as error:
        cause = remote_error(error) if isinstance(error, RayTaskError) else error
        text = f"{type(cause).__name__}: {first_line(cause)}"
        try:
            if isinstance(cause, UserError):
                raise cause from None
            raise await why_broken(text, group.ranks, group.places) from None
        finally:
            group.kill()
    except BaseException:
        group.kill()
        raise
    return group


def _not_granted(resources: ResourcesConfig, bundle: dict[str, float]) -> str:
    each = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
    free = ray.available_resources()
    left = ", ".join(f"{free.get(name, 0):g} {name}" for name in bundle)
    return (
        f"waited {resources.start_timeout:g} s (resources.start_timeout) for {resources.workers}"
        f" worker(s) with {each} each, and the cluster did not grant them; it has {left} free in"
        " all, perhaps on several nodes or in use by others. Go on when others have finished, or"
        " with --set resources.start_timeout=SECONDS; or start another sweep, with fewer"
        " resources.workers, cpus_per_worker or gpus_per_worker. What is recorded is kept."
    )


def new_name() -> str:
    return uuid.uuid4().hex[:8]


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=10_000)
class BrokerActor:
    """The broker of one sweep. Restarted after a death: it holds nothing that is not in the stage
    store, and removes what worker groups a dead one left.
    """

    def __init__(
        self,
        sweep: str,
        store: Store,
        groups: int,
        resources: ResourcesConfig,
        device: str,
        limits: Limits,
        data: PreparedData,
        token: Token,
    ) -> None:
        prefix = f"worker_group:{sweep}:"
        for row in placement_group_table().values():
            name = str(row.get("name", ""))
            if name.startswith(prefix) and row.get("state") != "REMOVED":
                # Names are new each time, so this finds the one group, if it is still there.
                with suppress(ValueError):
                    remove_placement_group(ray.util.get_placement_group(name))
        stages, me = StageStore(store), ray.get_runtime_context().current_actor
        self._broker = Broker(
            make_group=lambda: make_worker_group(
                prefix, stages, resources, device, data, token, me
            ),
            groups=groups,
            store=stages,
            max_failures=resources.max_failures,
            max_preemptions=resources.max_preemptions,
            on_lost=self._note_lost,
            on_broken_start=lambda why: self._events.put(("start_broke", "", why)),
            limits=limits,
        )
        self._groups = groups
        self._events = EventQueue()
        self._lost: dict[str, int] = {}

    def _note_lost(self, hosts: tuple[str, ...]) -> None:
        """Says it once the other stages of the same machine have broken too."""
        for host in hosts:
            if host not in self._lost:
                asyncio.get_running_loop().call_later(LOST_SECONDS, self._tell_lost, host)
            self._lost[host] = self._lost.get(host, 0) + 1

    def _tell_lost(self, host: str) -> None:
        if host in self._lost:
            self._events.put(("host_lost", host, self._lost.pop(host)))

    async def answer(self) -> None:
        """Returns: the broker is there."""

    async def train(self, request: StageRequest) -> bool:
        return await self._broker.train(request)

    async def tell(self, event: tuple[str, Any, Any]) -> None:
        """Keeps an event of a trial until the driver takes it."""
        self._events.put(event)

    async def take_events(self, name: str, seen: int, *, last: bool = False) -> Reply:
        """Returns the events that have not arrived at the driver; what waits to be said, too, where
        it asks for the last time.
        """
        for host in list(self._lost) if last else ():
            self._tell_lost(host)
        return self._events.take(name, seen)

    async def use(self) -> dict[str, Any]:
        use = self._broker.use
        return {
            "busy_seconds": use.busy_seconds,
            "share": use.share(self._groups),
            "worker_groups": self._groups,
            "trained": use.trained,
            "broken": use.broken,
            "gpu_seconds": self._broker.limits.gpu_seconds,
        }

    async def close(self) -> None:
        await self._broker.close()
