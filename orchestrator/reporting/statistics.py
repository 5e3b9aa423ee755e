"""The few statistics that a comparison at equal bits needs: means over seeds, paired differences
with their error, and when a question pays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from search_spaces.reading.schedule import SECONDS_PER_LABEL, SECONDS_PER_QUESTION

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from orchestrator.sweeps.correctness import Correct

    Shares = npt.NDArray[np.floating]
    from search_spaces.reading.config import Trial


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over n seeds with the sample standard deviation."""

    n: int
    mean: float | None
    """None at n = 0."""
    std: float | None
    """Divides by n - 1; None below n = 2."""


Sources = Literal[
    "seeds and images", "seeds and at most images", "seeds", "images", "at most images"
]
"""What the interval of a difference holds: the spread over seeds, the chance of the images, or a
bound for the latter where no file says which were right.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of differences paired by seed, with its 95% interval."""

    n: int
    mean: float | None
    std: float | None
    """Over seeds, divides by n - 1; None below n = 2."""
    low: float | None
    """None where nothing is known of the error, like `high`."""
    high: float | None
    sources: Sources | None
    """What the interval holds; None where there is none."""
    p: float | None
    """Two-sided, of the hypothesis that the true difference is zero. None where it must not be told
    apart: below two seeds, or an interval without width.
    """


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation; a single value has no standard deviation, and none is
    invented.
    """
    n = len(values)
    if n == 0:
        return Summary(0, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None)
    return Summary(n, mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], image_variance: float | None = None
) -> Difference:
    """Mean of values[seed] - baseline[seed] over the seeds that both have.

    Pairing removes what a seed does to both rows alike (its initial labels, its initial weights),
    so the interval is that of the difference, not of two rows.

    Args:
        image_variance: a bound for the variance that the choice of the images gives the mean
            difference, where all seeds share them (see binomial_bound);
            None: the seeds' spread alone, which holds no such error.
    """
    shared = sorted(values.keys() & baseline.keys())
    summary = summarise([values[seed] - baseline[seed] for seed in shared])
    if image_variance is None:
        return _difference(summary, 0.0, 0.0, "seeds", "images")
    return _difference(
        summary, image_variance, image_variance, "seeds and at most images", "at most images"
    )


def crossed_difference(
    right: Mapping[int, Correct | Shares], baseline: Mapping[int, Correct | Shares]
) -> Difference:
    """Mean difference in percent of right guesses, paired by seed and by image, over the seeds that
    both have.

    n seeds are crossed with T test images, which all seeds share. Write x[i, t] in {-100, 0, 100}
    for the paired difference of seed i on image t and take both factors for random draws: x = mu +
    S_i + I_t + E_it with variances s, i and e. Then var(mean) = s/n + i/T + e/(n T), and with the
    mean squares of the two-way layout without replicates (Searle, Casella & McCulloch 1992,
    Variance Components, ch. 4)

        E MS_seeds = e + T s,   E MS_images = e + n i,   E MS_rest = e,   var(mean) = (E MS_seeds +
        E MS_images - E MS_rest) / (n T).

    The seeds' spread alone estimates s/n + e/(n T): it holds no i, however many seeds there are.
    Adding the variances of both margins counts e twice, which is the conservative side (Owen 2007,
    The pigeonhole bootstrap); here it is taken off again, as in studies of several readers on the
    same cases (Dorfman, Berbaum & Metz 1992; Hillis 2007): var(mean) is estimated by a + b, a =
    MS_seeds / (n T) with n - 1 degrees of freedom and b = max(MS_images - MS_rest, 0) / (n T) with
    so many that its quantile is the normal one.

    Half of the interval is sqrt(t^2 a + z^2 b). Satterthwaite's degrees of freedom for a + b are
    exact in the limit but too many when MS_seeds happens to be
    small: with three seeds they gave 7% for 5% and 2.5% for 0.5%, and Holm's correction needs the
    far tail; the two terms each with their own quantile stay at or below the nominal rate. It is
    exact without image error (b = 0) and without seed error, and between them too wide rather than
    too narrow. It is never less than z sqrt(max(MS_images, MS_rest) / (n T)), the interval if seeds
    did nothing: equal differences in every seed are luck, not certainty.

    Args:
        right: seed -> [T] whether each test image was guessed right, or by what share of several
            models; the same T everywhere.
    """
    import numpy as np

    shared = sorted(right.keys() & baseline.keys())
    if not shared:
        return _difference(Summary(0, None, None), 0.0, 0.0, "seeds and images", "images")
    x = 100 * np.stack(
        [right[seed].astype(np.float64) - baseline[seed].astype(np.float64) for seed in shared]
    )
    n, items = x.shape
    by_seed, by_image, mean = x.mean(axis=1), x.mean(axis=0), float(x.mean())
    if n == 1 or items == 1:
        alone = float(by_image.var(ddof=1)) / items if items > 1 else 0.0
        return _difference(summarise(by_seed.tolist()), alone, alone, "seeds and images", "images")
    of_seeds, of_images = items * float(by_seed.var(ddof=1)), n * float(by_image.var(ddof=1))
    whole = float(((x - mean) ** 2).sum())
    rest = max(
        0.0, (whole - (n - 1) * of_seeds - (items - 1) * of_images) / ((n - 1) * (items - 1))
    )
    summary = Summary(n, mean, math.sqrt(of_seeds / items))
    return _difference(
        summary,
        max(of_images - rest, 0.0) / (n * items),
        max(of_images, rest) / (n * items),
        "seeds and images",
        "images",
    )


def binomial_bound(first: float, second: float, images: int) -> float:
    """A bound for the variance, in squared percent points, that `images` shared images give the
    difference of two accuracies in percent.

    It is that of two independent binomials, p (1 - p) / images each. Rows find the same images
    hard, so their true difference varies less; how much less only a file of which images were right
    could say. Two right and two wrong answers are added to each (Agresti & Coull 1998): 100% right
    is not free of error.
    """
    shrunk = [(value / 100 * images + 2) / (images + 4) for value in (first, second)]
    return 1e4 * sum(share * (1 - share) for share in shrunk) / images


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values: calling those of at most 5% significant errs in at most 5%
    of tables, whatever depends on what.

    None stays None, and still counts among the comparisons that the table makes.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[place] = largest
    return adjusted


def _difference(
    summary: Summary, images: float, least: float, both: Sources, alone: Sources
) -> Difference:
    """The difference with the interval and p-value of variances of its mean: of the images, and the
    least that the whole may be.
    """
    if summary.mean is None:
        return Difference(summary.n, None, None, None, None, None, None)
    if summary.std is None:
        # One model of each row: what other images would say, and nothing of what another seed
        # would.
        half = _NORMAL * math.sqrt(images)
        known = half > 0
        return Difference(
            1,
            summary.mean,
            None,
            summary.mean - half if known else None,
            summary.mean + half if known else None,
            alone if known else None,
            None,
        )
    # Equal differences leave a hair of rounding, which is no spread.
    seeds = summary.std**2 / summary.n if summary.std > _ROUNDING else 0.0
    half = _half_width(0.05, summary.n, seeds, images, least)
    p = _p_value(abs(summary.mean), summary.n, seeds, images, least) if half > 0 else None
    return Difference(
        summary.n, summary.mean, summary.std, summary.mean - half, summary.mean + half, both, p
    )


def _half_width(level: float, n: int, seeds: float, images: float, least: float) -> float:
    """Half of the interval at 1 - level."""
    z = normal_quantile(1 - level / 2)
    return max(
        math.hypot(t_quantile(n - 1, 1 - level / 2) * math.sqrt(seeds), z * math.sqrt(images)),
        z * math.sqrt(least),
    )


def _p_value(distance: float, n: int, seeds: float, images: float, least: float) -> float:
    """The level whose interval just reaches zero, to a thousandth of itself; nothing below 1e-12 is
    told apart from it.
    """
    low, high = math.log(1e-12), 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if _half_width(math.exp(middle), n, seeds, images, least) > distance:
            low = middle
        else:
            high = middle
    return math.exp(high)


_NORMAL: Final = 1.959963984540054
"""Of which 95% of a normal distribution lie within so many standard deviations."""


_ROUNDING: Final = 1e-9
"""Percent points below which differences are equal: accuracies are whole images out of at most
millions.
"""


def normal_quantile(probability: float) -> float:
    """Quantile of the normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def t_quantile(degrees: int, probability: float = 0.975) -> float:
    """Quantile of Student's t with `degrees` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


BREAK_EVEN: Final = ("per_bit", "per_bit_with_negatives", "per_second")
"""Ways of counting at what guess accuracy a question buys more than a full label."""


def break_even(num_classes: int, label_bits: float) -> dict[str, float]:
    """Returns the guess accuracy in percent above which a yes/no question buys more than a full
    label, by three ways of counting. Of images of one class each, where a yes is a full label.

    per_bit: labels alone; a guess of accuracy a gives a labels for one bit, a full label one for
        its price.
    per_bit_with_negatives: a label is credited with the log2 C bits that it tells, and an answer
        "no" with log2(C / (C - 1)).
    per_second: labels alone, per second of a person's time.

    Args:
        label_bits: price of a full label.
    """
    told, negative_bits = math.log2(num_classes), math.log2(num_classes / (num_classes - 1))
    for_one_bit = told / label_bits
    with_negatives = (
        # Of two classes either answer tells all, however often guesses are right.
        float(label_bits <= told)
        if num_classes == 2
        else max(0.0, (for_one_bit - negative_bits) / (told - negative_bits))
    )
    return {
        "per_bit": 100 / label_bits,
        "per_bit_with_negatives": 100 * with_negatives,
        "per_second": 100 * SECONDS_PER_QUESTION / SECONDS_PER_LABEL,
    }


def break_even_of(trials: Iterable[Trial]) -> dict[str, float] | None:
    """Returns the guess accuracy above which a question buys more than a label, where all these
    trials have the same; None where they have not, and where a yes is not what a label is.
    """
    found = {
        (trial.facts.num_classes, trial.label_bits) if trial.config.task.yes_is_label else None
        for trial in trials
    }
    one = found.pop() if len(found) == 1 else None
    return None if one is None else break_even(*one)
