"""Runs a whole trial's purchases in many processes that die or race. Loads no torch, so that a
hundred lives take seconds.

`python -m tests.helpers.killed_pool kill FOLDER`: each process is killed by SIGKILL at a later
system call. Prints one JSON object a line: what it was killed at, and what its successor found;
last one with `calls`: how many there are to kill at. `python -m tests.helpers.killed_pool race
FOLDER`: processes with different wishes share a ledger. Prints one JSON object a race: what each
one ended with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.commands import replay
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.pool import Pool
from orchestrator.storage.segments import open_segments
from tests.helpers.pool_world import HalfOracle, finish, labels_oracle, terms

CALLS = ("write", "fsync", "link", "unlink", "replace")


class Deadly:
    """System calls of which the n-th kills this process just before it is done, a write halfway.
    (Just after one is just before the next.)
    """

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def wrap(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def deadly(*args: Any, **kwargs: Any) -> Any:
            self.seen += 1
            if self.seen == self.at:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return deadly


TERMS = terms(quotas=(5, 2), budget_bits=16.0 + 7)


def run(folder: Path, at: int = 0) -> int:
    """Every question of the trial is asked; the number of calls one may be killed at."""
    deadly = Deadly(at)
    for name in CALLS:
        setattr(os, name, deadly.wrap(getattr(os, name), name))
    # Answers come in parts, so that a round has several segments.
    finish(Pool(TERMS, Ledger(open_segments(folder)), HalfOracle(labels_oracle(TERMS))))
    return deadly.seen


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a process of its own; the signal that ended it, 0 if none."""
    return wait(start(work))


def start(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return child


def wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "a run failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return hashlib.sha256(
        b"".join(name.encode() + (folder / name).read_bytes() for name in names)
    ).hexdigest()


def race(root: Path, races: int = 4) -> None:
    strategies = ("random", "easy", "hard", "margin")
    for number in range(races):
        folder = root / f"race-{number}"
        folder.mkdir()

        def compete(strategy: str, folder: Path = folder) -> None:
            pool = finish(
                Pool(terms(), Ledger(open_segments(folder / "ledger")), labels_oracle(terms())),
                strategy,
            )
            (folder / strategy).write_text(pool.state().digest())

        children = [start(lambda strategy=strategy: compete(strategy)) for strategy in strategies]  # type: ignore[misc]
        assert [wait(child) for child in children] == [0] * len(strategies)
        ends = [(folder / strategy).read_text() for strategy in strategies]
        print(
            json.dumps(
                {"ends": ends, "bits": replay.replay(folder / "ledger").counts().question_bits}
            ),
            flush=True,
        )


def kill(root: Path) -> None:
    whole = root / "whole"
    in_child(lambda: run(whole))
    counted = root / "calls"
    in_child(lambda: counted.write_text(str(run(root / "counted"))))
    calls = int(counted.read_text())
    for at in range(1, calls + 1):
        folder = root / str(at)
        killed = in_child(lambda folder=folder, at=at: run(folder, at))  # type: ignore[misc]
        # What a survivor sees at once must already be a valid ledger, whatever was cut.
        seen = replay.verify(folder)["segments"] if any(folder.glob("*.parquet")) else 0
        in_child(lambda folder=folder: run(folder))  # type: ignore[misc]
        bits, same = (
            replay.replay(folder).counts().question_bits,
            contents(folder) == contents(whole),
        )
        print(
            json.dumps(
                {"at": at, "signal": killed, "segments_seen": seen, "bits": bits, "same": same}
            ),
            flush=True,
        )
        shutil.rmtree(folder)
    print(json.dumps({"calls": calls}))


if __name__ == "__main__":
    {"kill": kill, "race": race}[sys.argv[1]](Path(sys.argv[2]))
