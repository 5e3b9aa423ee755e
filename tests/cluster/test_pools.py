"""Pools of a candidate's seeds in one process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.packages import install
from tests.helpers.real_sweep import POOL, RealSweep
from tests.helpers.sweeps import ONE_HEAD_SPEC

# A machine that is busy with other things takes many times as long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SEEDS = 2
"""As many as train at once on two cores: none waits for long until another asks."""


def test_the_oracle_of_one_seed_holds_up_no_other_in_the_same_process(
    temp: Path, tmp_path: Path
) -> None:
    site, asked = tmp_path / "site", tmp_path / "asked"
    site.mkdir()
    asked.mkdir()
    point = "[orchestrate.oracles]\nmeeting = tests.toys.meeting:Meeting\n"
    install(site, "toy_oracle", "", point)
    path = [str(site), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    spec = tmp_path / "spec.yaml"
    oracle = f"  oracle: {{name: meeting, folder: {asked}, trials: {SEEDS}}}\ncases:"
    spec.write_text(ONE_HEAD_SPEC.replace("cases:", oracle))
    root = tmp_path / "sweep"
    words = ["sweep", str(spec), "--local", "--out", str(root)]
    words += ["--set", f"seeds={list(range(SEEDS))}"]
    with RealSweep(root, temp, words, {"PYTHONPATH": os.pathsep.join(path)}, tmp_path) as sweep:
        sweep.until("a trial asks", lambda _: any(asked.iterdir()))
        assert len(sweep.processes(POOL)) == 1
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
    assert not list(root.glob("trials/*/error.json"))
    assert len(list(asked.iterdir())) == SEEDS
    assert len({file.read_text() for file in asked.iterdir()}) == 1
