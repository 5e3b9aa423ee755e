"""Too few places, too many candidates, no place at all: a sweep ends well, or at once with a
message that says what to do.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.on_disk import trial_in
from tests.helpers.ray_nodes import cluster
from tests.helpers.real_sweep import (
    RealSweep,
    uninterrupted,
)
from tests.helpers.sweeps import TINY_SPEC, outcome_of, read_stages

# A machine that is busy with other things takes many times as long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ONE_EPOCH = ["--set", "method.epochs=1"]


def records_of(root: Path) -> list[dict[str, Any]]:
    return [record for trial in root.glob("trials/*") for record in read_stages(trial_in(trial))]


def test_a_worker_group_larger_than_the_machine_is_refused_before_anything_is_trained(
    spec: Path, temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "large"
    with RealSweep(
        root,
        temp,
        ["sweep", str(spec), "--local", "--out", str(root), "--set", "resources.workers=64"],
    ) as sweep:
        assert sweep.ended() == 2
        assert "resources.workers = 64 needs 64 CPU(s)" in sweep.said()
        assert "Traceback" not in sweep.said()
        assert not list(root.glob("stages/*"))
        assert not list(root.glob("trials/*/ledger"))
        sweep.assert_nothing_is_left()


def test_a_sweep_stops_at_its_own_limit_and_goes_on(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "limited"
    limit = ["--set", "resources.max_hours=0.001"]
    argv = ["sweep", str(spec), "--local", "--out", str(root), *limit]
    with RealSweep(root, temp, argv) as sweep:
        assert sweep.ended() == 4, sweep.said()
        assert "stopped by resources.max_hours = 0.001: " in sweep.said()
        assert f"stage trainings are left; continue with: orchestrate resume {root}" in sweep.said()
        assert "Traceback" not in sweep.said()
        assert not list(root.glob("trials/*/error.json")), "no trial is to blame"
        sweep.assert_nothing_is_left()
        assert not sweep.checkpoints(), "what was in training was not left to end"
    more = ["--set", "resources.max_hours=100"]
    with RealSweep(root, temp, ["resume", str(root), "--local", *more]) as sweep:
        assert sweep.ended() == 0, sweep.said()
    assert outcome_of(root) == alone


def test_candidates_beyond_the_worker_groups_and_a_stage_that_all_of_them_want(
    spec: Path, temp: Path, tmp_path: Path
) -> None:
    """Six candidates differ in what they do from the second stage on; all want the same first
    stage, and there is one worker group.
    """
    cases = {
        f"lambda {number}": {"query.strategy": name}
        for number, name in enumerate(
            ("random", "easy", "hard", "margin", "entropy", "class_balanced")
        )
    }
    wide = tmp_path / "wide.yaml"
    head, _, rest = TINY_SPEC.partition("cases:\n")
    wide.write_text(head + "cases: " + json.dumps(cases) + "\n" + rest[rest.index("seeds:") :])
    root = tmp_path / "wide"
    argv = ["--set", "resources.max_concurrent=1", "--set", "seeds=[0]", *ONE_EPOCH]
    with RealSweep(root, temp, ["sweep", str(wide), "--local", "--out", str(root), *argv]) as sweep:
        assert sweep.ended() == 0, sweep.said()
        sweep.assert_nothing_is_left()
    first = [record for record in records_of(root) if record["stage"] == 0]
    assert len(first) == 6
    assert len({record["key"] for record in first}) == 1
    assert sum(record["trained"] for record in first) == 1
    inline = tmp_path / "inline"
    uninterrupted(inline, ["sweep", str(wide), "--engine", "inline", "--out", str(inline), *argv])
    assert outcome_of(root) == outcome_of(inline)


@pytest.mark.parametrize("ranks", [1, 2])
def test_nodes_may_die_while_they_train(
    ranks: int, spec: Path, temp: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The head has no CPU to train with: worker groups run on the other nodes, of which one after
    the other is killed and replaced.
    """
    whole = request.getfixturevalue({1: "alone", 2: "two_ranks"}[ranks])
    root = tmp_path / "nodes"
    argv = ["--set", f"resources.workers={ranks}", "--set", "seeds=[0]"]
    # The loss of a node is no failure.
    argv += ["--set", "resources.max_failures=0"]
    with (
        cluster(0, 1, 1) as nodes,
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
                *argv,
            ],
        ) as sweep,
    ):
        sweep.until("a stage is half trained", lambda sweep: bool(sweep.checkpoints()))
        sweep.log.write_text("")
        nodes.do("kill 0")
        if ranks == 2:
            nodes.do("add 1")
        sweep.until("more is on record", lambda sweep: sweep.records() >= 3)
        nodes.do("kill 1")
        nodes.do("add 1")
        assert sweep.ended() == 0, sweep.said()
        said = sweep.said()
        nodes.assert_free()
    lost = [line for line in said.splitlines() if f"{socket.gethostname()} was lost; its " in line]
    assert all("on from " in line for line in lost), said
    # A node may be killed between two of its stages, of which nothing is to be said.
    assert lost or not any(record["resumed_from_epoch"] for record in records_of(root)), said
    assert "raylet" not in said and "node id" not in said.lower(), said
    found = outcome_of(root)
    assert len(found) == 3
    assert found == {trial: whole[trial] for trial in found}


def test_a_worker_group_that_no_node_can_hold_or_that_others_keep_out_is_said(
    spec: Path, alone: dict[str, Any], temp: Path, tmp_path: Path
) -> None:
    with cluster(1, 1) as nodes:
        # Two CPUs in all, one on each node: no place for a rank that wants two.
        root = tmp_path / "scattered"
        argv = ["sweep", str(spec), "--address", nodes.address, "--insecure"]
        with RealSweep(
            root, temp, [*argv, "--out", str(root), "--set", "resources.cpus_per_worker=2"]
        ) as sweep:
            assert sweep.ended() == 2, sweep.said()
            assert "2 CPU(s) for each rank on one node" in sweep.said()
        # Somebody else holds one of them: two ranks do not fit, for the time being.
        nodes.do("hold 1")
        root = tmp_path / "held"
        held = [
            "--set",
            "resources.workers=2",
            "--set",
            "resources.start_timeout=3",
            "--set",
            "seeds=[0]",
        ]
        with RealSweep(root, temp, [*argv, "--out", str(root), *held]) as sweep:
            assert sweep.ended() == 2, sweep.said()
            assert "waited 3 s (resources.start_timeout) for 2 worker(s)" in sweep.said()
            assert "Traceback" not in sweep.said()
        assert records_of(root) == []
        assert not list(root.glob("trials/*/error.json")), "no trial is to blame"
        nodes.assert_free()
        # One of two worker groups fits: it does all the work. A driver that is killed leaves the
        # cluster free for its successor.
        root = tmp_path / "narrow"
        with RealSweep(root, temp, [*argv, "--out", str(root), "--set", "seeds=[0]"]) as sweep:
            sweep.until("some of it is on record", lambda sweep: sweep.records() >= 2)
            sweep.driver.kill()
            sweep.ended()
        nodes.assert_free()
        with RealSweep(
            root, temp, ["resume", str(root), "--address", nodes.address, "--insecure"]
        ) as sweep:
            assert sweep.ended() == 0, sweep.said()
        nodes.assert_free()
        found = outcome_of(root)
        assert found == {trial: alone[trial] for trial in found}
