"""How many blind draws fill every class, against counting them."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from search_spaces.reading.blind_draws import HIGH, LOW, blind_draws


def counted(num_classes: int, class_size: int, per_class: int, runs: int) -> np.ndarray:
    """Draws needed in each of `runs` random orders."""
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(num_classes), class_size)
    found = []
    for _ in range(runs):
        by_class = np.argsort(rng.permutation(items), kind="stable").reshape(
            num_classes, class_size
        )
        found.append(by_class[:, per_class - 1].max() + 1)
    return np.array(found)


@pytest.mark.parametrize(
    ("num_classes", "class_size", "per_class"),
    [
        (2, 50, 1),
        (3, 40, 20),
        (10, 110, 1),
        (10, 110, 2),
        (10, 110, 30),
        (10, 110, 109),
        (100, 500, 30),
        (30, 2, 1),
    ],
)
def test_expectation_and_range_are_those_of_counting(
    num_classes: int, class_size: int, per_class: int
) -> None:
    runs = 400 if num_classes * class_size > 10_000 else 4000
    found, simulated = (
        blind_draws(num_classes, class_size, per_class),
        counted(num_classes, class_size, per_class, runs),
    )
    assert abs(found.expected - simulated.mean()) < 0.5 + 4 * simulated.std() / math.sqrt(runs)
    # The share of runs up to each end, within what counting can tell and the two draws that the
    # ends may be off.
    for end, share in ((found.low, LOW), (found.high, HIGH)):
        error = 4 * math.sqrt(share * (1 - share) / runs)
        off = 2 + 0.005 * end
        assert np.mean(simulated <= end - off) <= share + error
        assert np.mean(simulated <= end + off) >= share - error


def test_the_expectation_is_exact_where_every_order_can_be_listed() -> None:
    items = (0, 0, 0, 1, 1, 1)
    needed = [
        next(n for n in range(1, 7) if len(set(order[:n])) == 2) for order in permutations(items)
    ]
    assert blind_draws(2, 3, 1).expected == round(sum(needed) / len(needed)) == 2


def test_the_published_sizes_take_as_many_draws_as_the_documentation_says() -> None:
    assert blind_draws(10, 5000, 1).expected == 29
    assert blind_draws(100, 490, 30).expected == 4477


@pytest.mark.parametrize(
    ("num_classes", "class_size", "per_class"), [(2, 1, 1), (5, 7, 7), (1000, 1281, 1281)]
)
def test_where_every_image_is_wanted_all_are_drawn(
    num_classes: int, class_size: int, per_class: int
) -> None:
    found = blind_draws(num_classes, class_size, per_class)
    assert (found.low, found.expected, found.high) == (num_classes * class_size,) * 3
