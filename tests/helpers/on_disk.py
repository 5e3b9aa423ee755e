"""The names of a sweep as the paths of its files, for sweeps that are kept in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.sweeps.layout import SweepLayout, TrialLayout


@dataclass(frozen=True)
class Disk:
    """Every attribute and method of a layout that gives a name gives a path here."""

    layout: SweepLayout | TrialLayout

    @property
    def root(self) -> Path:
        """Its folder."""
        return self._path("" if isinstance(self.layout, SweepLayout) else self.layout.root)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.layout, name)
        return self._path(found) if isinstance(found, str) else self._of(found)

    def _of(self, method: Callable[..., str]) -> Callable[..., Path]:
        return lambda *args: self._path(method(*args))

    def _path(self, name: str) -> Path:
        return Path(self.layout.place(name))


def disk(layout: SweepLayout | TrialLayout) -> Any:
    """Returns the paths of a layout. (Any: they are found by the layout's own names.)"""
    return Disk(layout)


def trial_in(folder: Path) -> TrialLayout:
    """Returns the layout of the trial in a folder `trials/<id>`."""
    return SweepLayout.at(folder.parent.parent).trial(folder.name)
