"""A task of several labels an image, end to end, with data and a method of another package."""

from __future__ import annotations

import html
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score

import orchestrator as oc
from orchestrator.catalogue import INSTALLED
from orchestrator.commands.plan import print_plan
from orchestrator.contracts import SourceContract
from orchestrator.data.prepare import prepare
from orchestrator.labelling import test_labels as labels_of_the_test_set
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.tasks.multilabel import MultiLabel
from orchestrator.reporting import status
from orchestrator.reporting.results import load
from orchestrator.storage.segments import open_segments
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.config import ResourcesConfig
from search_spaces.reading.errors import SpecError
from tests.toys.tags import CLASSES, Tagger, Tags
from trainers.errors import UserError

PLUGINS = [Tags, Tagger]


def spec(**base: Any) -> dict[str, Any]:
    return {
        "name": "tags",
        "dataset": {"source": Tags()} | {"validation": {"from": "initial_labels", "per_class": 1}},
        "budget": {"bits": 400},
        "base": {
            "method": Tagger(),
            "task": MultiLabel(),
            "schedule": {
                "initial_labels_per_class": 5,
                "split": [0.5, 0.5],
                "initial_choice": "uniform",
            },
            "query": {"strategy": "easy"},
        }
        | base,
        "cases": {
            "vectors": {},
            "positives": {"task.label": "positive"},
            "vectors alone": {
                "schedule.split": [],
                "schedule.initial_labels_per_class": 11,
                "budget.bits": 396,
            },
        },
        "seeds": [0, 1],
    }


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> oc.Sweep:
    return oc.sweep(spec(), out=tmp_path_factory.mktemp("tags") / "out", progress=False)


class TestTags(SourceContract):
    def make(self, folder: Path) -> Tags:
        return Tags()


def test_it_is_planned_at_the_prices_of_its_task() -> None:
    planned = {row["cases"][0]: row for row in oc.plan(spec())["trials"]}
    vectors, positives = planned["vectors"], planned["positives"]
    assert vectors["schedule"]["initial_labels"] == positives["schedule"]["initial_labels"] == 30
    assert sum(vectors["schedule"]["quotas"]) == 400 - 30 * CLASSES
    assert sum(positives["schedule"]["quotas"]) == math.floor(400 - 30 * math.log2(CLASSES))


def test_every_trial_is_trained_asked_and_scored(swept: oc.Sweep) -> None:
    stages = swept.frame()
    assert swept.counts()["finished"] == 6
    assert len(stages) == 2 * (3 + 3 + 1)
    assert stages["test"].between(0, 100).all()
    by_case = dict(list(stages.groupby("case")))
    for case in ("vectors", "positives"):
        rows = by_case[case].groupby("seed")
        assert (rows["test"].last() > rows["test"].first()).all(), "answers teach"
    assert (Path(swept.location) / "report" / "report.html").is_file()


def test_every_form_of_the_report_says_what_is_bought_asked_and_measured(swept: oc.Sweep) -> None:
    folder = Path(swept.location) / "report"
    vectors = "Images with several labels: a label is all categories of an image"
    for name in ("report.md", "report.html"):
        page = html.unescape((folder / name).read_text())
        assert vectors in page and "a label is one category that an image has" in page
        assert "validation mAP" in page and "yes, %" in page
        for wrong in ("validation accuracy", "test accuracy", "guess accuracy", "right, %"):
            assert wrong not in page, f"{name}: {wrong}"
    assert f"{CLASSES} categories, several an item" in html.unescape(
        (folder / "report.html").read_text()
    )
    for name in ("report.csv", "report-rows.csv"):
        assert set(pd.read_csv(folder / name)["metric"]) == {"mAP"}
    console = Console(file=io.StringIO(), width=200)
    known = INSTALLED.adding("source", Tags).adding("method", Tagger)
    results = load(SweepLayout.at(swept.location), catalogue=known)
    console.print(status.render(results, ResourcesConfig()))
    print_plan(oc.plan(spec()), console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "validation (mAP) after each training" in said and vectors in said
    assert "2.72 s a question and 60 s a label" in said


def test_what_is_recorded_is_what_the_data_says(swept: oc.Sweep) -> None:
    from orchestrator.labelling.hidden_labels import train_labels

    data = prepare(Tags())
    truth, test_truth = train_labels(data.labels_dir), labels_of_the_test_set.read(data.labels_dir)
    several = 0
    for trial in (Path(swept.location) / "trials").iterdir():
        state = fold(None, Ledger(open_segments(trial / "ledger")).read(), MultiLabel())
        assert state is not None
        facts = state.facts
        assert np.all(truth[facts.positives.ids, facts.positives.classes] == 1)
        assert np.all(truth[facts.negatives.ids, facts.negatives.classes] == 0)
        assert state.spent() <= state.terms.budget_bits + 1e-6
        for one in state.rounds:
            several += int(np.max(np.bincount(one.ids)) > 1)
        record = json.loads(sorted((trial / "stages").glob("*.json"))[-1].read_text())
        assert record["metric"] == "mAP"
        committed = Path(swept.location) / "stages" / record["key"]
        files = json.loads((committed / "record.json").read_text())["files"]
        scores = np.load(committed / files["scores/test_probabilities_last"]["name"])
        expected = 100 * np.mean(
            [average_precision_score(test_truth[:, c], scores[:, c]) for c in range(CLASSES)]
        )
        assert record["test_top1_last"] == pytest.approx(expected)
        assert record["bits"]["total"] == pytest.approx(state.spent())
    assert several, "some round asks about an image twice"


def test_a_trial_that_lost_its_records_makes_the_same_ones_again(
    swept: oc.Sweep, tmp_path: Path
) -> None:
    trial = sorted((Path(swept.location) / "trials").iterdir())[0]
    before = {path: path.read_bytes() for path in (trial / "stages").glob("*.json")}
    for path in before:
        path.unlink()
    oc.resume(Path(swept.location), plugins=PLUGINS, progress=False)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"task": {"name": "multiclass"}}, "does not train for task multiclass"),
        ({"method": {"name": "mean_teacher"}}, "does not train for task multilabel"),
        (
            {
                "method": {"name": "mean_teacher"},
                "task": {"name": "multiclass"},
            },
            "is about one class an image, and tags has several classes an image",
        ),
        ({"query": {"strategy": "badge"}}, "badge"),
        (
            {"task": MultiLabel(per_image=1), "query": {"strategy": "easy", "requery": "never"}},
            "in one round only, and there are 220 questions for 200 images, 1 of each at most",
        ),
        (
            {
                "schedule": {
                    "initial_labels_per_class": 5,
                    "split": [1.0],
                    "initial_choice": "priced_balanced",
                }
            },
            "initial_choice: priced_balanced has no meaning for task multilabel",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(base: dict[str, Any], said: str) -> None:
    wrong = spec(**base)
    wrong["cases"] = {"one": {}}
    wrong["dataset"]["source"] = Tags(items=200)
    with pytest.raises(SpecError, match=said):
        oc.plan(wrong)


def test_the_classes_are_asked_for_by_name(swept: oc.Sweep) -> None:
    with pytest.raises(UserError, match=r"tests\.toys\.tags:"):
        oc.load(Path(swept.location))
