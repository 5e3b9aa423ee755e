"""Which rows may be compared, which of them leads, which are tied with it, and by how much they
differ from the baseline.

Rows are compared at equal bits only, and the leading row is chosen by validation accuracy alone: no
function here reads a test accuracy to decide anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.reporting.gaps import Gap, to_leader, validation
from orchestrator.reporting.likeness import Unlike, terms, unlike
from orchestrator.reporting.results import SweepResults, printable
from orchestrator.reporting.rows import Row

EQUAL_BITS: Final = 0.01
"""Two rows are at equal bits when what they spent differs by at most this share of the budget, or
of the most that was spent where that is less: a budget that no row can use up makes no rows equal.
"""

CHOICE_RULE: Final = (
    "The leading row has the highest mean validation accuracy after the last epoch of the last"
    " stage, among rows at equal bits and like with like that have finished the most seeds; equal"
    " means go to fewer annotation hours, then to the order of the spec. It is called best only if"
    " every other row is significantly lower, which takes two seeds or more; rows that are not are"
    " tied with it. The highest of many is partly the luckiest: on other images"
    " expect less than its validation accuracy. Test accuracy is shown and never used to choose."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows at equal bits."""

    budget_bits: float
    bits: tuple[float, float]
    """Least and most that a trial of these rows spent."""
    members: tuple[int, ...]
    """Indices of rows, by validation accuracy, best first."""
    reference: int
    """Index of the row that the others' settings are held against: the baseline; without one the
    leading row, or the first.
    """
    unlike: Mapping[int, tuple[Unlike, ...]]
    """Index of a row -> in what it differs from the reference beside what is compared; rows that do
    not are absent.
    """
    leader: int | None
    """Index of the row to go on with."""
    no_leader: str | None
    """Why there is none."""
    best: int | None
    """The leader, if every other row that may lead is significantly lower."""
    no_best: str | None
    """Why no row is called best."""
    to_leader: Mapping[int, Gap]
    """Index of a row -> its validation accuracy less the leader's; the leader's other names are
    absent, and so are rows that may not lead.
    """
    tied: tuple[int, ...]
    """Rows whose validation accuracy is not significantly lower than the leader's, by validation
    accuracy.
    """

    def like(self, index: int) -> bool:
        """Whether a row is like with like with the reference."""
        return all(item.like for item in self.unlike.get(index, ()))


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Where a row stands: in a comparison, or apart with the reason."""

    comparison: int | None
    reason: str | None
    baseline: int | None
    """Index of the row that differences are taken to; None where there is none at these bits."""


def rows(results: SweepResults) -> list[Row]:
    """Every candidate once for each name it has, in the order of the spec's cases, then of the
    candidates.
    """
    table = []
    for number, candidate in enumerate(results.candidates, start=1):
        finished = tuple(
            sorted(
                (result for result in candidate.trials if result.state == "finished"),
                key=lambda result: result.trial.seed,
            )
        )
        for case in candidate.cases or (None,):
            table.append(Row(case, label(case, candidate.settings, number), candidate, finished))
    place = {case: index for index, case in enumerate(results.case_order)}
    return sorted(table, key=lambda row: place.get(row.case or "", len(place)))


def compare(
    table: list[Row], baseline_case: str | None
) -> tuple[list[Comparison], list[ComparisonResult]]:
    """Rows gathered by budget, and within a budget by what was spent; comparisons in order of
    budget, highest first.
    """
    groups: list[tuple[float, list[int]]] = []
    where: dict[int, int] = {}
    reasons: dict[int, str] = {}
    for budget, indices in _budgets(table):
        members, left_out = _equal_bits(table, indices, budget)
        reasons |= left_out
        if members:
            where |= dict.fromkeys(members, len(groups))
            groups.append((budget, members))
    bases = {
        _settings_key(table[i]): i
        for i in reversed(range(len(table)))
        if baseline_case is not None and table[i].case == baseline_case
    }
    results = []
    for index, row in enumerate(table):
        base = bases.get(_settings_key(row))
        at_equal_bits = base is not None and index in where and where.get(base) == where[index]
        results.append(
            ComparisonResult(where.get(index), reasons.get(index), base if at_equal_bits else None)
        )
    comparisons = []
    for budget, members in groups:
        baseline = next(
            (index for index in sorted(members) if results[index].baseline == index), None
        )
        comparisons.append(_comparison(table, members, budget, baseline))
    return comparisons, results


def main_comparison(comparisons: list[Comparison], results: list[ComparisonResult]) -> int | None:
    """The comparison that holds the baseline; else the one with most rows, at the highest
    budget.
    """
    for index, result in enumerate(results):
        if result.baseline == index:
            return result.comparison
    if not comparisons:
        return None
    return max(range(len(comparisons)), key=lambda i: (len(comparisons[i].members), -i))


def _budgets(table: list[Row]) -> list[tuple[float, list[int]]]:
    """Rows whose budgets are the same within the tolerance (a paper's integers differ a little), by
    budget, highest first.
    """
    groups: list[tuple[float, list[int]]] = []
    for index in sorted(range(len(table)), key=lambda i: (-table[i].budget_bits, i)):
        budget = table[index].budget_bits
        if groups and groups[-1][0] - budget <= EQUAL_BITS * groups[-1][0]:
            groups[-1][1].append(index)
        else:
            groups.append((budget, [index]))
    return groups


def _equal_bits(
    table: list[Row], indices: list[int], budget: float
) -> tuple[list[int], dict[int, str]]:
    """Rows within the tolerance of the most that was spent, and why the others are not."""
    finished = [index for index in indices if table[index].n]
    reasons = {index: _unfinished(table[index]) for index in indices if not table[index].n}
    most = max((result.bits for index in finished for result in table[index].finished), default=0.0)
    members = []
    for index in finished:
        row = table[index]
        least = min(result.bits for result in row.finished)
        # A hair of slack, so that sums of logarithms in another order do not decide.
        if most - least <= EQUAL_BITS * min(budget, most) * (1 + 1e-9):
            members.append(index)
        else:
            left = f", {row.questions_left:.0f} questions left over" if row.questions_left else ""
            reasons[index] = (
                f"spent {least:.1f} bits where others spent {most:.1f}"
                f" ({100 * (most - least) / budget:.1f}% of the budget less{left})"
            )
    return members, reasons


def _unfinished(row: Row) -> str:
    states = [result.state for result in row.candidate.trials]
    if states and all(state == "failed" for state in states):
        return "every seed failed"
    return "no seed has finished"


def _comparison(
    table: list[Row], members: list[int], budget: float, baseline: int | None
) -> Comparison:
    spent = [result.bits for index in members for result in table[index].finished]
    order = sorted(
        members,
        key=lambda i: (
            -_or_lowest(table[i].mean(validation)),
            table[i].candidate.trials[0].trial.annotation_hours,
            i,
        ),
    )
    settings = {index: terms(table[index].candidate) for index in members}
    reference = min(members) if baseline is None else baseline
    beside = _unlike(settings, reference)
    # What the spec calls its baseline says what is like; a search has no such row, so there every
    # row may lead, with a word.
    may_lead = (
        order
        if baseline is None
        else [index for index in order if all(item.like for item in beside.get(index, ()))]
    )
    leader, no_leader = _leader(table, may_lead, all_like=len(may_lead) == len(order))
    gaps: dict[int, Gap] = {}
    no_best = no_leader
    if leader is not None:
        gaps = to_leader(table, may_lead, leader)
        if baseline is None:
            reference, beside = leader, _unlike(settings, leader)
        others = {
            item.key: None for index in may_lead for item in beside.get(index, ()) if not item.like
        }
        no_best = _no_best(table, leader, gaps, list(others))
    best = leader if no_best is None else None
    tied = tuple(index for index in order if index in gaps and not gaps[index].below)
    return Comparison(
        budget,
        (min(spent), max(spent)),
        tuple(order),
        reference,
        beside,
        leader,
        no_leader,
        best,
        no_best,
        gaps,
        tied,
    )


def _unlike(
    settings: Mapping[int, Mapping[str, Any]], reference: int
) -> dict[int, tuple[Unlike, ...]]:
    differing = {
        index: unlike(mine, settings[reference])
        for index, mine in settings.items()
        if index != reference
    }
    return {index: items for index, items in differing.items() if items}


def _leader(
    table: list[Row], may_lead: list[int], *, all_like: bool
) -> tuple[int | None, str | None]:
    """The first row that has finished the most seeds, or why there is none."""
    most_seeds = max(table[index].n for index in may_lead)
    eligible = [index for index in may_lead if len(table[index].by_seed(validation)) == most_seeds]
    if not eligible:
        return None, "there is no validation accuracy to choose by"
    if len({table[index].candidate.id for index in may_lead}) == 1:
        return (
            None,
            (
                "there is no other row at equal bits"
                if all_like
                else "no other row at equal bits is like with like"
            ),
        )
    return eligible[0], None


def _no_best(
    table: list[Row], leader: int, gaps: Mapping[int, Gap], others: list[str]
) -> str | None:
    if len(table[leader].by_seed(validation)) == 1:
        return "one seed has no error bar"
    tied = {table[index].candidate.id for index, gap in gaps.items() if not gap.below}
    if tied:
        of = len({table[index].candidate.id for index in gaps})
        if len(tied) == of:
            return (
                "the other candidate is not significantly lower"
                if of == 1
                else f"none of the {of} other candidates is significantly lower"
            )
        verb = "is" if len(tied) == 1 else "are"
        return f"{len(tied)} of the {of} other candidates {verb} not significantly lower"
    if others:
        return f"the rows are not like with like, they differ in {', '.join(others)}"
    return None


def _or_lowest(value: float | None) -> float:
    return float("-inf") if value is None else value


def _settings_key(row: Row) -> str:
    return repr(sorted((key, repr(value)) for key, value in row.candidate.settings.items()))


def label(case: str | None, settings: Mapping[str, Any], number: int) -> str:
    """A name that tells the rows of one report apart."""
    varied = ", ".join(
        f"{key.rpartition('.')[2]} {_short(value)}" for key, value in settings.items()
    )
    if case is None:
        return printable(f"#{number} {varied}".strip())
    return printable(f"{case}, {varied}" if varied else case)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "/".join(_short(item) for item in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
