"""How busy the worker groups of a sweep were."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Utilisation:
    """How busy the worker groups were."""

    busy_seconds: float = 0.0
    first: float | None = None
    last: float = 0.0
    trained: int = 0
    broken: int = 0

    def share(self, groups: int) -> float | None:
        """Share of the worker groups' time spent training, from the first stage's start to the last
        one's end.
        """
        if self.first is None or self.last <= self.first:
            return None
        return self.busy_seconds / (groups * (self.last - self.first))

    def began(self) -> float:
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        return now

    def ended(self, began: float) -> None:
        self.last = time.monotonic()
        self.busy_seconds += self.last - began
