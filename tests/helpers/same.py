"""Whether sweeps in two places came to the same, wherever each is kept:

    python -m tests.helpers.same runs/one s3://bucket/sweeps/two

Prints a line a trial. Ends with 0 if ledgers (byte for byte), records of stages (but for their
times) and guesses are equal, with 1 if not or if a place has no stage on record, with 2 if a place
cannot be read.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Sequence
from typing import Any

from tests.helpers.sweeps import outcome_of
from trainers.errors import UserError


def compare(one: str, other: str) -> tuple[list[str], bool]:
    """Returns a line for each trial of either place, and whether the places came to the same."""
    found, against = outcome_of(one), outcome_of(other)
    lines, same = [], bool(found)
    for trial in sorted(found.keys() | against.keys()):
        mine, theirs = found.get(trial), against.get(trial)
        equal = mine == theirs and mine is not None and bool(mine["records"])
        same = same and equal
        lines.append(f"{trial} {'same' if equal else 'DIFFERENT'}: {_told(mine)} | {_told(theirs)}")
    return lines, same


def _told(trial: Any) -> str:
    if trial is None:
        return "not there"
    digest = hashlib.sha256(pickle.dumps(sorted(trial["ledger"].items()))).hexdigest()[:8]
    return f"{len(trial['records'])} stages, {len(trial['ledger'])} segments ({digest})"


def main(words: Sequence[str]) -> int:
    one, other = words
    try:
        lines, same = compare(one, other)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines) or f"no trial in {one} or {other}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
