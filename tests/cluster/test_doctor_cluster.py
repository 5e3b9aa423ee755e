"""`doctor --cluster` on a real cluster of two machines: what one of them lacks is named with its
fix, and one that is silent keeps nobody waiting.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands import doctor_cluster
from orchestrator.commands.finding import NodeFinding
from tests.helpers import house
from tests.helpers.machines import Machines, can_hide
from tests.helpers.real_sweep import PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not can_hide(), reason="needs the right to make a mount namespace"),
]

WORKER = "127.0.0.2"
CLOCK = """
import time
true = time.time
time.time = lambda: true() + 1000
"""


def look(machines: Machines, home: Path, out: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and lines of the command on the head."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(home), "RAY_ADDRESS": machines.address, "PYTHONPATH": str(house.ROOT)}
    words = [sys.executable, "-m", "orchestrator", "doctor", "--cluster", "--json"]
    done = subprocess.run(
        [*words, "--out", str(out)],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return done.returncode, told["checks"]


def test_what_one_machine_lacks_is_named_with_its_fix(temp: Path, tmp_path: Path) -> None:
    """Another version of the project, a store of its own, a clock of its own, a token that others
    may read, and a GPU that is not there.
    """
    out, other, home = tmp_path / "out", tmp_path / "other", tmp_path / "home"
    for package in ("orchestrator", "search_spaces", "trainers"):
        shutil.copytree(house.ROOT / package, other / package)
    with (other / "trainers/errors.py").open("a") as file:
        file.write("# Another version.\n")
    (other / "sitecustomize.py").write_text(CLOCK)

    def start() -> Machines:
        return Machines(temp, [out], {}, {"PYTHONPATH": str(other), "HOME": str(home)})

    (home / ".ray").mkdir(parents=True)
    with start_with_token(start, temp, home) as machines:
        code, rows = look(machines, temp, out / "runs")
        assert code == 2
        failed = {row["check"]: row for row in rows if row["state"] == "fail"}
        assert set(failed) == {"project", "store", "clock", "token"}, rows
        assert {row["node"] for row in failed.values()} == {WORKER}
        assert all(row["fix"] for row in failed.values())
        assert " on the head " in failed["project"]["found"]
        assert "it is not there" in failed["store"]["found"]
        assert "s ahead of the head's" in failed["clock"]["found"]
        assert f"chmod 600 {home}/.ray/auth_token" in failed["token"]["fix"]
        token = (home / ".ray/auth_token").read_text()
        assert token not in json.dumps(rows)
        alive = {row["node"] for row in rows if row["check"] == "node"}
        assert WORKER in alive and len(alive) == 2
        # The folder is as it was, and so is the one that was not there.
        assert not list(out.iterdir())


def start_with_token(start: Any, temp: Path, home: Path) -> Machines:
    """Cluster whose worker has the token in a home folder of its own, readable by everyone."""
    machines: Machines = start()
    shutil.copy(temp / ".ray/auth_token", home / ".ray/auth_token")
    (home / ".ray/auth_token").chmod(0o644)
    return machines


def test_a_whole_cluster_passes_and_a_silent_machine_keeps_nobody_waiting(
    temp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = {"RAY_health_check_failure_threshold": "100000"}
    with Machines(temp, [], patient) as machines:
        out = tmp_path / "runs"
        code, rows = look(machines, temp, out)
        assert code == 0, rows
        assert [row["node"] for row in rows if row["check"] == "store"][1:] == [WORKER]
        assert not out.exists()
        machines.raylet().send_signal(signal.SIGSTOP)
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("HOME", str(temp))
        monkeypatch.setattr(doctor_cluster, "ANSWER_SECONDS", 30.0)
        found = list(doctor_cluster.check(machines.address, str(out)))
    silent = [
        finding for finding in found if isinstance(finding, NodeFinding) and finding.node == WORKER
    ]
    assert [(finding.check, finding.state) for finding in silent] == [("answer", "fail")]
    assert "did not answer within 30 s" in silent[0].found and "ray start" in silent[0].fix
    assert not out.exists()
