"""A run of a sweep stops at its own limit: what is in training ends, nothing else is started."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.engines.limits import Limited, Limits, limits_of
from orchestrator.sweeps.stage_store import LimitReached
from search_spaces.reading.config import ResourcesConfig
from search_spaces.reading.errors import SpecError
from tests.unit.engines.test_broker import World, result, run
from trainers.stage import StageOutcome, StageRequest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_limits_nothing_ends_a_sweep() -> None:
    clock = Clock()
    limits = Limits(clock=clock)
    clock.now = 1e12
    limits.check()


def test_hours_are_those_since_the_run_began_on_whatever_process_asks() -> None:
    clock = Clock()
    clock.now = 1000.0
    limits = Limits(max_hours=2, clock=clock)
    clock.now += 7199
    limits.check()
    clock.now += 1
    with pytest.raises(LimitReached, match=r"^resources\.max_hours = 2$"):
        limits.check()
    begun = Limits(max_hours=1)
    assert pickle.loads(pickle.dumps(begun)).began == begun.began


def test_gpu_hours_are_gpus_times_hours_in_training_those_at_work_among_them() -> None:
    clock = Clock()
    limits = Limits(max_gpu_hours=8, gpus=4, clock=clock)
    clock.now += 1e6
    limits.check()
    with limits.training(), limits.training():
        clock.now += 1800
        limits.check()
    assert limits.gpu_seconds == 4 * 3600
    with pytest.raises(RuntimeError), limits.training():
        clock.now += 1800
        raise RuntimeError("the worker group broke")
    limits.check()
    with limits.training():
        clock.now += 1799
        limits.check()
        clock.now += 1
        with pytest.raises(LimitReached, match="max_gpu_hours = 8"):
            limits.check()


def test_a_training_counts_the_gpus_of_all_its_ranks() -> None:
    resources = ResourcesConfig(workers=3, gpus_per_worker=2, max_hours=1, max_gpu_hours=5)
    limits = limits_of(resources)
    assert (limits.max_hours, limits.max_gpu_hours, limits.gpus) == (1, 5, 6)


def test_gpu_hours_without_a_gpu_are_refused() -> None:
    with pytest.raises(SpecError, match="gpus_per_worker is 0"):
        load_spec("smoke.yaml", ["resources.max_gpu_hours=5"])
    load_spec("smoke.yaml", ["resources.max_gpu_hours=5", "resources.gpus_per_worker=1"])


def test_the_broker_lets_what_is_in_training_end_and_starts_nothing_else(tmp_path: Path) -> None:
    world, clock = World(tmp_path, groups=1), Clock()
    world.broker.limits = Limits(max_hours=1, clock=clock)

    async def work() -> None:
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        world.outcomes["a"] = [held]
        first, second = world.ask("a"), world.ask("b")
        while not world.trained:
            await asyncio.sleep(0)
        clock.now = 3600
        late = await result(world.ask("c"))
        assert isinstance(late, LimitReached)
        assert not first.done()
        held.set_result(None)
        assert await first is True
        assert isinstance(await result(second), LimitReached)
        assert world.trained == ["a"]
        assert await world.ask("a") is False, "what is committed is found as before"

    run(work)


def test_a_stage_that_broke_at_the_limit_is_not_started_again(tmp_path: Path) -> None:
    from orchestrator.engines.ray.broker import WorkerGroupBroken

    world, clock = World(tmp_path, groups=1), Clock()
    world.broker.limits = Limits(max_gpu_hours=1, gpus=1, clock=clock)

    async def work() -> None:
        held: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        world.outcomes["a"] = [held]
        asked = world.ask("a")
        while not world.trained:
            await asyncio.sleep(0)
        clock.now = 3600
        held.set_exception(WorkerGroupBroken("killed"))
        assert isinstance(await result(asked), LimitReached)
        assert world.trained == ["a"]

    run(work)


class Trains:
    world_size = 1
    device_kind = "cpu"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def train(self, request: StageRequest) -> StageOutcome:
        self.clock.now += 1800
        return StageOutcome(files={}, metrics={})


def test_a_launcher_starts_no_stage_beyond_the_limit(tmp_path: Path) -> None:
    clock = Clock()
    limited = Limited(Trains(clock), Limits(max_hours=1, clock=clock))
    request = World(tmp_path).request("a")
    limited.train(request)
    limited.train(request)
    with pytest.raises(LimitReached):
        limited.train(request)
    assert clock.now == 3600
