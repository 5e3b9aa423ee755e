"""Which rows may be compared, which of them is best, and by how much they differ from the baseline.

Rows are compared at equal bits only, and the best row is chosen by validation accuracy alone: no function here reads a test accuracy to decide anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.results import CandidateResult, StageRecord, SweepResults, TrialResult, printable
from orchestrator.statistics import Difference, Summary, paired_difference, summarise

EQUAL_BITS: Final = 0.01
"""Two rows are at equal bits when what they spent differs by at most this share of the budget."""

CHOICE_RULE: Final = (
    "The best row has the highest mean validation accuracy after the last epoch of the last stage, among rows at equal bits that have finished the most seeds. "
    "Ties go to fewer annotation hours, then to the order of the spec. Test accuracy is shown and never used to choose."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report: a candidate under one of its names."""

    case: str | None
    label: str
    candidate: CandidateResult
    finished: tuple[TrialResult, ...]
    """By seed, ascending."""

    @property
    def n(self) -> int:
        return len(self.finished)

    @property
    def budget_bits(self) -> float:
        return max((result.trial.budget_bits for result in self.candidate.trials), default=0.0)

    @property
    def questions_left(self) -> float:
        return self.mean(lambda record: record.unspent) or 0.0

    def by_seed(self, read: Callable[[StageRecord], float | None]) -> dict[int, float]:
        """A number of the last stage, for the seeds that have it."""
        pairs = ((result.trial.seed, read(result.records[-1])) for result in self.finished)
        return {seed: value for seed, value in pairs if value is not None}

    def summary(self, read: Callable[[StageRecord], float | None]) -> Summary:
        return summarise(list(self.by_seed(read).values()))

    def mean(self, read: Callable[[StageRecord], float | None]) -> float | None:
        return self.summary(read).mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows at equal bits."""

    budget_bits: float
    bits: tuple[float, float]
    """Least and most that a trial of these rows spent."""
    members: tuple[int, ...]
    """Indices of rows, by validation accuracy, best first."""
    best: int | None
    no_best: str | None
    """Why no row is called best."""
    not_separated: tuple[int, ...]
    """Other rows whose validation accuracy is not told apart from the best row's: the 95% interval of the paired difference holds zero, or there is none.

    Other names of the best candidate are not among them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands: in a comparison, or apart with the reason."""

    comparison: int | None
    reason: str | None
    baseline: int | None
    """Index of the row that differences are taken to; None where there is none at these bits."""


def validation(record: StageRecord) -> float | None:
    return record.val_top1


def rows(results: SweepResults) -> list[Row]:
    """Every candidate once for each name it has, in the order of the spec's cases, then of the candidates."""
    found = []
    for number, candidate in enumerate(results.candidates, start=1):
        finished = tuple(sorted((result for result in candidate.trials if result.state == "finished"), key=lambda result: result.trial.seed))
        for case in candidate.cases or (None,):
            found.append(Row(case, label(case, candidate.settings, number), candidate, finished))
    place = {case: index for index, case in enumerate(results.case_order)}
    return sorted(found, key=lambda row: place.get(row.case or "", len(place)))


def compare(table: list[Row], baseline_case: str | None) -> tuple[list[Comparison], list[Standing]]:
    """Rows gathered by budget, and within a budget by what was spent; comparisons in order of budget, highest first."""
    comparisons: list[Comparison] = []
    where: dict[int, int] = {}
    reasons: dict[int, str] = {}
    for budget, indices in _budgets(table):
        members, left_out = _equal_bits(table, indices, budget)
        reasons |= left_out
        if members:
            where |= dict.fromkeys(members, len(comparisons))
            comparisons.append(_comparison(table, members, budget))
    bases = {_settings_key(table[i]): i for i in reversed(range(len(table))) if baseline_case is not None and table[i].case == baseline_case}
    standings = []
    for index, row in enumerate(table):
        base = bases.get(_settings_key(row))
        at_equal_bits = base is not None and index in where and where.get(base) == where[index]
        standings.append(Standing(where.get(index), reasons.get(index), base if at_equal_bits else None))
    return comparisons, standings


def main_comparison(comparisons: list[Comparison], standings: list[Standing]) -> int | None:
    """The comparison that holds the baseline; else the one with most rows, at the highest budget."""
    for index, standing in enumerate(standings):
        if standing.baseline == index:
            return standing.comparison
    if not comparisons:
        return None
    return max(range(len(comparisons)), key=lambda i: (len(comparisons[i].members), -i))


def difference(row: Row, base: Row, read: Callable[[StageRecord], float | None]) -> Difference:
    return paired_difference(row.by_seed(read), base.by_seed(read))


def _budgets(table: list[Row]) -> list[tuple[float, list[int]]]:
    """Rows whose budgets are the same within the tolerance (a paper's integers differ a little), by budget, highest first."""
    groups: list[tuple[float, list[int]]] = []
    for index in sorted(range(len(table)), key=lambda i: (-table[i].budget_bits, i)):
        budget = table[index].budget_bits
        if groups and groups[-1][0] - budget <= EQUAL_BITS * groups[-1][0]:
            groups[-1][1].append(index)
        else:
            groups.append((budget, [index]))
    return groups


def _equal_bits(table: list[Row], indices: list[int], budget: float) -> tuple[list[int], dict[int, str]]:
    """Rows within the tolerance of the most that was spent, and why the others are not."""
    finished = [index for index in indices if table[index].n]
    reasons = {index: _unfinished(table[index]) for index in indices if not table[index].n}
    most = max((result.bits for index in finished for result in table[index].finished), default=0.0)
    members = []
    for index in finished:
        row = table[index]
        least = min(result.bits for result in row.finished)
        # A hair of slack, so that sums of logarithms in another order do not decide.
        if most - least <= EQUAL_BITS * budget * (1 + 1e-9):
            members.append(index)
        else:
            left = f", {row.questions_left:.0f} questions left over" if row.questions_left else ""
            reasons[index] = f"spent {least:.1f} bits where others spent {most:.1f} ({100 * (most - least) / budget:.1f}% of the budget less{left})"
    return members, reasons


def _unfinished(row: Row) -> str:
    states = [result.state for result in row.candidate.trials]
    if states and all(state == "failed" for state in states):
        return "every seed failed"
    return "no seed has finished"


def _comparison(table: list[Row], members: list[int], budget: float) -> Comparison:
    spent = [result.bits for index in members for result in table[index].finished]
    order = sorted(members, key=lambda i: (-_or_lowest(table[i].mean(validation)), table[i].candidate.trials[0].trial.annotation_hours, i))
    most_seeds = max(table[index].n for index in members)
    eligible = [index for index in order if len(table[index].by_seed(validation)) == most_seeds]
    if not eligible:
        return Comparison(budget, (min(spent), max(spent)), tuple(order), None, "there is no validation accuracy to choose by", ())
    if len({table[index].candidate.id for index in members}) == 1:
        return Comparison(budget, (min(spent), max(spent)), tuple(order), None, "there is no other row at equal bits", ())
    best = eligible[0]
    return Comparison(budget, (min(spent), max(spent)), tuple(order), best, None, tuple(i for i in order if _near(table[i], table[best])))


def _near(row: Row, best: Row) -> bool:
    if row.candidate.id == best.candidate.id:
        return False
    gap = difference(row, best, validation)
    return gap.high is None or gap.high >= 0


def _or_lowest(value: float | None) -> float:
    return float("-inf") if value is None else value


def _settings_key(row: Row) -> str:
    return repr(sorted((key, repr(value)) for key, value in row.candidate.settings.items()))


def label(case: str | None, settings: Mapping[str, Any], number: int) -> str:
    """A name that tells the rows of one report apart."""
    varied = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in settings.items())
    if case is None:
        return printable(f"#{number} {varied}".strip())
    return printable(f"{case}, {varied}" if varied else case)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "/".join(_short(item) for item in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
