"""Single positives, pseudo labels and answers about pairs, from a spec to the report."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator as oc
from orchestrator.catalogue import load_spec
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.tasks.multilabel import MultiLabel
from orchestrator.storage.segments import open_segments
from search_spaces.reading.trials import enumerate_trials
from tests.helpers.dying import ledgers_whole_and_killed
from tests.helpers.label_lists import WRITERS
from trainers.spml.labels import known_states, pseudo_labels

TAUS = [0.3, 0.55, 0.75, 0.95]

SPEC = """\
name: pairs
dataset: {name: features, path: PATH, validation: {from: share, share: 0.2}}
budget: {full_labels: 160}
base:
  task: {name: multilabel, label: positive}
  method: {name: spml, epochs: 4, learning_rate: 0.03, batch_size: 16, student: last}
  schedule: {initial_labels_per_class: 20, initial_choice: uniform, split: [1.0, 0.0]}
  query: {strategy: margin}
seeds: [0]
"""
"""Single positives of 80 of 160 images, a round of answers, and a student at no price."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 vectors with some of four categories each."""
    file, random = tmp_path_factory.mktemp("data") / "pairs.npz", np.random.default_rng(0)
    x = random.normal(size=(260, 12)).astype(np.float32)
    score = x @ random.normal(size=(12, 4))
    y = (score > 1.5).astype(np.int64)
    y[np.arange(260), score.argmax(1)] = 1
    np.savez(file, x=x[:200], y=y[:200], x_test=x[200:], y_test=y[200:])
    return file


def test_fewer_labels_are_made_the_higher_the_threshold_at_equal_bits(
    path: Path, tmp_path: Path
) -> None:
    spec = {
        "name": "taus",
        "dataset": {
            "name": "features",
            "path": str(path),
            "validation": {"from": "share", "share": 0.2},
        },
        "budget": {"full_labels": 160},
        "base": {
            "task": {"name": "multilabel", "label": "positive", "per_image": 3},
            "method": {"name": "spml", "epochs": 6, "learning_rate": 0.03, "batch_size": 16},
            "schedule": {
                "initial_labels_per_class": 20,
                "initial_choice": "uniform",
                "split": [1.0, 0.0],
            },
            "query": {"strategy": "easy"},
        },
        "cases": {
            "teacher": {"schedule.split": [1.0]},
            **{str(tau): {"method.student": "last", "method.threshold": tau} for tau in TAUS},
        },
        "seeds": [0, 1],
    }
    planned = {row["cases"][0]: row for row in oc.plan(spec)["trials"]}
    assert {row["bits"] for row in planned.values()} == {160 * 2}
    assert planned["0.55"]["schedule"]["quotas"] == [160, 0]

    swept = oc.sweep(spec, out=tmp_path / "out", progress=False)
    stages = swept.frame()
    figure = "pseudo labels per image"
    counts = stages[stages["stage"] == 2].pivot(index="seed", columns="case", values=figure)
    for earlier, later in pairwise(TAUS):
        assert (counts[str(earlier)] >= counts[str(later)]).all()
    # The teacher of all is one training, and a stage without a student has no figure.
    assert stages[stages["stage"] == 1].groupby("seed")["trained"].sum().tolist() == [1, 1]
    assert stages[stages["stage"] < 2][figure].isna().all()
    assert "| pseudo labels per image |" in (tmp_path / "out/report/report.md").read_text()

    # What a student learned is what its teacher said and the answers overruled.
    for candidate in stages[stages["stage"] == 2].to_dict("records"):
        trial = tmp_path / "out" / "trials" / candidate["trial"]
        state = fold(None, Ledger(open_segments(trial / "ledger")).read(), MultiLabel())
        assert state is not None
        inputs = state.training_inputs()
        assert len(inputs.negative_ids) and state.counts().question_bits == 160
        teacher = json.loads(sorted((trial / "stages").glob("*.json"))[1].read_text())["key"]
        record = json.loads((tmp_path / "out/stages" / teacher / "record.json").read_text())
        file = record["files"]["scores/probabilities"]["name"]
        said = np.load(tmp_path / "out/stages" / teacher / file)
        labels = pseudo_labels(
            said, known_states(inputs, 4), float(candidate["case"]), keep_observed=True
        )
        assert candidate[figure] == pytest.approx((labels > 0).sum(1).mean(), rel=1e-6)


def test_teacher_and_student_killed_anywhere_end_as_if_they_had_not_been(
    path: Path, tmp_path: Path
) -> None:
    settings = "loss: em_apl, warmup_epochs: 1, pseudo_weight: 0.5"
    spec = SPEC.replace("PATH", str(path)).replace("student: last", f"student: last, {settings}")
    ledgers_whole_and_killed(tmp_path, spec + "resources: {checkpoint_seconds: 0}\n")
    found = [
        {
            record.parent.name: json.loads(record.read_text())["files"]
            for record in (tmp_path / name / "out" / "stages").glob("*/record.json")
        }
        for name in ("whole", "killed")
    ]
    digests: list[Any] = [
        {key: {role: file["sha256"] for role, file in files.items()} for key, files in one.items()}
        for one in found
    ]
    assert digests[0] == digests[1] and len(digests[0]) == 3


def bits_of(name: str, *overrides: str) -> dict[str, float]:
    trials = enumerate_trials(load_spec(name, overrides)) or []
    return {case: trial.bits for trial in trials for case in trial.cases}


def test_the_rows_of_the_packaged_specs_cost_what_they_say(tmp_path: Path) -> None:
    random, file = np.random.default_rng(0), tmp_path / "x.npz"
    y = (random.random((16_100, 20)) < 0.1).astype(np.int64)
    y[np.arange(16_100), random.integers(0, 20, 16_100)] = 1
    x = random.normal(size=(16_100, 2)).astype(np.float32)
    np.savez(file, x=x[:16_000], y=y[:16_000], x_test=x[16_000:], y_test=y[16_000:])
    names = {
        "pseudo_labels.yaml": (3200 * np.log2(10), 32_000, []),
        "pseudo_labels_features.yaml": (12_800 * np.log2(20), 256_000, [f"dataset.path={file}"]),
    }
    factors = {"half the bits": 0.5, "twice the bits": 2.0}
    for name, (bits, everything, overrides) in names.items():
        for case, found in bits_of(name, *overrides).items():
            wanted = bits * factors.get(case.partition(":")[0], 1.0)
            wanted = everything if case == "all vectors" else wanted
            assert found == pytest.approx(wanted, rel=0.005), case


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_packaged_specs_of_published_sets_are_planned_where_their_folders_are(
    name: str, tmp_path: Path
) -> None:
    folder = WRITERS[name](tmp_path / name)
    spec = f"pseudo_labels_{name.removesuffix('_attributes')}.yaml"
    fewer = [
        "schedule.initial_labels_per_class=1",
        "budget.full_labels=3",
        "resources.gpus_per_worker=0",
        # Of three categories, and not of the 312 that 31.4 are some of.
        "method.expected_positives=2",
    ]
    trials = enumerate_trials(load_spec(spec, [f"dataset.path={folder}", *fewer])) or []
    assert [trial.bits for trial in trials] == pytest.approx([3 * np.log2(3)] * len(trials))
    thresholds = {trial.config.method.threshold for trial in trials if trial.schedule.quotas}
    assert thresholds == {0.55, 0.65, 0.75, 0.85, 0.95}
    whole = load_spec(spec, [f"dataset.path={folder}", "cases={}", *fewer])
    per_class = whole.text.partition("initial_labels_per_class: ")[2].split()[0]
    (labels,) = re.findall(r"full_labels: (\d+)", whole.text)
    sizes = {"voc12": 20, "coco14": 80, "nuswide": 81, "cub_attributes": 312}
    assert int(labels) == int(per_class) * sizes[name]
