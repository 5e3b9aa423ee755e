"""The README's tree is the repository's."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("search_spaces", "trainers", "orchestrator")


def listed() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    package = ""
    for line in (ROOT / "README.md").read_text().splitlines():
        if top := re.match(r"(\w+)/ ", line):
            package = top[1]
        elif package and (name := re.match(r"  (\w+\.(?:py|yaml)) ", line)):
            found.setdefault(package, set()).add(name[1])
    return found


def test_every_file_of_the_packages_has_its_line_and_every_line_its_file() -> None:
    there = {package: {p.name for p in (ROOT / package).iterdir() if p.suffix in (".py", ".yaml") and p.name != "__init__.py"} for package in PACKAGES}
    assert listed() == there
