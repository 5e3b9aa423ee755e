"""Installs packages that a test writes."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, package: str, module: str, points: str) -> None:
    """Writes a package as an installer leaves it: a module, and its description with entry
    points.
    """
    (folder / f"{package}.py").write_text(module)
    info = folder / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points)
