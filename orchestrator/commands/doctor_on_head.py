"""`doctor --cluster` from a machine that is no node of the cluster: its head is asked."""

from __future__ import annotations

import shutil
import sys
import time

from orchestrator.commands import console, remote
from orchestrator.commands.doctor_file import Declared
from orchestrator.commands.packing import for_shell
from orchestrator.engines.ray import jobs
from orchestrator.engines.ray.cluster_file import LaunchedCluster, Written, read


def doctor(cluster: LaunchedCluster, *, out: str | None, as_json: bool) -> int:
    """Prints what every machine of the cluster has and lacks, as its head finds it, and where it
    differs from the cluster's file. Returns the exit status.
    """
    words = [
        "--out",
        remote.place_of(cluster, "", out).rstrip("/"),
        *(["--json"] if as_json else []),
    ]
    columns = shutil.get_terminal_size((100, 24)).columns
    command = f"COLUMNS={columns} orchestrate doctor --cluster {for_shell(*words)}"
    if isinstance(written := read(cluster.file), Written):
        command = f"{Declared.by(written).assignment()} {command}"
    with jobs.tunnel(cluster) as address:
        head = jobs.Head(cluster, address)
        head.check_guarded()
        job = f"doctor-{time.time_ns()}"
        head.submit(job, command, notes={})
        return remote.exit_status_of(jobs.follow(cluster, job, head, _show))


def _show(text: str) -> None:
    sys.stdout.write(console.escaped(text))
    sys.stdout.flush()
