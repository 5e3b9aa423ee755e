"""Which sweeps were submitted to a cluster from this machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.engines.ray.cluster_file import LaunchedCluster, look
from orchestrator.storage.user_files import cache_root
from trainers.errors import UserError


class RemoteError(UserError):
    """A sweep cannot be handed to a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What is noted on this machine of a sweep that was submitted."""

    name: str
    base: str
    """Its job's name, without the number of the submission."""
    place: str
    """Where it is kept, as its head sees it."""
    file: str
    """Of the cluster."""
    report: str
    """Folder of this machine for the report."""

    def write(self) -> None:
        path = _notes() / f"{self.base}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    def cluster(self) -> LaunchedCluster:
        found = look(Path(self.file))
        if not isinstance(found, LaunchedCluster):
            why = found.reason if found else "is gone"
            raise RemoteError(
                f"{self.name} was submitted to the cluster of {self.file}, which {why}"
            )
        return found


def _notes() -> Path:
    return cache_root() / "submitted"


def submitted(word: str) -> Submitted | None:
    """Returns the sweep that was submitted last from this machine under such a name, job, place or
    folder of reports; None if there is none.
    """
    found = sorted(_notes().glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        try:
            note = Submitted(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        folder = str(Path(note.report).parent)
        if word in (note.name, note.base, note.place) or os.path.abspath(word) == folder:  # noqa: PTH100
            return note
    return None


def known(word: str) -> Submitted:
    note = submitted(word)
    if note is None:
        names = sorted(path.stem for path in _notes().glob("*.json"))
        raise RemoteError(
            f"{word}: no such sweep was submitted to a cluster from this machine"
            + (f"; those that were: {', '.join(names)}" if names else "")
        )
    return note
