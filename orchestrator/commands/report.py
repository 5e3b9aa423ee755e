"""The verb `report`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from orchestrator.reporting import report, report_files, results, terminal
from orchestrator.reporting.names import with_old_names
from orchestrator.storage.files import StorageError, StorageLost
from orchestrator.sweeps.candidates import Candidate
from orchestrator.sweeps.layout import SweepLayout


def show(location: str | Path, *, as_json: bool) -> int:
    """Writes the report of the sweep at `location` and prints it. Returns the exit status."""
    return write_and_show(SweepLayout.at(location), as_json=as_json)


def write_and_show(
    layout: SweepLayout, candidates: Sequence[Candidate] = (), *, as_json: bool
) -> int:
    """Writes the report's files and prints its table; where they cannot be written, says so and
    prints the table all the same.

    Args:
        candidates: the sweep's first candidates, where this process has read or put them before.
    """
    built = report.build(results.load(layout, candidates).checked())
    page: Path | None = None
    try:
        page = report_files.write(layout, built).html
    except StorageLost:
        raise
    except StorageError as error:
        print(f"the report was not written: {error}", file=sys.stderr)
    if as_json:
        json.dump(with_old_names(built), sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        terminal.show(Console(), built, page)
    return 1 if built["failed"] else 0
