"""A Ray of two machines on this one: each raylet with processes of its own, the second with a view
of the file system in which given folders are empty.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.helpers.real_sweep import PATIENCE

RAY = str(Path(sys.executable).parent / "ray")


def can_hide() -> bool:
    """Returns whether this user may mount folders that other processes do not see."""
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    )


@contextmanager
def two_machines(temp: Path, hidden: Sequence[Path] = (), **env: str) -> Iterator[str]:
    """Runs a head that trains nothing and a worker with two CPUs. Yields the head's address.

    Args:
        temp: with a short name: Ray's sockets lie deep below it.
        hidden: folders that the worker finds empty, as on a disk of its own.
        env: variables of both.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    base = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    base |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "HOME": str(temp)} | env
    for folder in (*hidden, temp / "h", temp / "w"):
        folder.mkdir(parents=True, exist_ok=True)
    head = [RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={port}"]
    head += ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    worker = [RAY, "start", f"--address=127.0.0.1:{port}", "--num-cpus=2", "--block"]
    worker += ["--node-ip-address=127.0.0.2"]
    mounts = "".join(f"mount -t tmpfs none {folder} && " for folder in hidden)
    with ExitStack() as ending:
        _start(ending, head, base | {"RAY_TMPDIR": str(temp / "h"), "TMPDIR": str(temp / "h")})
        _wait(lambda: _answers(port), "the head")
        _start(
            ending,
            ["unshare", "-m", "sh", "-c", f"{mounts}exec {' '.join(worker)}"],
            base | {"RAY_TMPDIR": str(temp / "w"), "TMPDIR": str(temp / "w")},
        )
        address = f"127.0.0.1:{port}"
        _wait(lambda: _nodes(address, base) == 2, "the worker")
        yield address


def _start(ending: ExitStack, command: Sequence[str], env: dict[str, str]) -> None:
    child = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def end() -> None:
        # Never `ray stop`: it ends every Ray on the machine.
        known = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        for process in known:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        child.wait()
        psutil.wait_procs(known[1:], timeout=10)

    ending.callback(end)


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
