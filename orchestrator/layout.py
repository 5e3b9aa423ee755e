"""Where everything of a sweep lies on disk: the one place that knows every file name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrialLayout:
    """Files of one trial: `runs/<sweep>/trials/<id>/`."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def stages(self) -> Path:
        """One JSON line per finished stage."""
        return self.root / "stages.jsonl"

    @property
    def error(self) -> Path:
        """Why the trial failed; absent while it may still go on."""
        return self.root / "error.json"


@dataclass(frozen=True, slots=True)
class SweepLayout:
    """Files of one sweep: `runs/<sweep>/`."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.yaml"

    @property
    def resolved(self) -> Path:
        return self.root / "resolved.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def candidates(self) -> Path:
        """One JSON line per candidate that a search has drawn."""
        return self.root / "candidates.jsonl"

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
        return TrialLayout(self.trials / trial_id)


def cache_root() -> Path:
    """Where decoded data sets are kept: $ORCHESTRATE_CACHE, else the user's cache folder."""
    chosen = os.environ.get("ORCHESTRATE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestrate"
