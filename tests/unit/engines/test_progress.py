"""One writer: a line per event in a pipe, a live display on a terminal."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from orchestrator.engines.progress import Progress
from orchestrator.sweeps.stage_records import StageRecord, from_object
from tests.helpers.sweep_folder import ABLATIONS, records_of

TWO = ABLATIONS[4]


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pipe() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=40, force_terminal=False), out


def record(stage: int, **changes: Any) -> StageRecord:
    return from_object(records_of(TWO, 0)[stage] | changes)


def test_a_pipe_gets_a_line_per_finished_stage() -> None:
    console, out = pipe()
    clock = Clock()
    with Progress(4, console, clock=clock) as progress:
        progress.stage_started("two stages · seed 0", 0)
        progress.epoch("two stages · seed 0", 0, 3, 20)
        clock.now = 10.0
        progress.stage_finished("two stages · seed 0", record(0, val_top1=83.0))
        progress.stage_finished(
            "two stages · seed 0", record(1, val_top1=91.0, yes=100, no=33, trained=False)
        )
    lines = out.getvalue().splitlines()
    assert (
        lines[0]
        == "[1/4] two stages · seed 0, stage 0: validation 83.0 %, 66.4 bits, trained in 3 s, 9 s"
        " to go"
    )
    assert (
        lines[1]
        == "[2/4] two stages · seed 0, stage 1: validation 91.0 %, 199.4 bits, 100 yes / 33 no,"
        " shared, 6 s to go"
    )
    assert lines[2] == "1 stage trained, 1 shared in 10 s"
    assert len(lines) == 3


def test_a_shared_stage_counts_once() -> None:
    console, out = pipe()
    with Progress(2, console) as progress:
        progress.stage_finished("a", record(0, key="k"))
        progress.stage_finished("b", record(0, key="k", trained=False))
        progress.stage_finished("b", record(1, key="l"))
    assert [line[:5] for line in out.getvalue().splitlines()[:3]] == ["[1/2]", "[1/2]", "[2/2]"]


def test_what_earlier_runs_did_is_counted_but_sets_no_pace() -> None:
    console, out = pipe()
    clock = Clock()
    with Progress(10, console, done=[str(number) for number in range(8)], clock=clock) as progress:
        clock.now = 5.0
        progress.stage_finished("a", record(0))
    assert out.getvalue().startswith("[ 9/10]")
    assert out.getvalue().splitlines()[0].endswith(", 3 s to go")


def test_the_time_to_go_is_that_of_the_pace_and_not_of_the_start() -> None:
    """Minutes pass before the first stage; then one of a second's training ends every two."""
    console, out = pipe()
    clock = Clock()
    with Progress(100, console, clock=clock) as progress:
        for number in range(12):
            clock.now = 500.0 + 2 * number
            progress.stage_finished("a", record(0, key=str(number), seconds=1.0))
    shown = [line.rpartition(", ")[2] for line in out.getvalue().splitlines()[:12]]
    assert shown[0] == "1 min 39 s to go"
    assert shown[5] == "3 min 08 s to go"
    assert shown[11] == "2 min 56 s to go"


def test_no_test_accuracy_is_shown() -> None:
    console, out = pipe()
    with Progress(1, console) as progress:
        progress.stage_finished("a", record(2, test_top1_last=12.3, test_top1_at_best_val=45.6))
    assert "12.3" not in out.getvalue()
    assert "45.6" not in out.getvalue()


def test_an_unknown_total_gives_a_count_and_no_time() -> None:
    console, out = pipe()
    with Progress(None, console) as progress:
        progress.stage_finished("a", record(0))
        progress.set_total(2)
        progress.stage_finished("a", record(1))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[1] ")
    assert "to go" not in lines[0]
    assert lines[1].startswith("[2/2]")


def test_names_and_reasons_are_one_line_and_no_markup() -> None:
    console, out = pipe()
    with Progress(1, console) as progress:
        progress.trial_failed("[red]a[/red]", "loss is NaN\nat stage 1 [bold]")
        progress.note("waits for [2] GPUs")
    lines = out.getvalue().splitlines()
    assert lines[0] == "[red]a[/red]: failed: loss is NaN at stage 1 [bold]"
    assert lines[1] == "waits for [2] GPUs"
    assert "1 trial failed" in lines[2]


def test_a_terminal_shows_what_runs() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(4, console) as progress:
        progress.stage_started("starting one", 0)
        progress.epoch("two stages · seed 0", 1, 7, 20)
        progress.stage_finished("done one", record(0))
        shown = Console(width=100, file=io.StringIO(), record=True)
        shown.print(progress.renderable())
        text = shown.export_text()
        progress.trial_failed("two stages · seed 0", "out of memory")
        after = Console(width=100, file=io.StringIO(), record=True)
        after.print(progress.renderable())
    assert "epoch 7 of 20" in text
    assert "stage 0 · starting one" in text
    assert "1/4 stages" in text
    assert "[1/4] done one" in text
    assert "epoch 7" not in after.export_text()


def test_there_are_as_many_bars_as_workers() -> None:
    """On Ray every trial that is given to it says that it begins; few of them train."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(40, console, workers=2) as progress:
        for seed in range(10):
            progress.stage_started(f"easy · seed {seed}", 0)
        progress.epoch("easy · seed 7", 0, 3, 20)
        shown = Console(width=100, file=io.StringIO(), record=True)
        shown.print(progress.renderable())
        text = shown.export_text()
        assert text.count("stage 0 · easy") == 2
        assert "seed 7" in text and "epoch 3 of 20" in text
        for seed in (1, 2, 3):
            progress.epoch(f"easy · seed {seed}", 0, 3, 20)
        more = Console(width=100, file=io.StringIO(), record=True)
        more.print(progress.renderable())
        assert more.export_text().count("epoch 3 of 20") == 4


@pytest.mark.parametrize("width", [80, 200])
def test_a_long_name_hides_neither_stage_nor_accuracy(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    name = "strategy typiclust, initial_labels_per_class 4, split 0.35/0.65, balanced true · seed 3"
    with Progress(680, console) as progress:
        progress.epoch(name, 2, 7, 20)
        progress.stage_finished(name, record(1, val_top1=79.0, yes=831, no=763))
        shown = Console(width=width, file=io.StringIO(), record=True)
        shown.print(progress.renderable())
    lines = [line.rstrip() for line in shown.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    (finished,) = [line for line in lines if line.startswith("[")]
    assert "strategy t" in finished and "stage 1: validation 79.0 %" in finished
    assert (name in finished) is (width == 200)
    (running,) = [line for line in lines if "epoch 7 of 20" in line]
    assert running.startswith("stage 2 · strategy")


def test_threads_lose_no_event() -> None:
    console, out = pipe()
    with Progress(80, console) as progress:

        def work(number: int) -> None:
            for stage in range(10):
                progress.stage_started(f"t{number}", stage)
                progress.epoch(f"t{number}", stage, 1, 2)
                progress.stage_finished(f"t{number}", record(0, key=f"{number}-{stage}"))

        threads = [
            threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 81
    assert [line[: line.index("]") + 1] for line in lines[:80]] == [
        f"[{number:>2}/80]" for number in range(1, 81)
    ]


def test_what_a_terminal_would_obey_is_shown_and_not_obeyed() -> None:
    hostile = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\u202e"
    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, width=100, force_terminal=terminal, color_system=None)
        with Progress(4, console) as progress:
            progress.stage_started(hostile, 0)
            progress.epoch(hostile, 0, 1, 2)
            shown = Console(width=100, file=io.StringIO(), record=True)
            shown.print(progress.renderable())
            progress.stage_finished(hostile, record(0))
            progress.trial_failed(hostile, hostile)
            progress.note(hostile)
        said = (shown.export_text() if terminal else out.getvalue()) + str(
            ["".join(line) for line in progress._recent]
        )
        assert not any(char in said for char in "\x1b\x07\x9b\r\u202e")
