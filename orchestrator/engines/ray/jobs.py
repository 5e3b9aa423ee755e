"""Runs commands on the head of a launched cluster, from a machine that is no node of it: a tunnel
to the head's dashboard, and Ray's Jobs through it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final

from orchestrator.engines.ray import joining
from orchestrator.engines.ray.cluster import ClusterError, ClusterFailed, quieten_ray
from orchestrator.engines.ray.cluster_file import LaunchedCluster

TUNNEL_SECONDS: Final = 60.0
"""How long a tunnel may take; loading Ray is most of it on a busy machine."""
LOST_SECONDS: Final = 180.0
"""How long a connection that broke is tried again."""

_OF_RAY: Final = re.compile(
    r"^(.* -- Runtime env is setting up\.|Running entrypoint for job [^\n]*)\n", re.MULTILINE
)
"""What Ray writes into the log of a job."""
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LOGGED: Final = re.compile(r"^[0-9-]+ [0-9:,]+\s+[A-Z]+ \S+:[0-9]+ -- ")
"""What Ray's log has before a message."""
_DETAIL: Final = re.compile(r"^(Shared connection|Attempting to establish|\s*$)")


def ray_command() -> str:
    """Returns the program `ray` of this environment."""
    beside = Path(sys.executable).parent
    return shutil.which("ray", path=str(beside)) or "ray"


def launcher_options(cluster: LaunchedCluster) -> list[str]:
    """Returns what a command of Ray's launcher is given, so that it reads no older configuration
    than the file's; clouds are not asked anew for what is known of them.
    """
    return ["--no-config-cache"] if cluster.provider == "local" else []


@contextmanager
def tunnel(cluster: LaunchedCluster) -> Iterator[str]:
    """Yields the address on this machine at which the head's dashboard answers.

    Raises:
        ClusterError: the head cannot be reached.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [ray_command(), "dashboard", "--port", str(port)]
    words += [*launcher_options(cluster), str(cluster.file)]
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the command that follows, which ends the tunnel itself.
            start_new_session=True,
        )
        try:
            _await(cluster, child, port, said)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _await(cluster: LaunchedCluster, child: Any, port: int, said: Any) -> None:
    deadline = time.monotonic() + TUNNEL_SECONDS
    while joining.http_status(f"127.0.0.1:{port}") is None:
        ended = child.poll() is not None
        if ended or time.monotonic() > deadline:
            said.seek(0)
            text = _COLOURS.sub("", said.read().decode(errors="replace"))
            lines = [line.strip() for line in text.splitlines() if not _DETAIL.match(line)]
            reason = _LOGGED.sub("", lines[-1])[:300].rstrip(".") if lines else "no answer"
            raise ClusterError(
                f"{cluster} was brought up from here and cannot be reached ({reason}). Bring it up"
                f" again: ray up {cluster.file.name}; or run on this machine: --local"
            )
        time.sleep(0.3)


class Head:
    """The Jobs of a cluster, for one who has a tunnel to its head."""

    def __init__(self, cluster: LaunchedCluster, address: str) -> None:
        self.cluster = cluster
        self._asks_token = joining.http_status(address.partition("://")[2]) in (401, 403)
        self._client = _client(cluster, address, asks_token=self._asks_token)

    def check_guarded(self) -> None:
        """Raises ClusterError where its dashboard takes commands from whoever reaches it."""
        if not self._asks_token:
            how = f"RAY_AUTH_MODE=token before `ray start` in it; ray up {self.cluster.file.name}"
            raise ClusterError(joining.OpenToAll(str(self.cluster), how))

    def latest(self, base: str) -> tuple[int, Any]:
        """Returns the number of the last job that was submitted as `base`, and what Ray says of
        it; 0 and None if there is none.
        """
        found: tuple[int, Any] = (0, None)
        for job in self._client.list_jobs():
            start, _, number = (job.submission_id or "").rpartition("-")
            if start == base and number.isdigit() and int(number) > found[0]:
                found = int(number), job
        return found

    def submit(
        self, job: str, command: str, *, files: Path | None = None, notes: Mapping[str, str]
    ) -> None:
        """Has the head run a shell command, in a folder with these files."""
        environment = {} if files is None else {"working_dir": str(files)}
        with redirect_stdout(sys.stderr):
            self._client.submit_job(
                entrypoint=command,
                submission_id=job,
                runtime_env=environment,
                metadata=dict(notes),
            )

    def info(self, job: str) -> Any:
        return self._client.get_job_info(job)

    def has_lost(self, job: str) -> bool:
        """Returns whether the head answers and does not know the job: it is another head."""
        try:
            return all(found.submission_id != job for found in self._client.list_jobs())
        except Exception:
            return False

    def stop(self, job: str) -> None:
        """Asks a job to stop in good order."""
        self._client.stop_job(job)

    def log(self, job: str, seen: int, show: Callable[[str], None]) -> int:
        """Shows a job's log as it grows, from character `seen` on, until the job or the connection
        ends. Returns how much has been seen.
        """

        async def tail() -> int:
            at = 0
            async for chunk in self._client.tail_job_logs(job):
                new = chunk[max(0, read[0] - at) :]
                at += len(chunk)
                if new:
                    show(_OF_RAY.sub("", new))
                    read[0] = at
            return read[0]

        read = [seen]
        try:
            asyncio.run(tail())
        except KeyboardInterrupt:
            raise
        except Exception as error:
            raise LogLost(read[0], str(error) or type(error).__name__) from error
        return read[0]


class LogLost(Exception):
    """The connection to a job's log broke."""

    def __init__(self, seen: int, reason: str) -> None:
        super().__init__(reason)
        self.seen = seen


def _client(cluster: LaunchedCluster, address: str, *, asks_token: bool) -> Any:
    if asks_token:
        if joining.own_token() is None:
            raise ClusterError(
                f"{cluster} asks for an access token and there is none here. Bring its own:"
                f" ray rsync-down {cluster.file.name} .ray/auth_token ~/.ray/auth_token"
            )
        os.environ["RAY_AUTH_MODE"] = "token"
    # Both would win over the address that is given.
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))
    quieten_ray()
    from ray.job_submission import JobSubmissionClient

    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.WARNING)
    try:
        with redirect_stdout(sys.stderr):
            return JobSubmissionClient(address)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ClusterError(
            f"{cluster} does not take commands from here ({type(error).__name__}: {reason}). Is"
            " ~/.ray/auth_token the one that it was brought up with?"
        ) from error


def follow(cluster: LaunchedCluster, job: str, head: Head, show: Callable[[str], None]) -> Any:
    """Shows a job's log until the job has ended; a tunnel that breaks is made anew. Returns what
    Ray says of the job.

    Raises:
        ClusterFailed: the cluster cannot be reached any more.
    """
    seen, broken_at = 0, None
    with ExitStack() as tunnels:
        while True:
            try:
                seen = head.log(job, seen, show)
                info = head.info(job)
                if info.status.is_terminal():
                    return info
                broken_at = None
            except Exception as error:
                seen = error.seen if isinstance(error, LogLost) else seen
                if head.has_lost(job):
                    raise ClusterFailed(
                        f"{cluster} knows nothing of {job} any more: it was brought up anew. The"
                        " same command goes on with what is recorded"
                    ) from error
                broken_at = broken_at or time.monotonic()
                if time.monotonic() - broken_at > LOST_SECONDS:
                    detail = " ".join(str(error).split())[:200]
                    raise ClusterFailed(
                        f"the connection to {cluster} is lost ({detail}). The sweep goes on there"
                        " if its machines do; give the same command again to come back to it"
                    ) from error
                with suppress(ClusterError):
                    tunnels.close()
                    head = Head(cluster, tunnels.enter_context(tunnel(cluster)))
            time.sleep(1)
