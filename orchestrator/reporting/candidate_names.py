"""One name for a candidate while a sweep runs, in `status` and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.reporting.comparison import label
from orchestrator.sweeps.candidates import Candidate

SEPARATOR: Final = " · "
"""Between the candidate and the seed in what messages call a trial."""


@dataclass(slots=True)
class CandidateNames:
    """Turns `CANDIDATE · seed 3` into `two stages, strategy hard · seed 3`. Processes that train
    know a candidate's id alone; its number in the sweep is known where candidates are drawn.
    """

    candidates: Sequence[Candidate]
    """All so far; only ever appended to."""
    _names: dict[str, str] = field(default_factory=dict, init=False)
    _counted: int = field(default=0, init=False)

    def __call__(self, trial: str) -> str:
        """Returns how people read a trial's name; one of no known candidate stays as it is."""
        for number in range(self._counted, len(self.candidates)):
            candidate = self.candidates[number]
            cases = " = ".join(candidate.cases) or None
            self._names[candidate.id] = label(cases, candidate.settings, number + 1)
        self._counted = len(self.candidates)
        candidate_id, separator, rest = trial.partition(SEPARATOR)
        return self._names.get(candidate_id, candidate_id) + separator + rest
