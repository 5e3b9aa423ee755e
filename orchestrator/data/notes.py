"""Says what the user should know of how data was read."""

from __future__ import annotations

import sys

from orchestrator.data.prepare import PreparedData


def print_notes(data: PreparedData) -> None:
    """Says on standard error what the user should know of how the data was read."""
    for note in data.notes:
        print(f"{data.name}: {note}", file=sys.stderr)
