"""How many stage trainings candidates come to, those that they share counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.sweeps.candidates import Candidate
from search_spaces.reading.trials import stage_prefixes


@dataclass(slots=True)
class DistinctTrainings:
    """Counts the stage trainings of a list of candidates that grows. Each candidate is looked at
    once, however often the count is asked for.
    """

    candidates: Sequence[Candidate]
    """All so far; only ever appended to."""
    _keys: set[str] = field(default_factory=set, init=False)
    _counted: int = field(default=0, init=False)
    """Candidates whose trainings are in `_keys`."""

    def count(self) -> int:
        """Returns the number of distinct trainings of all candidates so far."""
        drawn = len(self.candidates)
        for number in range(self._counted, drawn):
            for trial in self.candidates[number].trials:
                self._keys.update(stage_prefixes(trial))
        self._counted = drawn
        return len(self._keys)

    def expected(self, number: int) -> int:
        """Returns how many there will be of `number` candidates, if those not drawn yet are like
        those that are.
        """
        return round(self.count() * number / max(self._counted, 1))
