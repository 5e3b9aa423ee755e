"""The verb `status`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Literal

from rich.console import Console

from orchestrator.reporting import results, status
from orchestrator.reporting.names import with_old_names
from orchestrator.sweeps.layout import SweepLayout

Job = Literal["running", "ended"]


def show(location: str | Path, *, watch: bool, as_json: bool, job: Job | None = None) -> int:
    """Prints where the sweep stands; with `watch`, again and again until it ends. Returns the exit
    status.

    Args:
        job: how it stands with the job of the sweep's driver, where one asks who knows it.
    """
    layout = SweepLayout.at(location)
    if job == "running" and not layout.store.has(layout.resolved):
        print("it has begun, and nothing is on record yet", file=sys.stderr)
        return 0
    console = Console()
    while True:
        loaded = results.load(layout)
        ended, held = _ended(loaded), job == "running"
        if not ended and job is None:
            held = layout.store.is_held(layout.lock)
            if not held:
                # It may have ended since it was read, which in S3 is some seconds.
                loaded = results.load(layout)
                ended = _ended(loaded)
        if as_json:
            json.dump(
                with_old_names(status.as_dict(loaded, loaded.resources)), sys.stdout, indent=1
            )
            sys.stdout.write("\n")
        else:
            if watch and console.is_terminal:
                console.clear()
            console.print(status.render(loaded, loaded.resources))
        if loaded.damaged:
            print(
                f"{len(loaded.damaged)} record(s) of the sweep are damaged; check it with:"
                f" orchestrate ledger verify {layout.location}",
                file=sys.stderr,
            )
            return 2
        if not ended and not held:
            again = (
                f"continue with: orchestrate resume {layout.location}"
                if job is None
                else "the `sweep` command that it was begun with goes on with it"
            )
            print(f"nobody is running it; {again}", file=sys.stderr)
            return 0
        if not watch or ended:
            return 0
        time.sleep(2)


def _ended(sweep: results.SweepResults) -> bool:
    return status.remaining(sweep, sweep.resources) == 0
