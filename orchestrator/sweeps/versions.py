"""Which versions of which packages computed a result."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata


@cache
def versions() -> dict[str, str]:
    """Versions of what computed a result, read without importing any of it."""
    names = ("one-bit-orchestrator", "torch", "numpy", "pyarrow", "ray")
    installed = {"python": platform.python_version()}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
