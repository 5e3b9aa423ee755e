"""The pairs of rows that a spec wants compared: which is expected above which, before any result is
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from search_spaces.reading.errors import SpecError, cases_in_words, did_you_mean
from search_spaces.reading.sections import Sections
from search_spaces.reading.yaml_source import Node, plain

Orderings = tuple[tuple[str, str], ...]
"""Pairs of cases, the one that is expected to be higher first."""

_ALLOWED: Final = "a list of pairs of cases, as in [[two stages, one stage]]"


def read_orderings(sections: Sections, cases: Mapping[str, Any]) -> Orderings:
    """Reads `orderings`.

    Raises:
        SpecError: it is no list of pairs of different cases.
    """
    node = sections.top.get("orderings")
    if node is None or node.value is None or node.value == []:
        return ()
    if not isinstance(node.value, list):
        raise SpecError(f"must be {_ALLOWED}", key="orderings", value=plain(node), place=node.place)
    pairs: dict[tuple[str, str], None] = {}
    for item in node.value:
        pair = _pair(item, cases)
        if pair in pairs or pair[::-1] in pairs:
            raise SpecError(
                "the same two cases are compared twice",
                key="orderings",
                value=plain(item),
                place=item.place,
            )
        pairs[pair] = None
    return tuple(pairs)


def _pair(item: Node, cases: Mapping[str, Any]) -> tuple[str, str]:
    value = plain(item)
    if not (isinstance(value, list) and len(value) == 2 and value[0] != value[1]):
        raise SpecError(
            f"is no pair of two different cases; orderings must be {_ALLOWED}",
            key="orderings",
            value=value,
            place=item.place,
        )
    for name in value:
        if not isinstance(name, str) or name not in cases:
            hint = did_you_mean(str(name), cases) or (
                cases_in_words(cases) if cases else "there are none"
            )
            raise SpecError(
                "is not the name of a case",
                key="orderings",
                value=name,
                place=item.place,
                hint=hint,
            )
    return value[0], value[1]
