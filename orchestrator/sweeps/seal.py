"""seal.json: checksums of every record that stood when a sweep was last at rest, so that one that
is gone or was exchanged since is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.storage.store import Store, Unreadable
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import (
    CHECKSUM,
    RecordsDamaged,
    encode_object,
    parse_object,
    read_object,
    replace_object,
)

_UNREADABLE: Final = "unreadable"
"""Of a file that its own reader complains about."""


def sealed_names(layout: SweepLayout) -> Iterator[str]:
    """Yields the records that a report reads: candidates, then the stages of each trial."""
    folders = [layout.candidates]
    folders += [f"{trial}/stages" for trial in layout.store.folders(layout.trials)]
    for folder in folders:
        for name in layout.store.names(folder):
            if name.endswith(".json") and "/" not in name[len(folder) + 1 :]:
                yield name


def write(layout: SweepLayout) -> None:
    """Seals what is on record now; a seal that says just that is left as it is."""
    there = SweepLayout(layout.store.view())
    there.store.fetch(
        lambda names: (n for n in names if n.startswith(f"{layout.candidates}/") or "/stages/" in n)
    )
    body = {"records": _checksums(there)}
    try:
        if layout.store.get(layout.seal) == encode_object(body):
            return
    except (FileNotFoundError, Unreadable):
        pass
    replace_object(layout.store, layout.seal, body)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the records are beside the last seal."""

    sha256: str
    """Over all records that are there now."""
    problems: tuple[str, ...]
    """Records that are gone or are others than when the sweep was last at rest, a line each.
    Records made since are no damage.
    """
    repairable: frozenset[str]
    """Those of them that resuming the sweep repairs: records of stages that are gone, and follow
    from ledger and stages.
    """


def check(layout: SweepLayout) -> Checked:
    """Compares every record with the seal; without one there is nothing to compare."""
    now = _checksums(layout)
    digest = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    try:
        sealed = read_object(
            layout.store,
            layout.seal,
            "restore it from a copy, or remove it: it is written anew when the sweep is next gone"
            " on with",
        )
    except RecordsDamaged as error:
        return Checked(digest, (str(error),), frozenset())
    if sealed is None and any(name.startswith("trials/") for name in now):
        gone = (
            f"{layout.place(layout.seal)}: missing, so that a record that is gone would not be"
            " noticed; `orchestrate resume` writes it anew from those that are there"
        )
        return Checked(digest, (gone,), frozenset({gone}))
    records = (sealed or {}).get("records")
    problems, repairable = [], []
    for name, committed in (records if isinstance(records, dict) else {}).items():
        if name not in now:
            stage = name.startswith("trials/")
            problems.append(
                f"{layout.place(name)}: missing; restore it from a copy"
                + (", or let `orchestrate resume` make it anew" if stage else "")
            )
            repairable += problems[-1:] if stage else []
        elif now[name] not in (committed, _UNREADABLE):
            problems.append(
                f"{layout.place(name)}: is not what it was when the sweep was last at rest; restore"
                " it from a copy"
            )
    return Checked(digest, tuple(problems), frozenset(repairable))


def _checksums(layout: SweepLayout) -> dict[str, str]:
    return {name: _checksum(layout.store, name) for name in sealed_names(layout)}


def _checksum(store: Store, name: str) -> str:
    """The checksum that a record gives of itself; whether it is right, its reader checks."""
    try:
        return str(parse_object(store.get(name)).get(CHECKSUM))
    except (FileNotFoundError, Unreadable, ValueError):
        return _UNREADABLE
