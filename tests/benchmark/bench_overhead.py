"""What a candidate costs beside a bare Ray Tune function trial that trains the same stages in its
own process, side by side on one Ray.

Run by hand: `python -m tests.benchmark.bench_overhead [--candidates 12] [--rounds 3] [--epochs 5]`.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.catalogue import load_spec
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.engines.progress import Progress
from orchestrator.engines.ray import engine as engine_ray
from orchestrator.engines.ray.cluster import Cluster, connect
from orchestrator.labelling.questions import Questions
from orchestrator.search.source import ListSource
from orchestrator.storage.segments import open_segments
from orchestrator.sweeps import folder as sweep
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import new_attempt
from orchestrator.trial import open_pool
from search_spaces.reading.config import Trial
from tests.helpers.sweeps import read_stages
from trainers.stage import StageRequest

WARM = 3
"""Candidates left out of the count: the first ones start processes and load torch."""

SPEC = """\
name: overhead
dataset: {{name: digits, validation: {{from: split, per_class: 10}}}}
budget: {{full_labels: 100}}
base:
  method: {{name: mean_teacher, consistency_weight: 10, epochs: {epochs}}}
  schedule: {{initial_labels_per_class: 2, split: [0.5, 0.5]}}
vary: {{method.consistency_weight: {{choice: {weights}}}}}
seeds: [0]
resources: {{workers: 1, cpus_per_worker: 1, max_concurrent: 1}}
"""


def stage_requests(trial: Trial, data: PreparedData, folder: Path) -> list[StageRequest]:
    """The stages of a trial as a bare function would train them, with what a pool would have
    answered.
    """
    pool = open_pool(trial, data, open_segments(folder / "ledger"))
    pool.open()
    requests = []
    for stage in range(len(trial.schedule.quotas) + 1):
        if stage:
            ids = pool.eligible()[: pool.quota(stage)]
            pool.ask(
                stage,
                Questions.singles(ids, np.zeros(len(ids), np.int32)),
            )
        requests.append(
            StageRequest(
                key=f"{trial.id}-{stage}",
                stage=stage,
                seed=trial.seed,
                method=trial.config.method,
                plan=trial.config.method.stage(
                    stage, len(trial.schedule.quotas), has_negatives=stage > 0
                ),
                data_dir=data.images_dir,
                inputs=pool.training_inputs(),
                work_dir=folder / f"stage-{stage}",
                attempt="bare",
            )
        )
    return requests


def train_bare(config: dict[str, Any]) -> None:
    from ray import tune

    from trainers.run import run_stage

    value = None
    for request in config["requests"]:
        request.work_dir.mkdir(parents=True, exist_ok=True)
        value = run_stage(replace(request, attempt=new_attempt())).metrics["validation_last"]
    tune.report({"val_top1": value})
    config["requests"][0].work_dir.with_name("done").touch()


def per_candidate(ends: list[float]) -> float:
    """Seconds a candidate, from the end of the last one that warms up to the end of the last of
    all.
    """
    ends = sorted(ends)
    return (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)


def bare_round(trials: list[Trial], data: PreparedData, root: Path) -> float:
    from ray import tune

    folders = [root / trial.id for trial in trials]
    requests = [
        stage_requests(trial, data, folder) for trial, folder in zip(trials, folders, strict=True)
    ]
    tune.Tuner(
        tune.with_resources(train_bare, {"cpu": 1}),
        param_space={"requests": tune.grid_search(requests)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="bare", storage_path=str(root / "tune"), verbose=0),
    ).fit()
    return per_candidate([(folder / "done").stat().st_mtime for folder in folders])


def our_round(
    spec_path: Path, data: PreparedData, cluster: Cluster, root: Path
) -> tuple[float, float, float]:
    """Seconds a candidate, seconds of it that are training, and the share of time that the worker
    group was training.
    """
    spec, layout = load_spec(str(spec_path)), SweepLayout.at(root)
    root.mkdir()
    candidates = sweep.create(spec, layout, engine="ray", device="cpu")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        from rich.console import Console

        with Progress(None, Console(file=nowhere)) as progress:
            _, use = engine_ray.run_on_ray(
                layout,
                ListSource(deque(candidates)),
                candidates,
                len(candidates),
                data,
                spec.resources,
                "cpu",
                cluster,
                progress,
            )
    trials = [layout.trial(trial.id) for candidate in candidates for trial in candidate.trials]
    training = [sum(record["seconds"] for record in read_stages(files)) for files in trials]
    return (
        per_candidate(
            [max(path.stat().st_mtime for path in files.stages.glob("*.json")) for files in trials]
        ),
        statistics.median(training),
        use["share"],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    spec_path = root / "overhead.yaml"
    spec_path.write_text(
        SPEC.format(
            epochs=args.epochs, weights=[float(10 + number) for number in range(args.candidates)]
        )
    )
    spec = load_spec(str(spec_path))
    trials = sweep.enumerate_trials(spec) or []
    data = prepare(trials[0].config.dataset.source)
    bare: list[float] = []
    ours: dict[int, list[tuple[float, float, float]]] = {1: [], engine_ray.CANDIDATES_PER_GROUP: []}
    try:
        with connect(local=True) as cluster:
            for number in range(args.rounds):
                bare.append(bare_round(trials, data, root / f"bare-{number}"))
                for per_group, found in ours.items():
                    engine_ray.CANDIDATES_PER_GROUP = per_group
                    found.append(
                        our_round(spec_path, data, cluster, root / f"ours-{number}-{per_group}")
                    )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load"
        f" {os.getloadavg()[0]:.1f}"
    )
    stages = len(trials[0].schedule.quotas) + 1
    print(
        f"{args.rounds} rounds of {args.candidates} candidates ({WARM} of them to warm up),"
        f" {stages} stages of {args.epochs} epochs each, one worker group"
    )
    base = statistics.median(bare)
    print(
        f"bare function trial            {base:7.3f} s a candidate "
        f" {[round(value, 2) for value in bare]}"
    )
    for per_group, found in ours.items():
        each = [seconds for seconds, _, _ in found]
        trained, share = (
            statistics.median(t for _, t, _ in found),
            statistics.median(s for _, _, s in found),
        )
        print(
            f"ours, {per_group} candidate(s) a worker group     {statistics.median(each):7.3f} s a"
            " candidate"
            f"  {[round(value, 2) for value in each]}  ratio {statistics.median(each) / base:.2f};"
            f" training {trained:.2f} s of it, worker group busy {100 * share:.0f}%"
        )


if __name__ == "__main__":
    main()
