"""What is left, how long it takes, and what a watcher sees."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.reporting import results, status
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.config import ResourcesConfig
from search_spaces.reading.trials import stage_prefixes
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
THREE = ABLATIONS[5]
RESOURCES = ResourcesConfig(max_concurrent=2)


def halfway(root: Path) -> SweepLayout:
    """One trial finished, one half, one failed, the others not begun."""
    layout = write_sweep(root, [TWO, THREE], done=False)
    write_records(layout, trial_of(TWO, 0), records_of(TWO, 0))
    write_records(layout, trial_of(TWO, 1), records_of(TWO, 1)[:2])
    fail(layout, trial_of(TWO, 2))
    return layout


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    layout = halfway(tmp_path)
    disk(layout).candidate(2).write_text('{"x":')
    disk(layout).candidate(3).write_text('{"candidate": 3}')
    console = Console(file=io.StringIO(), width=200)
    console.print(status.render(results.load(layout), RESOURCES))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("damaged (") == 2


def test_shared_stages_are_left_once_and_failed_ones_not_at_all(tmp_path: Path) -> None:
    sweep = results.load(halfway(tmp_path))
    done = {*stage_prefixes(trial_of(TWO, 0)), *stage_prefixes(trial_of(TWO, 1))[:2]}
    wanted = {
        key
        for case, seeds in ((TWO, (0, 1)), (THREE, (0, 1, 2)))
        for seed in seeds
        for key in stage_prefixes(trial_of(case, seed))
    } - done
    assert status.remaining(sweep, RESOURCES) == len(wanted)
    # Stage 0 of three stages is that of two stages, which seeds 0 and 1 have trained.
    assert status.remaining(sweep, ResourcesConfig(share_stages=False)) == 1 + 4 + 4 + 4
    assert status.remaining(sweep, RESOURCES) == 1 + 3 + 3 + 4


def test_time_to_go_is_work_over_places_but_no_less_than_the_longest_trial(tmp_path: Path) -> None:
    sweep = results.load(halfway(tmp_path))
    # Stages 0, 1 and 2 took 3, 4 and 5 seconds; a fourth stage has not been seen and counts the
    # mean of the five: 3.8.
    work = 5 + (4 + 5 + 3.8) * 2 + (3 + 4 + 5 + 3.8)
    assert status.seconds_to_go(sweep, ResourcesConfig(max_concurrent=2)) == pytest.approx(work / 2)
    assert status.seconds_to_go(sweep, ResourcesConfig(max_concurrent=50)) == pytest.approx(
        3 + 4 + 5 + 3.8
    )


def test_no_time_is_told_before_one_was_seen_and_none_is_left_at_the_end(tmp_path: Path) -> None:
    begun = write_sweep(tmp_path / "begun", [TWO], done=False)
    assert status.seconds_to_go(results.load(begun), RESOURCES) is None
    ended = results.load(write_sweep(tmp_path / "ended", [TWO]))
    assert (status.seconds_to_go(ended, RESOURCES), status.remaining(ended, RESOURCES)) == (0.0, 0)


def test_the_dictionary_names_every_trial_and_tells_no_test_accuracy(tmp_path: Path) -> None:
    found = status.as_dict(results.load(halfway(tmp_path)), RESOURCES)
    text = json.dumps(found, allow_nan=False)
    assert "test" not in text
    assert [trial["state"] for trial in found["trials"]] == [
        "finished",
        "running",
        "failed",
        "pending",
        "pending",
        "pending",
    ]
    assert found["counts"] == {"finished": 1, "failed": 1, "running": 1, "pending": 3}
    assert [len(trial["stages"]) for trial in found["trials"]] == [3, 2, 0, 0, 0, 0]
    assert found["trials"][1]["bits"] == records_of(TWO, 1)[1]["bits"]["total"]
    assert found["failed"][0]["seed"] == 2
    assert not found["ended"]


def test_the_table_shows_bits_validation_and_time(tmp_path: Path) -> None:
    layout = halfway(tmp_path)
    out = Console(width=140, file=io.StringIO(), record=True)
    out.print(status.render(results.load(layout), RESOURCES))
    text = out.export_text()
    assert "running 2/3" in text
    assert (
        f"{records_of(TWO, 1)[0]['val_top1']:.1f} → {records_of(TWO, 1)[1]['val_top1']:.1f} → ·"
        in text
    )
    assert "199.4 / 332.2" in text
    assert "11 left" in text
    assert "to go" in text
    assert "loss is NaN" in text


def test_of_many_trials_those_that_run_or_failed_are_listed(tmp_path: Path) -> None:
    seeds = tuple(range(60))
    layout = write_sweep(tmp_path, [TWO, THREE], seeds, done=False)
    write_records(layout, trial_of(TWO, 0), records_of(TWO, 0))
    write_records(layout, trial_of(TWO, 1), records_of(TWO, 1)[:2])
    fail(layout, trial_of(TWO, 2))
    out = Console(width=80, file=io.StringIO(), record=True)
    out.print(status.render(results.load(layout), RESOURCES))
    text = " ".join(out.export_text().split())
    assert "running 2/3" in text and "failed 0/3" in text
    assert "118 more trials are not listed" in text
    assert "1 finished, 1 failed, 1 running, 117 pending" in text
    assert len(out.export_text().splitlines()) < 20


def test_names_are_no_markup(tmp_path: Path) -> None:
    out = Console(width=140, file=io.StringIO(), record=True)
    out.print(
        status.render(
            results.load(write_sweep(tmp_path, [Case(names=("[red]a[/red] \x1b[31m",))])), RESOURCES
        )
    )
    assert "[red]a[/red] \\x1b[31m" in out.export_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown time"),
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3700, "1 h 01 min"),
        (3 * 86400 + 7200, "3 d 2 h"),
    ],
)
def test_durations_are_as_exact_as_an_estimate_deserves(seconds: float | None, text: str) -> None:
    assert status.duration(seconds) == text
