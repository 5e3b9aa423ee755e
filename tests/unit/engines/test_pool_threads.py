"""Pools that share a process, and how many may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.ray.pool_actor import IMAGES_PER_ACTOR, PoolActors
from orchestrator.engines.ray.pool_threads import PoolThreads
from tests.helpers.real_sweep import PATIENCE, wait_until


@dataclass
class Asked:
    """Stands for a pool; notes in which thread it was called."""

    threads: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def note(self, number: int = 0) -> int:
        self.threads.append(threading.get_ident())
        self.answers.append(number)
        return number

    def wait_for(self, event: threading.Event) -> bool:
        self.note()
        return event.wait(PATIENCE)

    def fail(self) -> None:
        raise ValueError("no such round")


def opening(pool: Asked) -> Callable[[], Asked]:
    def opened() -> Asked:
        pool.note()
        return pool

    return opened


def test_an_oracle_that_takes_its_time_holds_up_no_other_pool() -> None:
    pools, answered = PoolThreads(), threading.Event()
    for name in ("slow", "quick"):
        pools.serve(name, opening(Asked())).result(PATIENCE)
    slow = pools.call("slow", "wait_for", answered)
    assert pools.call("quick", "note", 3).result(PATIENCE) == 3
    pools.serve("new", opening(Asked())).result(PATIENCE)
    assert not slow.done()
    answered.set()
    assert slow.result(PATIENCE)


def test_a_pool_is_opened_and_called_in_one_thread_that_is_its_alone() -> None:
    pools, all_asked = PoolThreads(), [Asked() for _ in range(3)]
    for name, pool in enumerate(all_asked):
        pools.serve(str(name), opening(pool))
    for number in range(20):
        called = [pools.call(str(name), "note", number) for name in range(3)]
    for future in called:
        future.result(PATIENCE)
    assert all(len(set(pool.threads)) == 1 for pool in all_asked)
    assert len({pool.threads[0] for pool in all_asked}) == 3
    assert all(pool.answers == [0, *range(20)] for pool in all_asked)


def test_what_a_pool_refuses_reaches_its_caller_and_nobody_else() -> None:
    pools = PoolThreads()
    for name in ("one", "other"):
        pools.serve(name, opening(Asked())).result(PATIENCE)
    refused = pools.call("one", "fail")
    assert pools.call("other", "note", 1).result(PATIENCE) == 1
    with pytest.raises(ValueError, match="no such round"):
        refused.result(PATIENCE)
    assert pools.call("one", "note", 2).result(PATIENCE) == 2


def test_a_pool_that_is_freed_ends_its_calls_and_leaves_no_thread() -> None:
    pools, before = PoolThreads(), threading.active_count()
    pools.serve("one", opening(Asked())).result(PATIENCE)
    last = pools.call("one", "note", 5)
    pools.release("one")
    pools.release("one")
    assert last.result(PATIENCE) == 5
    wait_until("its thread has ended", lambda: threading.active_count() == before)


@given(st.lists(st.integers(1, 2 * IMAGES_PER_ACTOR), max_size=30))
def test_an_actor_holds_what_it_may_or_one_pool_that_is_larger(pools: list[int]) -> None:
    actors = PoolActors(start=object)
    taken = [actors.take(images) for images in pools]
    for actor in taken:
        held = [images for one, images in zip(taken, pools, strict=True) if one is actor]
        assert actor.pools == len(held)
        assert actor.images == sum(held)
        assert sum(held) <= IMAGES_PER_ACTOR or len(held) == 1


def test_small_pools_share_an_actor_and_one_given_back_makes_room() -> None:
    actors = PoolActors(start=object)
    half = IMAGES_PER_ACTOR // 2
    first, second, third = (actors.take(half) for _ in range(3))
    assert first is second
    assert third is not first
    actors.give_back(first, half)
    assert actors.take(half) is first


def test_an_actor_that_is_dropped_is_given_to_no_other_trial() -> None:
    actors = PoolActors(start=object)
    dead = actors.take(1)
    assert actors.take(1) is dead
    # Each of its trials finds out.
    for _ in range(2):
        actors.drop(dead)
    new = actors.take(1)
    assert new is not dead
    assert actors.take(1) is new


def test_trials_that_begin_at_once_start_one_actor() -> None:
    started: list[object] = []

    def start() -> Any:
        time.sleep(0.1)
        started.append(object())
        return started[-1]

    actors = PoolActors(start=start)
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(actors.take, [1] * 8))
    assert len(started) == 1
    assert all(actor is taken[0] for actor in taken)
