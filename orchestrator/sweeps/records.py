"""Facts of a sweep as JSON objects in files of their own: each put once, whole, with a checksum of
itself; and why a trial failed.
"""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from typing import Any, Final, NoReturn

from orchestrator.storage.store import Store, Unreadable
from orchestrator.sweeps.layout import TrialLayout
from trainers.errors import UserError

CHECKSUM: Final = "sha256"
"""Key of an object's checksum: the SHA-256 of its other keys as canonical JSON."""

MOST_BYTES: Final = 1 << 26
"""A larger file is none of ours: the largest objects list a few thousand checksums."""


class RecordsDamaged(UserError):
    """A record is missing or is not what was written."""

    def __init__(self, place: str, problem: str, fix: str = "restore it from a copy") -> None:
        self.place, self.problem, self.fix = place, problem, fix
        super().__init__(f"{place}: damaged ({problem}); {fix}")

    def __reduce__(self) -> tuple[type[RecordsDamaged], tuple[str, str, str]]:
        # Exceptions are otherwise pickled by their message alone.
        return RecordsDamaged, (self.place, self.problem, self.fix)


def checksum(body: dict[str, Any]) -> str:
    """Returns the hex SHA-256 of an object's keys other than CHECKSUM, as canonical JSON."""
    plain = {key: value for key, value in body.items() if key != CHECKSUM}
    return hashlib.sha256(
        json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def parse_object(data: bytes) -> dict[str, Any]:
    """Returns the JSON object in `data`, its numbers finite.

    Raises:
        ValueError: it holds no such object; the message says in a few words why.
    """
    if not data.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(data, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return value


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def read_object(
    store: Store, name: str, fix: str = "restore it from a copy"
) -> dict[str, Any] | None:
    """Returns the object that was put under a name; None if none was.

    Raises:
        RecordsDamaged: what is there cannot be read, or is not what was put there.
    """
    try:
        data = store.get(name, MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB, which no record is")
        record = parse_object(data)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        raise RecordsDamaged(error.place, error.reason, fix) from error
    except ValueError as error:
        raise RecordsDamaged(store.place(name), str(error), fix) from error
    if record.get(CHECKSUM) != checksum(record):
        raise RecordsDamaged(store.place(name), "its content does not match its checksum", fix)
    return record


def encode_object(body: dict[str, Any]) -> bytes:
    """Returns the bytes of an object with its checksum; its keys keep their order."""
    return (
        json.dumps(body | {CHECKSUM: checksum(body)}, indent=1, allow_nan=False) + "\n"
    ).encode()


def put_object(store: Store, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Puts `body` under a name unless an object stands there; returns the one that stands, which
    may be another process's.
    """
    store.put(name, encode_object(body))
    committed = read_object(store, name)
    if committed is None:
        raise RecordsDamaged(
            store.place(name),
            "it was written and is gone; is the folder being cleaned while the sweep runs?",
        )
    return committed


def replace_object(store: Store, name: str, body: dict[str, Any]) -> None:
    """Writes an object that follows from others, in place of an earlier one."""
    store.put(name, encode_object(body), replace=True)


def write_error(files: TrialLayout, *, stage: int, error: BaseException) -> dict[str, Any]:
    """Records why the trial failed; it counts as failed while the file is there."""
    record = {
        "stage": stage,
        "kind": type(error).__name__,
        # Notes say on which machine it was.
        "message": (str(error) or type(error).__name__)
        + "".join(f" ({note})" for note in getattr(error, "__notes__", ())),
        "traceback": "".join(traceback.format_exception(error)),
    }
    files.store.put(files.error, json.dumps(record, indent=1).encode(), replace=True)
    return record


def read_error(files: TrialLayout) -> dict[str, Any] | None:
    """Returns why the trial failed (stage, kind, message); None if it has not. The file's presence
    is the fact, its words are a help.
    """
    try:
        record = parse_object(files.store.get(files.error, MOST_BYTES))
    except FileNotFoundError:
        return None
    except (Unreadable, ValueError):
        return {
            "stage": None,
            "kind": "",
            "message": "the reason could not be read",
            "traceback": "",
        }
    stage = record.get("stage")
    whole = isinstance(stage, int) and not isinstance(stage, bool)
    return {
        "stage": stage if whole else None,
        **{key: str(record.get(key, "")) for key in ("kind", "message", "traceback")},
    }
