"""Peak memory of a sweep's whole tree of processes, and of each kind of process in it. Linux only.

    python -m tests.benchmark.peak_memory [SPEC] [--engine inline]

Samples five times a second. RSS counts a page once for every process that maps it; PSS divides it
among them, so only PSS may be added up over a tree.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLES_A_SECOND = 5

KINDS = (
    ("raylet", "/raylet/raylet"),
    ("gcs", "gcs_server"),
    ("log monitor", "log_monitor.py"),
    ("autoscaler", "autoscaler/_private/monitor.py"),
    ("dashboard", "dashboard/dashboard.py"),
    ("dashboard agent", "dashboard/agent.py"),
    ("dashboard agent", "ray::DashboardAgent"),
    ("runtime env agent", "runtime_env/agent/main.py"),
    ("runtime env agent", "ray::RuntimeEnvAgent"),
    ("pool", "PoolActor"),
    ("rank", "ray::Rank"),
    ("broker", "BrokerActor"),
    ("candidate", "ray::ResourceTrainable"),
    ("candidate", "ray::CandidateTrainable"),
    ("idle worker", "ray::IDLE"),
    ("other worker", "ray::"),
    ("starting worker", "_private/workers/"),
    ("local rank", "multiprocessing.spawn"),
    ("driver", "orchestrat"),
)
"""Kind of process and a piece of its command line; the first that fits."""


def kind_of(command: str) -> str:
    return next((kind for kind, piece in KINDS if piece in command), "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process at one moment; sizes in bytes."""

    pid: int
    kind: str
    command: str
    pss: int
    rss: int
    torch: bool
    """Whether the libraries of torch are mapped."""


def look(pid: int, command: str) -> Process | None:
    """What the kernel says of the process; None if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        torch = "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in rollup.splitlines()[1:]}
    return Process(
        pid=pid,
        kind=kind_of(command),
        command=command,
        pss=sizes.get("Pss:", 0),
        rss=sizes.get("Rss:", 0),
        torch=torch,
    )


@dataclass(slots=True)
class Tree:
    """A process and all it ever started, also those whose parent has died since."""

    root: psutil.Process
    _known: dict[int, psutil.Process] = field(default_factory=dict)

    def alive(self) -> Iterator[psutil.Process]:
        try:
            found = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        self._known |= {process.pid: process for process in found}
        for process in self._known.values():
            # psutil compares start times too, so a pid used again is not taken for the old process.
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def sample(self) -> list[Process]:
        seen = []
        for process in self.alive():
            try:
                found = look(process.pid, " ".join(process.cmdline()))
            except (psutil.NoSuchProcess, PermissionError):
                continue
            if found is not None:
                seen.append(found)
        return seen


@dataclass(slots=True)
class Peak:
    """The most of a kind seen at once, in processes and bytes, and the largest single one."""

    processes: int = 0
    pss: int = 0
    rss: int = 0
    largest: int = 0
    torch: int = 0

    def see(self, seen: list[Process]) -> None:
        self.processes = max(self.processes, len(seen))
        self.pss = max(self.pss, sum(p.pss for p in seen))
        self.rss = max(self.rss, sum(p.rss for p in seen))
        self.largest = max(self.largest, *(p.rss for p in seen), 0)
        self.torch = max(self.torch, sum(p.torch for p in seen))


@dataclass(slots=True)
class Watched:
    """What was seen of a command's tree from its start to its end."""

    returncode: int
    seconds: float
    samples: int
    total: Peak
    kinds: dict[str, Peak]


def watch(
    command: list[str], on_sample: Callable[[list[Process]], None] = lambda seen: None
) -> Watched:
    """Runs the command to its end, looking at its tree five times a second."""
    started = time.monotonic()
    total, kinds, samples = Peak(), dict[str, Peak](), 0
    with subprocess.Popen(command) as child:
        tree = Tree(psutil.Process(child.pid))
        while child.poll() is None:
            seen = tree.sample()
            on_sample(seen)
            samples += 1
            total.see(seen)
            for kind in {p.kind for p in seen}:
                kinds.setdefault(kind, Peak()).see([p for p in seen if p.kind == kind])
            time.sleep(max(0.0, started + samples / SAMPLES_A_SECOND - time.monotonic()))
    return Watched(
        returncode=child.returncode,
        seconds=time.monotonic() - started,
        samples=samples,
        total=total,
        kinds=kinds,
    )


def sweep_command(spec: str, engine: str, out: Path) -> list[str]:
    where = ["--engine", "inline"] if engine == "inline" else ["--local"]
    return [sys.executable, "-m", "orchestrator", "sweep", spec, *where, "--out", str(out)]


def _row(name: str, peak: Peak) -> str:
    return (
        f"{name:18} {peak.processes:9} {peak.torch:10} {peak.pss / 2**20:9.0f}"
        f" {peak.rss / 2**20:9.0f} {peak.largest / 2**20:16.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", nargs="?", default="smoke.yaml")
    parser.add_argument("--engine", choices=["ray", "inline"], default="ray")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peak-memory-") as folder:
        found = watch(
            [
                *sweep_command(args.spec, args.engine, Path(folder) / "sweep"),
                *(word for text in args.set for word in ("--set", text)),
            ]
        )
    machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    print(
        f"\n{args.spec}, {args.engine}: exit {found.returncode}, {found.seconds:.1f} s, n ="
        f" {found.samples} samples; {machine}"
    )
    print(
        f"{'peak of':18} {'processes':>9} {'with torch':>10} {'PSS MiB':>9} {'RSS MiB':>9}"
        f" {'largest RSS MiB':>16}"
    )
    print(_row("whole tree", found.total))
    for name, peak in sorted(found.kinds.items(), key=lambda item: -item[1].pss):
        print(_row(name, peak))


if __name__ == "__main__":
    main()
