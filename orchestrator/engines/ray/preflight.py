"""What must hold before Ray can start on this machine or be reached at an address. Looked at first:
Ray itself waits for minutes and then says little.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

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

ANSWER_SECONDS: Final = 10.0
"""How long a Ray at an address may take to answer."""

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
    """Why a socket of this machine cannot be reached at its own address `ip`; None if it can."""
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
        shared: int | None = shutil.disk_usage("/dev/shm").free
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
    """Why no file can be made in `folder`, which is made if it is missing; None if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def cannot_start(machine: Machine) -> str | None:
    """The first reason why an embedded Ray would not start or not live, with what to do; None if
    there is none.
    """
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


def token_file() -> Path | None:
    """Where Ray keeps this user's access token; None for a user without a home (a container's bare
    user number, with HOME unset).
    """
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        return None


def own_token() -> str | None:
    """The access token that this user would present to a Ray, from the places where Ray looks; None
    if there is none.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else token_file()
    try:
        return path.read_text(encoding="utf-8").strip() or None if path is not None else None
    except (OSError, ValueError):
        return None


def knock(address: str) -> str | None:
    """Why no Ray can be reached at `address` (host:port), with what to do; None if one answers.

    If it wants a token and this user has it, this process will present it: RAY_AUTH_MODE is set,
    which Ray reads once, when it is imported. So knock before.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        return (
            f"{address!r} is not a Ray address. Write host:port, such as 127.0.0.1:6379 (`ray start"
            " --head` prints it)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return (
            f"nothing answers there ({reason}). Start one: ray start --head --port={port}; unset"
            " RAY_ADDRESS or leave out --address to run on this machine"
        )
    said = _cluster_id(address, None)
    if (
        said is None
        and os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        and own_token() is None
    ):
        return (
            "it asks for no access token, but RAY_AUTH_MODE=token has this process present one, and"
            " there is none here. Unset it: unset RAY_AUTH_MODE"
        )
    if said != "UNAUTHENTICATED":
        return said
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return (
            "it asks for an access token, and RAY_AUTH_MODE forbids presenting one. Unset it: unset"
            " RAY_AUTH_MODE"
        )
    token = own_token()
    if token is None:
        return (
            "it asks for an access token, and there is none here. Copy ~/.ray/auth_token from its"
            " head node to the same place here, mode 600"
        )
    if _cluster_id(address, token) == "UNAUTHENTICATED":
        return (
            "it refuses this user's access token. Copy ~/.ray/auth_token from its head node to the"
            " same place here, mode 600, and unset RAY_AUTH_TOKEN"
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    return None


def _cluster_id(address: str, token: str | None) -> str | None:
    """Asks the head for its id. None if it tells, "UNAUTHENTICATED" if it wants a (better) token,
    else what is wrong.
    """
    import grpc  # type: ignore[import-untyped]

    shown = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=ANSWER_SECONDS, metadata=shown)
        except grpc.RpcError as error:
            code = error.code().name
            if code == "UNAUTHENTICATED":
                return str(code)
            return (
                "something listens there but does not answer as the head of a Ray does within"
                f" {ANSWER_SECONDS:g} s ({code}). Check the host and the port"
            )
    return None


def no_node_here() -> bool:
    """Whether no node of any Ray runs on this machine; a sweep's driver must run on a node of its
    cluster.
    """
    return not any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"]))


_VERSIONS: Final = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def explain(error: BaseException, address: str | None) -> str:
    """What a failure of ray.init means, with what to do."""
    text = str(error).strip()
    cause = f"{text} {error.__cause__ or ''}"
    said = text.splitlines()[0] if text else type(error).__name__
    if address is None and "timed out during startup" in text:
        return (
            "Ray did not start on this machine within the 30 s that it gives itself: the machine is"
            " very busy, or short of memory. Try again when others have finished, see what is"
            " missing: orchestrate doctor; or run without Ray: --engine inline"
        )
    if address is None:
        return (
            f"cannot start Ray on this machine ({said}). See what is missing: orchestrate doctor;"
            " or run without Ray: --engine inline"
        )
    versions = _VERSIONS.findall(text)
    if len(versions) == 2:
        (their_ray, their_python), (our_ray, our_python) = versions
        return (
            f"Ray at {address} is Ray {their_ray} on Python {their_python}, and this process is Ray"
            f" {our_ray} on Python {our_python}; both must be equal. Install the same on both (pip"
            f" install 'ray[default,tune,train]=={our_ray}'), or run on this machine: --local"
        )
    if "oken" in cause and "uthenti" in cause:
        return (
            f"Ray at {address} refuses this user's access token. Copy ~/.ray/auth_token from its"
            " head node to the same place here, mode 600"
        )
    return (
        f"cannot reach Ray at {address} ({said}). Is this machine one of its nodes (ray start"
        f" --address={address})? Or run on this machine: --local"
    )
