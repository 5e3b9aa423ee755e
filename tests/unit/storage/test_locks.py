"""A lock is held by one living process and freed by any death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.storage.locks import LockHeld, hold, is_held

HOLDER = """\
import pathlib, sys, time
from orchestrator.storage.locks import hold
with hold(pathlib.Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    process = holder(tmp_path / "lock")
    try:
        assert is_held(tmp_path / "lock")
        with pytest.raises(LockHeld, match=str(process.pid)), hold(tmp_path / "lock", wait=False):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_keeps_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path / "lock")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not is_held(tmp_path / "lock")
    with hold(tmp_path / "lock", wait=False):
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_a_lock_that_does_not_exist_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none")
