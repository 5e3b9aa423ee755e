"""On which machine a rank is, and whether it went down with its machine or by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, RayError

from orchestrator.engines.ray.broker import Preempted, WorkerGroupBroken
from orchestrator.storage.files import StorageError
from orchestrator.sweeps.stage_store import SweepStopped
from trainers.artefacts import StageDamaged
from trainers.errors import DataError
from trainers.stage import Interrupted

FIND_OUT_SECONDS: Final = 30.0
"""How long a rank may be out of reach before its death counts as its own: longer than a cluster
takes to notice that a node's process was killed.
"""
LOOK_SECONDS: Final = 0.5
GRACE_SECONDS: Final = 2.0
"""How long an idle rank that is asked to end waits for a stage that was handed to it and has not
begun: far less than a cloud gives.
"""

Place = tuple[str, str]
"""Ray's id of a node, and the machine's name."""


class MachineFault(SweepStopped):
    """A machine that trains cannot read or write what it must: nothing that a trial is to blame
    for.
    """


def here() -> Place:
    """Returns where this process runs."""
    return ray.get_runtime_context().get_node_id(), socket.gethostname()


@contextmanager
def named() -> Iterator[None]:
    """Names this machine in what the block raises; raises MachineFault for what is the machine's
    data or storage.
    """
    host = socket.gethostname()
    try:
        yield
    except (ConnectionError, SweepStopped, Interrupted):
        # Of ranks that lost another one, or of the sweep as a whole.
        raise
    except (DataError, StageDamaged, StorageError, OSError) as error:
        fault = MachineFault(f"{host}: {_text(error)}")
        fault.exit_status = getattr(error, "exit_status", fault.exit_status)
        raise fault from error
    except Exception as error:
        error.add_note(f"on {host}")
        raise


def _text(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    named_file = error.filename or "a file that the system does not name"
    return (
        f"{named_file}: {error.strerror or error}. Everything recorded so far is kept; fix this on"
        " that machine and resume the sweep."
    )


class Asked:
    """Whether this process was asked to end, so that it saves first what it trains."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._training = False
        self._asked = False

    def listen(self) -> None:
        """Takes SIGTERM over: the first is noted, and a training sees it. Where none is in progress
        and none begins within the grace (a stage may be on its way here), and at the second, it
        does what it did before.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)

        def asked(number: int, frame: Any) -> None:
            if not self._asked:
                self._asked = True
                if not self._training:
                    timer = threading.Timer(self._grace_seconds, self._end_if_idle)
                    timer.daemon = True
                    timer.start()
            elif callable(before):
                before(number, frame)
            else:
                raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, asked)

    def _end_if_idle(self) -> None:
        if not self._training:
            os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def training(self) -> Iterator[Callable[[], bool]]:
        """Yields what says whether the process was asked to end."""
        self._training = True
        try:
            yield lambda: self._asked
        finally:
            self._training = False


async def why_broken(text: str, ranks: Sequence[Any], places: Sequence[Place]) -> WorkerGroupBroken:
    """Returns what a worker group broke of: the loss of a machine, or a rank's own death. Waits
    until the cluster knows.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FIND_OUT_SECONDS
    while True:
        lost = await asyncio.to_thread(_lost, places)
        if lost:
            return Preempted(f"{', '.join(lost)}: lost", lost)
        deaths, all_answer = await _deaths(ranks)
        if any(getattr(death, "preempted", False) for death in deaths):
            return Preempted(text)
        if deaths or all_answer or loop.time() > deadline:
            # The node may have died between the two looks.
            lost = await asyncio.to_thread(_lost, places)
            return Preempted(f"{', '.join(lost)}: lost", lost) if lost else WorkerGroupBroken(text)
        await asyncio.sleep(LOOK_SECONDS)


def _lost(places: Sequence[Place]) -> tuple[str, ...]:
    """Returns the names of the machines whose nodes are dead."""
    with suppress(RayError):
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return tuple(dict.fromkeys(name for node, name in places if node not in alive))
    return ()


async def _deaths(ranks: Sequence[Any]) -> tuple[list[ActorDiedError], bool]:
    """Returns what is known of the deaths of ranks, and whether all are there and idle."""
    answers = [asyncio.ensure_future(_answer(rank)) for rank in ranks]
    done, pending = await asyncio.wait(answers, timeout=LOOK_SECONDS)
    for answer in pending:
        answer.cancel()
    found = [answer.exception() for answer in done]
    died = [error for error in found if isinstance(error, ActorDiedError)]
    return died, not pending and not any(found)


async def _answer(rank: Any) -> None:
    await rank.answer.remote()
