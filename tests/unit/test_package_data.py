"""Files that the code reads beside itself come along when the project is installed from a wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_that_is_no_module_is_declared_as_package_data() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["package-data"]
    packed = {
        path
        for package, patterns in declared.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    present = {
        path
        for name in ("orchestrator", "search_spaces", "trainers")
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    }
    assert (
        sorted(
            path
            for path in present - packed
            if path.suffix != ".py" and "__pycache__" not in path.parts
        )
        == []
    )
