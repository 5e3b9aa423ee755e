"""A row of a report: a candidate under one of its names, with its finished trials by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.reporting.results import CandidateResult, StageRecord, TrialResult
from orchestrator.reporting.statistics import Summary, summarise


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: a candidate under one of its names."""

    case: str | None
    label: str
    candidate: CandidateResult
    finished: tuple[TrialResult, ...]
    """By seed, ascending."""

    @property
    def n(self) -> int:
        return len(self.finished)

    @property
    def budget_bits(self) -> float:
        return max((result.trial.budget_bits for result in self.candidate.trials), default=0.0)

    @property
    def questions_left(self) -> float:
        return self.mean(lambda record: record.unspent) or 0.0

    def by_seed(self, read: Callable[[StageRecord], float | None]) -> dict[int, float]:
        """A number of the last stage, for the seeds that have it."""
        pairs = ((result.trial.seed, read(result.records[-1])) for result in self.finished)
        return {seed: value for seed, value in pairs if value is not None}

    def summary(self, read: Callable[[StageRecord], float | None]) -> Summary:
        return summarise(list(self.by_seed(read).values()))

    def mean(self, read: Callable[[StageRecord], float | None]) -> float | None:
        return self.summary(read).mean
