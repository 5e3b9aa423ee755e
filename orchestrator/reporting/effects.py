"""What each varied key does on average over everything else, where a sweep has crossed them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from orchestrator.reporting.comparison import ComparisonResult
from orchestrator.reporting.gaps import corrected, validation
from orchestrator.reporting.results import StageRecord, TrialResult
from orchestrator.reporting.rows import Row
from orchestrator.reporting.statistics import (
    Difference,
    Summary,
    crossed_difference,
    paired_difference,
    summarise,
)
from orchestrator.reporting.words import NOTHING, interval, mean_std, value_text
from orchestrator.sweeps.correctness import Correct

EFFECT_RULE: Final = (
    "Each value of a varied key is averaged over all settings of the others that have a row at"
    " equal bits with every value of it. The difference is that to the value with the highest"
    " validation accuracy, on the test images, paired by those settings, by seed and by image, with"
    " its own 95% interval; `*`: significant at 5% for all differences of these tables together,"
    " after Holm's correction. An average hides that a value may be good with some settings and bad"
    " with others"
)
CASE: Final = "case"
"""What the cases of a spec are called where they are crossed with varied keys."""


@dataclass(frozen=True, slots=True)
class _Factor:
    """A varied key with the rows that tell its values apart and nothing else."""

    key: str
    values: tuple[Any, ...]
    blocks: tuple[tuple[int, ...], ...]
    """Indices of rows, one a value in their order: rows that differ in this key alone."""
    left_out: int
    """Settings of the other keys of which some value has no row at equal bits."""
    seeds: tuple[int, ...]
    """Finished by every row of the blocks."""


def effects(
    table: Sequence[Row],
    results: Sequence[ComparisonResult],
    correct: Callable[[TrialResult], Correct | None],
) -> list[dict[str, Any]]:
    """Returns the main effect of each varied key as plain JSON values; none where fewer than two
    were crossed, and of no key that has no two rows which differ in it alone.

    Args:
        correct: which test images the last stage of a trial guessed right.
    """
    factors = _factors(table, results)
    shares = _shares(table, factors, correct)
    found, gaps = [], []
    for number, factor in enumerate(factors):
        means = [_means(table, factor, place) for place in range(len(factor.values))]
        best = max(
            range(len(factor.values)),
            key=lambda place: (_mean(means[place]["validation"]), -place),
        )
        for place in range(len(factor.values)):
            gaps.append(
                None
                if place == best
                else _difference(
                    means[place]["test"],
                    means[best]["test"],
                    None if shares is None else shares[number][place],
                    None if shares is None else shares[number][best],
                )
            )
        found.append((factor, means, best))
    adjusted = iter(corrected(gaps))
    lines = []
    for factor, means, best in found:
        rows = []
        for place, value in enumerate(factor.values):
            gap = next(adjusted)
            rows.append(
                {
                    "value": value,
                    "validation": _mean_std(means[place]["validation"]),
                    "test": _mean_std(means[place]["test"]),
                    "is_highest": place == best,
                    "difference": (
                        None
                        if gap is None or gap.difference.mean is None
                        else asdict(gap.difference)
                        | {"p_holm": gap.p_holm, "told_apart": gap.told_apart}
                    ),
                }
            )
        lines.append(
            {
                "key": factor.key,
                "n": len(factor.seeds),
                "settings": len(factor.blocks),
                "left_out": factor.left_out,
                "values": rows,
            }
        )
    return lines


def _factors(table: Sequence[Row], results: Sequence[ComparisonResult]) -> list[_Factor]:
    settings = [_settings(row) for row in table]
    keys = {key: None for mine in settings for key in mine}
    varied = [key for key in keys if len({_code(mine.get(key)) for mine in settings}) > 1]
    if len(varied) < 2:
        return []
    found = (_factor(key, table, results, settings) for key in varied)
    return [factor for factor in found if factor is not None]


def _settings(row: Row) -> dict[str, Any]:
    own = {} if row.case is None else {CASE: row.case}
    return own | dict(row.candidate.settings)


def _factor(
    key: str,
    table: Sequence[Row],
    results: Sequence[ComparisonResult],
    settings: Sequence[Mapping[str, Any]],
) -> _Factor | None:
    values: dict[str, Any] = {}
    by_rest: dict[str, dict[str, int]] = defaultdict(dict)
    for index, mine in enumerate(settings):
        value = _code(mine.get(key))
        values.setdefault(value, mine.get(key))
        rest = _code({name: setting for name, setting in mine.items() if name != key})
        by_rest[rest].setdefault(value, index)
    blocks = [
        tuple(rows[value] for value in values)
        for rows in by_rest.values()
        if rows.keys() == values.keys() and _at_equal_bits([results[i] for i in rows.values()])
    ]
    if not blocks:
        return None
    seeds = set.intersection(
        *(
            {result.trial.seed for result in table[row].finished}
            for block in blocks
            for row in block
        )
    )
    if not seeds:
        return None
    return _Factor(
        key,
        tuple(values.values()),
        tuple(blocks),
        len(by_rest) - len(blocks),
        tuple(sorted(seeds)),
    )


def _at_equal_bits(results: Sequence[ComparisonResult]) -> bool:
    return len({result.comparison for result in results}) == 1 and results[0].comparison is not None


def _code(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _means(table: Sequence[Row], factor: _Factor, place: int) -> dict[str, dict[int, float]]:
    """Returns validation and test, by seed, of a value: means over the settings of the others."""
    rows = [table[block[place]] for block in factor.blocks]
    return {
        name: _by_seed(rows, factor.seeds, read)
        for name, read in (("validation", validation), ("test", _test))
    }


def _by_seed(
    rows: Sequence[Row], seeds: Sequence[int], read: Callable[[StageRecord], float | None]
) -> dict[int, float]:
    found = [row.by_seed(read) for row in rows]
    return {
        seed: sum(mine[seed] for mine in found) / len(found)
        for seed in seeds
        if all(seed in mine for mine in found)
    }


def _test(record: StageRecord) -> float | None:
    return record.test


_Shares = dict[int, npt.NDArray[np.float64]]
"""Seed -> [T] how often a value's rows guessed each test image right."""


def _shares(
    table: Sequence[Row],
    factors: Sequence[_Factor],
    correct: Callable[[TrialResult], Correct | None],
) -> list[list[_Shares]] | None:
    """Returns, for each factor and value, the shares by seed; None where a row does not say which
    images it guessed right. Each row's file is read once.
    """
    sums: list[list[_Shares]] = [[{} for _ in factor.values] for factor in factors]
    for index, uses in _uses(factors).items():
        for result in table[index].finished:
            seed = result.trial.seed
            mine = [(number, place) for number, place in uses if seed in factors[number].seeds]
            right = correct(result) if mine else None
            for number, place in mine:
                if right is None:
                    return None
                share = right / len(factors[number].blocks)
                before = sums[number][place].get(seed)
                if before is not None and before.shape != share.shape:
                    return None
                sums[number][place][seed] = share if before is None else before + share
    return sums


def _uses(factors: Sequence[_Factor]) -> dict[int, list[tuple[int, int]]]:
    """Row -> (factor, value) of each block that it is in."""
    uses: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, factor in enumerate(factors):
        for block in factor.blocks:
            for place, row in enumerate(block):
                uses[row].append((number, place))
    return uses


def _difference(
    values: dict[int, float],
    highest: dict[int, float],
    right: _Shares | None,
    other: _Shares | None,
) -> Difference:
    if right is not None and other is not None:
        shapes = {share.shape for share in (*right.values(), *other.values())}
        if right.keys() == other.keys() == values.keys() == highest.keys() and len(shapes) == 1:
            return crossed_difference(right, other)
    return paired_difference(values, highest)


def _mean(values: Mapping[int, float]) -> float:
    mean = summarise(list(values.values())).mean
    return float("-inf") if mean is None else mean


def _mean_std(values: Mapping[int, float]) -> dict[str, float | None]:
    summary: Summary = summarise(list(values.values()))
    return {"mean": summary.mean, "std": summary.std}


EFFECT_HEAD: Final = ("validation", "test, last epoch", "vs. the highest (test) [95%]")


def effect_tables(
    report: Mapping[str, Any],
) -> Iterator[tuple[str, str, list[tuple[bool, list[str]]]]]:
    """Yields of each varied key its name, what it is averaged over, and for each value whether it
    is the highest and the cells of its line: the value, then EFFECT_HEAD.
    """
    for effect in report["effects"]:
        over = f"n = {effect['n']} seeds, over {effect['settings']} settings of the other keys"
        if effect["left_out"]:
            over += f"; {effect['left_out']} left out, where a value has no row at equal bits"
        lines = [
            (
                line["is_highest"],
                [
                    value_text(line["value"]),
                    mean_std(line["validation"]),
                    mean_std(line["test"]),
                    NOTHING if line["is_highest"] else interval(line["difference"]),
                ],
            )
            for line in effect["values"]
        ]
        yield effect["key"], over, lines
