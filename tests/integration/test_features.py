"""One's own feature vectors, from the file to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.commands.replay import replay
from orchestrator.labelling.state import INITIAL
from tests.helpers.dying import run_cli
from tests.helpers.sweeps import written

pytestmark = pytest.mark.slow

SPEC = """\
name: mine
dataset: {name: features, path: mine.npz, validation: {from: split, per_class: 5}}
budget: {full_labels: 20}
base:
  method: {name: mean_teacher, consistency_weight: 1, epochs: 3}
  schedule: {initial_labels_per_class: 2, split: [1.0]}
cases:
  full labels only: {schedule.initial_labels_per_class: 5, schedule.split: []}
  one stage: {}
seeds: [0, 1]
"""


COLD = ("typiclust", "probcover", "max_herding")


def blobs(path: Path, apart: float = 3) -> None:
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 60)
    x = (
        random.normal(size=(240, 16)).astype(np.float32)
        + apart * np.eye(4, 16, dtype=np.float32)[y]
    )
    np.savez(path, x=x, y=y)


def test_a_sweep_on_ones_own_features_ends_in_a_report_at_equal_bits(tmp_path: Path) -> None:
    folder = written(tmp_path, SPEC)
    blobs(folder / "mine.npz")
    assert run_cli(["sweep", "spec.yaml", "--engine", "inline"], folder) == 0, (
        folder / "log"
    ).read_text()
    report = json.loads((folder / "runs" / "mine" / "report" / "report.json").read_text())
    assert [row["case"] for row in report["rows"]] == ["full labels only", "one stage"]
    assert all(row["n"] == 2 and row["bits"] == 40 for row in report["rows"])
    assert (folder / "runs" / "mine" / "report" / "report.html").stat().st_size > 10_000


def test_a_missing_feature_file_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    folder = written(tmp_path, SPEC)
    assert run_cli(["sweep", "spec.yaml", "--engine", "inline"], folder) == 2
    log = (folder / "log").read_text()
    assert "mine.npz" in log
    assert "Traceback" not in log
    assert not (folder / "runs").exists()


def test_strategies_that_look_at_the_features_are_a_value_to_vary(tmp_path: Path) -> None:
    strategies = (
        "random, typiclust, probcover, max_herding, uherding, margin_diverse, badge, dropquery"
    )
    varied = (
        SPEC.partition("cases:")[0]
        + f"vary: {{query.strategy: {{choice: [{strategies}]}}}}\nseeds: [0]\n"
    )
    folder = written(tmp_path, varied)
    blobs(folder / "mine.npz")
    command = ["sweep", "spec.yaml", "--engine", "inline", "--json"]
    assert run_cli(command, folder) == 0, (folder / "log").read_text()
    report = json.loads((folder / "runs" / "mine" / "report" / "report.json").read_text())
    assert len(report["rows"]) == 8
    assert {row["questions"] for row in report["rows"]} == {24}
    # All ask after one and the same stage 0, which is trained once.
    stages = (folder / "runs" / "mine" / "stages").glob("*/record.json")
    assert len(list(stages)) <= 9
    assert run_cli(["ledger", "verify", "runs/mine"], folder) == 0


def test_initial_labels_that_a_strategy_chose_cover_the_features_whatever_dies(
    tmp_path: Path,
) -> None:
    base = SPEC.partition("cases:")[0].replace("epochs: 3", "epochs: 1")
    varied = (
        base.replace("initial_labels_per_class: 2", "initial_labels_per_class: 1")
        + "cases:\n"
        + "".join(f"  {name}: {{schedule.initial_choice: {name}}}\n" for name in COLD)
        + "seeds: [0]\n"
    )
    command = ["sweep", "spec.yaml", "--engine", "inline"]
    ledgers: list[dict[str, bytes]] = []
    for name, dies in (("whole", False), ("killed", True)):
        folder = written(tmp_path / name, varied)
        blobs(folder / "mine.npz", apart=30)
        deaths = 0
        while (status := run_cli(command, folder, die_at=40 + deaths % 5 if dies else None)) == -9:
            deaths += 1
            assert deaths < 100, "no progress between deaths"
        assert status == 0, (folder / "log").read_text()
        assert not dies or deaths
        assert run_cli(["ledger", "verify", "runs/mine"], folder) == 0
        out = folder / "runs" / "mine"
        ledgers.append(
            {
                path.relative_to(out).as_posix(): path.read_bytes()
                for path in out.glob("trials/*/ledger/*")
            }
        )
        for trial in (out / "trials").iterdir():
            state = replay(trial / "ledger")
            bought = state.labels[state.origins == INITIAL]
            assert sorted(bought.tolist()) == [0, 1, 2, 3]
    assert ledgers[0] == ledgers[1]
