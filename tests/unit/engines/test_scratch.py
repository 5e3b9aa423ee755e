"""Temporary folders go with their process; those of killed ones go when the next one starts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orchestrator.engines.ray.scratch import PREFIX, remove_left, scratch_folder

HOLDS = """
import sys, time
from orchestrator.engines.ray.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "sweep").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def _holder() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_block(temp: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").write_text("text")
        assert folder.name.startswith(PREFIX)
    assert list(temp.iterdir()) == []


def test_the_next_process_removes_what_a_killed_one_left_and_nothing_else(temp: Path) -> None:
    (temp / f"{PREFIX}strange").mkdir()
    (temp / "thesis").mkdir()
    living, folder = _holder()
    killed, left = _holder()
    try:
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with scratch_folder() as own:
            assert not left.exists()
            assert (folder / "sweep").is_dir(), "a living process lost its folder"
            remove_left(temp)
            assert own.is_dir()
        assert {path.name for path in temp.iterdir()} == {f"{PREFIX}strange", "thesis", folder.name}
    finally:
        living.communicate("")
        killed.communicate()
    assert not folder.exists()
