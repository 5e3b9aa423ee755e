"""What makes the guesses of stage 0, before any question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from trainers.method import Method


class Start(Protocol):
    """A start as a spec names it: `start: {name: NAME}`. A frozen dataclass whose fields are its
    settings.
    """

    name: ClassVar[str]

    def first(self, method: Method) -> Method:
        """Returns the method of stage 0.

        Args:
            method: the one that trains every later stage.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ByMethod:
    """The method trains stage 0 too, on the initial labels."""

    name: ClassVar[str] = "method"

    def first(self, method: Method) -> Method:
        """Returns the same method."""
        return method
