"""CPU seconds of the commands that read a finished sweep, at growing numbers of candidates.

    python -m tests.benchmark.bench_report [150 500] [--repeats 3]

A sweep's folder with made-up records (two seeds, three stages) and the real commands, each in a
process of its own, their imports included: `report` where there is none yet, `report` where
nothing has changed, and `status`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from orchestrator.sweeps import seal
from tests.benchmark.printed import hardware, spread
from tests.helpers.sweep_folder import Case, write_sweep


def cases(number: int) -> list[Case]:
    """A random search of a learning rate."""
    rates = [0.3 * (place + 1) / number for place in range(number)]
    return [
        Case(
            names=(),
            settings={"method.learning_rate": rate},
            method={"learning_rate": rate},
            skill=-5 * rate,
        )
        for rate in rates
    ]


def cpu_seconds(*words: str) -> float:
    """Returns the CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "orchestrator", *words], check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", type=int, nargs="*", default=[150, 500])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(hardware())
    for number in args.candidates:
        took: dict[str, list[float]] = {}
        for _ in range(args.repeats):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / "sweep"
                # Sealed once, and not after each of its trials.
                with patch.object(seal, "write"):
                    layout = write_sweep(folder, cases(number), (0, 1))
                seal.write(layout)
                for name, verb in (
                    ("report, drawn", "report"),
                    ("report, nothing changed", "report"),
                    ("status", "status"),
                ):
                    took.setdefault(name, []).append(cpu_seconds(verb, str(folder)))
        shown = ", ".join(f"{name} {spread(values)}" for name, values in took.items())
        print(f"{number} candidates, n = {args.repeats}: {shown}")


if __name__ == "__main__":
    main()
