"""A cluster whose workers are yet to be started: Ray's own autoscaler starts them for the sweep, as
processes on this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.ports import free_port
from tests.helpers.real_sweep import PATIENCE, RealSweep, members, private_temp
from tests.helpers.sweeps import outcome_of

# A machine that is busy with other things takes many times as long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RAY = Path(sys.executable).parent / "ray"
"""Of this environment, which need not be the one of the user's path."""

WORKERS = {
    "cpu": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    # Declared, not there: what is shown is that the demand for it is heard.
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 1},
}


def settings(port: int) -> dict[str, Any]:
    return {
        "cluster_name": "growing",
        "max_workers": 3,
        "idle_timeout_minutes": 30,
        "upscaling_speed": 10,
        "provider": {"type": "fake_multinode", "gcs_address": f"{host()}:{port}"},
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            **WORKERS,
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{
            f"{when}_commands": []
            for when in (
                *("initialization", "setup", "head_setup", "worker_setup"),
                *("head_start_ray", "worker_start_ray"),
            )
        },
    }


def host() -> str:
    import ray

    address: str = ray.util.get_node_ip_address()
    return address


class Growing:
    """A head without a CPU for workers, and its autoscaler."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address = address
        self._process = process

    def nodes(self) -> list[str]:
        """Resources of each node that has a raylet, the head's included."""
        found = []
        for process in members(self._process.pid):
            line = process.cmdline()
            if line and line[0].endswith("/raylet"):
                found += [part for part in line if part.startswith("--static_resource_list=")]
        return found


@contextmanager
def growing() -> Iterator[Growing]:
    with private_temp() as temp:
        port = free_port("")
        config = temp / "autoscaler.json"
        config.write_text(json.dumps(settings(port)))
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        process = subprocess.Popen(
            [
                *(str(RAY), "start", "--head", "--block", f"--port={port}", "--num-cpus=0"),
                *("--num-gpus=0", "--include-dashboard=false", f"--autoscaling-config={config}"),
                f"--object-store-memory={2**27}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={
                **env,
                "RAY_TMPDIR": str(temp),
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "OMP_NUM_THREADS": "1",
            },
        )
        with RealSweep.adopting(process):
            cluster = Growing(f"{host()}:{port}", process)
            deadline = time.monotonic() + PATIENCE
            while not cluster.nodes():
                assert time.monotonic() < deadline and process.poll() is None, "Ray did not start"
                time.sleep(0.2)
            yield cluster


STARTS = 3
"""Ray gives a node's daemons 15 s to start and takes the head along where that is too short: these
tests are about what comes after.
"""


def on_growing(test: Callable[[Growing, int], str | None]) -> None:
    """Has a test take place on a new cluster: again where it returns what a sweep said that lost
    its Ray.
    """
    said = None
    for attempt in range(STARTS):
        with growing() as cluster:
            said = test(cluster, attempt)
        if said is None:
            return
    pytest.skip(f"Ray ended {STARTS} times while it started a node: {said}")


def lost(sweep: RealSweep) -> bool:
    return "has died" in sweep.said()


def test_a_sweep_on_a_head_alone_has_its_workers_started_and_waits_for_them(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    def test(cluster: Growing, attempt: int) -> str | None:
        argv = ["sweep", str(spec), "--address", cluster.address, "--insecure"]
        # More than any node type has: refused, and nothing is started for it.
        root = tmp_path / f"large{attempt}"
        with RealSweep(
            root, temp, [*argv, "--out", str(root), "--set", "resources.cpus_per_worker=2"]
        ) as sweep:
            ended = sweep.ended()
            if lost(sweep):
                return sweep.said()
            assert ended == 2, sweep.said()
            assert "3 worker node(s) that its autoscaler may add" in sweep.said()
        assert len(cluster.nodes()) == 1
        root = tmp_path / f"grown{attempt}"
        with RealSweep(root, temp, [*argv, "--out", str(root), "--set", "seeds=[0]"]) as sweep:
            ended = sweep.ended()
            if lost(sweep):
                return sweep.said()
            assert ended == 0, sweep.said()
            assert "waiting for 2 CPU workers that the cluster is to add" in sweep.said()
        found = outcome_of(root)
        assert found == {trial: alone[trial] for trial in found} and len(found) == 3
        assert 2 <= len(cluster.nodes()) <= 4
        return None

    on_growing(test)


def test_the_demand_for_a_gpu_is_heard(spec: Path, temp: Path, tmp_path: Path) -> None:
    def test(cluster: Growing, attempt: int) -> str | None:
        root = tmp_path / f"gpu{attempt}"
        argv = ["sweep", str(spec), "--address", cluster.address, "--insecure", "--out", str(root)]
        with RealSweep(root, temp, [*argv, "--set", "resources.gpus_per_worker=1"]) as sweep:
            sweep.until(
                "a node with a GPU is started",
                lambda _: lost(sweep) or any("GPU,1" in node for node in cluster.nodes()),
            )
            if lost(sweep):
                return sweep.said()
            assert "waiting for 1 GPU worker that the cluster is to add" in sweep.said()
        return None

    on_growing(test)
