"""Wall time of one sweep with stages shared between trials and with `resources.share_stages=false`,
by the command line, in turns.

    python -m tests.benchmark.bench_sharing [--spec ablations_images.yaml] [--repeats 3] [--set
    method.epochs=5]

The results are equal either way; what is measured is what sharing saves. Start of the process and
report are part of the wall time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.catalogue import load_spec
from tests.benchmark.printed import hardware, spread
from tests.helpers.on_disk import trial_in
from tests.helpers.sweeps import read_stages


@dataclass(frozen=True, slots=True)
class Swept:
    """One sweep from its start to its end."""

    seconds: float
    trained: int
    """Stages trained."""
    found: int
    """Stages that a trial found trained already."""
    training_seconds: float
    """Of the stages trained, by their own metrics."""


def swept(spec: str, overrides: list[str], out: Path) -> Swept:
    """Runs the sweep in its own process.

    Raises:
        SystemExit: the sweep failed; the end of what it printed is the message.
    """
    settings = [word for text in overrides for word in ("--set", text)]
    command = [
        sys.executable,
        "-m",
        "orchestrator",
        "sweep",
        spec,
        "--engine",
        "inline",
        "--out",
        str(out),
        *settings,
    ]
    start = time.perf_counter()
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {ended.returncode}\n{ended.stdout[-2000:]}")
    records = [record for trial in out.glob("trials/*") for record in read_stages(trial_in(trial))]
    trained = [record for record in records if record["trained"]]
    return Swept(
        seconds,
        len(trained),
        len(records) - len(trained),
        sum(record["seconds"] for record in trained),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="ablations_images.yaml")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    sweeps: dict[str, list[Swept]] = {"true": [], "false": []}
    with tempfile.TemporaryDirectory(prefix="bench-sharing-") as folder:
        # Data are prepared once, by a sweep that does not count, so that the first one does not pay
        # for the second.
        swept(args.spec, [*args.set, "method.epochs=1"], Path(folder) / "warm-up")
        for number in range(args.repeats):
            for share, found in sweeps.items():
                found.append(
                    swept(
                        args.spec,
                        [*args.set, f"resources.share_stages={share}"],
                        Path(folder) / f"{number}-{share}",
                    )
                )
    torch.set_num_threads(
        load_spec(args.spec, args.set).resources.cpus_per_worker
    )  # as many as a stage has, for the line below alone
    print(hardware())
    print(
        f"{args.spec} {' '.join(args.set)}, engine inline; n = {args.repeats} in turns; median"
        " (min-max), process start and report included"
    )
    for share, name in (("true", "shared"), ("false", "not shared")):
        found = sweeps[share]
        trained, reused = (
            sorted({getattr(sweep, field) for sweep in found}) for field in ("trained", "found")
        )
        counts = (
            f"{'/'.join(map(str, trained))} stages trained, {'/'.join(map(str, reused))} found"
            " trained"
        )
        print(
            f"  {name:12} {spread([s.seconds for s in found], '7.1f')} s wall,"
            f" {spread([s.training_seconds for s in found], '7.1f')} s in stages; {counts}"
        )
    ratios = [
        alone.seconds / shared.seconds
        for shared, alone in zip(sweeps["true"], sweeps["false"], strict=True)
    ]
    stages = sweeps["false"][0].trained / max(sweeps["true"][0].trained, 1)
    print(
        f"  without sharing the sweep takes {spread(ratios, '.2f')} times as long, pair by pair,"
        f" and trains {stages:.2f} times as many stages"
    )


if __name__ == "__main__":
    main()
