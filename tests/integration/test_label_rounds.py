"""Rounds that buy labels, through the command line: prices, plans, ledgers, kills, and specs that
cannot mean it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.commands.replay import questions, replay, show
from orchestrator.labelling.state import BOUGHT
from tests.helpers.dying import ledgers_whole_and_killed, run_cli
from tests.helpers.sweeps import written

pytestmark = pytest.mark.slow

SPEC = """\
name: labels
dataset: {name: digits_features, validation: {from: split, per_class: 5}}
budget: {full_labels: 50}
base:
  method: {name: head}
  schedule: {initial_labels_per_class: 2, split: [0.25, 0.0, 0.75]}
  query: {strategy: margin}
cases:
  answers: {}
  labels: {schedule.rounds_buy: labels}
seeds: [0]
"""
ONE = SPEC.replace("  answers: {}\n", "")
SWEEP = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]
QUOTAS = [8, 0, 22]


def test_rounds_of_labels_spend_the_budget_whole_and_are_told_from_questions(
    tmp_path: Path,
) -> None:
    folder = written(tmp_path, SPEC)
    assert run_cli(["plan", "spec.yaml", "--json"], folder) == 0
    planned = {row["cases"][0]: row for row in json.loads((folder / "log").read_text())["trials"]}
    labels = planned["labels"]
    assert labels["schedule"] == {"initial_labels": 20, "quotas": QUOTAS, "buys": "labels"}
    assert labels["questions"] == 0
    assert labels["bits"] == pytest.approx(50 * np.log2(10))
    assert labels["annotation_hours"] == pytest.approx(50 * 60 / 3600)
    (folder / "log").unlink()
    assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()
    assert "20 + 8 + 0 + 22" in (folder / "log").read_text()

    ledger = folder / "out" / "trials" / labels["id"] / "ledger"
    counts, state = replay(ledger).counts(), replay(ledger)
    assert (counts.initial, counts.bought, counts.labelled, counts.questions) == (20, 30, 50, 0)
    assert counts.label_bits == pytest.approx(50 * np.log2(10))
    assert [(row["kind"], row["bits"]) for row in show(ledger) if row["round"]] == [
        ("plan", 0),
        ("label_answers", pytest.approx(8 * np.log2(10))),
        ("plan", 0),
        ("plan", 0),
        ("label_answers", pytest.approx(22 * np.log2(10))),
    ]
    rows = questions(ledger)
    assert {row["answer"] for row in rows} == {"labelled"}
    assert {row["id"]: row["label"] for row in rows} == {
        int(i): int(state.labels[i]) for i in np.flatnonzero(state.origins == BOUGHT)
    }
    # What the model guessed is on record, and it was often wrong: else nothing was learned.
    assert any(row["guess"] != row["label"] for row in rows)

    report = json.loads((folder / "out" / "report" / "report.json").read_text())
    row = next(row for row in report["rows"] if row["case"] == "labels")
    assert row["schedule"] == {"initial_labels": 20, "quotas": QUOTAS, "buys": "labels"}
    assert (row["questions"], row["yes"], row["no"]) == (0, 0, 0)
    assert row["annotation_hours"] == pytest.approx(50 * 60 / 3600)
    page = (folder / "out" / "report" / "report.html").read_text()
    assert "20 + 8 + 0 + 22 labels" in page
    # No answer was given there, so the table of answers has nothing of it.
    answers = page[page.index("All rounds in numbers") :].partition("</table>")[0]
    assert "<td>answers</td>" in answers
    assert "<td>labels</td>" not in answers
    # Stage 0 is one training: no round has anything to do with it.
    assert report["stage_trainings"]["distinct"] == 5
    assert run_cli(["ledger", "verify", "out"], folder) == 0


def test_a_trial_that_buys_labels_killed_anywhere_ends_with_the_same_ledger(
    tmp_path: Path,
) -> None:
    ledgers_whole_and_killed(tmp_path, ONE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("budget: {full_labels: 50}", "budget: {mode: table, questions: 100}"),
            "mode table gives a number of questions, and these rounds buy labels",
        ),
        (
            ("split: [", "initial_choice: priced_balanced, split: ["),
            "leaves its rounds what the draws do not cost, in questions",
        ),
        (
            ("full_labels: 50", "full_labels: 2000"),
            "2000 labels are to be bought in all, and digits_features has",
        ),
        (("full_labels: 50", "bits: 70"), "2 rounds share 1 labels; each round needs one"),
        (("full_labels: 50", "bits: 66"), "|D_S| = 20 labels cost 66.4386 bits"),
        (
            ("rounds_buy: labels", "rounds_buy: label"),
            "schedule.rounds_buy = 'label': must be one of answers, labels",
        ),
    ],
)
def test_what_cannot_be_bought_is_refused_with_its_place(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    folder = written(tmp_path, ONE.replace(*change))
    assert run_cli(["plan", "spec.yaml"], folder) == 2
    log = " ".join((folder / "log").read_text().split())
    assert said in log
    assert "spec.yaml:" in log
    assert "Traceback" not in log


def test_what_rounds_buy_can_be_searched(tmp_path: Path) -> None:
    spec = ONE.replace(
        "cases:\n  labels: {schedule.rounds_buy: labels}\n",
        "vary: {schedule.rounds_buy: {choice: [answers, labels]}}\n",
    )
    folder = written(tmp_path, spec)
    assert run_cli(["plan", "spec.yaml", "--json"], folder) == 0, (folder / "log").read_text()
    rows = json.loads((folder / "log").read_text())["trials"]
    assert [row["schedule"]["buys"] for row in rows] == ["answers", "labels"]
