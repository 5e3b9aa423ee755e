"""A task brings a metric of its own: validation, test and report are in it, and nothing else of
the program knows of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score

import orchestrator as oc
from orchestrator.data.prepare import prepare
from orchestrator.data.sources.digits import Digits
from orchestrator.labelling import test_labels as labels_of_the_test_set
from orchestrator.labelling.tasks.multiclass import MultiClass
from search_spaces.reading.errors import SpecError
from tests.helpers.sweeps import ONE_TRIAL_SPEC
from tests.toys.balanced import BALANCED_ACCURACY, Balanced
from trainers.metrics import MEAN_AVERAGE_PRECISION, Metric


def spec(task: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    found["base"]["task"] = task
    return found | more


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> oc.Sweep:
    # Two ranks: the metric crosses to processes of its own.
    return oc.sweep(
        spec(Balanced(), resources={"workers": 2}),
        out=tmp_path_factory.mktemp("balanced") / "out",
        progress=False,
    )


def test_validation_and_test_are_in_the_metric_of_the_task(swept: oc.Sweep) -> None:
    data = prepare(Digits())
    truth = labels_of_the_test_set.read(data.labels_dir)
    records = sorted(Path(swept.location).glob("trials/*/stages/*.json"))
    assert len(records) == 3
    for path in records:
        record = json.loads(path.read_text())
        committed = Path(swept.location) / "stages" / record["key"]
        kept = json.loads((committed / "record.json").read_text())
        guesses = np.load(committed / kept["files"]["scores/test_guess_last"]["name"])
        assert record["metric"] == kept["metrics"]["metric"] == "balanced accuracy"
        assert record["test_top1_last"] == pytest.approx(
            100 * balanced_accuracy_score(truth, guesses)
        )
        assert 0 <= kept["metrics"]["validation_last"] <= 100
        assert record["test_correct_sha256"] is None


def test_the_report_says_by_what_it_judges(swept: oc.Sweep) -> None:
    assert swept.report()["metric"] == "balanced accuracy"
    page = (Path(swept.location) / "report" / "report.md").read_text()
    assert "Validation and test are balanced accuracy in percent" in page


def test_rows_that_other_metrics_judge_never_lead_together(tmp_path: Path) -> None:
    both = spec(MultiClass(), cases={"share": {}, "balanced": {"task": Balanced()}})
    report = oc.sweep(both, out=tmp_path / "out", progress=False).report()
    # No stage serves both: the best epoch is another one.
    assert len(list((tmp_path / "out" / "stages").glob("*/record.json"))) == 6
    assert report["metric"] == "top-1 or balanced accuracy"
    other = report["rows"][1]
    assert not other["like_with_like"]
    assert [item for item in other["also_differs"] if item["key"] == "metric"]


@dataclass(frozen=True, kw_only=True)
class Named(MultiClass):
    name: ClassVar[str] = "named"
    metric: ClassVar[Any] = "top-1"


@dataclass(frozen=True, kw_only=True)
class Taken(MultiClass):
    name: ClassVar[str] = "taken"
    metric: ClassVar[Metric] = replace(BALANCED_ACCURACY, name="top-1")


@dataclass(frozen=True, kw_only=True)
class Precise(MultiClass):
    name: ClassVar[str] = "precise"
    metric: ClassVar[Metric] = replace(MEAN_AVERAGE_PRECISION, name="precise", array="gradients")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Named(), "task named is judged by 'top-1', which is no trainers.metrics.Metric"),
        (Taken(), "a metric of its own that it calls top-1, as another one is called"),
        (Precise(), "made of the scores gradients, and method mean_teacher does not offer"),
    ],
)
def test_a_metric_that_cannot_be_had_is_refused(task: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        oc.plan(spec(task))
