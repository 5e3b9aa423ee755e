"""CPUs are counted by what this process was granted, not by what the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.machine import usable_cpus


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def of_64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The affinity of a machine with 64 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


@pytest.mark.parametrize(
    ("environment", "cpus"),
    [
        ({}, 64),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        # A batch script has all of the job's CPUs on the node, whatever one task of it has.
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2"}, 8),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2", "SLURM_STEP_ID": "0"}, 2),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_ID": "0"}, 8),
        ({"SLURM_CPUS_ON_NODE": "999"}, 64),
        ({"SLURM_CPUS_ON_NODE": "0"}, 1),
        ({"SLURM_CPUS_ON_NODE": "8(x2)"}, 64),
        ({"SLURM_CPUS_ON_NODE": ""}, 64),
    ],
)
def test_slurm_grants_some(tmp_path: Path, environment: dict[str, str], cpus: int) -> None:
    assert usable_cpus(environment, tmp_path) == cpus


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
        # The tightest of those around it holds.
        (
            {
                "proc/self/cgroup": "0::/job.slice/task\n",
                "sys/fs/cgroup/job.slice/cpu.max": "300000 100000",
                "sys/fs/cgroup/job.slice/task/cpu.max": "max 100000",
            },
            3,
        ),
        # A container that is told the host's path of its group.
        (
            {
                "proc/self/cgroup": "0::/kubepods/pod1/abc\n",
                "sys/fs/cgroup/cpu.max": "200000 100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
        ({"proc/self/cgroup": "nonsense\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100 0"}, 64),
    ],
)
def test_a_container_grants_some(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    assert usable_cpus({}, tree(tmp_path, files)) == cpus
    assert usable_cpus({"SLURM_CPUS_ON_NODE": "1"}, tmp_path) == 1


def test_a_process_that_is_bound_to_one_cpu_counts_one() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from orchestrator.machine import usable_cpus; print(usable_cpus())"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert printed.stdout.strip() == b"1"
