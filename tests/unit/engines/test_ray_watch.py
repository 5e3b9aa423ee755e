"""A service is lost once nobody has answered for long enough; only a refusal says soon that nobody
is there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest

from orchestrator.engines.ray.watch import (
    FAR_GRACE_SECONDS,
    OWN_GRACE_SECONDS,
    Service,
    Starting,
    head_of,
    watched,
)


def test_a_service_that_refuses_is_lost_after_its_grace_and_one_that_comes_back_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        service = head_of(f"127.0.0.1:{port}", here=True)
        assert not service.is_lost(0.0)
    assert not service.is_lost(10.0)
    assert not service.is_lost(10.0 + OWN_GRACE_SECONDS - 0.1)
    with socket.create_server(("127.0.0.1", port)):
        assert not service.is_lost(10.0 + OWN_GRACE_SECONDS)
    assert not service.is_lost(20.0)
    assert service.is_lost(20.0 + OWN_GRACE_SECONDS)


@pytest.mark.parametrize(
    "error",
    [
        OSError(101, "Network is unreachable"),
        TimeoutError("timed out"),
        socket.gaierror(-3, "try again"),
    ],
)
def test_a_network_that_is_away_for_a_while_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*args: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    service = Service("the node", "192.0.2.1", 1, OWN_GRACE_SECONDS)
    assert not service.is_lost(0.0)
    assert not service.is_lost(FAR_GRACE_SECONDS - 0.1)
    assert service.is_lost(FAR_GRACE_SECONDS)


def test_what_is_lost_is_told_once_and_not_after_the_block() -> None:
    class Gone:
        name = "it"

        def is_lost(self, now: float) -> bool:
            return True

    said: list[str] = []
    told = threading.Event()

    def lost(name: str) -> None:
        said.append(name)
        told.set()

    with watched([Gone()], lost, embedded=False):
        assert told.wait(timeout=30)
        time.sleep(1.5)
    assert said == ["it"]
    with watched([Gone()], lost, embedded=False):
        pass
    time.sleep(1.5)
    assert said == ["it"]


def test_a_daemon_that_was_there_and_died_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engines.ray.watch.DAEMONS", ("sleep",))
    starting = Starting()
    assert not starting.is_lost(0.0), "nothing has started yet"
    daemon = subprocess.Popen(["sleep", "60"])
    try:
        assert not starting.is_lost(1.0)
        daemon.kill()
        # Dead and not waited for is dead.
        os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
        assert starting.is_lost(2.0)
    finally:
        daemon.kill()
        daemon.wait()
    assert starting.is_lost(3.0)


BROOD = """
import subprocess, sys
from orchestrator.engines.ray.watch import Brood
child = '''
import subprocess, sys
print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.read()
'''
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
parent = subprocess.Popen([sys.executable, "-c", child], text=True, **pipes)
orphan = int(parent.stdout.readline())
brood = Brood()
brood.look()
parent.kill()
parent.communicate()
print(orphan, psutil.pid_exists(orphan), flush=True)
brood.kill()
"""


def test_a_process_whose_parent_died_is_not_forgotten() -> None:
    """In a process of its own, for it ends every child that it has."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import psutil\n{BROOD}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    orphan, was_there = ended.stdout.split()
    assert was_there == "True"
    deadline = time.monotonic() + 30
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(int(orphan)).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "it is still there"
            time.sleep(0.05)
