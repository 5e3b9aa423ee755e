"""What a machine of the cluster needs before it trains: sight of the sweep's store, the data, and
the checkpoints that another machine has left.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.data import delivery
from orchestrator.data.delivery import Part
from orchestrator.data.prepare import PreparedData
from orchestrator.engines.ray.cluster import ClusterError
from orchestrator.storage.files import StorageError, StorageLost
from orchestrator.storage.store import Store, Unreadable
from orchestrator.sweeps.stage_store import CHECKPOINT, StageStore
from search_spaces.reading.config import Trial
from trainers.stage import StageRequest

WANTED: Final = "wanted"
"""Kind of the event that says which part of the data a machine lacks."""
NODES: Final = "nodes"
"""Below which names of the store machines show that they see it; gone when the sweep rests."""
WAIT_SECONDS: Final = 0.5
"""Between two looks whether data that was asked for is there."""
PUT_SHARE: Final = 6
"""So many times resources.checkpoint_seconds lie at least between two checkpoints that are put into
a store that is no folder: half a minute by default.
"""
LEAST_SECONDS: Final = 0.05
"""Between two looks for one, whatever checkpoint_seconds says."""
UPLOAD_SHARE: Final = 20
"""So many times longer than putting a checkpoint takes must pass before the next one is put."""
_PROOF_SECONDS: Final = 120.0


class StoreNotSeen(ClusterError):
    """A machine of the cluster does not see the store of the sweep, or another one of its name."""


@dataclass(frozen=True, slots=True)
class Token:
    """A secret word in the store, by which its machines know that they all see the same one."""

    name: str
    text: str

    @classmethod
    def put(cls, store: Store) -> Token:
        """Returns a new one, which is in the store now."""
        token = cls(f"{NODES}/{secrets.token_hex(6)}", secrets.token_hex(16))
        store.put(f"{token.name}/token", token.text.encode())
        return token

    def show(self, store: Store, host: str) -> None:
        """Proves to who put it that this machine sees the store and can write there: reads the
        word, and puts one back under the machine's name.

        Raises:
            StoreNotSeen: it does not.
            StorageLost: the store answers nobody for now.
        """
        try:
            seen = store.get(f"{self.name}/token").decode()
            if seen != self.text:
                raise StoreNotSeen(_unseen(store, host, "another sweep is there"))
            store.put(f"{self.name}/seen-{host}", self.text.encode())
        except FileNotFoundError:
            raise StoreNotSeen(_unseen(store, host, "it is not there")) from None
        except StorageLost:
            raise
        except (StorageError, UnicodeDecodeError) as error:
            raise StoreNotSeen(_unseen(store, host, str(error))) from None

    def check(self, store: Store, host: str) -> None:
        """Raises StoreNotSeen where what a machine put back cannot be read here."""
        with contextlib.suppress(FileNotFoundError, Unreadable):
            if store.get(f"{self.name}/seen-{host}").decode() == self.text:
                return
        raise StoreNotSeen(_unseen(store, host, "what that machine writes there is not seen here"))


def _unseen(store: Store, host: str, why: str) -> str:
    return (
        f"{host}: this machine of the cluster does not see the records of the sweep at"
        f" {store.location} ({why}). All machines must: keep them in a folder that is shared by"
        " all of them (--out /shared/DIR), or in S3 (--out s3://BUCKET/DIR)"
    )


def host_name() -> str:
    """Returns this machine's name and, for names may be equal, its address."""
    return f"{socket.gethostname()}_{ray.util.get_node_ip_address()}".replace(":", "_")


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]  # Ray has no types
def _show(token: Token, store: Store) -> str:
    host = host_name()
    token.show(store, host)
    return host


@contextlib.contextmanager
def proved_shared(store: Store) -> Iterator[Token]:
    """Yields a token once every living machine of the cluster has shown that it sees the store and
    can write there; machines that join later show it before they train. Nothing of it is left.

    Raises:
        StoreNotSeen: one does not see it. Names it and says the ways out.
    """
    try:
        token = Token.put(store)
        _prove(store, token)
        yield token
    finally:
        with contextlib.suppress(StorageError):
            store.remove(NODES)


def _prove(store: Store, token: Token) -> None:
    asked = {
        _show.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(token, store): f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in ray.nodes()
        if node["Alive"]
    }
    deadline = time.monotonic() + _PROOF_SECONDS
    for answer, name in asked.items():
        try:
            left = max(1.0, deadline - time.monotonic())
            token.check(store, ray.get(answer, timeout=left))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, (StoreNotSeen, StorageLost)):
                raise cause from None
            raise StoreNotSeen(
                f"{name}: this machine of the cluster cannot run the project"
                f" ({type(cause).__name__}: {str(cause).strip().splitlines()[-1]}). Install the"
                " same version there"
            ) from None
        except ray.exceptions.GetTimeoutError:
            raise StoreNotSeen(
                f"{name}: this machine of the cluster did not answer for {_PROOF_SECONDS:g} s"
                " whether it sees the sweep's records. See: ray status"
            ) from None
        except ray.exceptions.RayError:
            # It has just died; whoever takes its place shows it before it trains.
            continue


def data_here(data: PreparedData, part: Part, want: Callable[[], Any]) -> PreparedData:
    """Returns the data as this machine has it. What it lacks is fetched from its shelf; what the
    shelf lacks is asked for by `want`, and waited for.

    Raises:
        DataError, StorageError: as delivery.fetch.
    """
    here = delivery.is_here(data, part)
    if here is not None:
        return here
    assert data.shelf is not None, "data of a sweep has one"
    asked = False
    while not delivery.is_offered(data.shelf, data, part):
        if not asked:
            want()
            asked = True
        time.sleep(WAIT_SECONDS)
    return delivery.fetch(data.shelf, data, part)


def data_of_pools(
    data: PreparedData, trials: Iterable[Trial], want: Callable[[], Any]
) -> PreparedData:
    """Returns the data as the pools of these trials read it on this machine: with its images where
    initial labels are chosen by features.

    Raises:
        DataError, StorageError: as delivery.fetch.
    """
    if any(trial.config.schedule.choice.reads_features for trial in trials):
        return data_here(data, "images", want)
    return data


@dataclass(slots=True)
class CheckpointCopies:
    """Puts the checkpoints of a stage in training into the sweep's store as they are made, so that
    another machine can go on when this one is gone. Of a store that is a folder nothing need be
    put.
    """

    stages: StageStore
    request: StageRequest
    _put: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Gets what another machine has left; while the block runs, puts what is new; where it ends
        by an error, also the last.
        """
        if not self.stages.has_scratch(self.request.key):
            yield
            return
        self.stages.fetch_checkpoints(self.request.key)
        self._put.update(path.name for path in self._here())
        thread = threading.Thread(target=self._loop, name="checkpoints", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._end(thread)
            self._put_newest()
            raise
        self._end(thread)

    def _end(self, thread: threading.Thread) -> None:
        self._stop.set()
        thread.join()

    def _loop(self) -> None:
        least = max(LEAST_SECONDS, PUT_SHARE * self.request.checkpoint_seconds)
        pause = least
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._put_newest()
            pause = max(least, UPLOAD_SHARE * (time.monotonic() - began))

    def _put_newest(self) -> None:
        newest = max(self._here(), default=None, key=lambda path: path.name)
        if newest is None or newest.name in self._put:
            return
        # A copy less costs time after a death, and nothing else: no reason to end a training.
        with contextlib.suppress(StorageError, OSError):
            self.stages.put_checkpoint(self.request.key, newest)
            self._put.add(newest.name)

    def _here(self) -> list[Path]:
        found = self.request.work_dir.glob("epoch-*.ckpt")
        return [path for path in found if CHECKPOINT.fullmatch(path.name)]
