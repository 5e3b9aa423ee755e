"""Counts the calls of Ray actors that a sweep makes: python -m tests.benchmark.bench_actor_calls

By difference of two sweeps that differ in their seeds, so that what is asked once a sweep does not
count. Every process of an embedded Ray adds a line to a file for each call that it makes of an
actor's method. Calls by the clock (the display's) are left out of the calls a stage.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import ray

from orchestrator import cli
from tests.helpers.small_sweep import SPEC, write_data

SEEDS = (2, 10)
STAGES = 5
"""Of one seed, in two trials; one of them is shared."""

CALLS = "BENCH_ACTOR_CALLS"
"""Variable of the environment: the file that calls are written to."""

BY_THE_CLOCK = ("BrokerActor.take_events",)


def count_calls() -> None:
    """Has this process write down each call of an actor's method that it makes."""
    from ray.actor import ActorMethod

    plain = ActorMethod._remote

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        described = self._actor._ray_actor_creation_function_descriptor
        name = f"{described.class_name}.{self._method_name}"
        # One write each: many processes add to the file.
        with Path(os.environ[CALLS]).open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        return plain(self, *args, **kwargs)

    ActorMethod._remote = counted


def calls_of(seeds: int, folder: Path) -> Counter[str]:
    """Returns the calls of one sweep by actor and method."""
    place = folder / f"calls-{seeds}"
    place.touch()
    os.environ[CALLS] = str(place)
    text = SPEC.replace("seeds: [0]", f"seeds: {list(range(seeds))}")
    Path("spec.yaml").write_text(text)
    init = ray.init
    hook = {
        "worker_process_setup_hook": f"{__spec__.name}.count_calls",
        "env_vars": {CALLS: str(place), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    }
    ray.init = lambda **how: init(**how, runtime_env=hook)
    try:
        assert cli.main(["sweep", "spec.yaml", "--local", "--out", f"runs/{seeds}"]) == 0
    finally:
        ray.init = init
    return Counter(place.read_text().splitlines())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["ORCHESTRATE_CACHE"] = f"{folder}/cache"
        write_data(Path("features.npz"))
        count_calls()
        few, many = (calls_of(seeds, Path(folder)) for seeds in SEEDS)
    stages = STAGES * (SEEDS[1] - SEEDS[0])
    each = {kind: (many[kind] - few[kind]) / stages for kind in many if kind not in BY_THE_CLOCK}
    print(f"\ncalls a stage, by difference over {stages} stages")
    for kind, calls in sorted(each.items(), key=lambda item: -item[1]):
        if calls:
            print(f"  {kind:40} {calls:5.2f}")
    print(f"  {'in all':40} {sum(each.values()):5.2f}")
    print(f"calls that more seeds do not add to, of a sweep of 2 candidates with {STAGES} stages")
    for kind, calls in sorted(many.items()):
        if calls == few[kind] and kind not in BY_THE_CLOCK:
            print(f"  {kind:40} {calls:5}")


if __name__ == "__main__":
    main()
