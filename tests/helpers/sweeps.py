"""What two runs of one sweep must have in common, read from what keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.sweeps.layout import SweepLayout, TrialLayout
from orchestrator.sweeps.stage_records import stages_on_record, to_object
from orchestrator.sweeps.stage_store import StageStore

TIMES = (
    "seconds",
    "images_per_second",
    "trained",
    "resumed_from_epoch",
    "key",
    "parent",
    "versions",
    "sha256",
)
"""Fields of a stage record that say how a stage came about, not what it found; two runs of one
trial may differ in these alone.
"""

TINY_SPEC = """\
name: tiny
dataset: {name: digits, validation: {from: split, per_class: 5}}
budget: {full_labels: 60, mode: exact}
base:
  method: {name: mean_teacher, consistency_weight: 10, nls: true, ema_decay: 0.9,
           epochs: 2, batch_size: 128}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
  query: {strategy: random, requery: pool}
cases:
  full labels only: {schedule.initial_labels_per_class: 6, schedule.split: []}
  two stages, base: {method.nls: false}
  two stages, NLS: {}
seeds: [0, 1]
resources: {workers: 1, gpus_per_worker: 0, cpus_per_worker: 1, max_concurrent: 2,
            checkpoint_seconds: 0}
"""


def read_stages(files: TrialLayout) -> list[dict[str, Any]]:
    """Records of a trial's finished stages."""
    return [to_object(record) for record in stages_on_record(files)]


def outcome_of(location: Path | str) -> dict[str, Any]:
    """Everything that must not depend on how a sweep came about, nor on what keeps it: ledgers byte
    for byte, records without their times, guesses of every stage.
    """
    sweep, trials = SweepLayout.at(location), dict[str, Any]()
    for folder in sweep.store.folders(sweep.trials):
        files = sweep.trial(folder.rpartition("/")[2])
        records = read_stages(files)
        guesses = []
        for record in records:
            stage = StageStore(sweep.store).find(record["key"])
            assert stage is not None
            guesses.append({name: array.tobytes() for name, array in stage.scores().items()})
        trials[files.id] = {
            "ledger": {
                name: sweep.store.get(name)
                for name in sweep.store.names(files.ledger)
                if name.endswith(".parquet")
            },
            "records": [
                {name: value for name, value in record.items() if name not in TIMES}
                for record in records
            ],
            "guesses": guesses,
        }
    return trials


ONE_TRIAL_SPEC = """\
name: one
dataset: {name: digits, validation: {from: split, per_class: 5}}
budget: {full_labels: 40, mode: exact}
base:
  method: {name: mean_teacher, consistency_weight: 10, nls: true, ema_decay: 0.9,
           epochs: 2, batch_size: 64}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
cases:
  two stages, NLS: {}
seeds: [0]
resources: {checkpoint_seconds: 0}
"""
"""One trial of three stages with a checkpoint after every epoch: small, and every kind of record is
written.
"""

ONE_HEAD_SPEC = (
    ONE_TRIAL_SPEC.partition("base:")[0].replace("digits", "digits_features")
    + """\
base:
  method: {name: head}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
  query: {strategy: hard}
cases:
  two stages: {}
seeds: [0]
"""
)
"""The same of a method whose stages are one epoch, on feature vectors."""


def written(folder: Path, spec: str) -> Path:
    """The folder, which holds the spec."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(spec)
    return folder
