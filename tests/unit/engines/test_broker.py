"""The laws of the broker, with worker groups that train nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.engines.ray.broker import (
    Broker,
    NoWorkerGroup,
    Preempted,
    WorkerGroup,
    WorkerGroupBroken,
)
from orchestrator.storage.files import StorageLost
from orchestrator.storage.folder import FolderStore
from orchestrator.sweeps.stage_store import StageStore, SweepStopped
from trainers.checkpoint import save_epoch
from trainers.errors import DataError
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.stage import StageInputs, StageOutcome, StageRequest, TrainingFailed

IDS = np.array([], np.int64)
CLASSES = np.array([], np.int32)
NOTHING = StageInputs(
    pool_ids=IDS,
    label_ids=IDS,
    labels=CLASSES,
    negative_ids=IDS,
    negative_classes=CLASSES,
    validation_ids=IDS,
    validation_labels=CLASSES,
)


@dataclass
class World:
    """Worker groups as a test wants them, and what became of each."""

    root: Path
    groups: int = 2
    max_failures: int = 2
    outcomes: dict[str, list[Any]] = field(default_factory=dict)
    """key -> what its trainings end with, in order: an exception to raise, or a future to wait for;
    then success.
    """
    epochs: dict[str, list[int]] = field(default_factory=dict)
    """key -> the epoch of the checkpoint that each of its trainings leaves, in order; then none."""
    starts: list[BaseException | None] = field(default_factory=list)
    """What the starts of worker groups end with, in order; then success."""
    together: int = 0
    """How many stages wait in the queue before a start ends."""
    trained: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    made: list[FakeWorkerGroup] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = Broker(
            make_group=self.make_group,
            groups=self.groups,
            store=StageStore(FolderStore(self.root)),
            max_failures=self.max_failures,
        )

    async def make_group(self) -> WorkerGroup:
        await asyncio.sleep(0)
        while len(self.broker._queue) < self.together:
            await asyncio.sleep(0)
        error = self.starts.pop(0) if self.starts else None
        if error is not None:
            raise error
        self.made.append(FakeWorkerGroup(self))
        return self.made[-1]

    def request(self, key: str) -> StageRequest:
        method, work = MeanTeacherConfig(), self.root / "stages" / key
        return StageRequest(
            key=key,
            stage=0,
            seed=0,
            method=method,
            plan=method.stage(1, 1, has_negatives=False),
            data_dir=self.root,
            inputs=NOTHING,
            work_dir=work,
            attempt="asked",
        )

    def ask(self, key: str, *wants: str) -> asyncio.Task[bool]:
        request = replace(self.request(key), wants=wants)
        return asyncio.create_task(self.broker.train(request))

    def left(self) -> list[FakeWorkerGroup]:
        return [group for group in self.made if not group.killed]


@dataclass
class FakeWorkerGroup:
    world: World
    killed: bool = False
    dead: bool = False
    busy: bool = False
    keys: list[str] = field(default_factory=list)

    async def alive(self) -> bool:
        return not self.dead

    async def train(self, request: StageRequest) -> StageOutcome:
        assert not self.killed, "a killed worker group was used again"
        assert not self.busy, "a worker group was given two stages at once"
        self.busy = True
        try:
            self.keys.append(request.key)
            self.world.trained.append(request.key)
            self.world.attempts.append(request.attempt)
            epochs = self.world.epochs.get(request.key, [])
            if epochs:
                save_epoch(request.work_dir, request.attempt, epochs.pop(0), {"key": request.key})
            ends = self.world.outcomes.get(request.key, [])
            end = ends.pop(0) if ends else None
            if isinstance(end, asyncio.Future):
                end = await end
            await asyncio.sleep(0)
            if isinstance(end, BaseException):
                raise end
            names = request.wants if request.committed is not None else ("guess", *request.wants)
            for name in names:
                (request.work_dir / f"{name}.npy").write_bytes(request.key.encode())
            return StageOutcome(files={f"scores/{n}": f"{n}.npy" for n in names}, metrics={})
        finally:
            self.busy = False

    def kill(self) -> None:
        self.killed = True


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test's coroutine; a broker that waits for ever is a failure, not a hung test. The
    store is asked by one thread, in the order of the calls.
    """

    async def limited() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await asyncio.wait_for(work(), timeout=30)

    asyncio.run(limited())


async def settle() -> None:
    """Lets everything happen that waits for no event of the test."""
    for _ in range(50):
        # Its only thread has then done what it was given before.
        await asyncio.to_thread(lambda: None)
        await asyncio.sleep(0)


class HeldStore(StageStore):
    """Answers no question about some keys until it is allowed to."""

    def __init__(self, root: Path, *keys: str) -> None:
        super().__init__(FolderStore(root))
        gates = {key: threading.Event() for key in keys}
        object.__setattr__(self, "gates", gates)
        object.__setattr__(self, "looks", list[str]())

    gates: dict[str, threading.Event]
    looks: list[str]
    """Keys that were looked for."""

    def left(self, request: StageRequest) -> StageRequest | None:
        self.looks.append(request.key)
        if request.key in self.gates:
            assert self.gates[request.key].wait(timeout=20), "nobody let the store answer"
        return super().left(request)


def run_beside(store: HeldStore, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """As `run`, with threads for all that asks the store. Where the loop itself is held up it goes
    on after a while, and the test fails.
    """

    async def limited() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        try:
            await asyncio.wait_for(work(), timeout=30)
        finally:
            for gate in store.gates.values():
                gate.set()

    asyncio.run(limited())


async def result(task: Awaitable[Any]) -> Any:
    try:
        return await task
    except Exception as error:
        return error


def test_a_stage_is_trained_once_however_many_ask(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        first = await asyncio.gather(*[world.ask("a") for _ in range(20)])
        later = await world.ask("a")
        assert sorted(first) == [False] * 19 + [True]
        assert later is False
        assert world.trained == ["a"]
        assert world.broker.store.find("a") is not None

    run(work)


def test_a_stage_is_asked_once_for_each_array_that_it_was_trained_without(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        assert await world.ask("a") is True
        assert sorted(await asyncio.gather(*[world.ask("a", "embedding") for _ in range(9)])) == [
            False
        ] * 8 + [True]
        assert await world.ask("a", "embedding", "other") is True
        for wants in ((), ("other",), ("embedding", "other")):
            assert await world.ask("a", *wants) is False
        assert world.trained == ["a", "a", "a"]
        found = world.broker.store.find("a")
        assert found is not None
        assert set(found.files().files) == {"scores/guess", "scores/embedding", "scores/other"}

    run(work)


def test_callers_that_go_away_lose_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, groups=1)

    async def work() -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.outcomes["a"] = [gate]
        gone, stays = world.ask("a"), world.ask("a")
        await settle()
        gone.cancel()
        await settle()
        gate.set_result(None)
        assert await stays is False
        alone = world.ask("b")
        await asyncio.sleep(0)
        alone.cancel()
        while world.broker.store.find("b") is None:
            await asyncio.sleep(0.01)
        assert world.trained == ["a", "b"]
        assert world.left() == world.made

    run(work)


def test_stages_are_trained_first_come_first_served(tmp_path: Path) -> None:
    world = World(tmp_path, groups=1)

    async def work() -> None:
        keys = [f"k{number}" for number in range(10)]
        await asyncio.gather(*[world.ask(key) for key in keys])
        assert world.trained == keys
        assert len(world.made) == 1

    run(work)


def test_a_store_that_does_not_answer_for_one_stage_holds_up_no_other(tmp_path: Path) -> None:
    world, store = World(tmp_path), HeldStore(tmp_path, "a", "b")
    world.broker.store = store

    async def work() -> None:
        held = [world.ask("a"), world.ask("b")]
        assert await world.ask("c") is True
        assert await world.ask("c") is False
        assert world.trained == ["c"] and not any(task.done() for task in held)
        for gate in store.gates.values():
            gate.set()
        assert await asyncio.gather(*held) == [True, True]

    run_beside(store, work)


def test_who_asks_while_the_store_is_looked_at_shares_the_look_and_the_training(
    tmp_path: Path,
) -> None:
    world, store = World(tmp_path, groups=4), HeldStore(tmp_path, "a")
    world.broker.store = store

    async def work() -> None:
        asked = [world.ask("a") for _ in range(9)]
        while not store.looks:
            await asyncio.sleep(0)
        gone = asked.pop(0)
        gone.cancel()
        asked.append(world.ask("a"))
        store.gates["a"].set()
        assert await asyncio.gather(*asked) == [False] * 9, "the one that began it went away"
        assert store.looks == world.trained == ["a"]

    run_beside(store, work)


def test_who_wants_more_than_the_look_under_way_asks_for_gets_it(tmp_path: Path) -> None:
    world, store = World(tmp_path), HeldStore(tmp_path)
    world.broker.store = store

    async def work() -> None:
        assert await world.ask("a") is True
        store.gates["a"] = threading.Event()
        less = world.ask("a")
        while len(store.looks) < 2:
            await asyncio.sleep(0)
        more = [world.ask("a", "embedding") for _ in range(3)]
        await asyncio.sleep(0)
        store.gates["a"].set()
        assert await less is False
        assert sorted(await asyncio.gather(*more)) == [False, False, True]
        found = store.find("a")
        assert found is not None and "scores/embedding" in found.files().files

    run_beside(store, work)


def test_the_queue_has_the_order_of_asking_in_whatever_order_the_store_answers(
    tmp_path: Path,
) -> None:
    keys = [f"k{number}" for number in range(8)]
    world, store = World(tmp_path, groups=1), HeldStore(tmp_path, *keys)
    world.broker.store = store

    async def work() -> None:
        busy: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.outcomes["first"] = [busy]
        asked = [world.ask(key) for key in ("first", *keys)]
        while world.trained != ["first"]:
            await asyncio.sleep(0)
        for number, key in enumerate(reversed(keys)):
            store.gates[key].set()
            while len(world.broker._queue) <= number:
                await asyncio.sleep(0)
        busy.set_result(None)
        assert await asyncio.gather(*asked) == [True] * 9
        assert world.trained == ["first", *keys]

    run_beside(store, work)


def test_a_store_that_cannot_be_read_is_said_to_all_who_ask_and_asked_anew(tmp_path: Path) -> None:
    world = World(tmp_path, max_failures=5)
    lost = StorageLost("s3://away: does not answer")

    class LostStore(StageStore):
        def epochs_done(self, key: str) -> int:
            if away:
                raise lost
            return super().epochs_done(key)

    world.broker.store = LostStore(FolderStore(tmp_path))
    away = True

    async def work() -> None:
        nonlocal away
        assert await asyncio.gather(result(world.ask("a")), result(world.ask("a"))) == [lost, lost]
        away = False
        dies: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        world.outcomes["a"] = [dies]
        asked = world.ask("a")
        while not world.trained:
            await asyncio.sleep(0)
        # Away when the worker group's death is to be judged.
        away = True
        dies.set_exception(WorkerGroupBroken("rank 0 died"))
        assert await result(asked) is lost
        away = False
        assert await world.ask("a") is True

    run(work)


def test_never_more_worker_groups_than_allowed_and_no_more_than_stages(tmp_path: Path) -> None:
    async def many(world: World, stages: int) -> int:
        # No stage ends before all are there that may be: else the first group might train them all.
        gate = asyncio.get_running_loop().create_future()
        world.outcomes = {f"k{number}": [gate] for number in range(stages)}
        asked = [world.ask(key) for key in world.outcomes]
        while len(world.made) < min(world.groups, stages):
            await asyncio.sleep(0)
        gate.set_result(None)
        await asyncio.gather(*asked)
        return len(world.made)

    async def work() -> None:
        assert await many(World(tmp_path / "few", groups=3), 12) == 3
        assert await many(World(tmp_path / "one", groups=3), 1) == 1

    run(work)


def test_a_broken_worker_group_is_never_used_again_and_its_stage_goes_elsewhere(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, groups=1)

    async def work() -> None:
        world.outcomes["a"] = [WorkerGroupBroken("rank 0 died"), WorkerGroupBroken("rank 1 died")]
        waiting = [world.ask("a"), world.ask("b")]
        assert await asyncio.gather(*waiting) == [True, True]
        # The stage that lost its worker group was first and stays first.
        assert world.trained == ["a", "a", "a", "b"]
        assert [group.killed for group in world.made] == [True, True, False]
        assert len(set(world.attempts)) == 4, "each try needs names of its own"
        assert world.broker.use.broken == 2

    run(work)


def test_a_stage_that_breaks_too_many_worker_groups_fails_for_everyone_who_waits(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, groups=2, max_failures=2)

    async def work() -> None:
        world.outcomes["a"] = [WorkerGroupBroken(f"death {number}") for number in range(3)]
        ends = await asyncio.gather(
            *[result(world.ask("a")) for _ in range(3)], result(world.ask("b"))
        )
        assert ends[3] is True
        for error in ends[:3]:
            assert isinstance(error, TrainingFailed)
            assert "3 worker groups" in str(error)
            assert "death 2" in str(error)
        # Asked again later (a retry), it is tried again.
        assert await world.ask("a") is True

    run(work)


def test_a_stage_whose_checkpoints_move_on_may_lose_any_number_of_worker_groups(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, groups=1, max_failures=1)

    async def work() -> None:
        world.outcomes["a"] = [WorkerGroupBroken("preempted") for _ in range(20)]
        world.epochs["a"] = list(range(1, 21))
        assert await world.ask("a") is True
        assert len(world.trained) == 21

    run(work)


def test_lost_machines_are_counted_apart_from_failures(tmp_path: Path) -> None:
    world, lost = World(tmp_path, groups=1, max_failures=0), list[tuple[str, ...]]()
    world.broker.max_preemptions, world.broker.on_lost = 3, lost.append

    async def work() -> None:
        world.outcomes["a"] = [Preempted("gone", ("gpu-2",)), Preempted("asked to end")] * 1
        assert await world.ask("a") is True
        assert lost == [("gpu-2",)]
        world.outcomes["b"] = [Preempted(f"gone {number}") for number in range(9)]
        world.epochs["b"] = [1, 2, 3]
        end = await result(world.ask("b"))
        assert isinstance(end, TrainingFailed)
        assert "gone 6" in str(end), "four in vain after the third checkpoint"
        world.outcomes["c"] = [Preempted("gone"), WorkerGroupBroken("its own death")]
        end = await result(world.ask("c"))
        assert isinstance(end, TrainingFailed) and "its own death" in str(end)

    run(work)


def test_machines_lost_while_worker_groups_start_are_counted_apart_too(tmp_path: Path) -> None:
    world = World(tmp_path, groups=1, max_failures=0)
    world.broker.max_preemptions = 2

    async def work() -> None:
        world.starts = [Preempted("gone"), Preempted("gone")]
        assert await world.ask("a") is True
        world.made[-1].dead = True
        world.starts = [Preempted("gone")] * 3
        assert isinstance(await result(world.ask("b")), NoWorkerGroup)

    run(work)


def test_a_stage_that_comes_to_the_same_epoch_again_and_again_fails(tmp_path: Path) -> None:
    world = World(tmp_path, groups=1, max_failures=1)

    async def work() -> None:
        world.outcomes["a"] = [WorkerGroupBroken(f"death {number}") for number in range(20)]
        world.epochs["a"] = [1, 2, 3, 3, 3, 3]
        end = await result(world.ask("a"))
        assert isinstance(end, TrainingFailed)
        assert "death 4" in str(end), "two deaths in vain after the third checkpoint"
        assert "checkpoint" in str(end)

    run(work)


@pytest.mark.parametrize(
    "error",
    [
        TrainingFailed("loss is nan"),
        DataError("labels.npy: damaged"),
        OSError(28, "No space left on device"),
        RuntimeError("bug"),
    ],
)
def test_a_stage_that_fails_by_itself_takes_only_its_own_worker_group_along(
    tmp_path: Path, error: Exception
) -> None:
    world = World(tmp_path)

    async def work() -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.outcomes |= {"bad": [error], "good": [gate]}
        good, bad = world.ask("good"), [result(world.ask("bad")) for _ in range(2)]
        assert await asyncio.gather(*bad) == [error, error]
        assert world.trained.count("bad") == 1
        gate.set_result(None)
        assert await good is True
        [survivor] = world.left()
        assert survivor.keys == ["good"]
        assert await world.ask("next") is True

    run(work)


def test_a_worker_group_that_died_while_idle_is_not_held_against_the_next_stage(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, groups=3, max_failures=0)

    async def work() -> None:
        world.together = 3
        asked = [world.ask(key) for key in "abc"]
        while len(world.made) < 1:
            await asyncio.sleep(0)
        world.together = 0
        await asyncio.gather(*asked)
        for group in world.made:
            group.dead = True
        assert await asyncio.gather(world.ask("d"), world.ask("e")) == [True, True]
        assert len(world.left()) <= 3
        assert not any(group.keys[-1:] in (["d"], ["e"]) for group in world.made[:3])

    run(work)


def test_a_start_that_breaks_is_said_and_tried_again(tmp_path: Path) -> None:
    world, said = World(tmp_path, groups=1, max_failures=2), list[str]()
    world.broker.on_broken_start = said.append

    async def work() -> None:
        world.starts = [WorkerGroupBroken("died importing"), WorkerGroupBroken("died joining")]
        assert await world.ask("a") is True
        assert said == ["died importing", "died joining"]

    run(work)


def test_starts_that_always_break_end_with_a_message_for_everyone(tmp_path: Path) -> None:
    world = World(tmp_path, groups=2, max_failures=2)

    async def work() -> None:
        world.starts = [
            WorkerGroupBroken(f"libtorch is missing ({number})") for number in range(20)
        ]
        ends = await asyncio.gather(*[result(world.ask(key)) for key in "abca"])
        assert all(isinstance(end, NoWorkerGroup) for end in ends)
        assert "libtorch is missing" in str(ends[0])
        assert world.trained == []
        assert world.made == []

    run(work)


@pytest.mark.parametrize("stages", [1, 5])
def test_no_worker_group_at_all_ends_with_a_message_for_everyone(
    tmp_path: Path, stages: int
) -> None:
    world = World(tmp_path, groups=3)

    async def work() -> None:
        refusal = NoWorkerGroup("waited 3 s for 2 worker(s)")
        world.starts = [refusal] * min(stages, 3)
        world.together = stages
        ends = await asyncio.gather(*[result(world.ask(f"k{number}")) for number in range(stages)])
        world.together = 0
        assert ends == [refusal] * stages
        # What is asked for later is tried anew: the cluster may have grown.
        assert await world.ask("later") is True

    run(work)


def test_what_keeps_a_machine_from_training_ends_the_wait_at_once_under_its_own_exit_status(
    tmp_path: Path,
) -> None:
    """Another worker group at work is no help: a person must mend it, or wait for the store."""
    world = World(tmp_path)

    async def work() -> None:
        busy = asyncio.get_running_loop().create_future()
        world.outcomes["a"] = [busy]
        world.starts = [None, StorageLost("s3://away: does not answer")]
        first = world.ask("a")
        while "a" not in world.trained:
            await asyncio.sleep(0)
        end = await result(world.ask("b"))
        assert isinstance(end, NoWorkerGroup) and "does not answer" in str(end)
        assert end.exit_status == StorageLost.exit_status != NoWorkerGroup.exit_status
        busy.set_result(None)
        assert await first is True

    run(work)


def test_a_start_that_fails_in_an_unforeseen_way_is_said_to_those_who_wait(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        world.starts = [KeyError("node"), KeyError("node")]
        ends = await asyncio.gather(result(world.ask("a")), result(world.ask("b")))
        assert all(isinstance(end, NoWorkerGroup) and "node" in str(end) for end in ends)

    run(work)


def test_with_fewer_worker_groups_than_hoped_for_the_others_do_all_the_work(tmp_path: Path) -> None:
    world = World(tmp_path, groups=3)

    async def work() -> None:
        world.starts = [None] + [NoWorkerGroup("in use by others") for _ in range(2)]
        keys = [f"k{number}" for number in range(8)]
        assert await asyncio.gather(*[world.ask(key) for key in keys]) == [True] * 8

    run(work)


def test_a_place_that_was_refused_is_asked_for_again(tmp_path: Path) -> None:
    """A cluster without room for the second worker group at first has it later."""
    world = World(tmp_path, groups=2)

    async def work() -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.outcomes["a"] = [gate]
        world.starts = [None, NoWorkerGroup("in use by others"), NoWorkerGroup("in use by others")]
        first = world.ask("a")
        await settle()
        assert await world.ask("b") is True
        assert [group.keys for group in world.made] == [["a"], ["b"]]
        gate.set_result(None)
        assert await first is True

    run(work)


def test_the_last_worker_group_lost_and_no_other_to_be_had_ends_with_a_message(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, groups=1, max_failures=5)

    async def work() -> None:
        world.outcomes["a"] = [WorkerGroupBroken("node died")]
        world.starts = [None, NoWorkerGroup("nothing is left")]
        ends = await asyncio.gather(result(world.ask("a")), result(world.ask("b")))
        assert [str(end) for end in ends] == ["nothing is left"] * 2

    run(work)


def test_a_start_still_under_way_is_waited_for_before_all_is_given_up(tmp_path: Path) -> None:
    world = World(tmp_path, groups=2)
    gates: list[asyncio.Future[WorkerGroup]] = []

    async def make_group() -> WorkerGroup:
        gates.append(asyncio.get_running_loop().create_future())
        return await gates[-1]

    world.broker.make_group = make_group

    async def work() -> None:
        asked = [world.ask("a"), world.ask("b")]
        await settle()
        first, second = gates
        first.set_exception(NoWorkerGroup("only one fits"))
        await settle()
        assert not any(task.done() for task in asked)
        second.set_result(FakeWorkerGroup(world))
        assert await asyncio.gather(*asked) == [True, True]

    run(work)


def test_close_leaves_no_worker_group_and_nobody_waiting(tmp_path: Path) -> None:
    world = World(tmp_path, groups=2)
    cancelled: list[bool] = []
    make = world.make_group

    async def make_group() -> WorkerGroup:
        if len(world.made) < 2:
            return await make()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        raise AssertionError

    world.broker.make_group = make_group

    async def work() -> None:
        loop = asyncio.get_running_loop()
        await world.ask("warm")
        world.outcomes = {
            "a": [loop.create_future()],
            "b": [WorkerGroupBroken("x")],
            "c": [loop.create_future()],
        }
        asked = [world.ask(key) for key in "abcd"]
        while not (world.trained[-1:] == ["c"] or world.broker._starting):
            await asyncio.sleep(0)
        await settle()
        await world.broker.close()
        assert world.left() == []
        ends = await asyncio.gather(*map(result, asked))
        assert all(isinstance(end, SweepStopped) for end in ends)
        assert isinstance(await result(world.ask("e")), SweepStopped)
        assert len(world.made) == 2
        assert cancelled == [True]
        await world.broker.close()

    run(work)


def test_close_ends_the_wait_of_those_whose_stage_is_being_looked_for(tmp_path: Path) -> None:
    world, store = World(tmp_path), HeldStore(tmp_path, "a", "b")
    world.broker.store = store

    async def work() -> None:
        asked = [world.ask(key) for key in "aab"]
        while len(store.looks) < 2:
            await asyncio.sleep(0)
        await world.broker.close()
        ends = await asyncio.gather(*map(result, asked))
        assert all(isinstance(end, SweepStopped) for end in ends)
        assert isinstance(await result(world.ask("c")), SweepStopped)
        for gate in store.gates.values():
            gate.set()
        await settle()
        assert world.made == [] and world.broker._jobs == {} and not world.broker._queue

    run_beside(store, work)


def test_a_result_that_cannot_be_committed_is_told_to_those_who_wait(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        full = OSError(28, "No space left on device")

        class FullStore(StageStore):
            def commit(self, request: StageRequest, outcome: StageOutcome) -> Any:
                raise full

        world.broker.store = FullStore(FolderStore(tmp_path))
        assert await asyncio.gather(result(world.ask("a")), result(world.ask("a"))) == [full, full]
        # The worker group did its work and is kept.
        assert world.left() == world.made

    run(work)


def test_the_share_of_busy_time_counts_training_alone(tmp_path: Path) -> None:
    world = World(tmp_path, groups=2)

    async def work() -> None:
        assert world.broker.use.share(2) is None
        await asyncio.gather(world.ask("a"), world.ask("b"))
        share = world.broker.use.share(2)
        assert share is not None
        assert 0 < share <= 1
        assert world.broker.use.trained == 2

    run(work)
