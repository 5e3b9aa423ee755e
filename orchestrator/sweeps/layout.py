"""Where everything of a sweep lies on disk: the one place that knows every file name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ONE_NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


def checked_name(text: str) -> str:
    """Returns an id or key that was read from a file, before it becomes part of a path.

    Raises:
        ValueError: it could lead out of its folder.
    """
    if not isinstance(text, str) or not _ONE_NAME.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no id: an id is of letters, digits, - and _ alone")
    return text


@dataclass(frozen=True, slots=True)
class TrialLayout:
    """Files of one trial: `runs/<sweep>/trials/<id>/`."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def stages(self) -> Path:
        """One file a finished stage."""
        return self.root / "stages"

    def stage(self, number: int) -> Path:
        """The record of a finished stage."""
        return self.stages / f"{number:04d}.json"

    def test_correct(self, number: int) -> Path:
        """Which test images the model of a stage got right: a bit an image, for the report
        alone.
        """
        return self.root / "test_correct" / f"{number:04d}.npy"

    @property
    def error(self) -> Path:
        """Why the trial failed; absent while it may still go on."""
        return self.root / "error.json"

    @property
    def stage_lines(self) -> Path:
        """The records of a sweep of 0.1.0: one JSON line a finished stage."""
        return self.root / "stages.jsonl"


@dataclass(frozen=True, slots=True)
class SweepLayout:
    """Files of one sweep: `runs/<sweep>/`."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.yaml"

    @property
    def extended(self) -> Path:
        """The files that spec.yaml extends, as they were when the sweep was begun."""
        return self.root / "spec"

    @property
    def resolved(self) -> Path:
        return self.root / "resolved.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def candidates(self) -> Path:
        """One file a candidate, numbered in the order in which they were drawn."""
        return self.root / "candidates"

    def candidate(self, number: int) -> Path:
        return self.candidates / f"{number:06d}.json"

    @property
    def candidate_lines(self) -> Path:
        """The candidates of a sweep of 0.1.0: one JSON line each."""
        return self.root / "candidates.jsonl"

    @property
    def seal(self) -> Path:
        """Checksums of every record that stood when the sweep was last at rest."""
        return self.root / "seal.json"

    @property
    def lock(self) -> Path:
        return self.root / "driver.lock"

    @property
    def stage_store(self) -> Path:
        return self.root / "stages"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    def trial(self, trial_id: str) -> TrialLayout:
        """Raises ValueError where the id, which may come from a file, is no plain name."""
        return TrialLayout(self.trials / checked_name(trial_id))
