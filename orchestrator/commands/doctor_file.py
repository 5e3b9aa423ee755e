"""What `doctor --cluster FILE` says of a cluster's file: before the cluster is up, what `ray up`
needs of it; then, whether what runs is what the file says.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import psutil

from orchestrator.commands.finding import Finding, NodeFinding, State
from orchestrator.engines.ray import joining
from orchestrator.engines.ray.cluster_file import STATE, Written

NOT_UP: Final = "up"
"""The check that fails for a cluster that is still to be brought up."""
SSH_PORT: Final = 22
SSH_SECONDS: Final = 5.0
"""How long a machine may take to answer at that port."""
MOST_LINES: Final = 20
MOST_BYTES: Final = 1024
"""How many lines of how many bytes a server is heard for its version."""
MOST_AT_ONCE: Final = 64
SHOWN: Final = 5
"""So many addresses are named in one line."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the file of a cluster says of what runs."""

    VARIABLE = "ORCHESTRATE_CLUSTER_FILE"
    """Tells it to the head, whose own copy of the file may be an older one."""

    file: str
    machines: Sequence[str]
    """Addresses, the head's first; of a cloud none."""
    state: str | None

    @classmethod
    def by(cls, written: Written) -> Self:
        return cls(file=written.file.name, machines=written.machines, state=written.state)

    @classmethod
    def told(cls) -> Self | None:
        """Returns what this machine, a head, was told by who asks; None if nothing."""
        with suppress(KeyError, ValueError, TypeError):
            return cls(**json.loads(os.environ[cls.VARIABLE]))
        return None

    def assignment(self) -> str:
        """Returns the word of a shell that tells it to the command that follows."""
        return f"{self.VARIABLE}={shlex.quote(json.dumps(asdict(self)))}"

    def includes_this_machine(self) -> bool:
        """Returns whether this machine has the address of one of the cluster's, or is a head."""
        # `ray up` leaves it on every head.
        if Path(os.path.expanduser("~/ray_bootstrap_config.yaml")).is_file():  # noqa: PTH111
            return True
        own = {at.address for card in psutil.net_if_addrs().values() for at in card}
        return any(own & _addresses(machine) for machine in self.machines)

    def compare(self, address: str, alive: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
        """Yields how what runs differs from it; called on the head.

        Args:
            address: of the cluster's Ray.
            alive: its living machines, as inspect_cluster tells them.
        """
        if self.machines:
            yield self._machines(address, alive)
        if self.state is not None:
            yield self._state()

    def _machines(self, address: str, alive: Sequence[Mapping[str, Any]]) -> Finding:
        # The head is there, under whatever address: it answers.
        workers, count = self.machines[1:], len(self.machines)
        there = {node["address"] for node in alive if not node["head"]}
        at = {worker: _addresses(worker) for worker in workers}
        missing = [worker for worker in workers if not at[worker] & there]
        others = sorted(there.difference(*at.values()))
        found = f"{count - len(missing)} of {count} machines of {self.file} are there"
        state: State = "ok"
        if missing and len(missing) <= len(others):
            # A machine may have several addresses, of which Ray took another one.
            state = "warn"
            found = f"none is at {_listed(missing)}, as {self.file} says; also alive: "
            found += _listed(others)
        elif missing:
            state = "fail"
            found += f"; {_listed(missing)} {'is' if len(missing) == 1 else 'are'} not"
        fix = (
            "right after `ray up` wait a minute. Else: is the address right, and reached by ssh"
            " from the head? Was RAY_UP_enable_autoscaler_v2=0 exported at `ray up`? Or, on that"
            f" machine: RAY_AUTH_MODE=token ~/venv/bin/ray start --address={address}"
        )
        return NodeFinding(
            check="machines", state=state, found=found, fix="" if state == "ok" else fix
        )

    def _state(self) -> Finding:
        here = os.environ.get(STATE)
        if here is not None and self.state is not None and _place(here) == _place(self.state):
            found = f"{STATE} is {here}, as {self.file} says"
            return NodeFinding(check="state", state="ok", found=found)
        has = "has none" if here is None else f"has {here}"
        edit = f'sed -i "s|{STATE}=[^ ]*|{STATE}={self.state}|" ~/.bashrc'
        if here is None:
            edit = f'echo "export {STATE}={self.state}" >> ~/.bashrc'
        again = up_command(self.file, local=bool(self.machines))
        return NodeFinding(
            check="state",
            state="warn" if here is None else "fail",
            found=f"{STATE} is {self.state} in {self.file}, and the environment of the head {has}",
            fix=(
                "if the file is right, correct ~/.bashrc of the head and start its Ray anew:"
                f" ray exec {shlex.quote(self.file)} '{edit}'; {again}"
            ),
        )


def _addresses(machine: str) -> set[str]:
    """Returns the name of a machine and its numbers, as far as this machine knows them."""
    found = {machine}
    with suppress(OSError, UnicodeError):
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(machine, None)}
    return found


def _place(value: str) -> str:
    return os.path.expandvars(os.path.expanduser(value)).rstrip("/")  # noqa: PTH111


def _listed(machines: Sequence[str]) -> str:
    more = f" and {len(machines) - SHOWN} more" if len(machines) > SHOWN else ""
    return ", ".join(machines[:SHOWN]) + more
