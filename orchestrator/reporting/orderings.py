"""The pairs of rows that a spec wants compared, tested together on the test images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from orchestrator.reporting.gaps import corrected, test_difference
from orchestrator.reporting.results import SweepResults, TrialResult
from orchestrator.reporting.rows import Row
from orchestrator.reporting.statistics import Difference
from orchestrator.reporting.words import NOTHING, signed
from orchestrator.sweeps.correctness import Correct

Told = Literal["shows", "the reverse shows", "does not show", "the same trials", "not finished"]

ORDERING_RULE: Final = (
    "The spec said before there were results which row it expects above which. It shows where the"
    " first is significantly higher on the test images: at 5% for all of these together, after"
    " Holm's correction."
)


def orderings(
    sweep: SweepResults,
    table: Sequence[Row],
    correct: Callable[[TrialResult], Correct | None],
) -> list[dict[str, Any]]:
    """Returns the spec's orderings as plain JSON values: both rows, their test accuracies in
    percent, the difference with its 95% interval, p after Holm's correction for all of them, and
    what it comes to.

    Args:
        correct: which test images the last stage of a trial guessed right.
    """
    by_case: dict[str | None, dict[str, tuple[int, Row]]] = defaultdict(dict)
    for index, row in enumerate(table):
        # Where keys are varied, rows are compared that differ in their case alone.
        varied = json.dumps(dict(row.candidate.settings), sort_keys=True)
        by_case[row.case][varied] = index, row
    pairs = [
        (first, by_case[below][varied])
        for above, below in sweep.orderings
        for varied, first in by_case[above].items()
        if varied in by_case[below]
    ]
    gaps = corrected([_difference(above, below, correct) for (_, above), (_, below) in pairs])
    found = []
    for ((first, above), (second, below)), gap in zip(pairs, gaps, strict=True):
        measured = None if gap is None else gap.difference
        told: Told
        if above.candidate.id == below.candidate.id:
            told = "the same trials"
        elif measured is None:
            told = "not finished"
        elif gap is not None and gap.told_apart:
            told = "shows" if (measured.mean or 0.0) > 0 else "the reverse shows"
        else:
            told = "does not show"
        found.append(
            {
                "above": first,
                "below": second,
                "n": 0 if measured is None else measured.n,
                "difference": None if measured is None else measured.mean,
                "low": None if measured is None else measured.low,
                "high": None if measured is None else measured.high,
                "p_holm": None if gap is None else gap.p_holm,
                "told": told,
            }
        )
    return found


def _difference(
    above: Row, below: Row, correct: Callable[[TrialResult], Correct | None]
) -> Difference | None:
    if above.candidate.id == below.candidate.id:
        return None
    measured = test_difference(above, below, correct)
    return measured if measured.n else None


ORDERING_HEAD: Final = ("expected by the spec", "difference (test) [95%]", "p (Holm)", "result")


def ordering_cells(report: Mapping[str, Any], item: Mapping[str, Any]) -> list[str]:
    """Returns the two rows, the difference in points with its interval, p, and the result."""
    names = [report["rows"][item[side]]["label"] for side in ("above", "below")]
    gap = NOTHING
    if item["difference"] is not None:
        gap = signed(item["difference"])
        if item["low"] is not None:
            gap += f" [{signed(item['low'])}, {signed(item['high'])}]"
    p = item["p_holm"]
    shown = NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [f"{names[0]} over {names[1]}", gap, shown, item["told"]]
