"""What `doctor` says of Python and the packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.commands.finding import Finding


def python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    version = ".".join(map(str, sys.version_info[:3]))
    try:
        wanted = metadata.metadata("one-bit-orchestrator")["Requires-Python"]
    except metadata.PackageNotFoundError:
        wanted = ">=3.11"
    good = SpecifierSet(wanted).contains(version)
    yield Finding(
        check="python",
        state="ok" if good else "fail",
        found=f"{version} at {sys.executable}; {wanted} is needed",
        fix="" if good else "make env PYTHON=python3.11",
    )


def packages() -> Iterator[Finding]:
    """Versions of what the project needs; a line more for each that is missing or too old."""
    from packaging.requirements import Requirement

    try:
        needs = [Requirement(text) for text in metadata.requires("one-bit-orchestrator") or []]
    except metadata.PackageNotFoundError:
        yield Finding(
            check="packages",
            state="warn",
            found="the project itself is not installed",
            fix="make env",
        )
        return
    installed = []
    for need in needs:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            only = "; without it only --engine inline works" if need.name == "ray" else ""
            yield Finding(
                check=need.name,
                state="warn" if only else "fail",
                found=f"not installed{only}",
                fix=_install(need),
            )
            continue
        if need.specifier.contains(version, prereleases=True):
            installed.append(f"{need.name} {version}")
        else:
            yield Finding(
                check=need.name,
                state="fail",
                found=f"{version}; {need.specifier} is needed",
                fix=_install(need),
            )
    yield Finding(check="packages", state="ok", found=", ".join(installed))
    yield from _pins()


def _install(need: Any) -> str:
    return f"{sys.executable} -m pip install '{need}'"


def _pins() -> Iterator[Finding]:
    """Checks whether the versions are those of the tests; only a checkout has the list."""
    pins = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not pins.is_file():
        return
    differ = []
    for name, _, pinned in (
        line.strip().partition("==")
        for line in pins.read_text(encoding="utf-8").splitlines()
        if "==" in line
    ):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        # "+cpu" and the like name a build of the same version.
        if version.partition("+")[0] != pinned.partition("+")[0]:
            differ.append(f"{name} {version} ({pinned})")
    if differ:
        shown = ", ".join(differ[:5]) + (f" and {len(differ) - 5} more" if len(differ) > 5 else "")
        fix = f"{sys.executable} -m pip install --constraint {pins} --editable {pins.parent}"
        yield Finding(
            check="pins", state="warn", found=f"differ from constraints.txt: {shown}", fix=fix
        )
    else:
        yield Finding(
            check="pins",
            state="ok",
            found="the versions of constraints.txt, with which the tests are run",
        )
