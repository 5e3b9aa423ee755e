"""Runs the command line in a child process that is killed at a chosen instant. Real processes, real
SIGKILL.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers.sweeps import written

DURABLE = ("fsync", "link", "replace", "rename", "unlink")
"""The calls by which anything becomes, or ceases to be, a record."""

_CONTEXT = multiprocessing.get_context("forkserver")
# The server loads torch once and has no threads; every child is a fork of it, as clean as a new
# process and ready in milliseconds.
_CONTEXT.set_forkserver_preload(
    [
        "torch",
        "torchvision",
        "orchestrator.cli",
        "orchestrator.driver",
        "trainers.run",
        "scipy.stats",
        "matplotlib.figure",
    ]
)


def arm(die_at: int, torn: bool) -> None:
    """The `die_at`-th durable call of this process is its last act; if `torn`, the file it was
    about to sync is left half-written.
    """
    left = [die_at]

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def dying(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if torn and name == "fsync":
                    open_file = Path(f"/proc/self/fd/{args[0]}")
                    if not open_file.is_dir():
                        os.truncate(open_file, open_file.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(os, name, dying)

    for name in DURABLE:
        wrap(name)


def _child(
    argv: list[str],
    log: Path,
    folder: Path,
    environment: dict[str, str],
    die_at: int | None,
    torn: bool,
) -> None:
    # The fork server's own environment is that of its start.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    from orchestrator.cli import main

    if die_at is not None:
        arm(die_at, torn)
    sys.exit(main(argv))


def run_cli(
    argv: Sequence[str],
    folder: Path,
    *,
    die_at: int | None = None,
    torn: bool = False,
    kill_after: float | None = None,
) -> int:
    """Exit status of `orchestrate *argv` run in `folder`; -9 if it was killed. What it printed is
    appended to `folder`/log.

    Args:
        die_at: number of the durable call at which the child kills itself, from 1.
        torn: what the child had written of the file at hand is only half there.
        kill_after: seconds after which the child is killed from outside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    child = _CONTEXT.Process(
        target=_child, args=(list(argv), folder / "log", folder, dict(os.environ), die_at, torn)
    )
    child.start()
    child.join(kill_after)
    if child.is_alive():
        if kill_after is None:
            raise AssertionError("join without a limit returned while the child lives")
        child.kill()
        child.join()
    assert child.exitcode is not None
    return child.exitcode


def ledgers_whole_and_killed(tmp_path: Path, spec: str) -> tuple[Path, Path]:
    """Returns the ledger of a spec's one trial, swept without a death, and that of the same trial
    in a sweep that was killed again and again; their files are checked to be equal.
    """
    words = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]
    whole, killed = written(tmp_path / "whole", spec), written(tmp_path / "killed", spec)
    assert run_cli(words, whole) == 0, (whole / "log").read_text()
    deaths = 0
    while run_cli(words, killed, die_at=36 + deaths % 5) == -9:
        deaths += 1
        assert deaths < 60, "no progress between deaths"
    assert deaths >= 2
    (trial,) = (whole / "out" / "trials").iterdir()
    ledgers = trial / "ledger", killed / "out" / "trials" / trial.name / "ledger"
    held, again = (
        {path.name: path.read_bytes() for path in ledger.glob("*.parquet")} for ledger in ledgers
    )
    assert held
    assert again == held
    return ledgers
