"""Which sweeps were submitted to a cluster from this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
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

    def __str__(self) -> str:
        return f"{self.base} ({self.place})"

    def is_kept_as(self, word: str) -> bool:
        """Returns whether a word is this sweep's job, place, the last part of that, or folder of
        reports.
        """
        last, folder = self.place.rstrip("/").rpartition("/")[2], Path(self.report).parent
        return word in (self.base, self.place, last) or os.path.abspath(word) == str(folder)  # noqa: PTH100

    def write(self) -> None:
        path = _notes() / f"{self.base}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    def is_within_reach(self) -> bool:
        """Returns whether its cluster is up, as far as this machine knows."""
        return isinstance(look(Path(self.file)), LaunchedCluster)

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


def all_submitted() -> list[Submitted]:
    """Returns the sweeps that were submitted from this machine, the last one first."""
    found: list[tuple[float, Submitted]] = []
    for path in _notes().glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            note = Submitted(**json.loads(path.read_text(encoding="utf-8")))
            found.append((path.stat().st_mtime, note))
    return [note for _, note in sorted(found, key=lambda each: -each[0])]


def submitted(word: str) -> Submitted | None:
    """Returns the sweep that is meant by a word: by its job or place, else by its spec's name the
    last that was submitted from this machine. None if there is none.
    """
    notes = all_submitted()
    kept = (note for note in notes if note.is_kept_as(word))
    return next(kept, next((note for note in notes if note.name == word), None))


def check_goes_on_here(verb: str, location: str) -> None:
    """Raises RemoteError where the sweep of that place was submitted to a cluster, which goes on
    with it, and not this machine.
    """
    for note in all_submitted():
        if note.place == location.rstrip("/"):
            raise RemoteError(
                f"{location}: was submitted to the cluster of {note.file} from here. It goes on"
                " there with the `orchestrate sweep` command that it was begun with (failed trials:"
                f" --retry-failed 1), or: ray exec {Path(note.file).name} 'orchestrate {verb}"
                f" {location}'; on this machine with --local"
            )


def check_is_new(name: str, files: Collection[Path]) -> None:
    """Raises RemoteError where a sweep of that name was submitted to the cluster of one of these
    files, which is not up now: begun here it would be another sweep.
    """
    for note in all_submitted():
        if note.name == name and Path(note.file) in files:
            file = Path(note.file).name
            raise RemoteError(
                f"{name} was submitted to the cluster of {file} from here ({note.place}), and that"
                f" is not up. Bring it up (ray up {file}) to go on with it; or run a sweep of its"
                " own on this machine: --local"
            )


def known(word: str) -> Submitted:
    note = submitted(word)
    if note is None:
        names = [str(note) for note in all_submitted()]
        raise RemoteError(
            f"{word}: no such sweep was submitted to a cluster from this machine"
            + (f"; those that were: {', '.join(names)}" if names else "")
        )
    return note
