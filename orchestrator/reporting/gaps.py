"""Paired differences between rows of a report, and which of them are significant when a table makes
many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from orchestrator.reporting.results import StageRecord, TrialResult
from orchestrator.reporting.rows import Row
from orchestrator.reporting.statistics import (
    Difference,
    binomial_bound,
    crossed_difference,
    holm,
    paired_difference,
    summarise,
)
from orchestrator.sweeps.correctness import Correct, from_hex
from orchestrator.sweeps.stage_records import TOP1
from search_spaces.reading.schedule import images_apart

SIGNIFICANCE: Final = 0.05
"""Share of tables in which a difference may be called significant that is none, after
correction for the number of comparisons.
"""

MOST_PAIRS: Final = 60
"""Candidates up to which every pair of a comparison is tested, for Holm's correction; above, the
leading row's pairs alone, with Bonferroni's.
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """A paired difference as one of several that a table makes."""

    difference: Difference
    p_holm: float | None
    """The p-value after Holm's correction; None where the difference is never significant."""

    @property
    def told_apart(self) -> bool:
        return self.p_holm is not None and self.p_holm <= SIGNIFICANCE

    @property
    def below(self) -> bool:
        """Significant, and the first row is the lower one."""
        return self.told_apart and (self.difference.mean or 0.0) < 0


def validation(record: StageRecord) -> float | None:
    return record.validation


def difference(row: Row, base: Row, read: Callable[[StageRecord], float | None]) -> Difference:
    """Of a number of the last stage, paired by seed; the interval holds the seeds' spread alone."""
    return paired_difference(row.by_seed(read), base.by_seed(read))


def test_difference(
    row: Row, base: Row, correct: Callable[[TrialResult], Correct | None]
) -> Difference:
    """Of the test accuracy of the last epoch: paired by seed and by image where every seed of both
    rows has its file of right guesses, else by seed.
    """
    shared = row.by_seed(_test).keys() & base.by_seed(_test).keys()
    ours, theirs = (
        {
            result.trial.seed: correct(result)
            for result in side.finished
            if result.trial.seed in shared
        }
        for side in (row, base)
    )
    right, other = (
        {seed: right_ for seed, right_ in side.items() if right_ is not None}
        for side in (ours, theirs)
    )
    if (
        shared
        and right.keys() == other.keys() == shared
        and len({right_.shape for right_ in (*right.values(), *other.values())}) == 1
    ):
        return crossed_difference(right, other)
    return difference(row, base, _test)


def validation_difference(row: Row, base: Row) -> Difference:
    """Of the validation accuracy: paired by seed and by image, as all seeds share the images of a
    split. Carved images differ by seed, and are its spread.

    Records without the images that were right (sweeps of 0.1.0) have a bound for the error of the
    images instead. Of a metric that is no share of right guesses there is none: the seeds' spread
    alone.
    """
    ours, theirs = row.by_seed(validation), base.by_seed(validation)
    shared = ours.keys() & theirs.keys()
    trial = row.candidate.trials[0].trial
    chosen = trial.config.dataset.validation
    if not chosen.apart or not shared:
        return paired_difference(ours, theirs)
    images = images_apart(trial.config.dataset, trial.facts)
    right, other = (
        {seed: correct for seed in shared if (correct := _right(side, seed, images)) is not None}
        for side in (row, base)
    )
    if right.keys() == other.keys() == shared:
        return crossed_difference(right, other)
    if any(result.records[-1].metric != TOP1 for side in (row, base) for result in side.finished):
        return paired_difference(ours, theirs)
    means = [summarise([side[seed] for seed in shared]).mean or 0.0 for side in (ours, theirs)]
    return paired_difference(ours, theirs, binomial_bound(means[0], means[1], images))


def _right(row: Row, seed: int, images: int) -> Correct | None:
    """Which validation images the last stage of that seed got right."""
    (last,) = [result.records[-1] for result in row.finished if result.trial.seed == seed]
    return None if last.val_correct is None else from_hex(last.val_correct, images)


def corrected(differences: Sequence[Difference | None]) -> list[Gap | None]:
    """The differences of one table with Holm's correction for their number; None stays None and is
    no comparison.
    """
    tested = [item for item in differences if item is not None]
    adjusted = iter(holm([item.p for item in tested]))
    return [None if item is None else Gap(item, next(adjusted)) for item in differences]


def to_leader(table: Sequence[Row], may_lead: Sequence[int], leader: int) -> dict[int, Gap]:
    """Every other candidate's validation accuracy less the leader's, corrected for all pairs of
    rows.

    The leader is chosen by the numbers that it is then tested by, so it may be any row, and any two
    may come to be compared: the family is every pair.
    """
    first: dict[str, int] = {}
    for index in [leader, *(index for index in may_lead if table[index].by_seed(validation))]:
        first.setdefault(table[index].candidate.id, index)
    pairs = list(combinations(first, 2)) if len(first) <= MOST_PAIRS else []
    gaps = {
        other: validation_difference(table[index], table[leader])
        for other, index in first.items()
        if index != leader
    }
    if pairs:
        adjusted = dict(
            zip(
                pairs,
                holm([_pair_p(table[first[one]], table[first[other]]) for one, other in pairs]),
                strict=True,
            )
        )
        # The leader stands first, so it is the first of its pairs.
        by_candidate = {
            other: Gap(gap, adjusted[table[leader].candidate.id, other])
            for other, gap in gaps.items()
        }
    else:
        number = len(first) * (len(first) - 1) // 2
        by_candidate = {
            other: Gap(gap, None if gap.p is None else min(1.0, number * gap.p))
            for other, gap in gaps.items()
        }
    return {
        index: by_candidate[table[index].candidate.id]
        for index in may_lead
        if table[index].candidate.id in by_candidate
    }


def _pair_p(one: Row, other: Row) -> float | None:
    return validation_difference(other, one).p


def _test(record: StageRecord) -> float | None:
    return record.test
