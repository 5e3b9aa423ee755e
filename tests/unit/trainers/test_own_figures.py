"""What a method may add to a stage: figures of its own, arrays for the stage after it, and an end
before the last epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

import orchestrator as oc
from tests.helpers.stage_world import committed, some_inputs, stage_request, write_cache
from tests.toys.softmax import Softmax
from tests.toys.softmax_trainer import SoftmaxTrainer
from trainers.run import run_stage
from trainers.stage import StageRequest


@dataclass(frozen=True, kw_only=True)
class Counting(Softmax):
    """Says how many labels it saw, keeps its vectors, and stops where validation does not gain."""

    name: ClassVar[str] = "counting"
    leaves: ClassVar[tuple[str, ...]] = ("embedding",)
    trainer: ClassVar[str] = f"{__name__}:CountingTrainer"

    epochs: int = 30
    patient: bool = False
    """Whether it takes every epoch."""


class CountingTrainer(SoftmaxTrainer):
    def is_over(self, history: Any) -> bool:
        values = [entry["validation"] for entry in history]
        return not self.settings.patient and len(values) > 1 and values[-1] <= max(values[:-1])

    def figures(self) -> Any:
        said = {"labels seen": float(len(self.ids)), "a <b>| c": 0.5 * self.steps}
        return replace(super().figures(), named=said)


@pytest.fixture
def request_(tmp_path: Path) -> StageRequest:
    data, truth = write_cache(tmp_path / "cache")
    work = tmp_path / "work"
    return stage_request(data, some_inputs(truth), work, method=Counting())


def test_a_training_ends_where_its_method_says(request_: StageRequest) -> None:
    outcome = run_stage(request_)
    history = [entry["validation"] for entry in outcome.metrics["history"]]
    assert 1 < len(history) == outcome.metrics["epochs"] < 30
    assert all(value < after for value, after in pairwise(history[:-1]))
    assert history[-1] <= history[-2] == outcome.metrics["validation_best"]
    assert outcome.metrics["best_val_epoch"] == len(history) - 2
    arrays = committed(request_, outcome).scores()
    assert (arrays["test_guess_best_val"] != arrays["test_guess_last"]).any()


def test_one_that_died_after_its_end_trains_no_further(request_: StageRequest) -> None:
    whole = run_stage(request_)
    seen: list[int] = []

    class Died(BaseException):
        pass

    def die(entry: dict[str, Any]) -> None:
        seen.append(entry["epoch"])
        if len(seen) == whole.metrics["epochs"]:
            raise Died

    with pytest.raises(Died):
        run_stage(replace(request_, attempt="b"), on_epoch=die)
    again = run_stage(replace(request_, attempt="c"), on_epoch=die)
    assert seen == list(range(whole.metrics["epochs"]))
    assert again.metrics["history"] == whole.metrics["history"]
    assert again.metrics["resumed_from_epoch"] == whole.metrics["epochs"]


def test_every_stage_writes_the_arrays_that_a_later_one_reads(request_: StageRequest) -> None:
    assert "embedding" in committed(request_, run_stage(request_)).scores()
    plain = replace(request_, method=Softmax(), attempt="b")
    assert "embedding" not in committed(plain, run_stage(plain)).scores()


def test_figures_reach_the_records_and_every_form_of_the_report(tmp_path: Path) -> None:
    spec = {
        "name": "figures",
        "dataset": {"name": "digits_features", "validation": {"from": "split", "per_class": 2}},
        "budget": {"full_labels": 20},
        "base": {
            "method": Counting(epochs=2),
            "schedule": {"initial_labels_per_class": 1, "split": [1.0]},
            "query": {"strategy": "random"},
        },
        "cases": {"with figures": {}, "without": {"method": Softmax(epochs=2)}},
        "seeds": [0, 1],
    }
    swept = oc.sweep(spec, out=tmp_path / "out", progress=False)
    stages = swept.frame()
    own = stages[stages["case"] == "with figures"]
    assert (own.loc[own["stage"] == 0, "labels seen"] == 10).all()
    assert own.loc[own["stage"] == 1, "labels seen"].gt(10).all()
    assert stages.loc[stages["case"] == "without", "labels seen"].isna().all()

    last = own.loc[own["stage"] == 1, "labels seen"]
    rows = {row["label"]: row for row in swept.report()["rows"]}
    found = rows["with figures"]["named"]["labels seen"]
    assert found == {"mean": pytest.approx(last.mean()), "std": pytest.approx(last.std())}
    assert rows["without"]["named"] == {}

    report = tmp_path / "out" / "report"
    head, *lines = (report / "report-rows.csv").read_text().splitlines()
    at = head.split(",").index("figure_labels_seen_mean")
    assert sorted(line.split(",")[at] for line in lines) == ["", repr(float(last.mean()))]
    assert "figure_labels_seen" in (report / "report.csv").read_text().splitlines()[0].split(",")
    assert "| labels seen |" in (report / "report.md").read_text()
    assert "a <b>" not in (report / "report.md").read_text() + (report / "report.html").read_text()
    assert "<th>labels seen</th>" in (report / "report.html").read_text()

    records = [json.loads(p.read_text()) for p in (tmp_path / "out/trials").rglob("stages/*.json")]
    assert sum("named" in record for record in records) == 4, "others are written as before"
