"""Reads the records of sweeps of version 0.1.0: JSON lines without checksums. They can be reported
and verified, and not resumed.
"""

from __future__ import annotations

from typing import Any

from orchestrator.storage.store import Store, Unreadable
from orchestrator.sweeps.records import MOST_BYTES, parse_object


def read_lines(store: Store, name: str, damaged: list[str]) -> list[dict[str, Any]]:
    """Returns the objects of a JSON-lines file; a last line without its newline was being written
    when the process died, and is left out.

    Args:
        damaged: gets a line for each other line that is no object.
    """
    try:
        pieces = store.get(name, MOST_BYTES).split(b"\n")
    except FileNotFoundError:
        return []
    except Unreadable as error:
        damaged.append(str(error))
        return []
    rows = []
    for number, piece in enumerate(pieces[:-1], start=1):
        if not piece.strip():
            continue
        try:
            rows.append(parse_object(piece.replace(b"NaN", b"null")))
        except ValueError as error:
            damaged.append(
                f"{store.place(name)}:{number}: damaged ({error}); restore it from a copy"
            )
    return rows
