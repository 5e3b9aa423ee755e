"""Events on their way from the broker to the driver, none of which a lost reply loses."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

Event = tuple[str, Any, Any]
"""What happened, to whom, and what there is to say of it."""
Reply = tuple[str, int, list[Event]]
"""Name of the queue, number of the first event, and the events."""


@dataclass(slots=True)
class EventQueue:
    """Keeps events until the reader says that they have arrived."""

    _name: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    """Of this queue: one that is made anew after a death begins at 0 again."""
    _first: int = field(default=0, init=False)
    """Number of the first event that is kept."""
    _events: list[Event] = field(default_factory=list, init=False)

    def put(self, event: Event) -> None:
        """Adds an event."""
        self._events.append(event)

    def take(self, name: str, seen: int) -> Reply:
        """Returns the events that have not arrived; those that have are forgotten.

        Args:
            name: of the queue that the reader has read.
            seen: how many of its events have arrived.
        """
        if name == self._name and seen > self._first:
            del self._events[: seen - self._first]
            self._first = seen
        return self._name, self._first, list(self._events)


@dataclass(slots=True)
class EventReader:
    """What has arrived of a queue. A reply may be lost, or a queue made anew."""

    name: str = ""
    seen: int = 0

    def fresh(self, reply: Reply) -> list[Event]:
        """Returns the events of a reply that have not been returned before."""
        name, first, events = reply
        if name != self.name:
            self.name, self.seen = name, first
        new = events[max(0, self.seen - first) :]
        self.seen = max(self.seen, first + len(events))
        return new
