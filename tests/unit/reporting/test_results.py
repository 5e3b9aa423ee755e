"""Reading a sweep's folder: finished, running, cut off in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.reporting.results import ResultsDamaged, load, printable
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.resolved import SweepError
from tests.helpers.on_disk import disk
from tests.helpers.sweep_folder import (
    ABLATIONS,
    Case,
    fail,
    records_of,
    trial_of,
    write_records,
    write_sweep,
)

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
    assert [result.state for result in load(layout).trials] == [
        "finished",
        "running",
        "failed",
        "finished",
        "pending",
    ]
    assert not load(layout).ended


def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0, 1))
    path = disk(layout.trial(trial_of(TWO, 0).id)).stage(1)
    path.write_bytes(b"\xff\x00 not json\n")
    found = load(layout)
    assert [len(result.records) for result in found.trials] == [1, 3]
    assert len(found.damaged) == 1
    assert found.damaged[0].startswith(f"{path}: damaged")
    with pytest.raises(ResultsDamaged, match=r"0001\.json"):
        found.checked()


def test_stages_after_a_missing_one_do_not_count(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    records = records_of(TWO, 0)
    write_records(layout, trial_of(TWO, 0), [records[0], records[2]])
    assert [record.stage for record in load(layout).trials[0].records] == [0]


def test_no_number_is_no_accuracy(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    write_records(
        layout,
        trial_of(TWO, 0),
        [records_of(TWO, 0)[0] | {"val_top1": None, "test_top1_last": None}],
    )
    record = load(layout).trials[0].records[0]
    assert (record.validation, record.test) == (None, None)


def test_a_record_names_its_file_of_right_guesses_or_has_none(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0, 1), done=False)
    write_records(
        layout, trial_of(TWO, 0), [records_of(TWO, 0)[0] | {"test_correct_sha256": "ab" * 32}]
    )
    write_records(layout, trial_of(TWO, 1), records_of(TWO, 1)[:1])
    assert [trial.records[0].test_correct_sha256 for trial in load(layout).trials] == [
        "ab" * 32,
        None,
    ]


def test_an_unreadable_reason_is_still_a_failure(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, [TWO], seeds=(0,), done=False)
    fail(layout, trial_of(TWO, 0))
    disk(layout.trial(trial_of(TWO, 0).id)).error.write_text("{")
    assert load(layout).trials[0].state == "failed"


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="holds no sweep"):
        load(SweepLayout.at(tmp_path))


def test_a_search_has_not_ended_before_all_candidates_are_drawn(tmp_path: Path) -> None:
    drawn = [Case(names=(), settings={"method.consistency_weight": 3.0})]
    search = {"algorithm": "random", "num_candidates": 2, "seed": 0}
    assert not load(write_sweep(tmp_path / "a", drawn, search=search)).ended
    assert load(write_sweep(tmp_path / "b", drawn, search=search | {"num_candidates": 1})).ended


@settings(deadline=None)
@given(st.text())
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) >= len(text)


def test_escapes_for_a_terminal_are_written_out() -> None:
    assert (
        printable("a\x1b]0;title\x07 \x9b31m \u202eevil\tb")
        == "a\\x1b]0;title\\x07 \\x9b31m \\u202eevil b"
    )
