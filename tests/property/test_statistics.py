"""Laws of means, paired differences and the break-even accuracy."""

from __future__ import annotations

import math
import statistics as reference
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.reporting.statistics import (
    binomial_bound,
    break_even,
    crossed_difference,
    holm,
    paired_difference,
    summarise,
    t_quantile,
)

accuracies = st.floats(0, 100, allow_nan=False)
by_seed = st.dictionaries(st.integers(0, 20), accuracies, min_size=0, max_size=8)


@settings(deadline=None)
@given(st.lists(accuracies, min_size=2, max_size=9))
def test_std_is_the_sample_one(values: list[float]) -> None:
    found = summarise(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(reference.mean(values))
    assert found.std == pytest.approx(reference.stdev(values), abs=1e-9)


@settings(deadline=None)
@given(accuracies)
def test_one_seed_has_a_mean_and_no_spread(value: float) -> None:
    found = summarise([value])
    assert (found.n, found.mean, found.std) == (1, value, None)
    gap = paired_difference({0: value}, {0: 1.0})
    assert (gap.n, gap.mean, gap.std, gap.low, gap.high) == (1, value - 1.0, None, None, None)


@settings(deadline=None)
@given(by_seed, by_seed)
def test_only_seeds_of_both_rows_are_paired(
    left: dict[int, float], right: dict[int, float]
) -> None:
    shared = left.keys() & right.keys()
    found = paired_difference(left, right)
    assert found.n == len(shared)
    assert found == paired_difference({seed: left[seed] for seed in shared}, right)
    assert (found.mean is None) == (not shared)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 20),
        st.tuples(accuracies, accuracies, st.floats(-20, 20)),
        min_size=2,
        max_size=8,
    )
)
def test_what_a_seed_does_to_both_rows_alike_changes_no_difference(
    rows: dict[int, tuple[float, float, float]],
) -> None:
    plain = paired_difference(
        {seed: row[0] for seed, row in rows.items()}, {seed: row[1] for seed, row in rows.items()}
    )
    moved = paired_difference(
        {seed: row[0] + row[2] for seed, row in rows.items()},
        {seed: row[1] + row[2] for seed, row in rows.items()},
    )
    for name in ("mean", "std", "low", "high"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), abs=1e-6)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 20), st.tuples(accuracies, accuracies), min_size=2, max_size=8)
)
def test_swapping_the_rows_turns_the_difference_round(rows: dict[int, tuple[float, float]]) -> None:
    left, right = ({seed: row[side] for seed, row in rows.items()} for side in (0, 1))
    there, back = paired_difference(left, right), paired_difference(right, left)
    assert (
        there.mean is not None
        and there.low is not None
        and there.high is not None
        and back.mean is not None
    )
    assert there.mean == pytest.approx(-back.mean)
    assert there.std == pytest.approx(back.std)
    assert there.low == pytest.approx(-(back.high or 0))
    assert there.high == pytest.approx(-(back.low or 0))
    assert there.low <= there.mean <= there.high


def test_the_interval_is_that_of_students_t() -> None:
    # Two-sided 95% points of the printed table.
    assert [round(t_quantile(degrees), 3) for degrees in (1, 2, 4, 9)] == [
        12.706,
        4.303,
        2.776,
        2.262,
    ]
    gap = paired_difference({0: 93.0, 1: 95.0, 2: 97.0}, {0: 92.0, 1: 93.0, 2: 94.0})
    assert (gap.mean, gap.std) == (2.0, 1.0)
    assert gap.low == pytest.approx(2.0 - 4.3027 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("classes", "per_bit", "with_negatives"),
    [(10, 30.1, 26.75), (100, 15.05, 14.87), (1000, 10.03, 10.02), (2, 100.0, 100.0)],
)
def test_break_even_accuracy(classes: int, per_bit: float, with_negatives: float) -> None:
    found = break_even(classes, math.log2(classes))
    assert found["per_bit"] == pytest.approx(per_bit, abs=0.01)
    assert found["per_bit_with_negatives"] == pytest.approx(with_negatives, abs=0.01)
    assert found["per_second"] == pytest.approx(4.533, abs=0.001)


# Without 0: where labels are dear even guesses that are all wrong buy more, and no share is below.
@given(
    classes=st.integers(3, 1000),
    price=st.floats(0.5, 20),
    accuracy=st.floats(0, 1, exclude_min=True),
)
def test_above_break_even_a_bit_of_questions_buys_more_than_a_bit_of_labels(
    classes: int, price: float, accuracy: float
) -> None:
    found = break_even(classes, price)
    told, told_by_no = math.log2(classes), math.log2(classes / (classes - 1))
    labels = accuracy - 1 / price
    bits = accuracy * told + (1 - accuracy) * told_by_no - told / price
    for gained, least in ((labels, found["per_bit"]), (bits, found["per_bit_with_negatives"])):
        if abs(gained) > 1e-6:
            assert (gained > 0) == (100 * accuracy > least)


@pytest.mark.parametrize(("price", "least"), [(0.5, 100.0), (1.0, 100.0), (2.0, 0.0)])
def test_of_two_classes_every_answer_tells_all(price: float, least: float) -> None:
    assert break_even(2, price)["per_bit_with_negatives"] == least


# --- what the nominal 5% is, by simulation


def guesses(
    draw: np.random.Generator,
    tables: int,
    rows: int,
    seeds: int,
    images: int,
    *,
    seed_sd: float,
    image_sd: float,
) -> np.ndarray:
    """[tables, rows, seeds, images] right guesses of rows that are equally good: an image is hard
    for all, and each row, seed and image has its own luck.
    """
    hardness = draw.normal(1.0, 1.0, (tables, 1, 1, images))
    latent = (
        hardness
        + draw.normal(0, image_sd, (tables, rows, 1, images))
        + draw.normal(0, seed_sd, (tables, rows, seeds, 1))
    )
    return latent + draw.normal(0, 1.0, (tables, rows, seeds, images)) > 0


def p_values(right: np.ndarray, *, images: bool) -> list[list[float]]:
    """For every table, the p-value of each row against the first."""
    found = []
    for table in right:
        by_seed = [dict(enumerate(row)) for row in table]
        accuracies = [
            {seed: 100.0 * float(bits.mean()) for seed, bits in row.items()} for row in by_seed
        ]
        pairs = zip(
            by_seed if images else accuracies,
            [by_seed[0] if images else accuracies[0]] * len(table),
            strict=True,
        )
        gaps = [
            crossed_difference(*pair) if images else paired_difference(*pair)
            for pair in list(pairs)[1:]
        ]
        found.append([1.0 if gap.p is None else gap.p for gap in gaps])
    return found


CHANCE = {
    "seeds alone": (0.3, 0.0),
    "images alone": (0.0, 1.0),
    "both": (0.15, 0.8),
    "neither": (0.0, 0.0),
}
"""Standard deviations of what a seed, and what an image, does to one row."""


@pytest.mark.parametrize("chance", CHANCE)
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_rows_are_told_apart_in_at_most_five_percent(seeds: int, chance: str) -> None:
    draw = np.random.default_rng(20251125)
    seed_sd, image_sd = CHANCE[chance]
    tables = 1200
    found = p_values(
        guesses(draw, tables, 2, seeds, 300, seed_sd=seed_sd, image_sd=image_sd), images=True
    )
    share = sum(p <= 0.05 for (p,) in found) / tables
    # Two standard errors of the simulation.
    assert share <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
    if seed_sd:
        # Nor so rarely that real differences would go unseen.
        assert share >= 0.02


def test_the_seeds_spread_alone_is_not_enough() -> None:
    right = guesses(np.random.default_rng(7), 400, 2, 5, 300, seed_sd=0.0, image_sd=1.0)
    old, new = (
        sum(p <= 0.05 for (p,) in p_values(right, images=images)) / 400 for images in (False, True)
    )
    assert old > 0.2
    assert new <= 0.05


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_table_of_equal_rows_tells_any_apart_in_at_most_five_percent(seeds: int) -> None:
    tables, rows = 300, 8
    right = guesses(np.random.default_rng(3), tables, rows, seeds, 200, seed_sd=0.15, image_sd=0.8)
    found = p_values(right, images=True)
    assert (
        sum(min(p or 1.0 for p in holm(table)) <= 0.05 for table in found) / tables
        <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
    )
    # The test has teeth: with the old interval and without correction most such tables would hold a
    # finding.
    assert sum(min(table) <= 0.05 for table in p_values(right, images=False)) / tables > 0.2


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_leader_of_equal_rows_is_told_apart_from_any_in_at_most_five_percent(
    seeds: int,
) -> None:
    """The leader is picked by the numbers that it is tested by: every pair of rows is in the
    family.
    """
    tables, rows, images = 200, 6, 100
    right = guesses(
        np.random.default_rng(11), tables, rows, seeds, images, seed_sd=0.15, image_sd=0.8
    )
    wrong = 0
    for table in right:
        values = [
            {seed: 100.0 * float(bits.mean()) for seed, bits in enumerate(row)} for row in table
        ]
        pairs = list(combinations(range(rows), 2))
        means = [sum(row.values()) / seeds for row in values]
        bounds = [binomial_bound(means[one], means[other], images) for one, other in pairs]
        adjusted = holm(
            [
                paired_difference(values[one], values[other], bound).p
                for (one, other), bound in zip(pairs, bounds, strict=True)
            ]
        )
        wrong += any(p is not None and p <= 0.05 for p in adjusted)
    assert wrong / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5


def test_the_interval_covers_a_true_difference() -> None:
    """The second row is better by a fixed amount of latent skill; its mean difference over many
    seeds and images is the truth.
    """
    draw = np.random.default_rng(5)
    skill = np.array([0.0, 0.4]).reshape(1, 2, 1, 1)

    def sample(tables: int, images: int) -> np.ndarray:
        latent = (
            draw.normal(1.0, 1.0, (tables, 1, 1, images))
            + draw.normal(0, 0.8, (tables, 2, 1, images))
            + draw.normal(0, 0.15, (tables, 2, 3, 1))
        )
        return latent + skill + draw.normal(0, 1.0, (tables, 2, 3, images)) > 0

    many = sample(400, 2000)
    truth = 100.0 * float(many[:, 1].mean() - many[:, 0].mean())
    covered = 0
    for table in sample(600, 300):
        gap = crossed_difference(dict(enumerate(table[1])), dict(enumerate(table[0])))
        assert gap.low is not None and gap.high is not None
        covered += gap.low <= truth <= gap.high
    assert covered / 600 >= 0.95 - 2 * (0.05 * 0.95 / 600) ** 0.5


# --- laws of the crossed difference

tables = st.integers(2, 5).flatmap(
    lambda seeds: st.tuples(st.just(seeds), st.integers(2, 40), st.integers(0, 2**32 - 1))
)


@settings(deadline=None, max_examples=60)
@given(tables)
def test_a_crossed_difference_is_that_of_the_accuracies_with_a_wider_error_of_its_own(
    shape: tuple[int, int, int],
) -> None:
    seeds, images, key = shape
    draw = np.random.default_rng(key)
    right = {seed: draw.random(images) < 0.8 for seed in range(seeds)}
    other = {seed: draw.random(images) < 0.6 for seed in range(seeds)}
    crossed = crossed_difference(right, other)
    plain = paired_difference(
        *(
            {seed: 100.0 * float(bits.mean()) for seed, bits in side.items()}
            for side in (right, other)
        )
    )
    assert (crossed.n, crossed.sources) == (seeds, "seeds and images")
    assert (crossed.mean, crossed.std) == (
        pytest.approx(plain.mean, abs=1e-9),
        pytest.approx(plain.std, abs=1e-9),
    )
    assert crossed.low is not None and plain.low is not None and crossed.low <= plain.low + 1e-9
    back = crossed_difference(other, right)
    assert (back.low, back.high) == (
        pytest.approx(-(crossed.high or 0), abs=1e-9),
        pytest.approx(-crossed.low, abs=1e-9),
    )
    assert back.p == pytest.approx(crossed.p)


@settings(deadline=None, max_examples=60)
@given(tables)
def test_the_p_value_and_the_interval_agree(shape: tuple[int, int, int]) -> None:
    seeds, images, key = shape
    draw = np.random.default_rng(key)
    gap = crossed_difference(
        *({seed: draw.random(images) < rate for seed in range(seeds)} for rate in (0.9, 0.5))
    )
    if gap.p is None:
        assert gap.low == gap.high
    elif abs(gap.p - 0.05) > 1e-3:
        assert gap.low is not None and gap.high is not None
        assert (gap.p < 0.05) == (gap.low > 0 or gap.high < 0)


def test_equal_differences_in_every_seed_have_the_error_of_the_images() -> None:
    # Each seed is better on two images, on others every time.
    base = np.zeros(100, np.bool_)
    rows = {}
    for seed in range(3):
        rows[seed] = base.copy()
        rows[seed][2 * seed : 2 * seed + 2] = True
    gap = crossed_difference(rows, dict.fromkeys(range(3), base))
    assert (gap.mean, gap.std) == (pytest.approx(2.0), 0.0)
    assert gap.low is not None and gap.high is not None and gap.high - gap.low > 2.0
    assert paired_difference(dict.fromkeys(range(3), 2.0), dict.fromkeys(range(3), 0.0)).p is None


def test_rows_that_agree_on_every_image_are_not_told_apart() -> None:
    bits = {seed: np.arange(50) % 3 == 0 for seed in range(3)}
    gap = crossed_difference(bits, bits)
    assert (gap.mean, gap.low, gap.high, gap.p) == (0.0, 0.0, 0.0, None)


def test_one_seed_has_the_error_of_the_images_and_no_p_value() -> None:
    draw = np.random.default_rng(1)
    gap = crossed_difference(
        {4: draw.random(200) < 0.9}, {4: draw.random(200) < 0.5, 5: draw.random(200) < 0.5}
    )
    assert (gap.n, gap.sources, gap.p, gap.std) == (1, "images", None, None)
    assert gap.low is not None and gap.mean is not None and gap.low < gap.mean


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
def test_holm_is_the_step_down_rule(values: list[float | None]) -> None:
    adjusted = holm(values)
    assert [p is None for p in adjusted] == [p is None for p in values]
    for level in (0.01, 0.05, 0.3):
        # As Holm wrote it: from the smallest up, until one is above level / (how many are left).
        rejected = set()
        for rank, (p, place) in enumerate(
            sorted((p, place) for place, p in enumerate(values) if p is not None)
        ):
            if (len(values) - rank) * p > level:
                break
            rejected.add(place)
        assert {
            place for place, p in enumerate(adjusted) if p is not None and p <= level
        } == rejected


@settings(deadline=None)
@given(accuracies, accuracies, st.integers(1, 5000))
def test_the_bound_for_images_is_never_nothing(first: float, second: float, images: int) -> None:
    assert binomial_bound(first, second, images) > 0
