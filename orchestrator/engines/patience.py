"""How often a thing whose process died is started again: without end while it gets further in
between, else resources.max_failures times in a row.

A preempted machine is no fault of what ran there, and a training that goes on from its checkpoints
reaches its end however often it is moved.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Deaths:
    """Of one stage or candidate: those since it last got further."""

    limit: int
    """So many in a row may be in vain."""
    reached: object
    """How far it was when it started or last died: anything that changes as it gets further."""
    in_vain: int = 0

    def too_many(self, reached: object) -> bool:
        """Counts a death that came when it was so far. Whether it is one too many to start
        again.
        """
        if reached != self.reached:
            self.reached, self.in_vain = reached, 0
        else:
            self.in_vain += 1
        return self.in_vain > self.limit
