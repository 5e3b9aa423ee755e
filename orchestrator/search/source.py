"""Where a sweep's candidates come from: a list, or a sampler that learns from the validation
accuracies it is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.sweeps.candidates import Candidate


class Source(Protocol):
    """Gives candidates one by one and is told what became of each."""

    def next(self) -> Candidate | None:
        """Returns the next candidate; None when there are no more."""
        ...

    def tell(self, candidate: Candidate, value: float | None) -> None:
        """Takes note that the candidate reached `value` (mean validation accuracy over its seeds),
        or failed (None).
        """
        ...


@dataclass(slots=True)
class ListSource:
    """Gives the candidates of a list in order. Results do not change what comes next."""

    left: deque[Candidate] = field(default_factory=deque)

    def next(self) -> Candidate | None:
        return self.left.popleft() if self.left else None

    def tell(self, candidate: Candidate, value: float | None) -> None:
        """Does nothing: there is nothing to learn."""
