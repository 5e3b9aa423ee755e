from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _lines(what: str, folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killed_pool", what, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_pool_killed_at_any_system_call_goes_on_and_charges_nothing_twice(tmp_path: Path) -> None:
    """SIGKILL before every fsync, link and unlink, and in the middle of every write: the ledger
    stays valid, and the next process ends with the same bytes.
    """
    *lives, last = _lines("kill", tmp_path)
    assert len(lives) == last["calls"] > 40
    assert {life["signal"] for life in lives} == {signal.SIGKILL}
    assert all(life["same"] for life in lives)
    assert {life["bits"] for life in lives} == {7.0}
    # Lives ended in every state of the ledger.
    assert {life["segments_seen"] for life in lives} >= set(
        range(max(life["segments_seen"] for life in lives) + 1)
    )


@pytest.mark.slow
def test_processes_that_race_on_one_ledger_end_with_the_same_answers(tmp_path: Path) -> None:
    races = _lines("race", tmp_path)
    assert len(races) == 4
    assert {len(set(race["ends"])) for race in races} == {1}
    assert {race["bits"] for race in races} == {50.0}
