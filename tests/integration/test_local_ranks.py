"""Ranks of the torch launcher, without Ray: one that dies is made good from the last checkpoint, as
often as the sweep allows.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from orchestrator.engines.launch import LocalLauncher, RankDied
from orchestrator.sweeps.stage_store import epochs_done
from tests.helpers.stage_world import QUICK, score_bytes, some_inputs, stage_request, write_cache

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = dataclasses.replace(QUICK, epochs=40)


def kill_ranks(work_dir: Path, times: int, killed: list[int]) -> None:
    """Kills a rank `times` times, each time once the stage has a newer checkpoint than when the
    last one died. Notes the epochs.
    """
    while len(killed) < times:
        ranks = [
            child for child in multiprocessing.active_children() if child.name.startswith("rank-")
        ]
        epoch = epochs_done(work_dir)
        if ranks and epoch > max(killed, default=0):
            ranks[-1].kill()
            ranks[-1].join()
            killed.append(epochs_done(work_dir))
        time.sleep(0.005)


def test_a_stage_whose_ranks_are_killed_goes_on_for_as_long_as_its_checkpoints_move_on(
    tmp_path: Path,
) -> None:
    """As on machines that are preempted; no failure is allowed that comes without progress."""
    folder, truth = write_cache(tmp_path / "cache")
    request = stage_request(folder, some_inputs(truth), tmp_path / "killed", method=LONG)
    killed: list[int] = []
    killer = threading.Thread(target=kill_ranks, args=(request.work_dir, 3, killed), daemon=True)
    killer.start()
    outcome = LocalLauncher("cpu", 2, 0).train(request)
    assert len(killed) == 3
    assert outcome.metrics["resumed_from_epoch"]
    undisturbed = stage_request(folder, some_inputs(truth), tmp_path / "undisturbed", method=LONG)
    assert score_bytes(request, outcome) == score_bytes(
        undisturbed, LocalLauncher("cpu", 2).train(undisturbed)
    )


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_stage_whose_ranks_die_without_getting_further_is_given_up(
    tmp_path: Path, allowed: int
) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    request = stage_request(folder, some_inputs(truth), tmp_path / "killed", method=LONG)
    killed: list[int | None] = []

    def kill() -> None:
        while len(killed) <= allowed:
            for child in multiprocessing.active_children():
                if child.name == "rank-1" and child.pid not in killed:
                    child.kill()
                    child.join()
                    killed.append(child.pid)
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(RankDied, match="ended with exit code"):
        LocalLauncher("cpu", 2, allowed).train(request)
    killer.join(timeout=10)
    assert len(killed) == allowed + 1


def test_a_disk_that_fails_in_a_rank_is_named(tmp_path: Path) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    request = stage_request(
        folder, some_inputs(truth), tmp_path / "work", method=dataclasses.replace(QUICK, epochs=2)
    )
    request = dataclasses.replace(request, work_dir=tmp_path / "gone" / "missing")
    with pytest.raises(OSError, match="gone"):
        LocalLauncher("cpu", 2, 3).train(request)
