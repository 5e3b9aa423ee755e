"""Finds the labelling schedule that wins at equal bits. `import orchestrator as oc`: see
orchestrator.api.

The names below are loaded when they are first used: importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import Sweep, load, plan, resume

__all__ = ["Sweep", "load", "plan", "resume", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
