"""What `doctor` says of Ray: what it needs of this machine, whether one is running here, and
whether one starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import psutil

from orchestrator.commands.finding import Finding, State
from orchestrator.engines.ray import joining
from orchestrator.engines.ray import preflight as ray_setup
from orchestrator.engines.ray.preflight import GIB

ROUND_TRIP_SECONDS: Final = 180.0


def memory(machine: ray_setup.Machine) -> Iterator[Finding]:
    need = ray_setup.RAY_MEMORY + ray_setup.RANK_MEMORY
    state: State = (
        "fail"
        if machine.memory < ray_setup.LEAST_MEMORY
        else "warn"
        if machine.memory < need
        else "ok"
    )
    message = (
        f"{machine.memory / GIB:.1f} GiB available of {psutil.virtual_memory().total / GIB:.1f}; a"
        f" sweep on Ray holds about {need / GIB:.1f} GiB with one rank on the CPU and"
        f" {ray_setup.RANK_MEMORY / GIB:.1f} for each more"
    )
    yield Finding(
        check="memory",
        state=state,
        found=message,
        fix=(
            ""
            if state == "ok"
            else "orchestrate sweep SPEC --engine inline (0.7 GiB), or free some"
        ),
    )


def shared_memory(machine: ray_setup.Machine) -> Iterator[Finding]:
    size, need = machine.shared_memory, ray_setup.OBJECT_STORE
    if size is None:
        yield Finding(
            check="shared memory",
            state="fail",
            found="no /dev/shm, which Ray needs",
            fix="mount -t tmpfs -o size=512M tmpfs /dev/shm",
        )
    elif size < need:
        message = (
            f"{size / 2**20:.0f} MiB free in /dev/shm; with less than {need // 2**20} Ray keeps its"
            " objects on disk"
        )
        yield Finding(
            check="shared memory",
            state="warn",
            found=message,
            fix="mount -o remount,size=512M /dev/shm (in a container: --shm-size=512m)",
        )
    else:
        yield Finding(
            check="shared memory",
            state="ok",
            found=(
                f"{size / GIB:.1f} GiB free in /dev/shm; Ray's object store takes"
                f" {need // 2**20} MiB"
            ),
        )


def network(machine: ray_setup.Machine) -> Iterator[Finding]:
    if machine.network_problem:
        message = (
            f"refuses connections to itself at 127.0.0.1 or {machine.ip}"
            f" ({machine.network_problem}); Ray's processes talk that way"
        )
        yield Finding(
            check="network",
            state="fail",
            found=message,
            fix="ip link set lo up (and let the firewall pass it)",
        )
    else:
        yield Finding(
            check="network",
            state="ok",
            found=f"this machine reaches itself at 127.0.0.1 and {machine.ip}",
        )


def token() -> Iterator[Finding]:
    path = joining.token_file()
    if path is None:
        fix = "export HOME=/a/folder/you/may/write; or orchestrate sweep SPEC --engine inline"
        yield Finding(
            check="token",
            state="fail",
            found="this user has no home folder, and Ray keeps its access token in ~/.ray",
            fix=fix,
        )
        return
    if not path.is_file():
        yield Finding(
            check="token",
            state="ok",
            found=f"none at {path} yet; Ray makes one when it first starts",
        )
        return
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        yield Finding(
            check="token",
            state="fail",
            found=f"others may read {path} (mode {mode:o}): it opens your Ray to them",
            fix=f"chmod 600 {path}",
        )
    else:
        yield Finding(check="token", state="ok", found=f"{path}: mode {mode:o}")


def ray_here(*, with_ray: bool) -> Iterator[Finding]:
    """Checks the Ray that a sweep would join instead of starting its own."""
    from orchestrator.engines.ray.cluster import running_here

    named = os.environ.get("RAY_ADDRESS")
    address = named if named not in (None, "", "auto", "local") else running_here()
    if address is None:
        yield Finding(
            check="ray here",
            state="ok",
            found="none is running here; a sweep starts its own and stops it",
        )
        return
    where = f"RAY_ADDRESS={address}" if named else f"Ray at {address} (ray start)"
    fix = "unset RAY_ADDRESS" if named else "ray stop"
    problem = joining.check_address(address)
    if problem:
        yield Finding(
            check="ray here",
            state="fail",
            found=f"{where}: {problem}",
            fix=f"{fix}; or orchestrate sweep SPEC --local",
        )
    elif not with_ray:
        yield Finding(
            check="ray here",
            state="ok",
            found=f"{where} answers; its version was not asked (--no-ray)",
        )
    else:
        answer = _round_trip(address)
        if "problem" in answer:
            yield Finding(
                check="ray here",
                state="fail",
                found=answer["problem"],
                fix=f"{fix}; or orchestrate sweep SPEC --local",
            )
        else:
            yield Finding(
                check="ray here",
                state="ok",
                found=f"{answer['where']}, Ray {answer['version']}; {_times(answer)}",
            )


def ray_starts(machine: ray_setup.Machine) -> Iterator[Finding]:
    problem = ray_setup.cannot_start(machine)
    answer = {"problem": problem} if problem else _round_trip(None)
    if answer.get("problem"):
        yield Finding(
            check="ray",
            state="fail",
            found=str(answer["problem"]),
            fix="fix what failed above; meanwhile: orchestrate sweep SPEC --engine inline",
        )
    else:
        yield Finding(
            check="ray",
            state="ok",
            found=f"{answer['where']}, Ray {answer['version']}; {_times(answer)}",
        )


def _times(answer: dict[str, Any]) -> str:
    return (
        f"start {answer['start']:.1f} s, a task {answer['task']:.1f} s, an actor"
        f" {answer['actor']:.1f} s"
    )


def _round_trip(address: str | None) -> dict[str, Any]:
    """Runs `orchestrator.engines.ray.round_trip` in a process of its own and returns its answer. No
    process is left.
    """
    command = [
        sys.executable,
        "-m",
        "orchestrator.engines.ray.round_trip",
        *([address] if address else []),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            printed, complaints = child.communicate(timeout=ROUND_TRIP_SECONDS)
        except subprocess.TimeoutExpired:
            return {"problem": f"Ray did not answer within {ROUND_TRIP_SECONDS:g} s"}
        finally:
            if child.poll() is None:
                end_tree(child.pid)
    for line in reversed(printed.splitlines()):
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
    last = next(
        (line for line in reversed(complaints.splitlines()) if line.startswith("orchestrate: ")), ""
    )
    return {
        "problem": (
            last.removeprefix("orchestrate: ")
            or f"Ray ended the process that asked it (exit {child.returncode})"
        )
    }


def end_tree(pid: int) -> None:
    """Kills a process and its children, if it is there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
