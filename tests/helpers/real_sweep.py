"""A sweep as a user starts it: a process of the command line with a Ray of its own, which tests
watch by its records and shoot at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

TWO_RANKS = [
    "--set",
    "resources.workers=2",
    "--set",
    "resources.max_concurrent=1",
    "--set",
    "seeds=[0]",
]
"""One worker group of two ranks fits on two cores."""

PATIENCE = 240.0
"""Seconds after which something that must happen has not. Generous: no test is about speed."""

RANK, BROKER, POOL, CANDIDATE = (
    "ray::Rank",
    "ray::BrokerActor",
    "ray::PoolActor",
    "ray::ResourceTrainable",
)
"""How Ray names the processes of its actors (ResourceTrainable is what Tune makes of a trainable
with resources).
"""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray's that, after its head was killed, try for a minute to tell it that the node is
dead: a constant in Ray. They do nothing else.
"""


def wait_until(what: str, true: Callable[[], bool], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain until {what}"
        time.sleep(0.02)


@contextmanager
def private_temp() -> Iterator[Path]:
    """A folder with a short name (Ray's sockets allow no long one) in which a sweep's Ray and Tune
    write everything they write.
    """
    folder = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def members(session: int) -> list[psutil.Process]:
    """The processes of a session that are alive."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(psutil.Process(pid))
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def of_kind(session: int, *kinds: str) -> list[psutil.Process]:
    """The living processes of a session that Ray names so."""
    return [process for process in members(session) if _title(process).startswith(kinds)]


@dataclass
class RealSweep:
    """One life of `orchestrate *argv`: a process in a session of its own, with all that it
    starts.
    """

    root: Path
    """The sweep's folder."""
    temp: Path
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = Path(__file__).parents[2]
    driver: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        self.temp.mkdir(exist_ok=True)
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "TUNE_"))
        }
        env |= {
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": str(self.temp),
            "TMPDIR": str(self.temp),
            **self.env,
        }
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell that starts the tests in the background has them ignore Ctrl-C, and their
                # children with them.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                env=env,
                cwd=self.cwd,
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in members(self.driver.pid):
            process.kill()
        self.driver.wait()

    @staticmethod
    @contextmanager
    def adopting(process: subprocess.Popen[str]) -> Iterator[None]:
        """No process of the session that `process` leads outlives the block."""
        try:
            yield
        finally:
            for member in members(process.pid):
                member.kill()
            process.wait()

    @property
    def log(self) -> Path:
        return self.root.with_suffix(".log")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def records(self) -> int:
        """Stages on record, over all trials."""
        return sum(1 for _ in self.root.glob("trials/*/stages/*.json"))

    def checkpoints(self) -> set[str]:
        """Epoch checkpoints there are: a stage is in the middle of its training."""
        return {path.name for path in self.root.glob("stages/*/epoch-*.ckpt")}

    def segments(self) -> int:
        """Segments of ledgers, over all trials."""
        return sum(1 for _ in self.root.glob("trials/*/ledger/*.parquet"))

    def until(self, what: str, true: Callable[[Self], bool]) -> None:
        """Waits; a sweep that ends before is a failure of the test."""

        def reached() -> bool:
            assert self.driver.poll() is None or true(self), (
                f"the sweep ended with {self.driver.returncode} before {what}:\n{self.said()}"
            )
            return true(self)

        try:
            wait_until(what, reached)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    def processes(self, kind: str) -> list[psutil.Process]:
        return of_kind(self.driver.pid, kind)

    def shoot(self, kind: str) -> int:
        """One process of this kind is dead by SIGKILL; its pid."""
        found: list[psutil.Process] = []

        def seen(sweep: Self) -> bool:
            found[:] = sweep.processes(kind)
            return bool(found)

        def gone() -> bool:
            try:
                return not target.is_running() or target.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True

        self.until(f"there is a {kind}", seen)
        target = found[0]
        with contextlib.suppress(psutil.NoSuchProcess):
            target.kill()
        wait_until(f"{kind} is gone", gone)
        return target.pid

    def signal(self, number: signal.Signals) -> None:
        self.driver.send_signal(number)

    def ended(self) -> int:
        """Waits for the driver; its exit status."""
        try:
            return self.driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            left = [_title(process) for process in members(self.driver.pid)]
            raise AssertionError(f"the sweep is still running:\n{self.said()}\n{left}") from None

    def assert_nothing_is_left(self, but: tuple[str, ...] = ()) -> None:
        """No process of the sweep outlives its driver for long."""

        def left() -> list[str]:
            return [
                title[:40]
                for process in members(self.driver.pid)
                if (title := _title(process)) and not title.startswith(but or "\0")
            ]

        try:
            wait_until("all processes are gone", lambda: not left(), patience=120)
        except AssertionError:
            raise AssertionError(f"left behind: {left()}") from None


def uninterrupted(root: Path, argv: list[str]) -> None:
    """A sweep that nobody disturbs has ended well."""
    with private_temp() as temp, RealSweep(root, temp, argv) as sweep:
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
