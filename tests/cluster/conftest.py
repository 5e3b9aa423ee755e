"""What the tests of this folder share: one spec, and what it comes to when nobody disturbs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.real_sweep import TWO_RANKS, private_temp, uninterrupted
from tests.helpers.sweeps import TINY_SPEC, outcome_of


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    path.write_text(TINY_SPEC)
    return path


@pytest.fixture(scope="session")
def alone(spec: Path) -> dict[str, Any]:
    """What the sweep comes to without Ray."""
    root = spec.parent / "inline"
    uninterrupted(root, ["sweep", str(spec), "--engine", "inline", "--out", str(root)])
    return outcome_of(root)


@pytest.fixture(scope="session")
def two_ranks(spec: Path) -> dict[str, Any]:
    """What the trials of its first seed come to with worker groups of two ranks."""
    root = spec.parent / "two"
    uninterrupted(root, ["sweep", str(spec), "--local", "--out", str(root), *TWO_RANKS])
    return outcome_of(root)


@pytest.fixture
def temp() -> Iterator[Path]:
    with private_temp() as folder:
        yield folder
