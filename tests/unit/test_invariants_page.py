"""The page of invariants names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "invariants.md"


def test_every_invariant_has_a_test_that_exists() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| I\d\d ", line)]
    numbers = [int(row[3:5]) for row in rows]
    assert numbers == [*range(1, 16), 18, *range(20, 28), 29, 30, *range(32, 47)]
    for row in rows:
        named = re.findall(
            r"`((?:unit/(?:\w+/)?|property/|integration/|cluster/)test_\w+\.py)`", row
        )
        assert named, row
        text = "".join((TESTS / path).read_text() for path in named)
        for name in re.findall(r"`(test_\w+|check_\w+|PoolMachine)", row):
            assert re.search(rf"(def|class) {name}\b", text), f"{name} is in none of {named}"
