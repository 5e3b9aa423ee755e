"""Processes that only schedule, ask and record stay light: what trains is loaded by those that
train.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmark.peak_memory import Process, sweep_command, watch

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "matplotlib", "optuna", "boto3")
LIGHT_KINDS = {"driver", "broker", "candidate", "pool", "idle worker", "other worker"}


def _loaded_after(code: str) -> set[str]:
    """Top-level packages in memory after the code ran in a fresh interpreter."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in"
                " sys.modules}))"
            ),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "commands.plan",
        "driver",
        "commands.doctor",
        "sweeps.folder",
        "trial",
        "engines.inline",
        "engines.ray.engine",
        "engines.ray.cluster",
        "engines.ray.broker",
        "engines.ray.worker_group",
        "engines.ray.pool_actor",
        "engines.ray.candidate",
    ],
)
def test_importing_a_light_module_loads_nothing_that_trains(module: str) -> None:
    assert not _loaded_after(f"import orchestrator.{module}") & {*HEAVY}


def test_only_an_adaptive_search_loads_optuna() -> None:
    assert "optuna" in _loaded_after("import orchestrator.search.learned")
    assert "torch" not in _loaded_after("import orchestrator.search.learned")


def test_a_pool_that_asks_and_records_loads_neither_torch_nor_pandas(tmp_path: Path) -> None:
    _prepare()
    # What a pool actor does in its life; pyarrow's own conversions would bring pandas.
    code = f"""
import numpy as np
from orchestrator.data import prepare as datasets
from orchestrator.labelling.questions import Questions
from orchestrator.storage.segments import open_segments
from orchestrator.trial import open_pool
from orchestrator.catalogue import load_spec
from search_spaces.reading.trials import enumerate_trials
trial = enumerate_trials(load_spec("smoke.yaml"))[-1]
data = datasets.prepare(trial.config.dataset.source)
for _ in range(2):
    pool = open_pool(trial, data, open_segments({str(tmp_path / "ledger")!r}))
    pool.open()
    ids = pool.eligible()[: pool.quota(1)]
    pool.ask(1, Questions.singles(ids, np.zeros(len(ids), np.int32)))
    pool.training_inputs()
"""
    assert not _loaded_after(code) & {*HEAVY, "pandas", "ray"}


def _prepare() -> None:
    """Decodes digits here, so that the fresh interpreter finds them in the cache and loads nothing
    for it.
    """
    from orchestrator.data import prepare as datasets
    from orchestrator.data.sources.digits import Digits

    datasets.prepare(Digits())


@pytest.mark.slow
def test_in_a_sweep_on_ray_only_the_ranks_map_torch(tmp_path: Path) -> None:
    seen: dict[str, bool] = {}

    def note(sample: list[Process]) -> None:
        for process in sample:
            seen[process.kind] = seen.get(process.kind, False) or process.torch

    command = [
        *sweep_command("smoke.yaml", "ray", tmp_path / "sweep"),
        "--set",
        "method.epochs=1",
        "--set",
        "seeds=[0]",
    ]
    assert watch(command, note).returncode == 0
    assert {"driver", "broker", "candidate", "pool", "rank"} <= seen.keys()
    assert seen["rank"]
    assert not [kind for kind in LIGHT_KINDS if seen.get(kind)]


def test_training_a_stage_of_a_small_net_does_not_load_the_compiler_of_torch(
    tmp_path: Path,
) -> None:
    # In every rank: 150 MB and more than a second before the first step.
    code = f"""
from orchestrator import cli
words = ["sweep", "smoke.yaml", "--engine", "inline", "--out", {str(tmp_path / "sweep")!r}]
words += ["--set", "method.epochs=1", "--set", "seeds=[0]"]
assert cli.main(words) == 0
import sys, torch
assert torch.are_deterministic_algorithms_enabled()
assert not {{"torch._dynamo", "torch._inductor"}} & sys.modules.keys()
"""
    assert "torch" in _loaded_after(code)
