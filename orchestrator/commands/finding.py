"""One line of what `doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the verdict."""

    check: str
    state: State
    found: str
    fix: str = ""
    """A command, or what to do; empty when all is well, or `found` says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinding(Finding):
    """One line of the verdict on a cluster."""

    node: str = ""
    """Address of the machine; empty for the cluster as a whole."""
