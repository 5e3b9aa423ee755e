"""The few statistics that a comparison at equal bits needs: means over seeds, differences paired by seed, and when a question pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.schedule import SECONDS_PER_LABEL, SECONDS_PER_QUESTION, bits_per_label


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over n seeds with the sample standard deviation."""

    n: int
    mean: float | None
    """None at n = 0."""
    std: float | None
    """Divides by n - 1; None below n = 2."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of differences paired by seed, with the 95% interval of Student's t."""

    n: int
    mean: float | None
    std: float | None
    low: float | None
    """None below n = 2, like `high`: one pair says nothing of the spread."""
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation; a single value has no standard deviation, and none is invented."""
    n = len(values)
    if n == 0:
        return Summary(0, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None)
    return Summary(n, mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Mean of values[seed] - baseline[seed] over the seeds that both have.

    Pairing removes what a seed does to both rows alike (its initial labels, its initial weights), so the interval is that of the difference, not of two rows.
    """
    shared = sorted(values.keys() & baseline.keys())
    summary = summarise([values[seed] - baseline[seed] for seed in shared])
    if summary.mean is None or summary.std is None:
        return Difference(summary.n, summary.mean, None, None, None)
    half = t_quantile(summary.n - 1) * summary.std / math.sqrt(summary.n)
    return Difference(summary.n, summary.mean, summary.std, summary.mean - half, summary.mean + half)


def t_quantile(degrees: int, probability: float = 0.975) -> float:
    """Quantile of Student's t with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def break_even(num_classes: int) -> dict[str, float]:
    """Guess accuracy in percent above which a yes/no question buys more than a full label, by three ways of counting.

    per_bit: labels alone; a guess of accuracy a gives a labels for one bit, a full label gives 1 / log2 C.
    per_bit_with_negatives: an answer "no" is credited with the log2(C / (C - 1)) bits that it tells.
    per_second: labels alone, per second of a person's time.
    """
    label_bits = bits_per_label(num_classes)
    negative_bits = math.log2(num_classes / (num_classes - 1))
    with_negatives = 1.0 if num_classes == 2 else (1 - negative_bits) / (label_bits - negative_bits)
    return {"per_bit": 100 / label_bits, "per_bit_with_negatives": 100 * with_negatives, "per_second": 100 * SECONDS_PER_QUESTION / SECONDS_PER_LABEL}
