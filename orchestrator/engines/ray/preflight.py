"""What must hold before Ray can start on this machine. Looked at first, because Ray itself waits
for minutes and then says little.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from orchestrator.engines.ray.joining import token_file

GIB: Final = 2**30

RAY_MEMORY: Final = 1.1 * GIB
"""What a sweep on an embedded Ray holds apart from its ranks (peak PSS; docs/measurements.md)."""
RANK_MEMORY: Final = 0.6 * GIB
"""What one rank holds that trains a small net on the CPU."""
LEAST_MEMORY: Final = 1.0 * GIB
"""With less free than this, Ray or its first rank would be killed for lack of memory."""

OBJECT_STORE: Final = 256 * 2**20
"""Of an embedded Ray: stage inputs and records are small, and Ray's default would claim 30% of the
machine's memory.
"""
LEAST_TEMP_SPACE: Final = 200 * 2**20
"""Ray's logs and sockets; Ray spills objects there too if it must."""

_SESSION_PATH: Final = len(
    f"/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
)
_SOCKET_PATH_LIMIT: Final = 107
"""Bytes, of the kernel."""


def temp_folder() -> Path:
    """The folder in which Ray makes its own, `ray`."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def available_memory() -> int:
    """Bytes that new processes can still use: of the machine, or of this container if it has
    less.
    """
    return min([psutil.virtual_memory().available, *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Bytes left under each memory limit of a control group (version 2 or 1) that holds this
    process; page cache counts as free.
    """
    left = []
    for folder in _memory_groups():
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                stat = dict(
                    line.split() for line in (folder / "memory.stat").read_text().splitlines()
                )
                left.append(
                    int((folder / limit).read_text())
                    - int((folder / used).read_text())
                    + int(stat.get(cache, 0))
                )
            except (OSError, ValueError):
                # Of the other version, or without a limit ("max").
                continue
    return left


def _memory_groups() -> set[Path]:
    """Folders of the control groups of this process and of those above, as far as this machine or
    container shows them.
    """
    groups = {Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")}
    try:
        lines = (
            Path("/proc/self/cgroup")
            .read_text(encoding="utf-8", errors="surrogateescape")
            .splitlines()
        )
    except OSError:
        return groups
    for _, controllers, inside in (line.split(":", 2) for line in lines):
        if controllers in ("", "memory"):
            root = Path("/sys/fs/cgroup") / controllers
            own = root / inside.lstrip("/")
            groups |= {folder for folder in (own, *own.parents) if folder.is_relative_to(root)}
    return groups


def node_ip() -> str:
    """The address of this machine by which Ray's processes call each other."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Nothing is sent: it only asks which interface leads outside.
            probe.connect(("8.8.8.8", 53))
            ip: str = probe.getsockname()[0]
            return ip
    except OSError:
        return "127.0.0.1"


def refused(ip: str) -> str | None:
    """Returns why a socket of this machine cannot be reached at its own address `ip`; None if it
    can.
    """
    try:
        with (
            socket.create_server((ip, 0)) as server,
            socket.create_connection(server.getsockname(), timeout=5),
        ):
            return None
    except OSError as error:
        return error.strerror or str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What an embedded Ray would find here; sizes in bytes."""

    memory: int
    """Available."""
    shared_memory: int | None
    """Free in /dev/shm; None where there is no such folder."""
    temp: Path
    temp_space: int
    temp_problem: str | None
    """Why the folder cannot be written; None if it can."""
    ip: str
    network_problem: str | None
    home_problem: str | None = None
    """Why Ray cannot keep its access token; None if it can."""


def look() -> Machine:
    """This machine as it is now."""
    temp, ip = temp_folder(), node_ip()
    try:
        shared: int | None = shutil.disk_usage("/dev/shm").free  # noqa: S108  # nothing is made there
    except OSError:
        shared = None
    problem = unwritable(temp)
    return Machine(
        memory=available_memory(),
        shared_memory=shared,
        temp=temp,
        temp_space=shutil.disk_usage(temp).free if problem is None else 0,
        temp_problem=problem,
        ip=ip,
        network_problem=refused("127.0.0.1") or refused(ip),
        home_problem=_homeless(),
    )


def _homeless() -> str | None:
    """Why the folder of Ray's access token cannot be had; None if it can, or if the token is
    elsewhere.
    """
    if (
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"
    ):
        return None
    token = token_file()
    if token is None:
        return "this user has no home folder"
    if token.is_file():
        return None if os.access(token, os.R_OK) else f"{token} cannot be read"
    place = next(folder for folder in token.parents if folder.exists())
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"


def unwritable(folder: Path) -> str | None:
    """Tries to make a file. Returns why none can be made in `folder`, which is made if it is
    missing; None if one can.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def cannot_start(machine: Machine) -> str | None:
    """Returns why Ray cannot start here, with what to do; None if it can."""
    if machine.memory < LEAST_MEMORY:
        return (
            f"{machine.memory / GIB:.1f} GiB of memory are available; Ray with one rank needs about"
            f" {(RAY_MEMORY + RANK_MEMORY) / GIB:.1f} GiB. Free some, or run without Ray, in about"
            " 0.7 GiB: --engine inline"
        )
    if machine.shared_memory is None:
        return (
            "there is no /dev/shm for Ray's object store. Mount it (mount -t tmpfs tmpfs /dev/shm),"
            " or run without Ray: --engine inline"
        )
    if machine.temp_problem:
        return (
            f"Ray's temporary folder {machine.temp} cannot be written ({machine.temp_problem})."
            " Name another: export RAY_TMPDIR=/some/short/folder"
        )
    if len(str(machine.temp.absolute())) + _SESSION_PATH > _SOCKET_PATH_LIMIT:
        return (
            f"Ray's temporary folder {machine.temp} has too long a path for its sockets (at most"
            f" {_SOCKET_PATH_LIMIT - _SESSION_PATH} characters). Name another: export"
            " RAY_TMPDIR=/tmp"
        )
    if machine.temp_space < LEAST_TEMP_SPACE:
        space = f"{machine.temp_space / 2**20:.0f} MiB free and needs {LEAST_TEMP_SPACE // 2**20}"
        return (
            f"Ray's temporary folder {machine.temp} has {space}. Free some, or name another: export"
            " RAY_TMPDIR=/some/short/folder"
        )
    if machine.home_problem:
        return (
            f"{machine.home_problem}, and Ray keeps its access token in ~/.ray. Name another:"
            " export HOME=/a/folder/you/may/write; or --engine inline"
        )
    if machine.network_problem:
        return (
            f"this machine refuses connections to itself ({machine.ip} or 127.0.0.1:"
            f" {machine.network_problem}), and Ray's processes talk that way. Bring up the loopback"
            " interface (ip link set lo up) and let the firewall pass it, or run without Ray:"
            " --engine inline"
        )
    return None
