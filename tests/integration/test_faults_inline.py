"""A sweep that dies at any instant and is resumed ends as if it had never died: nothing lost,
nothing paid twice.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orchestrator.commands.replay import verify
from tests.helpers.dying import run_cli
from tests.helpers.sweeps import ONE_HEAD_SPEC, ONE_TRIAL_SPEC, TINY_SPEC, outcome_of, written

pytestmark = pytest.mark.slow

SWEEP = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]
RESUME = ["resume", "out", "--engine", "inline"]


def outcome(folder: Path, spec: str) -> dict[str, object]:
    """What a sweep that nothing interrupts comes to."""
    folder = written(folder, spec)
    assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()
    return outcome_of(folder / "out")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return outcome(tmp_path_factory.mktemp("whole"), ONE_TRIAL_SPEC)


@pytest.fixture(scope="module")
def uninterrupted_head(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return outcome(tmp_path_factory.mktemp("whole"), ONE_HEAD_SPEC)


def finish(folder: Path) -> None:
    """Resumes, or starts again where the first process died before there was a sweep; the command
    is the same.
    """
    assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()


# The run makes about 160 durable calls: closely spaced ones while the sweep, the ledger and the
# first stage come into being, then every kind once more.
INSTANTS = [
    (number, False) for number in (1, 4, 7, 10, 13, 17, 21, 25, 29, 36, 43, 58, 72, 90, 121, 150)
] + [(number, True) for number in (3, 9, 16, 24, 34, 72)]


@pytest.mark.parametrize(("instant", "torn"), INSTANTS)
def test_killed_at_any_durable_call_it_ends_as_if_uninterrupted(
    tmp_path: Path, uninterrupted: dict[str, object], instant: int, torn: bool
) -> None:
    folder = written(tmp_path, ONE_TRIAL_SPEC)
    status = run_cli(SWEEP, folder, die_at=instant, torn=torn)
    assert status in (-9, 0), (folder / "log").read_text()
    finish(folder)
    assert outcome_of(folder / "out") == uninterrupted


HEAD_INSTANTS = [(number, False) for number in (13, 36, 58, 72, 90, 110)] + [(72, True)]


@pytest.mark.parametrize(("instant", "torn"), HEAD_INSTANTS)
def test_a_method_of_one_epoch_killed_and_resumed_ends_as_if_uninterrupted(
    tmp_path: Path, uninterrupted_head: dict[str, object], instant: int, torn: bool
) -> None:
    folder = written(tmp_path, ONE_HEAD_SPEC)
    assert run_cli(SWEEP, folder, die_at=instant, torn=torn) == -9, (folder / "log").read_text()
    begun = (folder / "out" / "resolved.yaml").exists()
    assert run_cli(RESUME if begun else SWEEP, folder) == 0, (folder / "log").read_text()
    assert outcome_of(folder / "out") == uninterrupted_head


def test_dying_again_and_again_makes_progress_and_ends_equal(
    tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    folder = written(tmp_path, ONE_TRIAL_SPEC)
    deaths = 0
    while run_cli(SWEEP, folder, die_at=36 + deaths % 5) == -9:
        deaths += 1
        assert deaths < 60, "no progress between deaths"
    assert deaths >= 2
    finish(folder)
    assert outcome_of(folder / "out") == uninterrupted


def test_ten_random_kills_of_a_sweep_lose_and_double_nothing(tmp_path: Path) -> None:
    whole, folder = written(tmp_path / "whole", TINY_SPEC), written(tmp_path / "killed", TINY_SPEC)
    assert run_cli(SWEEP, whole) == 0, (whole / "log").read_text()
    chance = random.Random(0)
    for _ in range(10):
        assert run_cli(SWEEP, folder, kill_after=chance.uniform(0.05, 2.0)) in (-9, 0)
        for ledger in sorted((folder / "out" / "trials").glob("*/ledger")):
            if any(ledger.glob("*.parquet")):
                verify(ledger)
    assert run_cli(RESUME if (folder / "out" / "resolved.yaml").exists() else SWEEP, folder) == 0, (
        folder / "log"
    ).read_text()
    assert outcome_of(folder / "out") == outcome_of(whole / "out")
