"""CPU and memory of the driver for each candidate, at growing numbers of candidates.

    python -m tests.benchmark.bench_driver [10 100 1000 10000] [--algorithms random grid tpe]
        [--most-tpe 1000] [--seeds 1] [--repeats 3] [--tune]

The driver, the search and the records of a sweep are the real ones, in a folder; the engine is
tests.helpers.fake_engine, which trains nothing and puts three stages a trial on record. Its own CPU
is taken off. Each run is a process of its own; memory is its largest resident set. For `tpe` the
same number of draws and tells by Optuna alone stands beside it. Both should stay flat a candidate,
but for Optuna's part, which reads all its trials at each draw.

With --tune the engine is the real one as well, on an embedded Ray: Tune, the broker and processes
of candidates that put their stages on record and train nothing. The CPU is that of the driver's
process, its seconds those of the whole run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fake_engine import FakeEngine, in_place, spec_text, under_tune

WIDTH = 8
"""Candidates at work at once."""


@dataclass(slots=True)
class Meter:
    """CPU seconds of this process inside some functions."""

    seconds: float = 0.0
    _inside: bool = False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function with its time counted; not that of one inside another twice."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, began = True, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds += time.process_time() - began

        return call

    @contextmanager
    def on_optuna(self) -> Iterator[None]:
        """Counts what a search asks and tells Optuna while the block runs."""
        import optuna

        with pytest.MonkeyPatch.context() as patch:
            for owner, names in (
                (optuna.Study, ("ask", "tell", "add_trial")),
                (optuna.Trial, ("suggest_float", "suggest_int", "suggest_categorical")),
            ):
                for name in names:
                    patch.setattr(owner, name, self.timed(getattr(owner, name)))
            yield


def driver_run(
    algorithm: str, candidates: int, seeds: int, *, tune: bool = False
) -> dict[str, float]:
    """Returns what one sweep takes in this process: CPU seconds of the driver and MiB."""
    from orchestrator import driver
    from orchestrator.catalogue import load_spec

    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        Path("spec.yaml").write_text(spec_text(algorithm, candidates, seeds))
        engine, optuna = FakeEngine(width=WIDTH), Meter()
        began, clock = time.process_time(), time.monotonic()
        with under_tune() if tune else in_place(engine), optuna.on_optuna():
            ended = driver.start(
                load_spec("spec.yaml", ["resources.max_concurrent=2"]),
                driver.Engine(name="ray", local=True),
                out="sweep",
                listener=driver.Listener(show=False),
            )
        took = time.process_time() - began - engine.cpu_seconds
        assert not ended.outcome.waiting
        n = len(ended.candidates)
        return {
            "n": n,
            "cpu": took,
            "optuna": optuna.seconds,
            "seconds": time.monotonic() - clock,
            "mib": peak_mib(),
        }


def optuna_run(candidates: int) -> dict[str, float]:
    """Returns what the same search takes of Optuna alone."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.process_time()
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=8, constant_liar=True),
    )
    running: deque[optuna.trial.Trial] = deque()
    values: dict[int, float] = {}
    for _ in range(candidates):
        trial = study.ask()
        weight = trial.suggest_float("method.consistency_weight", 1, 100, log=True)
        trial.suggest_float("method.ema_decay", 0.9, 0.999)
        trial.suggest_float("schedule.split[0]", 0, 1)
        values[trial.number] = 90 - 20 * abs(math.log10(weight) - 1.5)
        running.append(trial)
        if len(running) >= WIDTH:
            ended = running.popleft()
            study.tell(ended, values[ended.number])
    for ended in running:
        study.tell(ended, values[ended.number])
    return {"n": candidates, "cpu": time.process_time() - began, "mib": peak_mib()}


def peak_mib() -> float:
    """Returns the largest resident set of this process so far."""
    # Not getrusage's: over an exec that keeps the parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kib] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kib) / 1024


def child(kind: str, candidates: int, args: argparse.Namespace) -> dict[str, float]:
    """Runs one measurement in a fresh process."""
    words = [sys.executable, "-m", __spec__.name, str(candidates), "--child", kind]
    words += ["--seeds", str(args.seeds)] + ["--tune"] * args.tune
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", type=int, nargs="*", default=[10, 100, 1000, 10000])
    parser.add_argument("--algorithms", nargs="+", default=["random", "grid", "tpe"])
    parser.add_argument("--most-tpe", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        [number] = args.candidates
        found = (
            optuna_run(number)
            if args.child == "optuna"
            else driver_run(args.child, number, args.seeds, tune=args.tune)
        )
        print(json.dumps(found))
        return
    # Not above: it loads torch, which the driver does without.
    from tests.benchmark.printed import hardware

    print(hardware())
    print(f"n = {args.repeats}, {args.seeds} seed(s); median (least-most)")
    for kind in args.algorithms + ["optuna"] * ("tpe" in args.algorithms):
        print_kind(kind, args)


def print_kind(kind: str, args: argparse.Namespace) -> None:
    """Prints a line for each number of candidates: the CPU in all, Optuna's part of it, and by how
    much memory has grown since the line before.
    """
    from tests.benchmark.printed import spread

    before: dict[str, float] | None = None
    for number in args.candidates:
        if kind in ("tpe", "optuna") and number > args.most_tpe:
            continue
        runs = [child(kind, number, args) for _ in range(args.repeats)]
        n, mib = runs[0]["n"], statistics.median(run["mib"] for run in runs)

        def each(key: str, runs: list[dict[str, float]] = runs, n: float = n) -> str:
            return spread([1000 * run[key] / n for run in runs], ".2f")

        line = f"{kind:6} {n:6.0f} candidates: {each('cpu')} ms of CPU each"
        if kind == "tpe":
            line += f", of which Optuna's {each('optuna')}"
        if args.tune:
            line += f", {each('seconds')} ms by the clock"
        line += f"; {mib:.0f} MiB"
        if before is not None:
            line += f", {1024 * (mib - before['mib']) / (n - before['n']):.1f} KiB each more"
        print(line, flush=True)
        before = {"n": n, "mib": mib}


if __name__ == "__main__":
    main()
