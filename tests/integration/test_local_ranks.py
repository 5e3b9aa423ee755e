"""Ranks of the torch launcher, without Ray: one that dies is made good from the last checkpoint, as often as the sweep allows."""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from orchestrator.launch import LocalLauncher, RankDied
from tests.stage_world import QUICK, score_bytes, some_inputs, stage_request, write_cache

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = dataclasses.replace(QUICK, epochs=40)


def kill_a_rank(work_dir: Path, times: int, killed: list[str]) -> None:
    """Kills a rank once its stage has a checkpoint, `times` times."""
    while len(killed) < times:
        ranks = [child for child in multiprocessing.active_children() if child.name.startswith("rank-") and child.name not in killed]
        if ranks and any(work_dir.glob("epoch-*.ckpt")):
            ranks[-1].kill()
            ranks[-1].join()
            killed.append(f"{ranks[-1].name}:{ranks[-1].pid}")
        time.sleep(0.005)


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_stage_whose_rank_is_killed_goes_on_as_often_as_allowed(tmp_path: Path, allowed: int) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    request = stage_request(folder, some_inputs(truth), tmp_path / "killed", method=LONG)
    killed: list[str] = []
    killer = threading.Thread(target=kill_a_rank, args=(request.work_dir, 1, killed), daemon=True)
    killer.start()
    launcher = LocalLauncher("cpu", 2, allowed)
    if not allowed:
        with pytest.raises(RankDied, match="ended with exit code -9"):
            launcher.train(request)
        return
    outcome = launcher.train(request)
    assert killed
    assert outcome.metrics["resumed_from_epoch"]
    undisturbed = stage_request(folder, some_inputs(truth), tmp_path / "undisturbed", method=LONG)
    assert score_bytes(request, outcome) == score_bytes(undisturbed, LocalLauncher("cpu", 2).train(undisturbed))


def test_a_disk_that_fails_in_a_rank_is_named(tmp_path: Path) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    request = stage_request(folder, some_inputs(truth), tmp_path / "work", method=dataclasses.replace(QUICK, epochs=2))
    request = dataclasses.replace(request, work_dir=tmp_path / "gone" / "missing")
    with pytest.raises(OSError, match="gone"):
        LocalLauncher("cpu", 2, 3).train(request)
