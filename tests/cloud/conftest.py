"""Hosts on this machine, each with an sshd and a disk of its own. `make test-cluster` runs what is
here: it needs root and Debian's packages, and minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "iptables": "iptables",
}
"""Program -> package of Debian's that has it."""


def missing(programs: dict[str, str]) -> str | None:
    """Returns why hosts cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "needs root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = {package for name, package in programs.items() if not shutil.which(name, path=path)}
    if absent:
        return f"needs: apt-get install --no-install-recommends {' '.join(sorted(absent))}"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "true"],
        capture_output=True,
        text=True,
    )
    return f"needs namespaces: {tried.stderr.strip()}" if tried.returncode else None


def need(programs: dict[str, str]) -> None:
    """Skips the test where hosts cannot be made."""
    reason = missing(programs)
    if reason is not None:
        pytest.skip(reason)


class Ended(AssertionError):
    """A command on a host ended with another status than 0."""


@dataclass(frozen=True)
class Hosts:
    """`laptop` and host1, host2, ... on one switch."""

    folder: Path
    environment: dict[str, str]
    """Says what of this machine lies on theirs."""

    def _call(self, *words: str) -> None:
        subprocess.run(
            [str(HERE / "hosts.sh"), words[0], str(self.folder), *words[1:]],
            check=True,
            stdin=subprocess.DEVNULL,
            env=self.environment,
        )

    def names(self) -> list[str]:
        """All of them, the laptop too."""
        return (self.folder / "names").read_text().split()

    def is_on(self, name: str) -> bool:
        return (self.folder / f"{name}.pid").exists()

    def received(self, name: str) -> int:
        """Bytes that have come to a host since it has its link."""
        return int(self.run(name, "cat /sys/class/net/eth0/statistics/rx_bytes"))

    @property
    def switch(self) -> list[str]:
        """Words before a command that runs it where the hosts' switch is, at 10.77.0.1."""
        tag = hashlib.md5(str(self.folder).encode(), usedforsecurity=False).hexdigest()[:6]
        return ["ip", "netns", "exec", f"oc{tag}-sw"]

    def home(self, name: str) -> Path:
        """A host's home, as this machine sees it."""
        return self.folder / name / "root"

    def start(self, name: str, command: str) -> subprocess.Popen[str]:
        """Starts a shell command in the home of a host; its errors are in its output."""
        return subprocess.Popen(
            [str(HERE / "hosts.sh"), "run", str(self.folder), name, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, name: str, command: str, patience: float = 600) -> str:
        """Returns what the command printed.

        Raises:
            Ended: it failed.
        """
        with self.start(name, command) as process:
            try:
                said, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(f"{name}: {command}: not ended after {patience} s") from None
        if process.returncode:
            raise Ended(f"{name}: {command}: ended with {process.returncode}\n{said}")
        return said

    def cut(self, name: str) -> None:
        """The host loses power."""
        self._call("off", name)

    def power(self, name: str) -> None:
        """The host that was cut starts again, with its disk and no process."""
        self._call("on", name)


@contextmanager
def hosts(number: int, *, share: Path | None = None) -> Iterator[Hosts]:
    """A laptop and so many hosts while the block runs.

    Args:
        share: a folder that all of them see as /srv/shared.
    """
    folder = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
    environment = {**os.environ, "BASE": sys.prefix}
    if share is not None:
        environment["SHARE"] = str(share)
    found = Hosts(folder, environment)
    try:
        subprocess.run(
            [str(HERE / "hosts.sh"), "up", str(folder), str(number)], check=True, env=environment
        )
        yield found
    finally:
        subprocess.run([str(HERE / "hosts.sh"), "down", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def ship(to: Path) -> None:
    """Copies the project, as git has it and as it lies here, into a folder."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
