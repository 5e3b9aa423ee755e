"""The Ray under a sweep dies, or does not come up: one message that names the command to go on
with, exit status 5 (2 where none was up yet), and the sweep can be resumed.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers.ray_nodes import cluster
from tests.helpers.real_sweep import (
    AGENTS,
    RANK,
    RealSweep,
    members,
    private_temp,
    uninterrupted,
    wait_until,
)
from tests.helpers.sweeps import outcome_of

# A machine that is busy with other things takes many times as long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def named(session: int, name: str) -> list[psutil.Process]:
    """The processes of a session that run this program."""
    found = []
    for process in members(session):
        with contextlib.suppress(psutil.Error):
            if process.name() == name:
                found.append(process)
    return found


LONG = ["--set", "method.epochs=60"]
"""A dead Ray is noticed after up to four seconds: the sweep must not be over by then, however fast
the machine.
"""


@pytest.fixture(scope="module")
def alone_for_long(spec: Path) -> dict[str, Any]:
    """What the long sweep comes to without Ray."""
    root = spec.parent / "inline-long"
    uninterrupted(root, ["sweep", str(spec), "--engine", "inline", "--out", str(root), *LONG])
    return outcome_of(root)


@pytest.mark.parametrize("daemon", ["raylet", "gcs_server"])
def test_a_sweep_that_loses_its_ray_says_how_to_go_on(
    daemon: str, spec: Path, alone_for_long: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "lost"
    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root), *LONG]) as sweep:
        sweep.until("a stage is on record", lambda sweep: sweep.records() >= 1)
        sweep.until("a rank is at work", lambda sweep: bool(sweep.processes(RANK)))
        sweep.log.write_text("")
        [process] = named(sweep.driver.pid, daemon)
        process.kill()
        assert sweep.ended() == 5, sweep.said()
        said = sweep.said()
        assert daemon in said
        assert f"orchestrate resume {root}" in said
        assert "Traceback" not in said
        assert said.count("orchestrate: ") == 1
        # All of it dies with the driver: nobody goes on to train for nobody.
        wait_until("all processes are gone", lambda: not members(sweep.driver.pid), patience=30)
        assert not list(temp.glob("orchestrate-tune-*")), "a temporary folder was left"
    with (
        private_temp() as fresh,
        RealSweep(root, fresh, ["resume", str(root), "--local"]) as second,
    ):
        assert second.ended() == 0, second.said()
        second.assert_nothing_is_left()
    assert outcome_of(root) == alone_for_long


def test_a_sweep_on_a_cluster_whose_head_dies_says_how_to_go_on(
    spec: Path, temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "far"
    with (
        cluster(1) as nodes,
        RealSweep(
            root,
            temp,
            [
                "sweep",
                str(spec),
                "--address",
                nodes.address,
                "--insecure",
                "--out",
                str(root),
                *LONG,
            ],
        ) as sweep,
    ):
        sweep.until("a stage is on record", lambda sweep: sweep.records() >= 1)
        [process] = named(nodes.session, "gcs_server")
        process.kill()
        assert sweep.ended() == 5, sweep.said()
        assert f"orchestrate resume {root}" in sweep.said()
        assert "Traceback" not in sweep.said()


def test_a_ray_that_comes_up_too_slowly_is_given_up_with_one_message(
    spec: Path, temp: Path, tmp_path: Path
) -> None:
    """Ray gives its node 30 s to start; here it is held up for longer."""
    root = tmp_path / "slow"
    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root)]) as sweep:
        found: list[psutil.Process] = []

        def seen(sweep: RealSweep) -> bool:
            found[:] = named(sweep.driver.pid, "raylet")
            return bool(found)

        sweep.until("there is a raylet", seen)
        found[0].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while sweep.driver.poll() is None and time.monotonic() - began < 45:
            time.sleep(0.2)
        with contextlib.suppress(psutil.Error):
            found[0].send_signal(signal.SIGCONT)
        assert sweep.ended() == 2, sweep.said()
        assert "Ray did not start on this machine within the 30 s" in sweep.said()
        assert "Traceback" not in sweep.said()
        sweep.assert_nothing_is_left()


@pytest.mark.parametrize("daemon", ["raylet", "gcs_server"])
def test_a_ray_that_dies_while_it_starts_is_said_soon(
    daemon: str, spec: Path, temp: Path, tmp_path: Path
) -> None:
    """Ray itself waits for a minute, and then ends the process."""
    root = tmp_path / "stillborn"
    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root), *LONG]) as sweep:
        sweep.until(f"there is a {daemon}", lambda sweep: bool(named(sweep.driver.pid, daemon)))
        # It is looked for five times a second. Once Ray is up, its death is another test's.
        time.sleep(0.4)
        for process in named(sweep.driver.pid, daemon):
            process.kill()
        assert sweep.ended() == 2, sweep.said()
        assert "Traceback" not in sweep.said()
        assert "has died" in sweep.said()
        sweep.assert_nothing_is_left(but=AGENTS)
