"""Reading a sweep's folder: finished, running, cut off in the middle of a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.layout import SweepLayout
from orchestrator.results import ResultsError, load, printable
from tests.unit.sweep_folder import ABLATIONS, Case, fail, records_of, trial_of, write_candidates, write_records, write_sweep

TWO = ABLATIONS[4]


def test_every_trial_of_a_finished_sweep_is_finished(tmp_path: Path) -> None:
    found = load(write_sweep(tmp_path))
    assert len(found.candidates) == len(ABLATIONS)
    assert {result.state for result in found.trials} == {"finished"}
    assert found.ended
    assert found.damaged == ()
    assert found.baseline == "full labels only"


def test_a_trial_is_what_its_files_say(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0, 1, 2, 3, 4), done=False)
    for seed, stages in ((0, 3), (1, 1), (2, 1), (3, 3)):
        write_records(layout, trial_of(TWO, seed), records_of(TWO, seed)[:stages])
    fail(layout, trial_of(TWO, 2))
    # An error from an attempt before the one that got through.
    fail(layout, trial_of(TWO, 3))
    assert [result.state for result in load(layout).trials] == ["finished", "running", "failed", "finished", "pending"]
    assert not load(layout).ended


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_half_written_last_line_is_not_there_yet(tmp_path: Path, cut: float) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    records = records_of(TWO, 0)
    whole = json.dumps(records[1])
    write_records(layout, trial_of(TWO, 0), records[:1], tail=whole[: int(cut * len(whole))])
    found = load(layout)
    assert [record.stage for record in found.trials[0].records] == [0]
    assert found.damaged == ()


def test_a_half_written_candidate_is_not_there_yet(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, ABLATIONS[:2])
    write_candidates(layout, ABLATIONS[:2], (0,), tail='{"candidate": "abc", "cases"')
    found = load(layout)
    assert len(found.candidates) == 2
    assert found.damaged == ()


def test_a_damaged_line_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,))
    path = layout.trial(trial_of(TWO, 0).id).stages
    lines = path.read_text().splitlines(keepends=True)
    path.write_bytes(lines[0].encode() + b"\xff\x00 not json\n" + "".join(lines[1:]).encode())
    found = load(layout)
    assert found.trials[0].state == "finished"
    assert found.damaged == (f"{path}:2",)


def test_stages_after_a_missing_one_do_not_count(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    records = records_of(TWO, 0)
    write_records(layout, trial_of(TWO, 0), [records[0], {"stage": 1}, records[2]])
    found = load(layout)
    assert [record.stage for record in found.trials[0].records] == [0]
    assert len(found.damaged) == 1


def test_not_a_number_is_no_accuracy(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    write_records(layout, trial_of(TWO, 0), [records_of(TWO, 0)[0] | {"val_top1": float("nan"), "test_top1_last": None}])
    record = load(layout).trials[0].records[0]
    assert (record.val_top1, record.test_top1_last) == (None, None)


def test_an_unreadable_reason_is_still_a_failure(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    fail(layout, trial_of(TWO, 0))
    layout.trial(trial_of(TWO, 0).id).error.write_text("{")
    assert load(layout).trials[0].state == "failed"


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no sweep"):
        load(SweepLayout(tmp_path))


def test_a_search_has_not_ended_before_all_candidates_are_drawn(tmp_path: Path) -> None:
    drawn = [Case(names=(), settings={"method.consistency_weight": 3.0})]
    search = {"algorithm": "random", "num_candidates": 2, "seed": 0}
    assert not load(write_sweep(tmp_path / "a", drawn, search=search)).ended
    assert load(write_sweep(tmp_path / "b", drawn, search=search | {"num_candidates": 1})).ended


@settings(deadline=None)
@given(st.text())
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)
