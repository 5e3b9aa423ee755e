"""Which Ray a sweep runs on: one that was named, one that is running here, or one of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from orchestrator.engines.ray import joining
from orchestrator.engines.ray import preflight as ray_setup
from orchestrator.engines.ray.autoscaler import Growth, growth
from orchestrator.engines.ray.watch import (
    DAEMONS,
    START_EVERY_SECONDS,
    Starting,
    head_of,
    leave,
    watched,
)
from orchestrator.machine import usable_cpus
from orchestrator.sweeps.stage_store import ClusterLost
from trainers.errors import UserError

QUIET = {
    # Light actors take no CPU, so there are more processes than Ray expects of this many cores.
    # Of a node that was lost we speak ourselves.
    "RAY_DEDUP_LOGS_SKIP_REGEX": (
        "PYTHON worker processes have been started|node with node id|has been marked dead|"
        "Raylet is terminated|raylet crashes unexpectedly|has lagging heartbeats"
    ),
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_V2_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Turns off Ray's own output and files: we print our own progress and never read Tune's files.
"""


class ClusterError(UserError):
    """Ray cannot be started or reached, or cannot hold one worker group."""


class ClusterFailed(ClusterError):
    """Ray failed after it had been reached."""

    exit_status = ClusterLost.exit_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Ray that this process is connected to."""

    address: str
    """`embedded` for a Ray of this process's own."""
    nodes: int
    cpus: float
    gpus: float
    sizes: tuple[tuple[float, float], ...] = ()
    """CPUs and GPUs of each node: a rank cannot be spread over two."""
    head: tuple[float, float] | None = None
    """CPUs and GPUs of the head, which is no worker node."""
    growth: Growth = field(default_factory=Growth)

    @property
    def is_embedded(self) -> bool:
        return self.address == "embedded"

    def __str__(self) -> str:
        where = "embedded Ray on this machine" if self.is_embedded else f"Ray at {self.address}"
        return f"{where}: {self.nodes} node(s), {self.cpus:g} CPUs, {self.gpus:g} GPUs"


def quieten_ray(*, verbose: bool = False) -> None:
    """Turns off Ray's own output by QUIET. Some of it is read when Ray is first imported, so call
    this before.
    """
    for name, value in QUIET.items():
        if not (verbose and name == "RAY_DEDUP_LOGS_SKIP_REGEX"):
            os.environ.setdefault(name, value)


@contextmanager
def connect(
    *,
    address: str | None = None,
    local: bool = False,
    verbose: bool = False,
    insecure: bool = False,
    found: Found | None = None,
) -> Iterator[Cluster]:
    """Connects to Ray for the length of the block: to `address`, else RAY_ADDRESS, else a node
    running here, else an embedded Ray (at once if `local`).

    Args:
        insecure: also to one that asks for no access token.
        found: what `find` returned, which is not searched and tried again.

    Raises:
        ClusterError: Ray cannot be started, or the one at the address cannot be reached, or it lets
            in everybody.
        ClusterFailed: it failed while the block ran.
    """
    quieten_ray(verbose=verbose)
    wanted = (found or find(address=address, local=local, insecure=insecure)).address
    import ray
    from ray.exceptions import RayError

    quiet: dict[str, Any] = {
        "log_to_driver": verbose,
        "logging_level": "INFO" if verbose else "CRITICAL",
        "ignore_reinit_error": False,
    }
    # Ray prints its warnings to standard output, which is for results alone.
    with redirect_stdout(sys.stderr):
        try:
            with _own_sigterm(), _guarded(wanted):
                cluster = _join(ray, wanted, quiet) if wanted else _embed(ray, quiet)
        except UserError:
            raise
        # Where the head is lost while it connects, Ray ends the process; what a start that fails
        # raises is anything, down to a bare Exception.
        except (Exception, SystemExit) as error:
            if wanted is None:
                _leave_nothing(ray)
            raise ClusterError(joining.explain(error, wanted)) from error
        try:
            yield cluster
        except RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ClusterFailed(
                f"{cluster}: failed ({type(error).__name__}: {reason}). What is recorded is"
                " kept; continue with: orchestrate resume DIR"
            ) from error
        finally:
            ray.shutdown()


def _leave_nothing(ray: Any) -> None:
    """Ends every process of a Ray that did not come up."""
    with suppress(Exception, SystemExit):
        ray.shutdown()
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            # Named, for this process may have others.
            if child.name() in DAEMONS:
                child.kill()


@dataclass(frozen=True, slots=True)
class Found:
    """A Ray that may be joined, or started."""

    address: str | None
    """None for an embedded one."""


def find(*, address: str | None = None, local: bool = False, insecure: bool = False) -> Found:
    """Returns the Ray that `connect` will connect to, once that is known to be possible. Starts and
    changes nothing.

    Raises:
        ClusterError: as `connect`.
    """
    wanted = _wanted(address, local)
    _check(wanted, insecure=insecure)
    return Found(wanted)


def _wanted(address: str | None, local: bool) -> str | None:
    """Address of the Ray to run on; None for an embedded one."""
    named = address or (None if local else os.environ.get("RAY_ADDRESS"))
    if named == "local" or (local and not address):
        return None
    if named != "auto":
        return named or running_here()
    running = running_here()
    if running is None:
        raise ClusterError(
            "no Ray is running on this machine. Start one: ray start --head; or leave out `auto` to"
            " have an embedded one"
        )
    return running


def _check(address: str | None, *, insecure: bool) -> None:
    """Raises ClusterError where Ray would wait for minutes, or end the process, before it failed;
    and, unless `insecure`, where it lets in everybody.
    """
    if address is None:
        mode = os.environ.get("RAY_AUTH_MODE")
        if mode is not None and mode.lower() != "token" and not insecure:
            raise ClusterError(
                f"RAY_AUTH_MODE={mode} has Ray ask for no access token: whoever reaches its ports"
                " can run programs on this machine. Unset it (unset RAY_AUTH_MODE), or start Ray"
                " so: --insecure"
            )
        problem = ray_setup.cannot_start(ray_setup.look())
        if problem:
            raise ClusterError(f"cannot start Ray on this machine: {problem}")
        return
    if not address.startswith("ray://"):
        problem = joining.check_address(address)
        if problem:
            raise ClusterError(f"cannot reach Ray at {address}: {problem}")
        if joining.no_node_here():
            raise ClusterError(
                f"Ray at {address} has no node on this machine, where a sweep's driver must run."
                f" Make it one: ray start --address={address}"
            )
    if not (insecure and address.startswith("ray://")):
        refusal = joining.check_access(address, insecure=insecure)
        if refusal:
            raise ClusterError(refusal)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Restores this process's handler of SIGTERM, which Ray replaces when it connects."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _guarded(wanted: str | None) -> Iterator[None]:
    """Ends the process soon and with a message if Ray dies while it connects; Ray itself would wait
    for a minute first.
    """

    def lost(name: str) -> None:
        what = (
            "cannot start Ray on this machine"
            if wanted is None
            else f"cannot reach Ray at {wanted}"
        )
        leave(
            f"{what}: {name} has died. Try again; see what is missing: orchestrate doctor; or run"
            " without Ray: --engine inline"
        )

    if wanted is not None and wanted.startswith("ray://"):
        yield
        return
    if wanted is None:
        with watched([Starting()], lost, embedded=True, every=START_EVERY_SECONDS):
            yield
    else:
        with watched([head_of(wanted)], lost, embedded=False):
            yield


def _describe(ray: Any, address: str, growth: Growth | None = None) -> Cluster:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive)
    heads = [
        size for size, node in zip(sizes, alive, strict=True) if "node:__internal_head__" in node
    ]
    return Cluster(
        address=address,
        nodes=len(alive),
        cpus=sum(cpus for cpus, _ in sizes),
        gpus=sum(gpus for _, gpus in sizes),
        sizes=sizes,
        head=heads[0] if heads else None,
        growth=growth or Growth(),
    )


def _join(ray: Any, address: str, quiet: dict[str, Any]) -> Cluster:
    ray.init(address=address, **quiet)
    try:
        return _describe(ray, address, growth(ray.get_runtime_context().gcs_address))
    except UserError:
        ray.shutdown()
        raise


def running_here() -> str | None:
    """Address of the Ray that `ray start` left running on this machine. Another sweep's embedded
    Ray is none: it ends with that sweep.

    (Ray's own `auto` searches the process table and would join it.)
    """
    noted = ray_setup.temp_folder() / "ray" / "ray_current_cluster"
    try:
        address = noted.read_text(encoding="utf-8").strip()
        host, _, port = address.rpartition(":")
        # The note outlives a Ray that was killed.
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return None
    return address


def _embed(ray: Any, quiet: dict[str, Any]) -> Cluster:
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "token":
        joining.protect_token()
    ray.init(
        address="local",
        include_dashboard=False,
        # Ray would count all that the machine has, whatever SLURM grants.
        num_cpus=usable_cpus(),
        object_store_memory=ray_setup.OBJECT_STORE,
        **quiet,
    )
    return _describe(ray, "embedded")
