"""ObCP through the command line: one training with four rounds, killed all the time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.dying import run_cli
from tests.helpers.sweeps import outcome_of, written

SPEC = """\
name: one
dataset: {name: digits_features, validation: {from: split, per_class: 2}}
budget: {full_labels: 60, mode: exact}
base:
  method: {name: obcp, epochs: 8, batch_size: 128, queue_size: 128, mean_epochs: 3,
           recent_epochs: 2, contrastive_weight: 0.3}
  schedule: {initial_labels_per_class: 2, split: [0.25, 0.25, 0.25, 0.25]}
  query: {strategy: uncertainty}
seeds: [0]
resources: {checkpoint_seconds: 0}
"""
WORDS = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]


def trained(root: Path) -> dict[str, dict[str, str]]:
    """Key -> role -> SHA-256 of every file of the trained stages: scores, model and state."""
    found = {}
    for path in root.glob("stages/*/record.json"):
        files = json.loads(path.read_text())["files"]
        found[path.parent.name] = {role: entry["sha256"] for role, entry in files.items()}
    return found


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, killed = (written(tmp_path / name, SPEC) for name in ("whole", "killed"))
    assert run_cli(WORDS, whole) == 0, (whole / "log").read_text()
    # A stage is seven durable calls an epoch and some twenty around it: deaths fall into trainings,
    # between them, and before and after each of the four rounds.
    stages_at_death = []
    while run_cli(WORDS, killed, die_at=31 + 7 * len(stages_at_death) % 5) == -9:
        stages_at_death.append(len(list((killed / "out" / "stages").glob("*/record.json"))))
        assert len(stages_at_death) < 60, "no progress between deaths"
    assert set(stages_at_death) >= {1, 2, 3, 4}, stages_at_death
    assert outcome_of(killed / "out") == outcome_of(whole / "out")
    stages = trained(whole / "out")
    assert len(stages) == 5 and all({"state", "model"} <= files.keys() for files in stages.values())
    assert trained(killed / "out") == stages
