"""Initial labels drawn blindly, in whole sweeps on digits: what they cost, what is left for
questions, and that a kill changes nothing of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.commands.replay import replay
from orchestrator.labelling.state import INITIAL, PoolState
from search_spaces.reading.schedule import quotas
from tests.helpers.dying import ledgers_whole_and_killed, run_cli
from tests.helpers.sweeps import written

pytestmark = pytest.mark.slow

CHOICES = """\
name: choices
dataset: {name: digits, validation: {from: split, per_class: 5}}
budget: {full_labels: 60, mode: exact}
base:
  method: {name: mean_teacher, ema_decay: 0.9, epochs: 1, batch_size: 128}
  schedule: {initial_labels_per_class: 1, split: [0.6, 0.0, 0.4]}
cases:
  random: {}
  uniform: {schedule.initial_choice: uniform}
  priced: {schedule.initial_choice: priced_balanced}
seeds: [0, 1]
"""

ONE_PRICED = CHOICES.replace(
    "  random: {}\n  uniform: {schedule.initial_choice: uniform}\n", ""
).replace("seeds: [0, 1]", "seeds: [0]")

SWEEP = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]


def states(sweep: Path) -> dict[str, list[PoolState]]:
    """Case -> the pools of its trials, from their ledgers alone."""
    found: dict[str, list[PoolState]] = {}
    for trial in json.loads(run_plan(sweep.parent))["trials"]:
        found.setdefault(trial["cases"][0], []).append(
            replay(sweep / "trials" / trial["id"] / "ledger")
        )
    return found


def run_plan(folder: Path) -> str:
    (folder / "log").unlink()
    assert run_cli(["plan", "spec.yaml", "--json"], folder) == 0
    return (folder / "log").read_text()


def test_every_choice_spends_its_budget_and_no_more(tmp_path: Path) -> None:
    folder = written(tmp_path, CHOICES)
    assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()
    budget = 60 * np.log2(10)
    found = states(folder / "out")
    for name, pools in found.items():
        for pool in pools:
            counts = pool.counts()
            labels = pool.labels[pool.origins == INITIAL]
            assert budget - 1 < counts.label_bits + counts.question_bits <= budget + 1e-6
            assert counts.rounds == 2
            assert pool.quotas == quotas(sum(pool.quotas), [0.6, 0.0, 0.4])
            if name == "uniform":
                assert labels.size == 10
            else:
                assert np.bincount(labels, minlength=10).min() == 1
                assert (labels.size > 10) == (name == "priced")
    assert any(
        np.unique(pool.labels[pool.origins == INITIAL]).size < 10 for pool in found["uniform"]
    ), "no class was missing, so this test shows little"
    sizes = [int(np.sum(pool.origins == INITIAL)) for pool in found["priced"]]
    assert sizes[0] != sizes[1], "the number of draws is random"
    # And the report says what was bought, not what was expected.
    rows = {
        row["case"]: row
        for row in json.loads((folder / "out" / "report" / "report.json").read_text())["rows"]
    }
    assert rows["priced"]["schedule"]["initial_labels"] == round(sum(sizes) / len(sizes))
    assert sum(rows["priced"]["schedule"]["quotas"]) == pytest.approx(
        np.mean([pool.counts().questions for pool in found["priced"]]), abs=2
    )
    assert "drawn" not in rows["uniform"]["schedule"]
    # Stage 0 and the stages after rounds 1 and 3 of each of six trials; the empty round is the
    # training before it again.
    assert sum(1 for _ in (folder / "out" / "stages").glob("*/record.json")) == 18


def test_a_priced_trial_killed_anywhere_ends_with_the_same_ledger(tmp_path: Path) -> None:
    whole, killed = ledgers_whole_and_killed(tmp_path, ONE_PRICED)
    assert replay(killed).quotas == replay(whole).quotas


def test_draws_beyond_the_budget_fail_their_trial_alone(tmp_path: Path) -> None:
    # 28 labels are expected for one of each class, and this budget holds 30: one seed of these
    # needs more.
    spec = CHOICES.replace("full_labels: 60", "full_labels: 30").replace(
        "seeds: [0, 1]", "seeds: [0, 1, 2, 3]"
    )
    folder = written(tmp_path, spec.replace("  uniform: {schedule.initial_choice: uniform}\n", ""))
    assert run_cli(SWEEP, folder) == 1, (folder / "log").read_text()
    log = (folder / "log").read_text()
    assert (
        "raise the budget, lower schedule.initial_labels_per_class, or write"
        " schedule.initial_choice: uniform" in log
    )
    assert "Traceback" not in log
    errors = [json.loads(path.read_text()) for path in folder.glob("out/trials/*/error.json")]
    assert 0 < len(errors) < 4
    assert {error["kind"] for error in errors} == {"DataError"}
    assert not [
        ledger
        for path in folder.glob("out/trials/*/error.json")
        for ledger in path.parent.glob("ledger/*.parquet")
    ], "nothing was bought"
