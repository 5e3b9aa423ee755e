"""What `doctor --cluster FILE` says of a cluster's file before the cluster is up: what `ray up`
needs of it.
"""

from __future__ import annotations

import os
import shlex
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Final

from orchestrator.commands.finding import Finding
from orchestrator.engines.ray import joining
from orchestrator.engines.ray.cluster_file import Written

NOT_UP: Final = "up"
"""The check that fails for a cluster that is still to be brought up."""
SSH_PORT: Final = 22
SSH_SECONDS: Final = 5.0
"""How long a machine may take to answer at that port."""
MOST_LINES: Final = 20
MOST_BYTES: Final = 1024
"""How many lines of how many bytes a server is heard for its version."""
MOST_AT_ONCE: Final = 64
_HOW_MADE: Final = (
    "mkdir -p ~/.ray; (umask 077; python3 -c 'import secrets; print(secrets.token_hex(32))' >"
    " ~/.ray/auth_token)"
)


def up_command(file: str, *, local: bool) -> str:
    """Returns the command that brings up the cluster of a file.

    Args:
        local: on machines of one's own.
    """
    file = shlex.quote(file)
    if local:
        return f"RAY_UP_enable_autoscaler_v2=0 ray up -y --no-config-cache {file}"
    return f"ray up -y {file}"


def check(written: Written) -> Iterator[Finding]:
    """Yields what `ray up` would lack, and at last that the cluster is not up, if so."""
    yield from _left_open(written)
    yield from _key(written)
    yield _token()
    yield from _reached(written)
    if not written.is_up():
        command = up_command(written.file.name, local=written.kind == "local")
        yield Finding(check=NOT_UP, state="fail", found=f"not up yet: {command}")


def _left_open(written: Written) -> Iterator[Finding]:
    name = written.file.name
    for line, text in written.to_fill_in:
        yield Finding(
            check="file",
            state="fail",
            found=f"{name}, line {line}: {text} is left to be filled in",
            fix="write there what docs/cluster.md says",
        )
    if not written.to_fill_in:
        yield Finding(check="file", state="ok", found=f"{name} has nothing left to be filled in")


def _key(written: Written) -> Iterator[Finding]:
    key = written.auth.get("ssh_private_key")
    if not isinstance(key, str) or _is_open(written, key):
        return
    if Path(os.path.expanduser(key)).is_file():  # noqa: PTH111  # a path as Ray takes it
        yield Finding(check="ssh key", state="ok", found=f"{key} is there")
        return
    path = key if key.startswith("~/") else shlex.quote(key)
    make = f"ssh-keygen -t ed25519 -f {path} -N ''; ssh-copy-id -i {path} USER@HOST for each"
    yield Finding(
        check="ssh key",
        state="fail",
        found=f"{written.file.name}: auth.ssh_private_key is {key}, and no file is there",
        fix=make if written.kind == "local" else "correct it, or leave it out: ray up makes one",
    )


def _token() -> Finding:
    path = joining.token_file()
    try:
        status = path.stat() if path is not None else None
    except OSError:
        status = None
    if status is None or not status.st_size:
        found = f"{'no file' if status is None else 'nothing'} in ~/.ray/auth_token"
        return Finding(check="token", state="fail", found=found, fix=_HOW_MADE)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        found = f"others may read ~/.ray/auth_token (mode {mode:o})"
        return Finding(check="token", state="fail", found=found, fix="chmod 600 ~/.ray/auth_token")
    return Finding(check="token", state="ok", found=f"~/.ray/auth_token: mode {mode:o}")


def _reached(written: Written) -> Iterator[Finding]:
    machines = [machine for machine in written.machines if not _is_open(written, machine)]
    if not machines:
        return
    if written.auth.get("ssh_proxy_command"):
        found = "not tried from here: the machines are reached by auth.ssh_proxy_command"
        yield Finding(check="machine", state="ok", found=found)
        return
    user = str(written.auth.get("ssh_user"))
    shown = "USER" if _is_open(written, user) else user
    with ThreadPoolExecutor(min(len(machines), MOST_AT_ONCE)) as pool:
        for machine, problem in zip(machines, pool.map(_ssh_problem, machines), strict=True):
            if problem is None:
                found = f"{machine}: its ssh server answers at port {SSH_PORT}"
                yield Finding(check="machine", state="ok", found=found)
                continue
            yield Finding(
                check="machine",
                state="fail",
                found=f"{machine}: no ssh server answers at port {SSH_PORT} ({problem})",
                fix=(
                    f"correct its address in {written.file.name}, or start the machine and its ssh"
                    f" server; then: ssh {shown}@{machine}"
                ),
            )


def _ssh_problem(machine: str) -> str | None:
    try:
        with (
            socket.create_connection((machine, SSH_PORT), timeout=SSH_SECONDS) as server,
            server.makefile("rb") as told,
        ):
            # It may say something else first (RFC 4253, 4.2). Where a firewall answers for machines
            # that are not there, to be connected says nothing.
            lines = iter(lambda: told.readline(MOST_BYTES), b"")
            if any(line.startswith(b"SSH-") for line in islice(lines, MOST_LINES)):
                return None
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return "what listens there is another server"


def _is_open(written: Written, value: str) -> bool:
    return any(text in value for _, text in written.to_fill_in)
