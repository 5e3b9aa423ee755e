"""Laws of every store, as tests that a package with a store of its own subclasses and runs with
pytest.

class TestMyStore(StoreContract):
    @pytest.fixture
    def opens(self, tmp_path):
        return lambda: MyStore(f"mine://{tmp_path}")
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

from orchestrator.storage.locks import LockHeld
from orchestrator.storage.store import Store

Opens = Callable[[], Store]

_BIG = 1 << 20
"""Bytes of an object that takes long enough to write to be cut short."""


class StoreContract:
    """A subclass gives the fixture `opens`: each call opens the same place anew, which is empty at
    first.
    """

    writers: ClassVar[int] = 32
    """Processes that race for a name."""
    processes: ClassVar[bool] = True
    """False for a store in the memory of one process: its races are run by threads, and nothing of
    it outlives a death.
    """

    def test_a_new_place_is_empty(self, opens: Opens) -> None:
        store = opens()
        assert (
            store.is_empty()
            and store.names() == []
            and store.names("trials") == []
            and not store.has("a")
        )
        _raises(FileNotFoundError, lambda: store.get("a"))
        _raises(FileNotFoundError, lambda: store.local("a"))
        store.remove("a")

    def test_what_is_put_is_seen_by_all(self, opens: Opens) -> None:
        assert opens().put("a/b/0001.json", b"one")
        assert opens().put("a/large", bytes(range(256)) * 4096)
        store = opens()
        assert store.get("a/b/0001.json") == b"one" and store.get("a/b/0001.json", 2) == b"on"
        assert store.get("a/large") == bytes(range(256)) * 4096
        assert (
            store.has("a/large")
            and not store.has("a/b")
            and not store.has("a")
            and not store.is_empty()
        )

    def test_the_first_put_stands(self, opens: Opens) -> None:
        store = opens()
        assert store.put("a", b"first")
        assert not store.put("a", b"other")
        assert not opens().put("a", b"other")
        assert opens().get("a") == b"first"

    def test_equal_bytes_are_success(self, opens: Opens) -> None:
        assert opens().put("a", b"same")
        assert opens().put("a", b"same")

    def test_of_many_writers_one_wins_and_all_read_it(self, opens: Opens) -> None:
        store = opens()
        store.put("warm", b"")
        for round in range(3):
            won = self._race(store, f"races/{round}")
            held = opens().get(f"races/{round}")
            assert won == [mine for mine in range(self.writers) if _mine(mine) == held], (
                f"winners: {won}"
            )
            assert len(won) == 1, f"{len(won)} writers were told that the name holds their bytes"

    def test_many_facts_are_put_at_once_and_none_is_replaced(self, opens: Opens) -> None:
        store = opens()
        store.put("c/1", b"first")
        store.put_new({"c/0": b"0", "c/1": b"1", "d/2": b"2"})
        assert {name: store.get(name) for name in opens().names()} == {
            "c/0": b"0",
            "c/1": b"first",
            "d/2": b"2",
        }

    def test_a_file_is_put_and_given_back(self, opens: Opens) -> None:
        store = opens()
        made = store.work("stages/k") / "scores.npy"
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(b"numbers")
        assert store.put_file("stages/k/scores.npy", made)
        assert opens().get("stages/k/scores.npy") == b"numbers"
        assert opens().local("stages/k/scores.npy").read_bytes() == b"numbers"

    def test_replacing_is_atomic(self, opens: Opens) -> None:
        store, ended = opens(), threading.Event()
        whole = [bytes([number]) * 300_000 for number in range(8)]
        store.put("report", whole[0], replace=True)
        problems: list[str] = []

        def read() -> None:
            reader = opens()
            while not ended.is_set():
                try:
                    if reader.get("report") not in whole:
                        problems.append("half of it was read")
                except FileNotFoundError:
                    problems.append("it was gone for a moment")

        reading = threading.Thread(target=read)
        reading.start()
        for data in whole * 4:
            assert store.put("report", data, replace=True)
        ended.set()
        reading.join()
        assert not problems, problems[0]
        assert opens().get("report") == whole[-1]

    def test_names_are_sorted_and_below_their_folder_alone(self, opens: Opens) -> None:
        store = opens()
        for name in ("t/b/2", "t/b/10", "t/a", "tt/a", "s"):
            store.put(name, b"x")
        assert opens().names() == ["s", "t/a", "t/b/10", "t/b/2", "tt/a"]
        assert opens().names("t") == ["t/a", "t/b/10", "t/b/2"]
        assert opens().names("t/b") == ["t/b/10", "t/b/2"]
        assert opens().folders() == ["t", "tt"] and opens().folders("t") == ["t/b"]
        assert opens().folders("t/b") == opens().folders("none") == []

    def test_others_names_are_told_from_ours(self, opens: Opens) -> None:
        store = opens()
        with store.hold("lock", wait=False):
            assert not store.has_others(("lock", "spec", "t"), "lock")
            store.put("spec", b"x")
            store.put("t/a", b"x")
            assert not opens().has_others(("lock", "spec", "t"), "lock")
            store.put("notes", b"x")
            assert opens().has_others(("lock", "spec", "t"), "lock")

    def test_what_is_removed_is_gone_and_its_name_is_free(self, opens: Opens) -> None:
        store = opens()
        for name in ("t/b/2", "t/a", "tt/a", "s"):
            store.put(name, b"x")
        store.remove("t")
        store.remove("s")
        assert opens().names() == ["tt/a"] and not opens().has("t/a")
        assert opens().put("s", b"new") and opens().get("s") == b"new"

    def test_a_local_file_holds_the_bytes_of_now(self, opens: Opens) -> None:
        store = opens()
        store.put("a/model.pt", b"weights")
        assert store.local("a/model.pt").read_bytes() == b"weights"
        store.put("spec.yaml", b"old", replace=True)
        assert store.local("spec.yaml").read_bytes() == b"old"
        store.put("spec.yaml", b"new", replace=True)
        assert opens().local("spec.yaml").read_bytes() == b"new"

    def test_a_name_that_leads_out_is_refused(self, opens: Opens) -> None:
        store = opens()
        for name in (
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/",
            ".hidden",
            "a\\b",
            "a\nb",
        ):
            _raises(ValueError, partial(store.put, name, b"x"))
            _raises(ValueError, partial(store.get, name))
        assert store.names() == []

    def test_a_lock_is_held_by_one(self, opens: Opens) -> None:
        first, second = opens(), opens()
        assert not second.is_held("driver.lock")
        with first.hold("driver.lock", wait=False):
            assert second.is_held("driver.lock")
            _raises(LockHeld, lambda: second.hold("driver.lock", wait=False).__enter__())
            with second.hold("other.lock", wait=False):
                pass
        assert not second.is_held("driver.lock")
        with second.hold("driver.lock", wait=True):
            pass

    def test_the_store_can_be_sent_to_other_processes(self, opens: Opens) -> None:
        if not self.processes:
            return
        store = opens()
        store.put("a", b"x")
        assert pickle.loads(pickle.dumps(store)).get("a") == b"x"  # noqa: S301  # its own

    def test_a_killed_writer_leaves_whole_names_or_none(self, opens: Opens) -> None:
        if not self.processes:
            return
        store = opens()
        store.put("warm", b"")
        for round in range(4):
            told, tell = _context().Pipe(duplex=False)
            writer = _start(_write_for_ever, store, f"killed/{round}", tell)
            acknowledged = {told.recv() for _ in range(3)}
            time.sleep(0.003 * round)
            _kill(writer)
            while told.poll():
                acknowledged.add(told.recv())
            found = opens().names(f"killed/{round}")
            assert acknowledged <= set(found), "a name is gone that its writer was told is durable"
            for name in found:
                assert opens().get(name) == _content(name), f"{name} is half-written"

    def test_a_lock_dies_with_its_holder(self, opens: Opens) -> None:
        if not self.processes:
            return
        store = opens()
        told, tell = _context().Pipe(duplex=False)
        holder = _start(_hold_for_ever, store, "driver.lock", tell)
        told.recv()
        assert store.is_held("driver.lock")
        _kill(holder)
        with store.hold("driver.lock", wait=True):
            assert opens().is_held("driver.lock")

    def _race(self, store: Store, name: str) -> list[int]:
        """Returns which writers were told that their bytes stand."""
        if not self.processes:
            start, won = threading.Barrier(self.writers), [False] * self.writers

            def put(mine: int) -> None:
                start.wait()
                won[mine] = store.put(name, _mine(mine))

            threads = [threading.Thread(target=put, args=(mine,)) for mine in range(self.writers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return [mine for mine in range(self.writers) if won[mine]]
        context = _context()
        begin, queue = context.Barrier(self.writers), context.SimpleQueue()
        writers = [
            _start(_put_once, store, name, mine, begin, queue) for mine in range(self.writers)
        ]
        told = sorted(queue.get() for _ in writers)
        for writer in writers:
            writer.join()
        return [mine for mine, ours in told if ours]


def _mine(writer: int) -> bytes:
    return f"{writer} ".encode() * 2000


def _content(name: str) -> bytes:
    return (name.encode() * (_BIG // len(name) + 1))[:_BIG]


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Starts a process in this one's environment of now: a fork server has that of when it was
    first needed, in which a store's address or credentials may be missing.
    """
    process: BaseProcess = _context().Process(
        target=_in_environment, args=(dict(os.environ), target, *args), daemon=True
    )
    process.start()
    return process


def _in_environment(environment: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)


def _kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def _put_once(store: Store, name: str, mine: int, begin: Any, queue: Any) -> None:
    begin.wait()
    queue.put((mine, store.put(name, _mine(mine))))


def _write_for_ever(store: Store, folder: str, tell: Any) -> None:
    number = 0
    while True:
        name = f"{folder}/{number:04d}"
        store.put(name, _content(name), replace=bool(number % 2))
        tell.send(name)
        number += 1


def _hold_for_ever(store: Store, name: str, tell: Any) -> None:
    with store.hold(name, wait=False):
        tell.send("held")
        time.sleep(600)


def _raises(kind: type[BaseException], act: Callable[[], Any]) -> None:
    try:
        act()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, and nothing was raised")
