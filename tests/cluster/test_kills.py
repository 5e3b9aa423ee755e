"""SIGKILL of every kind of process, at several instants: the sweep ends as one that nobody
disturbed, pays nothing twice and leaves nothing behind.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweeps.stage_store import epochs_done
from tests.helpers.on_disk import trial_in
from tests.helpers.real_sweep import (
    AGENTS,
    BROKER,
    CANDIDATE,
    POOL,
    RANK,
    TWO_RANKS,
    RealSweep,
    private_temp,
    uninterrupted,
)
from tests.helpers.sweeps import ONE_TRIAL_SPEC, outcome_of, read_stages

# A machine that is busy with other things takes many times as long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Instant = tuple[str, Callable[[RealSweep], bool]]


def records(number: int) -> Instant:
    return f"{number} stages are on record", lambda sweep: sweep.records() >= number


def segments(number: int) -> Instant:
    return f"{number} segments are written", lambda sweep: sweep.segments() >= number


def half_trained() -> Instant:
    return "a stage is half trained", lambda sweep: bool(sweep.checkpoints())


def paid_once(root: Path) -> None:
    """Every round of every trial has one plan, and every stage one record."""
    for folder in (root / "trials").iterdir():
        stages = [record["stage"] for record in read_stages(trial_in(folder))]
        assert stages == list(range(len(stages)))
        spent = [record["bits"]["total"] for record in read_stages(trial_in(folder))]
        assert spent == sorted(spent)
    ours = {
        "spec.yaml",
        "resolved.yaml",
        "manifest.json",
        "candidates",
        "seal.json",
        "driver.lock",
        "stages",
        "trials",
        "report",
    }
    assert {path.name for path in root.iterdir()} <= ours, (
        "somebody else wrote into the sweep's folder"
    )
    assert {path.name for path in root.glob("trials/*/*")} == {"ledger", "stages", "test_correct"}


def test_any_process_may_be_killed_at_any_time(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "killed"
    shots: list[tuple[Instant, str]] = [
        (half_trained(), RANK),
        (segments(3), POOL),
        (records(1), CANDIDATE),
        (records(2), BROKER),
        (half_trained(), POOL),
        (records(4), RANK),
        (segments(12), CANDIDATE),
        (records(6), POOL),
        (half_trained(), BROKER),
        (records(9), CANDIDATE),
        (half_trained(), RANK),
    ]
    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root)]) as sweep:
        for (what, true), kind in shots:
            sweep.until(what, true)
            sweep.shoot(kind)
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
    assert outcome_of(root) == alone
    paid_once(root)


def test_any_process_may_be_killed_at_any_time_with_two_ranks(
    spec: Path, two_ranks: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "killed"
    shots: list[tuple[Instant, str]] = [
        (half_trained(), RANK),
        (records(1), BROKER),
        (half_trained(), RANK),
        (segments(4), POOL),
        (records(3), CANDIDATE),
    ]
    with RealSweep(
        root, temp, ["sweep", str(spec), "--local", "--out", str(root), *TWO_RANKS]
    ) as sweep:
        for (what, true), kind in shots:
            sweep.until(what, true)
            sweep.shoot(kind)
        sweep.until(*records(4))
        sweep.driver.kill()
        assert sweep.ended() == -signal.SIGKILL
        sweep.assert_nothing_is_left(but=AGENTS)
        with RealSweep(root, temp, ["resume", str(root), "--local"]) as second:
            assert second.ended() == 0, second.said()
            second.assert_nothing_is_left()
        sweep.assert_nothing_is_left()
    assert outcome_of(root) == two_ranks
    paid_once(root)


def test_deaths_between_which_it_gets_further_are_not_counted(temp: Path, tmp_path: Path) -> None:
    """As on machines that are preempted: no failure is allowed, and ranks and candidates die again
    and again, each time after a checkpoint or a record.
    """
    # One candidate: of several, one that waits for its turn gets no further meanwhile.
    spec = tmp_path / "one.yaml"
    spec.write_text(ONE_TRIAL_SPEC)
    argv = [
        "--set",
        "method.epochs=60",
        "--set",
        "resources.max_failures=0",
        "--set",
        "resources.checkpoint_seconds=0",
    ]
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "preempted"
    uninterrupted(
        undisturbed, ["sweep", str(spec), "--engine", "inline", "--out", str(undisturbed), *argv]
    )

    def newest(sweep: RealSweep) -> dict[str, int]:
        return {folder.name: epochs_done(folder) for folder in sweep.root.glob("stages/*")}

    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root), *argv]) as sweep:
        for number in range(6):
            before = newest(sweep)
            sweep.until(
                "a checkpoint moves on",
                lambda sweep, before=before: any(
                    n > before.get(key, 0) for key, n in newest(sweep).items()
                ),
            )  # type: ignore[misc]
            # The driver looks twice a second at how far the candidates are.
            time.sleep(1.5 if number % 2 else 0)
            sweep.shoot(CANDIDATE if number % 2 else RANK)
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
    assert outcome_of(root) == outcome_of(undisturbed)
    paid_once(root)


def test_a_rank_that_is_asked_to_end_saves_first(temp: Path, tmp_path: Path) -> None:
    """SIGTERM, as before a machine is taken away: checkpoints are hours apart, and nothing of the
    training is lost.
    """
    spec = tmp_path / "one.yaml"
    spec.write_text(ONE_TRIAL_SPEC)
    argv = ["--set", "method.epochs=60"]
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "asked"
    uninterrupted(
        undisturbed, ["sweep", str(spec), "--engine", "inline", "--out", str(undisturbed), *argv]
    )
    argv += ["--set", "resources.checkpoint_seconds=100000"]
    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root), *argv]) as sweep:
        asked: set[int] = set()

        def saved(sweep: RealSweep) -> bool:
            for rank in sweep.processes(f"{RANK}.train"):
                if rank.pid not in asked:
                    asked.add(rank.pid)
                    rank.terminate()
            return bool(sweep.checkpoints())

        sweep.until("a rank has saved", saved)
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
    resumed = [record["resumed_from_epoch"] for record in all_records(root)]
    assert any(resumed), "no stage went on from what was saved"
    assert outcome_of(root) == outcome_of(undisturbed)
    paid_once(root)


def all_records(root: Path) -> list[dict[str, Any]]:
    return [record for trial in root.glob("trials/*") for record in read_stages(trial_in(trial))]


def test_a_stopped_sweep_goes_on_from_its_own_records(spec: Path, tmp_path: Path) -> None:
    """Stopped by a double Ctrl-C, SIGTERM, Ctrl-C and SIGKILL; everything that Ray wrote is deleted
    in between.
    """
    # Stages go on to be trained while a sweep takes its leave: enough of them that the last stop,
    # too, comes before the end.
    seeds = ["--set", "seeds=[0,1,2,3,4]"]
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "stopped"
    uninterrupted(
        undisturbed, ["sweep", str(spec), "--engine", "inline", "--out", str(undisturbed), *seeds]
    )
    alone = outcome_of(undisturbed)
    stops: list[tuple[Instant, tuple[signal.Signals, ...]]] = [
        (half_trained(), (signal.SIGINT, signal.SIGINT)),
        (half_trained(), (signal.SIGTERM,)),
        (records(3), (signal.SIGINT,)),
        (segments(10), (signal.SIGKILL,)),
        (half_trained(), (signal.SIGKILL,)),
    ]
    argv = ["sweep", str(spec), "--local", "--out", str(root), *seeds]
    for (what, true), signals in stops:
        with private_temp() as temp, RealSweep(root, temp, argv) as sweep:
            sweep.until("a rank is at work", lambda sweep: bool(sweep.processes(RANK)))
            sweep.until(what, true)
            sweep.log.write_text("")
            for number in signals:
                sweep.signal(number)
                if len(signals) > 1:
                    sweep.until(
                        "the first signal is noticed",
                        lambda sweep: "orchestrate resume" in sweep.said(),
                    )
            killed = signal.SIGKILL in signals
            assert sweep.ended() == (-signal.SIGKILL if killed else 130), sweep.said()
            assert killed or f"orchestrate resume {root}" in sweep.said()
            assert "Traceback" not in sweep.said()
            sweep.assert_nothing_is_left(but=AGENTS if killed or len(signals) > 1 else ())
            assert killed or sweep.records() < sum(
                len(trial["records"]) for trial in alone.values()
            )
            shutil.rmtree(temp)
        argv = ["resume", str(root), "--local"]
    with private_temp() as temp, RealSweep(root, temp, argv) as sweep:
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
    assert outcome_of(root) == alone
    paid_once(root)
