"""`doctor`: a line per check, a command for each that fails, and nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.commands import doctor, doctor_ray, doctor_versions
from orchestrator.commands.finding import Finding
from orchestrator.engines.ray import joining
from orchestrator.engines.ray import preflight as ray_setup
from orchestrator.engines.ray.preflight import GIB, Machine
from trainers.errors import UserError

GOOD = Machine(
    memory=8 * GIB,
    shared_memory=GIB,
    temp=Path("/tmp"),
    temp_space=8 * GIB,
    temp_problem=None,
    ip="127.0.0.1",
    network_problem=None,
)


def _doctor(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "doctor", *arguments],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_machine_with_all_it_needs_has_no_obstacle() -> None:
    assert ray_setup.cannot_start(GOOD) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory": GIB // 2}, "0.5 GiB of memory"),
        ({"shared_memory": None}, "/dev/shm"),
        ({"temp_problem": "Permission denied"}, "RAY_TMPDIR"),
        ({"temp": Path("/" + "x" * 60)}, "too long a path"),
        ({"temp_space": 2**20}, "1 MiB free"),
        ({"network_problem": "Connection refused"}, "loopback"),
        ({"home_problem": "this user has no home folder"}, "export HOME="),
    ],
)
def test_each_lack_is_named_with_a_way_out(change: dict[str, object], said: str) -> None:
    problem = ray_setup.cannot_start(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert problem is not None
    assert said in problem
    assert any(way in problem for way in ("--engine inline", "RAY_TMPDIR"))


@pytest.mark.parametrize(
    ("memory", "state"),
    [(8 * GIB, "ok"), (int(1.5 * GIB), "warn"), (GIB // 2, "fail")],
)
def test_memory_is_judged_by_what_a_sweep_was_measured_to_hold(memory: int, state: str) -> None:
    (finding,) = doctor_ray.memory(dataclasses.replace(GOOD, memory=memory))
    assert finding.state == state
    assert bool(finding.fix) == (state != "ok")


def test_a_small_or_missing_shared_memory_is_told_apart() -> None:
    states = [
        next(doctor_ray.shared_memory(dataclasses.replace(GOOD, shared_memory=size))).state
        for size in (GIB, 2**20, None)
    ]
    assert states == ["ok", "warn", "fail"]


def test_a_token_that_others_can_read_fails_with_the_command_that_fixes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert next(doctor_ray.token()).state == "ok"
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("secret")
    path.chmod(0o644)
    finding = next(doctor_ray.token())
    assert finding.state == "fail"
    assert subprocess.run(finding.fix.split(), check=True).returncode == 0
    assert next(doctor_ray.token()).state == "ok"
    assert "secret" not in finding.found + finding.fix


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's bare user number is, with HOME unset."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in (
        "HOME",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_AUTH_MODE",
        "XDG_CACHE_HOME",
        "ORCHESTRATE_CACHE",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_is_told_so_and_may_keep_the_token_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert next(doctor_ray.token()).state == "fail"
    problem = ray_setup.cannot_start(ray_setup.look())
    assert problem is not None
    assert "no home folder" in problem
    assert joining.own_token() is None
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert ray_setup.look().home_problem is None
    assert joining.own_token() == "secret"


def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/nothing")
    # Root is told yes for every folder; others are told which one they may not write.
    assert "/proc cannot be written" in (ray_setup.look().home_problem or "") or os.access(
        "/proc", os.W_OK
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_setup.look().home_problem is None


def test_what_a_check_says_to_the_user_is_a_failure_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> Path:
        raise UserError("ORCHESTRATE_CACHE: \x1b[31m is no folder")

    monkeypatch.setattr(doctor, "cache_root", refuse)
    found = [
        finding for finding in doctor.check(tmp_path, with_ray=False) if finding.check == "cache"
    ]
    assert [finding.state for finding in found] == ["fail"]
    assert found[0].fix
    assert "\x1b" not in doctor._line(found[0]).plain


def test_an_output_folder_is_probed_and_left_as_it_was(tmp_path: Path) -> None:
    assert next(doctor.output(tmp_path / "runs" / "new")).state == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["/proc/nothing", "/sys/nothing"])
def test_an_output_folder_that_cannot_be_written_fails(folder: str) -> None:
    finding = next(doctor.output(Path(folder)))
    assert finding.state == "fail"
    assert "--out" in finding.fix


def test_every_failing_or_doubtful_line_says_how_to_fix_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(file / "cache"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    found = list(doctor.check(Path("/proc/nothing"), with_ray=False))
    failed = {finding.check for finding in found if finding.state == "fail"}
    assert {"output", "cache", "ray here"} <= failed
    assert all(finding.fix for finding in found if finding.state == "fail")
    assert all(finding.found for finding in found)


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> list[Finding]:
        raise ValueError("odd machine")

    monkeypatch.setattr(doctor, "data", broken)
    found = list(doctor.check(tmp_path, with_ray=False))
    assert [f.found for f in found if f.check == "data"] == [
        "could not be looked at (ValueError: odd machine)"
    ]
    assert found[-1].check == "ray here"


def test_a_version_too_old_fails_and_a_missing_ray_leaves_the_inline_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.check: finding for finding in doctor_versions.packages()}
    assert found["torch"].state == "fail"
    assert "pip install 'torch" in found["torch"].fix
    assert found["ray"].state == "warn"
    assert "inline" in found["ray"].found
    assert "torch" in found["pins"].found


def test_the_verb_prints_one_object_and_its_exit_status_says_whether_anything_failed(
    tmp_path: Path,
) -> None:
    good = _doctor("--no-ray", "--json", cwd=tmp_path, RAY_ADDRESS="")
    told = json.loads(good.stdout)
    assert (
        (good.returncode == 0)
        == told["ok"]
        == all(row["state"] != "fail" for row in told["checks"])
    )
    assert [set(row) for row in told["checks"]] == [{"check", "state", "found", "fix"}] * len(
        told["checks"]
    )
    assert "ray" not in {row["check"] for row in told["checks"]}
    assert list(tmp_path.iterdir()) == []
    bad = _doctor("--no-ray", cwd=tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert bad.returncode == 2
    assert "fix: unset RAY_ADDRESS" in bad.stdout
    assert "Traceback" not in bad.stderr


@pytest.mark.slow
def test_the_round_trip_leaves_no_process_behind(tmp_path: Path) -> None:
    mark = f"doctor-test-{os.getpid()}"
    ended = _doctor("--json", cwd=tmp_path, ORCHESTRATE_TEST_MARK=mark, RAY_ADDRESS="")
    (line,) = [row for row in json.loads(ended.stdout)["checks"] if row["check"] == "ray"]
    assert line["state"] == "ok", line
    assert "a task" in line["found"]
    assert _marked(mark) == []


def _marked(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if (
                process.environ().get("ORCHESTRATE_TEST_MARK") == mark
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process.info["name"])
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            continue
    return found
