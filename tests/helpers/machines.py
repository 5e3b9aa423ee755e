"""A Ray of two machines on this one: each raylet with processes of its own, the second with a view
of the file system in which given folders are empty.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import psutil

from tests.helpers.real_sweep import PATIENCE

RAY = str(Path(sys.executable).parent / "ray")


def can_hide() -> bool:
    """Returns whether this user may mount folders that other processes do not see."""
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    )


class Machines:
    """A head that trains nothing, and a worker with two CPUs that may be cut off and replaced. Both
    ask for the token in the home folder, `temp`.
    """

    def __init__(
        self,
        temp: Path,
        hidden: Sequence[Path],
        env: Mapping[str, str],
        worker_env: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            temp: with a short name: Ray's sockets lie deep below it.
            hidden: folders that a worker finds empty, as on a disk of its own.
            env: variables of both.
            worker_env: variables of workers alone.
        """
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._temp, self._hidden = temp, hidden
        base = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        base |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "HOME": str(temp)}
        # Who joins finds the token in its home folder.
        (token := temp / ".ray" / "auth_token").parent.mkdir()
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(16))
        base |= {"RAY_AUTH_MODE": "token"}
        # A node that is gone is to be noticed soon.
        base |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
        self._env = {**base, **env}
        self._worker_env = dict(worker_env or {})
        self._ending = ExitStack()
        self._workers = 0
        self._worker: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        for folder in self._hidden:
            folder.mkdir(parents=True, exist_ok=True)
        head = [RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={self._port}"]
        head += ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        self._start(head, "h", {})
        _wait(lambda: _answers(self._port), "the head")
        self.join()
        _wait(lambda: _nodes(self.address, self._env) == 2, "the worker")
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def join(self) -> None:
        """A worker that has never been seen starts."""
        self._workers += 1
        worker = [RAY, "start", f"--address={self.address}", "--num-cpus=2", "--block"]
        worker += [f"--node-ip-address=127.0.0.{1 + self._workers}"]
        mounts = "".join(f"mount -t tmpfs none {folder} && " for folder in self._hidden)
        command = ["unshare", "-m", "sh", "-c", f"{mounts}exec {' '.join(worker)}"]
        self._worker = self._start(command, f"w{self._workers}", self._worker_env)

    def cut(self) -> None:
        """The power of the worker is cut: every process of it is dead at once."""
        _end(self._worker)

    def raylet(self) -> psutil.Process:
        """The worker's own process of Ray."""
        [found] = [
            child
            for child in psutil.Process(self._worker.pid).children(recursive=True)
            if child.name() == "raylet"
        ]
        return found

    def _start(
        self, command: Sequence[str], temp: str, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        folder = self._temp / temp
        folder.mkdir()
        child = subprocess.Popen(
            command,
            env={**self._env, "RAY_TMPDIR": str(folder), "TMPDIR": str(folder), **env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._ending.callback(_end, child)
        return child


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills a process and its children. Never `ray stop`: it ends every Ray on the machine."""
    if child.poll() is not None:
        return
    known = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in known:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.wait()
    psutil.wait_procs(known[1:], timeout=10)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _nodes(address: str, env: dict[str, str]) -> int:
    code = (
        f"import ray; ray.init({address!r}, logging_level='CRITICAL', log_to_driver=False);"
        "print('alive', sum(node['Alive'] for node in ray.nodes()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    return int(done.stdout.split()[-1]) if "alive" in done.stdout else 0


def _wait(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} did not start"
        time.sleep(0.5)
