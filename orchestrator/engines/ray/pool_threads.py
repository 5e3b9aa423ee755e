"""Pools of several trials in one process, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

Task = tuple["Future[Any]", Callable[[], Any]]


class PoolThreads:
    """Pools by name. A pool is opened, called and freed in one thread, which is its alone: an
    oracle that takes its time holds up no other pool, and no oracle is called by two threads.
    """

    def __init__(self) -> None:
        self._threads: dict[str, _PoolThread] = {}

    def serve(self, name: str, open_pool: Callable[[], Any]) -> Future[None]:
        """Opens the pool that calls of this name are about, until `release`."""
        self._threads[name] = _PoolThread(name)
        return self._threads[name].open(open_pool)

    def call(self, name: str, method: str, *args: Any) -> Future[Any]:
        """Calls the pool's own method, after the calls of this name that came before."""
        return self._threads[name].call(method, args)

    def release(self, name: str) -> None:
        """Frees a pool once its calls have ended. Does nothing where there is none."""
        thread = self._threads.pop(name, None)
        if thread is not None:
            thread.end()


class _PoolThread:
    # An executor of the standard library is waited for when its process exits, and an oracle may
    # never return.
    def __init__(self, name: str) -> None:
        self._pool: Any = None
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        threading.Thread(target=self._work, name=f"pool-{name}", daemon=True).start()

    def open(self, open_pool: Callable[[], Any]) -> Future[None]:
        def task() -> None:
            self._pool = open_pool()

        return self._put(task)

    def call(self, method: str, args: tuple[Any, ...]) -> Future[Any]:
        return self._put(lambda: getattr(self._pool, method)(*args))

    def end(self) -> None:
        self._tasks.put(None)

    def _put(self, task: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, task))
        return future

    def _work(self) -> None:
        while (one := self._tasks.get()) is not None:
            future, task = one
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
            # What was sent and answered is not kept until the next call.
            del one, future, task
