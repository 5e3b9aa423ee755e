"""What this process may use of the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_cpus(environment: Mapping[str, str] | None = None, root: Path = Path("/")) -> int:
    """Returns how many CPUs this process may use: by its affinity, by what SLURM granted the job,
    and by the quota of its container (cgroup v1 or v2); the least of them, and at least one.

    Args:
        environment: that of the process; None: its own.
        root: where /proc and /sys lie.
    """
    environment = os.environ if environment is None else environment
    limits = [float(len(os.sched_getaffinity(0)))]
    # Within a step (srun) one task's share; in a batch script all that the job has on this node.
    in_step = environment.get("SLURM_STEP_ID", "").isdigit()
    granted = environment.get("SLURM_CPUS_PER_TASK") if in_step else None
    granted = granted or environment.get("SLURM_CPUS_ON_NODE", "")
    if granted.isascii() and granted.isdigit():
        limits.append(float(granted))
    limits += _quotas(root)
    # A quota of one and a half keeps two threads busy.
    return max(1, math.ceil(min(limits)))


def _quotas(root: Path) -> Iterator[float]:
    """Yields the quotas of the process's cgroup and of those around it, in CPUs."""
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified")
        elif "cpu" in controllers.split(","):
            mounts = (root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/cpu,cpuacct")
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        # In a container the path may be the host's, and what is mounted is the group itself.
        for folder in (inner, *inner.parents):
            for mount in mounts:
                yield from _quota(mount / folder)


def _quota(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        if limit > 0:
            yield limit / int((folder / "cpu.cfs_period_us").read_text())
