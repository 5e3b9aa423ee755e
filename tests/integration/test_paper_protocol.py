"""What the one-bit paper's comparisons rest on, in whole sweeps: base and NLS part at the second
training, and the settings of its published code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.labelling.ledger import Ledger
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.segments import open_segments
from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import StageStore
from tests.helpers.dying import run_cli
from tests.helpers.on_disk import trial_in
from tests.helpers.sweeps import read_stages, written

pytestmark = pytest.mark.slow

BASE_AND_NLS = """\
name: parity
dataset: {name: digits, validation: {from: none}}
budget: {full_labels: 120, mode: exact}
base:
  method: {name: mean_teacher, ema_decay: 0.9, epochs: 2, batch_size: 128, learning_rate: 0.2}
  schedule: {initial_labels_per_class: 2, split: [0.6, 0.4]}
cases:
  base: {method.nls: false}
  NLS: {}
seeds: [0]
resources: {share_stages: false}
"""

AUTHORS = """\
name: authors
dataset: {name: digits, validation: {from: none}}
budget: {full_labels: 700, mode: exact}
base:
  method: {name: mean_teacher, ema_decay: 0.9, epochs: 2, batch_size: 128, learning_rate: 0.2,
           labelled_per_batch: [8, 24],
           teacher_init: random, warmup_epochs: 1}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5], initial_choice: first}
  query: {strategy: mixed, easy_share: 0.25, mask_refused: false}
cases:
  authors: {}
seeds: [0, 1]
"""


def swept(folder: Path, spec: str) -> dict[str, list[Path]]:
    """Case -> folders of its trials."""
    written(folder, spec)
    assert run_cli(["sweep", "spec.yaml", "--engine", "inline", "--out", "out"], folder) == 0, (
        folder / "log"
    ).read_text()
    found: dict[str, list[Path]] = {}
    for candidate in load_candidates(SweepLayout.at(folder / "out")):
        for trial in candidate.trials:
            found.setdefault(trial.cases[0], []).append(folder / "out" / "trials" / trial.id)
    return found


def segments(trial: Path) -> dict[tuple[str, int], dict[str, list[Any]]]:
    """(kind, round) -> columns."""
    read = Ledger(open_segments(trial / "ledger")).read()
    return {
        (segment.kind, segment.round): {
            name: column.tolist() for name, column in segment.columns.items()
        }
        for segment in read
    }


def scores(trial: Path, stage: int) -> dict[str, bytes]:
    key = read_stages(trial_in(trial))[stage]["key"]
    found = StageStore(FolderStore(trial.parents[1])).find(key)
    assert found is not None
    return {name: array.tobytes() for name, array in found.scores().items()}


def test_base_and_nls_have_one_first_model_and_one_first_round(tmp_path: Path) -> None:
    """Trained apart, without sharing: equal all the same, until there are answers "no" to read."""
    trials = swept(tmp_path, BASE_AND_NLS)
    base, nls = trials["base"][0], trials["NLS"][0]
    assert scores(base, 0) == scores(nls, 0)
    of_base, of_nls = segments(base), segments(nls)
    for part in (("labels", 0), ("plan", 1), ("answers", 1)):
        assert of_base[part] == of_nls[part]
    assert 0 in of_nls["answers", 1]["answer"], "without a refusal the two would be the same"
    assert scores(base, 1) != scores(nls, 1)
    assert of_base["plan", 2] != of_nls["plan", 2]


def test_the_settings_of_the_published_code_do_what_they_say(tmp_path: Path) -> None:
    trials = swept(tmp_path, AUTHORS)["authors"]
    bought = [segments(trial)["labels", 0] for trial in trials]
    assert bought[0] == bought[1], "the first images of each class, whatever the seed"
    for trial in trials:
        found, records = segments(trial), read_stages(trial_in(trial))
        refused = {
            pair
            for pair, answer in zip(
                _questions(found, 1), found["answers", 1]["answer"], strict=True
            )
            if answer == 0
        }
        repeated = sum(pair in refused for pair in _questions(found, 2))
        assert records[2]["wasted"] == repeated > 0
        assert records[2]["questions"] == len(found["plan", 2]["id"]), (
            "a wasted question is paid for"
        )
        # Two epochs of 1,180 images without a label in batches of 120, then of fewer in batches of
        # 104.
        first, second = (
            json.loads((trial.parents[1] / "stages" / record["key"] / "record.json").read_text())[
                "metrics"
            ]
            for record in records[:2]
        )
        assert first["steps"] == 2 * (1180 // 120)
        assert second["steps"] == 2 * ((1200 - records[1]["labelled"]) // 104)


def _questions(
    found: dict[tuple[str, int], dict[str, list[Any]]], number: int
) -> list[tuple[int, int]]:
    """(image, class) of each question of a round, in the order of its answers."""
    part = found["answers", number]
    return list(zip(part["id"], part["guess"], strict=True))
