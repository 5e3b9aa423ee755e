"""Under which names everything of a sweep is kept: the one place that knows them all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.storage.opening import open_store
from orchestrator.storage.segments import Segments, StoredSegments
from orchestrator.storage.store import Store

_ONE_NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


def checked_name(text: str) -> str:
    """Returns an id or key that was read from a file, before it becomes part of a name.

    Raises:
        ValueError: it could lead out of its folder.
    """
    if not isinstance(text, str) or not _ONE_NAME.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no id: an id is of letters, digits, - and _ alone")
    return text


@dataclass(frozen=True, slots=True)
class TrialLayout:
    """Names of one trial, all below `trials/<id>`."""

    store: Store
    id: str

    @property
    def root(self) -> str:
        return f"trials/{self.id}"

    @property
    def ledger(self) -> str:
        """One name a segment."""
        return f"{self.root}/ledger"

    @property
    def segments(self) -> Segments:
        """What the ledger is kept in."""
        return StoredSegments(self.store, self.ledger)

    @property
    def stages(self) -> str:
        """One name a finished stage."""
        return f"{self.root}/stages"

    def stage(self, number: int) -> str:
        """The record of a finished stage."""
        return f"{self.stages}/{number:04d}.json"

    def test_correct(self, number: int) -> str:
        """Which test images the model of a stage got right: a bit an image, for the report
        alone.
        """
        return f"{self.root}/test_correct/{number:04d}.npy"

    @property
    def error(self) -> str:
        """Why the trial failed; absent while it may still go on."""
        return f"{self.root}/error.json"

    @property
    def stage_lines(self) -> str:
        """The records of a sweep of 0.1.0: one JSON line a finished stage."""
        return f"{self.root}/stages.jsonl"

    def place(self, name: str) -> str:
        """Returns where a name is kept, for messages."""
        return self.store.place(name)


@dataclass(frozen=True, slots=True)
class SweepLayout:
    """Names of one sweep, and the store that holds them."""

    store: Store

    @classmethod
    def at(cls, location: str | Path) -> SweepLayout:
        """Returns the layout of the sweep at a location, which need not be there yet.

        Raises:
            StorageError: no store is known for such a location.
        """
        return cls(open_store(location))

    @property
    def location(self) -> str:
        """Folder or address of the whole sweep."""
        return self.store.location

    @property
    def spec(self) -> str:
        return "spec.yaml"

    @property
    def extended(self) -> str:
        """The files that spec.yaml extends, as they were when the sweep was begun."""
        return "spec"

    @property
    def resolved(self) -> str:
        return "resolved.yaml"

    @property
    def manifest(self) -> str:
        return "manifest.json"

    @property
    def candidates(self) -> str:
        """One name a candidate, numbered in the order in which they were drawn."""
        return "candidates"

    def candidate(self, number: int) -> str:
        return f"{self.candidates}/{number:06d}.json"

    @property
    def candidate_lines(self) -> str:
        """The candidates of a sweep of 0.1.0: one JSON line each."""
        return "candidates.jsonl"

    @property
    def seal(self) -> str:
        """Checksums of every record that stood when the sweep was last at rest."""
        return "seal.json"

    @property
    def lock(self) -> str:
        return "driver.lock"

    @property
    def stages(self) -> str:
        """Trained stages: all that is kept of one is below its key."""
        return "stages"

    def stage_folder(self, key: str) -> str:
        """Raises ValueError where the key, which may come from a file, is no plain name."""
        return f"{self.stages}/{checked_name(key)}"

    @property
    def report(self) -> str:
        return "report"

    @property
    def trials(self) -> str:
        return "trials"

    def trial(self, trial_id: str) -> TrialLayout:
        """Raises ValueError where the id, which may come from a file, is no plain name."""
        return TrialLayout(self.store, checked_name(trial_id))

    def place(self, name: str) -> str:
        """Returns where a name is kept, for messages."""
        return self.store.place(name)
