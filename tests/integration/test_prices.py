"""A report says of every task what its plan says: labels, questions and hours at the task's own
prices, and break-even where it means something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

import orchestrator as oc
from orchestrator.labelling.tasks.multiclass import MultiClass
from orchestrator.labelling.tasks.multilabel import MultiLabel
from tests.helpers.sweeps import ONE_TRIAL_SPEC
from tests.toys.families import Families
from tests.toys.tags import Tagger, Tags


@dataclass(frozen=True, kw_only=True)
class Dear(MultiClass):
    """One class an image, at twice the price of its information."""

    name: ClassVar[str] = "dear"

    def prices(self, num_classes: int) -> Mapping[str, float]:
        return {"label": 2 * math.log2(num_classes), "answer": 1.0}


def of_digits(task: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    spec["base"]["task"] = task
    spec["budget"] = {"bits": 600}
    return spec


def of_tags() -> dict[str, Any]:
    return {
        "name": "tags",
        "dataset": {"source": Tags(), "validation": {"from": "none"}},
        "budget": {"bits": 400},
        "base": {
            "method": Tagger(epochs=5),
            "task": MultiLabel(),
            "schedule": {
                "initial_labels_per_class": 5,
                "split": [0.5, 0.5],
                "initial_choice": "uniform",
            },
        },
        "cases": {
            "vectors": {},
            "positives": {"task.label": "positive"},
            "alone": {
                "schedule.split": [],
                "schedule.initial_labels_per_class": 11,
                "budget.bits": 396,
            },
        },
        "seeds": [0],
    }


@pytest.mark.parametrize(
    ("spec", "per_bit"),
    [
        (of_digits(MultiClass()), 100 / math.log2(10)),
        (of_digits(Dear()), 100 / math.log2(10) / 2),
        (of_digits(Families()), None),
        (of_tags(), None),
    ],
    ids=["multiclass", "dear", "families", "tags"],
)
def test_labels_questions_and_hours_are_those_of_the_plan(
    spec: dict[str, Any], per_bit: float | None, tmp_path: Path
) -> None:
    swept = oc.sweep(spec, out=tmp_path / "out", progress=False)
    report, planned = swept.report(), oc.plan(spec)["trials"]
    assert len(report["rows"]) == len(planned)
    for row, trial in zip(report["rows"], planned, strict=True):
        assert row["annotation_hours"] == pytest.approx(trial["annotation_hours"])
        assert row["schedule"] == trial["schedule"]
        assert row["questions"] == trial["questions"]
        assert row["bits"] == pytest.approx(trial["bits"])
        for item in row["rounds"]:
            assert (item["worth"]["per_bit"] is None) == (per_bit is None)
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    if per_bit is None:
        assert report["break_even"] is None
        assert "buys more than a full label" not in page
        assert "break-even" not in page
    else:
        assert report["break_even"]["per_bit"] == pytest.approx(per_bit)
        assert "buys more than a full label" in page
