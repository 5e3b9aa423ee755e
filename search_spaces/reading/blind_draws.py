"""How many images must be drawn blindly, one after the other, until every class has been seen so
many times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

LOW, HIGH = 0.05, 0.95
"""Nine draws in ten are between these."""

_PANELS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindDraws:
    """Images drawn in all, until the last class is full."""

    expected: int
    low: int
    """LOW quantile."""
    high: int
    """HIGH quantile."""


@lru_cache(maxsize=1024)
def blind_draws(num_classes: int, class_size: int, per_class: int) -> BlindDraws:
    """Of `num_classes` classes with `class_size` images each, drawn without replacement until each
    class has `per_class` (1 to class_size).

    If every image turns up at a time uniform in (0, 1), classes fill independently: all are full at
    t with probability P(Bin(m, t) >= k)^C, and the expected number is (C m + 1) times the expected
    time, exactly. The quantiles are of P(N <= n), that is the same given that n turn up by t = n /
    (C m); the two local probabilities in it are taken as normal, which is off by a draw or two, or
    by half a percent where that is more.
    """
    m, k = class_size, per_class
    first, last = _time(num_classes, m, k, 1e-12), _time(num_classes, m, k, 1 - 1e-12)
    width = (last - first) / _PANELS
    time = (
        first
        + sum(
            1 - _moments(m, k, first + (i + 0.5) * width)[0] ** num_classes for i in range(_PANELS)
        )
        * width
    )
    low, high = (_quantile(num_classes, m, k, p) for p in (LOW, HIGH))
    return BlindDraws(expected=round((num_classes * m + 1) * time), low=low, high=high)


def _time(num_classes: int, m: int, k: int, p: float) -> float:
    """When all classes are full with probability p."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _moments(m, k, middle)[0] ** num_classes >= p else (middle, high)
        )
    return high


def _quantile(num_classes: int, m: int, k: int, p: float) -> int:
    low, high = num_classes * k, num_classes * m
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _full_after(num_classes, m, k, middle) >= p else (middle + 1, high)
        )
    return low


def _full_after(num_classes: int, m: int, k: int, n: int) -> float:
    """P(N <= n): all classes are full after n draws."""
    t = n / (num_classes * m)
    if t >= 1:
        return 1.0
    full, mean, variance = _moments(m, k, t)
    if full <= 0 or variance <= 0:
        return 0.0
    # Given that each is full, they hold more than n in the mean: how probable n is then, against
    # how probable it was.
    given = math.exp(-((n - num_classes * mean) ** 2) / (2 * num_classes * variance)) / math.sqrt(
        variance
    )
    return float(full**num_classes * given * math.sqrt(m * t * (1 - t)))


def _moments(m: int, k: int, t: float) -> tuple[float, float, float]:
    """P(X >= k), and mean and variance of X given that, of X ~ Bin(m, t)."""
    # Only here: a command that plans no blind draw need not load it.
    import numpy as np

    if not 0 < t < 1:
        return float(t > 0), m * t, 0.0
    j = np.arange(k)
    ways = np.concatenate([[0.0], np.cumsum(np.log((m - j[:-1]) / (j[:-1] + 1)))])
    below = np.exp(ways + j * math.log(t) + (m - j) * math.log1p(-t))
    full = 1 - float(below.sum())
    if full <= 1e-12:
        return max(full, 0.0), float(k), 0.0
    mean = (m * t - float((j * below).sum())) / full
    square = (m * t * (1 - t) + (m * t) ** 2 - float((j * j * below).sum())) / full
    return full, mean, square - mean**2
