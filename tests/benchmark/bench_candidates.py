"""CPU seconds to write a sweep of many candidates down, to read its results and to open it again.

    python -m tests.benchmark.bench_candidates [100 1000 10000] [--repeats 3]

A random search of digits with two seeds, of which nothing is trained: what is left is the cost of
the records. It should grow with the candidates and no faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.catalogue import load_spec
from orchestrator.reporting import results
from orchestrator.sweeps import folder, seal
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.config import Spec
from tests.benchmark.printed import hardware, spread


def cpu_seconds(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of this process that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def steps(spec: Spec, layout: SweepLayout) -> dict[str, Callable[[], object]]:
    """Returns what is timed, in order: each needs the one before."""

    def create() -> object:
        return folder.create(spec, layout, data="none", engine="inline", device="cpu")

    return {
        "written": create,
        "sealed": lambda: seal.write(layout),
        "results read": lambda: results.load(layout),
        "opened": create,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(hardware())
    for number in args.candidates:
        overrides = ["search.algorithm=random", f"search.num_candidates={number}", "seeds=[0,1]"]
        spec = load_spec("stage_schedules.yaml", overrides)
        took: dict[str, list[float]] = {}
        for _ in range(args.repeats):
            with tempfile.TemporaryDirectory() as temporary:
                layout = SweepLayout.at(Path(temporary) / "sweep")
                for name, work in steps(spec, layout).items():
                    took.setdefault(name, []).append(cpu_seconds(work))
        shown = ", ".join(f"{name} {spread(values)}" for name, values in took.items())
        print(f"{number} candidates, n = {args.repeats}: {shown}")


if __name__ == "__main__":
    main()
