"""Removes what drivers and trainers that died have left half-written in a sweep's folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

from orchestrator.storage.files import remove_leftovers
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import StageStore
from trainers.errors import UserError


def remove(layout: SweepLayout) -> None:
    """Removes temporary files of dead writers; for the one who holds the sweep's lock.

    A stage's temporary files go whoever wrote them: nobody else trains here now, and one who still
    did would only lose a checkpoint.
    """
    for folder in (layout.root, layout.candidates, layout.report):
        remove_leftovers(folder)
    for pattern in ("*", "*/ledger", "*/stages", "*/test_correct"):
        for folder in layout.trials.glob(pattern):
            remove_leftovers(folder)
    for folder in layout.stage_store.glob("*"):
        remove_leftovers(folder)
        for left in (*folder.glob("*.tmp"), *_superseded(folder)):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def _superseded(folder: Path) -> list[Path]:
    """Artefacts of attempts that died before their commit, in the folder of a stage that another
    attempt has committed.
    """
    try:
        found = StageStore(folder.parent).find(folder.name)
    except (UserError, ValueError):
        return []
    if found is None:
        # Whoever trains it may be about to commit these very files.
        return []
    kept = {file.path.name for file in found.files().files.values()}
    return [
        path
        for pattern in ("scores-*", "model-*", "state-*")
        for path in folder.glob(pattern)
        if path.name not in kept
    ]
