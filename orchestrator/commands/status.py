"""The verb `status`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rich.console import Console

from orchestrator.reporting import results, status
from orchestrator.reporting.names import with_old_names
from orchestrator.sweeps.layout import SweepLayout


def show(location: str | Path, *, watch: bool, as_json: bool) -> int:
    """Prints where the sweep stands; with `watch`, again and again until it ends. Returns the exit
    status.
    """
    layout = SweepLayout.at(location)
    console = Console()
    while True:
        # Before the records: a sweep that ends in between is finished in them, where it would look
        # left alone the other way round.
        held = layout.store.is_held(layout.lock)
        loaded = results.load(layout)
        if as_json:
            json.dump(
                with_old_names(status.as_dict(loaded, loaded.resources)), sys.stdout, indent=1
            )
            sys.stdout.write("\n")
        else:
            if watch and console.is_terminal:
                console.clear()
            console.print(status.render(loaded, loaded.resources))
        ended = status.remaining(loaded, loaded.resources) == 0
        if loaded.damaged:
            print(
                f"{len(loaded.damaged)} record(s) of the sweep are damaged; check it with:"
                f" orchestrate ledger verify {layout.location}",
                file=sys.stderr,
            )
            return 2
        if not ended and not held:
            print(
                f"nobody is running it; continue with: orchestrate resume {layout.location}",
                file=sys.stderr,
            )
            return 0
        if not watch or ended:
            return 0
        time.sleep(2)
