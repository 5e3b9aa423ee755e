"""What a trial leaves to be read: one JSON line per finished stage, and the reason if it failed."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from orchestrator.layout import TrialLayout
from orchestrator.storage import commit_file
from trainers.errors import UserError


class RecordsDamaged(UserError):
    """A record of ours is not what was written."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        self.where = (path, line, problem)
        mend = "restore it from a copy"
        if path.name == TrialLayout(path.parent).stages.name:
            mend += ", or remove it: `orchestrate resume` makes it anew from the trial's ledger and stages, and asks nothing again"
        super().__init__(f"{path}:{line}: damaged ({problem}); {mend}")

    def __reduce__(self) -> tuple[type[RecordsDamaged], tuple[Path, int, str]]:
        # Exceptions are otherwise pickled by their message alone.
        return RecordsDamaged, self.where


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; empty if there is none. A last line that a dying process left half-written is not one yet.

    Raises:
        RecordsDamaged: another line is not an object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordsDamaged(path, 1, error.strerror or str(error)) from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecordsDamaged(path, number, str(error)) from error
        if not isinstance(row, dict):
            raise RecordsDamaged(path, number, "not an object")
        rows.append(row)
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """The file holds exactly `rows`, or what it held before: never a part."""
    commit_file(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode(), replace=True)


def write_error(layout: TrialLayout, *, stage: int, error: BaseException) -> dict[str, Any]:
    record = {
        "stage": stage,
        "kind": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }
    commit_file(layout.error, json.dumps(record, indent=1).encode(), replace=True)
    return record


def read_error(layout: TrialLayout) -> dict[str, Any] | None:
    try:
        found = json.loads(layout.error.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    # The file's presence is the fact; its words are a help.
    return found if isinstance(found, dict) else {"stage": None, "kind": "", "message": "the reason could not be read", "traceback": ""}
