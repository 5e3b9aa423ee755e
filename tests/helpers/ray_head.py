"""A Ray as `ray start --head` runs it: a process of its own, with a home and a temporary folder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.helpers.ports import free_port

RAY: Final = Path(sys.executable).parent / "ray"
PATIENCE: Final = 90.0
"""Seconds, far longer than a start takes on a busy machine too."""
STARTS: Final = 3
"""Ray gives a node's daemons a fixed time to start and takes the head along where that is too
short: tests are about what comes after.
"""
DAEMONS: Final = ("gcs_server", "dashboard_agent_listen", "runtime_env_agent")
"""Whose ports a node notes in its session once they are up."""


class NotStarted(AssertionError):
    """Ray's own processes did not come up."""


@dataclass(frozen=True, slots=True)
class RayHead:
    """Where a head listens."""

    port: int
    proxy: int
    """For ray:// addresses."""
    dashboard: int | None
    temp: Path
    """Its temporary folder."""
    process: subprocess.Popen[bytes]


@contextmanager
def ray_head(
    temp: Path,
    env: Mapping[str, str],
    words: Sequence[str] = (),
    *,
    program: Sequence[str] = (str(RAY),),
    dashboard: bool = False,
    cwd: Path | None = None,
) -> Iterator[RayHead]:
    """Starts a head whose daemons all run, and ends it. A start that Ray itself gives up is tried
    twice more, then the test is skipped.

    Args:
        temp: where each start has its temporary folder; Ray's sockets allow no long name.
        env: all of its environment but that folder.
        words: of `ray start`, after its ports.
        program: what is run as `ray`.
    """
    with ExitStack() as stack:
        for attempt in range(STARTS):
            try:
                head = stack.enter_context(
                    _started(temp / str(attempt), env, words, program, dashboard, cwd)
                )
                break
            except NotStarted as error:
                reason = str(error)
        else:
            pytest.skip(f"Ray gave up {STARTS} starts of a head: {reason}")
        yield head


@contextmanager
def _started(
    temp: Path,
    env: Mapping[str, str],
    words: Sequence[str],
    program: Sequence[str],
    dashboard: bool,
    cwd: Path | None,
) -> Iterator[RayHead]:
    temp.mkdir(parents=True)
    log = temp / "head.log"
    port, proxy, page = free_port(), free_port(), free_port() if dashboard else None
    command = [*program, "start", "--head", "--block", f"--port={port}"]
    command += [f"--ray-client-server-port={proxy}"]
    if page is None:
        command += ["--include-dashboard=false"]
    else:
        command += [f"--dashboard-port={page}", f"--dashboard-agent-listen-port={free_port()}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *words],
            env={**env, "RAY_TMPDIR": str(temp), "RAY_USAGE_STATS_ENABLED": "0"},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    known: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + PATIENCE
        while not _daemons_run(temp):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(_end_of(log))
            time.sleep(0.2)
        known = _below(process)
        yield RayHead(port, proxy, page, temp, process)
    finally:
        if process.poll() is not None:
            # pytest shows it beside the test that failed of it.
            print(f"the head ended with {process.poll()} before its test did:\n{_end_of(log)}")
        # Never `ray stop`: it ends every Ray on the machine.
        known += _below(process)
        process.kill()
        process.wait()
        for child in known:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(known, timeout=10)


def _daemons_run(temp: Path) -> bool:
    session = temp / "ray" / "session_latest"
    return (temp / "ray" / "ray_current_cluster").exists() and all(
        any(session.glob(f"{daemon}_port_*")) for daemon in DAEMONS
    )


def _below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
