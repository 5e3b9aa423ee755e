"""The orderings of the one-bit paper in a finished sweep of ablations.yaml, or of
ablations_images.yaml, as paired differences on test that are corrected together.

`python -m tests.benchmark.orderings DIR`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from orchestrator.reporting.comparison import rows
from orchestrator.reporting.gaps import corrected, test_difference
from orchestrator.reporting.results import TrialResult, load
from orchestrator.reporting.rows import Row
from orchestrator.sweeps.correctness import Correct, of_trial
from orchestrator.sweeps.layout import SweepLayout

ORDERINGS: Final = (
    ("one stage, NLS", "one stage, base"),
    ("two stages, NLS", "two stages, base"),
    ("two stages, NLS", "one stage, NLS"),
    ("three stages, NLS", "two stages, NLS"),
    ("two stages, NLS", "full labels only"),
    ("split 57/43", "split 21/79"),
    ("split 57/43", "split 79/21"),
    ("2 labels per class", "1 label per class"),
    ("4 labels per class", "2 labels per class"),
    ("hard questions", "random questions"),
    ("easy questions", "random questions"),
)
"""(row, row that it lies above in the paper, on CIFAR-100); fixed before any result was seen here.
"""


def correct(result: TrialResult) -> Correct | None:
    """Which test images the last stage of a trial guessed right."""
    last = result.records[-1]
    return of_trial(
        result.files, last.stage, result.trial.facts.test_items, last.test_correct_sha256
    )


def main(folder: Path) -> None:
    """Prints a line an ordering: both means, the difference with its 95% interval, and p after
    Holm's correction for all of them.
    """
    table: dict[str | None, Row] = {
        row.case: row for row in rows(load(SweepLayout.at(folder)).checked())
    }
    pairs = [(table[above], table[below]) for above, below in ORDERINGS]
    gaps = corrected([test_difference(above, below, correct) for above, below in pairs])
    for (above, below), gap in zip(pairs, gaps, strict=True):
        assert gap is not None
        found, means = (
            gap.difference,
            [row.mean(lambda record: record.test) or 0.0 for row in (above, below)],
        )
        told = (
            "shows"
            if gap.told_apart and (found.mean or 0) > 0
            else "the reverse shows"
            if gap.told_apart
            else "does not show"
        )
        p = "none" if gap.p_holm is None else f"{gap.p_holm:.3f}"
        print(
            f"{above.case} over {below.case}: {means[0]:.1f} / {means[1]:.1f}, {found.mean:+.2f}"
            f" [{found.low:+.2f}, {found.high:+.2f}], p = {p}: {told}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
