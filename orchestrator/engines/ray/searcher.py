"""A source of candidates as Ray Tune wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from orchestrator.engines.ray.candidate import METRIC
from orchestrator.search.source import Source
from orchestrator.sweeps.candidates import Candidate


class SourceSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """A source as Ray Tune wants it. Keeps no state that must survive: a resumed sweep has a fresh
    source that was told our own records.
    """

    def __init__(self, source: Source, may_draw: Callable[[], bool] = lambda: True) -> None:
        """`may_draw`: asked before each candidate; False ends the search."""
        super().__init__(metric=METRIC, mode="max")
        self._source, self._may_draw = source, may_draw
        self._given: dict[str, Candidate] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        candidate = self._source.next() if self._may_draw() else None
        if candidate is None:
            finished: str = Searcher.FINISHED
            return finished
        self._given[trial_id] = candidate
        return {"candidate": candidate}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        candidate = self._given.pop(trial_id)
        value = None if error or result is None else result.get(METRIC)
        self._source.tell(candidate, None if value is None or value != value else float(value))

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: Tune's own snapshots are never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, for the same reason."""
