"""A Ray of several nodes on this machine, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.helpers.real_sweep import (
    BROKER,
    CANDIDATE,
    POOL,
    RANK,
    RealSweep,
    of_kind,
    private_temp,
    wait_until,
)

NODES = """
import json, sys
import ray
from ray.cluster_utils import Cluster

head = {"num_cpus": int(sys.argv[1]), "include_dashboard": False, "object_store_memory": 2**27}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = []
print(json.dumps({"address": cluster.address}), flush=True)
for line in sys.stdin:
    verb, _, value = line.strip().partition(" ")
    if verb == "add":
        nodes.append(cluster.add_node(num_cpus=int(value), object_store_memory=2**27))
        cluster.wait_for_nodes()
    elif verb == "kill":
        cluster.remove_node(nodes[int(value)], allow_graceful=False)
    elif verb == "hold":
        ray.init(address=cluster.address, logging_level="CRITICAL", log_to_driver=False)
        held = ray.util.placement_group([{"CPU": 1}] * int(value))
        ray.get(held.ready())
    print(json.dumps({"done": verb}), flush=True)
cluster.shutdown()
"""


class NotStarted(AssertionError):
    """Ray's own processes did not come up, or one more node did not."""


class Nodes:
    """A cluster of several nodes on this machine, each with a raylet of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address: str = self._answer()["address"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise NotStarted("the cluster ended")

    def do(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._answer()

    @property
    def session(self) -> int:
        """Of all its processes."""
        return self._process.pid

    def assert_free(self) -> None:
        """No process that a sweep had on these nodes is left."""
        wait_until(
            "the nodes are free",
            lambda: not of_kind(self._process.pid, RANK, BROKER, POOL, CANDIDATE),
            patience=120,
        )


@contextmanager
def cluster(head_cpus: int, *nodes: int) -> Iterator[Nodes]:
    with ExitStack() as stack:
        for attempt in range(3):
            try:
                found = stack.enter_context(head(head_cpus))
                for cpus in nodes:
                    found.do(f"add {cpus}")
                break
            except NotStarted:
                # Ray gives its daemons a fixed time to start, which a crowded machine may not. What
                # is tested begins once they run.
                if attempt == 2:
                    raise
        yield found


@contextmanager
def head(cpus: int) -> Iterator[Nodes]:
    with private_temp() as temp:
        process = subprocess.Popen(
            [sys.executable, "-c", NODES, str(cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "RAY_TMPDIR": str(temp), "OMP_NUM_THREADS": "1"},
        )
        # Everything of the session dies with the block, whatever happened in it.
        with RealSweep.adopting(process):
            yield Nodes(process)
