"""Removes what drivers and trainers that died have left half-written in a sweep."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from orchestrator.storage.files import StorageError
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import StageStore
from trainers.errors import UserError

_ARTEFACTS: Final = ("scores-", "model-", "state-")
"""How the names of files begin that an attempt at a stage leaves."""


def remove(layout: SweepLayout) -> None:
    """Removes temporary files of dead writers; for the one who holds the sweep's lock.

    A stage's temporary files go whoever wrote them: nobody else trains here now, and one who still
    did would only lose a checkpoint.
    """
    layout.store.tidy()
    stages: dict[str, list[str]] = defaultdict(list)
    there = layout.store.view()
    there.fetch(
        lambda names: (
            name for name in names if name.startswith(layout.stages) and name.endswith(".json")
        )
    )
    for name in there.names(layout.stages):
        _, key, *rest = name.split("/")
        if len(rest) == 1:
            stages[key].append(rest[0])
    for key, files in stages.items():
        for file in (*_temporary(files), *_superseded(StageStore(there), key, files)):
            # Also ValueError: a file that somebody else put there may be called anything.
            with contextlib.suppress(StorageError, ValueError):
                layout.store.remove(f"{layout.stages}/{key}/{file}")


def _temporary(files: Iterable[str]) -> Iterator[str]:
    return (file for file in files if file.endswith(".tmp"))


def _superseded(store: StageStore, key: str, files: Iterable[str]) -> Iterator[str]:
    """Yields artefacts of attempts that died before their commit, of a stage that another attempt
    has committed.
    """
    try:
        artefact = store.find(key)
    except (UserError, ValueError):
        return
    if artefact is None:
        # Whoever trains it may be about to commit these very files.
        return
    kept = {str(entry["name"]) for entry in artefact.record["files"].values()}
    for file in files:
        if file.startswith(_ARTEFACTS) and not file.endswith(".tmp") and file not in kept:
            yield file
