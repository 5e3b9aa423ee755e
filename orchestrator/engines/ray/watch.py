"""Notices that the Ray under a sweep has died. Ray itself waits for up to a minute and then ends
the process without a word of what to do.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import psutil

EVERY_SECONDS: Final = 1.0
"""Between two looks."""
START_EVERY_SECONDS: Final = 0.2
"""Between two looks at a Ray that is starting, which takes a second or two in all."""
OWN_GRACE_SECONDS: Final = 2.0
"""A process of this machine that has refused connections for so long is dead."""
FAR_GRACE_SECONDS: Final = 30.0
"""A head elsewhere may be cut off for a while, or be restarted; Ray gives it up after 60 s and
takes the driver along.
"""


DAEMONS: Final = ("gcs_server", "raylet")
"""Ray's programs that everything else of it hangs on: its head, and its node on a machine."""


class Watched(Protocol):
    """Something that a sweep cannot do without."""

    @property
    def name(self) -> str: ...

    def is_lost(self, now: float) -> bool:
        """Looks once, at `now` seconds of the monotonic clock. Whether it is gone for good."""
        ...


@dataclass(slots=True)
class Service:
    """A process of Ray's that the sweep cannot do without, and where it listens."""

    name: str
    host: str
    port: int
    grace: float
    """Seconds for which it may refuse connections."""
    silent_since: float | None = None

    def is_lost(self, now: float) -> bool:
        """Tries to connect once. Returns whether nobody has answered for longer than the grace."""
        grace = FAR_GRACE_SECONDS
        try:
            socket.create_connection((self.host, self.port), timeout=EVERY_SECONDS).close()
        except ConnectionRefusedError:
            # Only a refusal says that nobody is there: a network may be away for a while, and a
            # busy process may be slow to answer.
            grace = self.grace
        except OSError:
            pass
        else:
            self.silent_since = None
            return False
        self.silent_since = now if self.silent_since is None else self.silent_since
        return now - self.silent_since >= grace


@dataclass(slots=True)
class Starting:
    """The daemons of a Ray that this process is starting, which listen nowhere yet."""

    name: str = "Ray, which was just starting,"
    _seen: dict[int, psutil.Process] = field(default_factory=dict)

    def is_lost(self, now: float) -> bool:
        """Looks once. Returns whether one of them was there and is not any more."""
        with suppress(psutil.Error):
            self._seen |= {
                child.pid: child
                for child in psutil.Process().children(recursive=True)
                if child.name() in DAEMONS
            }
        return any(_is_dead(process) for process in self._seen.values())


def _is_dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def head_of(address: str, *, here: bool = False) -> Service:
    """The head of the Ray at `address` (host:port)."""
    host, _, port = address.rpartition(":")
    return Service(
        "Ray's head (gcs_server)",
        host.strip("[]"),
        int(port),
        OWN_GRACE_SECONDS if here else FAR_GRACE_SECONDS,
    )


def services(ray: Any, address: str) -> list[Service]:
    """The head and this machine's node of the Ray that this process is connected to; `address` as
    it was named.
    """
    if address.startswith("ray://"):
        # Through a proxy: what it speaks for cannot be knocked at, and it reports a loss itself.
        return []
    context = ray.get_runtime_context()
    [own] = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    host = context.gcs_address.rpartition(":")[0].strip("[]")
    return [
        head_of(
            context.gcs_address,
            here=host in ("127.0.0.1", "localhost", "::1", own["NodeManagerAddress"]),
        ),
        Service(
            "Ray's node on this machine (raylet)",
            own["NodeManagerAddress"],
            own["NodeManagerPort"],
            OWN_GRACE_SECONDS,
        ),
    ]


@dataclass(slots=True)
class Brood:
    """The processes that descend from this one; those whose parent died are remembered, for nobody
    else would end them.
    """

    _known: dict[int, psutil.Process] = field(default_factory=dict)

    def look(self) -> None:
        with suppress(psutil.Error):
            self._known |= {
                process.pid: process for process in psutil.Process().children(recursive=True)
            }

    def kill(self) -> None:
        """Kills them all. (A number that a stranger has by now is left alone: psutil compares the
        times of start.)
        """
        self.look()
        for process in self._known.values():
            with suppress(psutil.Error):
                process.kill()


@contextmanager
def watched(
    services_: Sequence[Watched],
    lost: Callable[[str], None],
    *,
    embedded: bool,
    every: float = EVERY_SECONDS,
) -> Iterator[None]:
    """Calls `lost`, in another thread and with the name, once one of `watched_` is gone while the
    block runs.

    Args:
        embedded: the Ray is this process's own, and no process of it is left then.
        every: seconds between two looks.
    """
    brood, stop = Brood(), threading.Event()

    def loop() -> None:
        while not stop.wait(every):
            if embedded:
                brood.look()
            gone = [each for each in services_ if each.is_lost(time.monotonic())]
            if gone and not stop.is_set():
                if embedded:
                    brood.kill()
                lost(gone[0].name)
                return

    thread = threading.Thread(target=loop, name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def leave(message: str, close: Callable[[], None] = lambda: None, *, status: int = 2) -> None:
    """Ends this process with the message. Nothing that is connected to a dead Ray can be closed in
    good order: its calls wait for it.

    Args:
        close: what else is to be done; it has two seconds.
        status: the exit status.
    """
    # The main thread may hold what `close` waits for.
    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(timeout=2)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        print(f"orchestrate: {message}", file=sys.stderr)
        sys.stderr.flush()
    os._exit(status)
