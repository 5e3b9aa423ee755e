"""One task and one actor on Ray and back, in a process of its own: `python -m
orchestrator.engines.ray.round_trip [ADDRESS]` prints what it found as one JSON line."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from orchestrator.engines.ray.cluster import ClusterError, connect


def round_trip(address: str | None) -> dict[str, Any]:
    """Runs a task and an actor on Ray. Returns where Ray is, its version, and the seconds that
    starting, the task and the actor took.

    Raises:
        ClusterError: Ray cannot be started or reached.
    """
    began = time.monotonic()
    with connect(address=address, local=address is None) as cluster:
        import ray

        started = time.monotonic()
        # num_cpus=0: a cluster that is busy answers too.
        task = ray.remote(num_cpus=0)(lambda: 1)
        assert ray.get(task.remote(), timeout=60) == 1
        asked = time.monotonic()
        actor = ray.remote(num_cpus=0)(_Echo).remote()
        assert ray.get(actor.say.remote(2), timeout=60) == 2
        ended = time.monotonic()
        return {
            "where": str(cluster),
            "version": ray.__version__,
            "start": started - began,
            "task": asked - started,
            "actor": ended - asked,
        }


class _Echo:
    def say(self, word: int) -> int:
        return word


def main() -> int:
    try:
        answer = round_trip(sys.argv[1] if len(sys.argv) > 1 else None)
    except ClusterError as error:
        answer = {"problem": str(error)}
    except Exception as error:
        answer = {"problem": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))
    return 2 if "problem" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
