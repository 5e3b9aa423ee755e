"""Names of numbers in the JSON and CSV forms of a report: validation and test, whatever the task's
metric; the names of 0.1.0 and 0.2.0 stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

OLD_NAMES: Final[Mapping[str, str]] = {
    "validation": "val_top1",
    "test": "test_top1_last",
    "test_at_best_validation": "test_top1_at_best_val",
    "validation_stages": "val_stages",
    "test_stages": "stages",
}
"""Name -> what it was called while every metric was top-1; programs that read reports may ask for
either.
"""


def with_old_names(value: Any) -> Any:
    """Returns a report, or a part of it, in which every number that was renamed has its old name
    too, after the new ones.
    """
    if isinstance(value, list):
        return [with_old_names(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    renamed = {key: with_old_names(item) for key, item in value.items()}
    return renamed | {
        old: renamed[name]
        for name, old in OLD_NAMES.items()
        if name in renamed and old not in renamed
    }


def old_columns(head: list[str]) -> list[tuple[str, str]]:
    """Returns (old name, column) of the columns of a table that have one, in the table's order:
    `val_top1_mean` is `validation_mean`.
    """
    pairs = []
    for column in head:
        # The longest name first: `validation_stages` is no part of `validation`.
        for name in sorted(OLD_NAMES, key=len, reverse=True):
            if f"_{name}_" in f"_{column}_" and column != "validation_bits":
                pairs.append(
                    (f"_{column}_".replace(f"_{name}_", f"_{OLD_NAMES[name]}_")[1:-1], column)
                )
                break
    return pairs
