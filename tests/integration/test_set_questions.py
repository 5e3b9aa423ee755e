"""A sweep that asks about sets of classes, from the command line to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import orchestrator as oc
from orchestrator.commands.replay import questions, replay
from search_spaces.reading.errors import SpecError
from tests.helpers.dying import run_cli
from tests.helpers.sweeps import outcome_of
from tests.integration.test_zero_labels import CLASSES, SWEEP, as_mapping, folder_of, ledgers
from tests.toys.softmax import Softmax

SPEC = """\
name: sets
dataset: {name: features, path: mine.npz, validation: {from: none}}
budget: {bits: 500}
base:
  task: {name: multiclass_sets, seconds: 2.0, seconds_per_class: 0.5}
  method: {name: prior}
  start: {name: prior}
  schedule: {initial_labels_per_class: 0, split: [0.4, 0.3, 0.2, 0.1]}
  query: {strategy: hard}
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_of(tmp_path_factory.mktemp("sets"), SPEC)
    assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()
    return folder


@pytest.mark.slow
def test_hours_are_those_of_the_sets_that_were_asked_about(swept: Path) -> None:
    by_hand = []
    for ledger in ledgers(swept / "out"):
        asked = questions(ledger)
        assert len(asked) == 500 and {row["answer"] for row in asked} == {"yes", "no"}
        sizes = [len(row["guess"]) if isinstance(row["guess"], list) else 1 for row in asked]
        assert len(set(sizes)) > 1
        by_hand.append(sum(2.0 + 0.5 * size for size in sizes) / 3600)
    report = json.loads((swept / "out" / "report" / "report.json").read_text())
    (row,) = report["rows"]
    assert row["annotation_hours"] == pytest.approx(np.mean(by_hand), abs=1e-9)
    (swept / "log").unlink()
    assert run_cli(["plan", "spec.yaml", "--json"], swept) == 0
    (trial, _) = json.loads((swept / "log").read_text())["trials"]
    least, most = trial["annotation_hours_least"], trial["annotation_hours"]
    assert (least, most) == pytest.approx((500 * 2.5 / 3600, 500 * 3.5 / 3600))
    assert all(least < hours < most for hours in by_hand)
    assert report["break_even"] is None


@pytest.mark.slow
def test_what_is_learned_is_the_truth_and_each_answer_costs_a_bit(swept: Path) -> None:
    y = np.load(swept / "mine.npz")["y"]
    for ledger in ledgers(swept / "out"):
        state = replay(ledger)
        counts, negatives = state.counts(), state.facts.negatives
        assert (counts.label_bits, counts.question_bits, counts.wasted) == (0, 500, 0)
        assert counts.conflicts == 0 and counts.labelled > 100
        known = state.labels >= 0
        assert np.array_equal(state.labels[known], y[known])
        assert not np.any(y[negatives.ids] == negatives.classes)
    (swept / "log").unlink(missing_ok=True)
    assert run_cli(["ledger", "verify", "out"], swept) == 0, (swept / "log").read_text()


@pytest.mark.slow
def test_one_killed_anywhere_ends_as_if_it_had_not_been(swept: Path, tmp_path: Path) -> None:
    killed, deaths = folder_of(tmp_path, SPEC), 0
    (killed / "mine.npz").write_bytes((swept / "mine.npz").read_bytes())
    while run_cli(SWEEP, killed, die_at=40 + deaths % 7) == -9:
        deaths += 1
        assert deaths < 100, "no progress between deaths"
    assert deaths >= 2
    assert outcome_of(killed / "out") == outcome_of(swept / "out")


def test_what_cannot_be_asked_about_sets_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    sets = {"name": "multiclass_sets"}
    with pytest.raises(SpecError, match="class_balanced looks at the class that a question is"):
        oc.plan(as_mapping(tmp_path, task=sets, query={"strategy": "class_balanced"}))
    for balanced in (False, True):
        query = {"strategy": "even_odds", "balanced": balanced}
        try:
            oc.plan(as_mapping(tmp_path, task=sets, query=query))
            assert not balanced
        except SpecError as error:
            assert balanced and "even_odds looks at the class" in str(error)
    bought = {"initial_labels_per_class": 1, "split": [1.0]}
    spec = as_mapping(tmp_path, task=sets, method=Softmax(), schedule=bought)
    with pytest.raises(SpecError, match="needs the scores probabilities, which method softmax"):
        oc.plan(spec)
    assert oc.plan(as_mapping(tmp_path, task=sets))["trials"]
    assert CLASSES == 6
