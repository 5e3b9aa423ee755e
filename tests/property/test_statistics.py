"""Laws of means, paired differences and the break-even accuracy."""

from __future__ import annotations

import statistics as reference

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.statistics import break_even, paired_difference, summarise, t_quantile

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
def test_only_seeds_of_both_rows_are_paired(left: dict[int, float], right: dict[int, float]) -> None:
    shared = left.keys() & right.keys()
    found = paired_difference(left, right)
    assert found.n == len(shared)
    assert found == paired_difference({seed: left[seed] for seed in shared}, right)
    assert (found.mean is None) == (not shared)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 20), st.tuples(accuracies, accuracies, st.floats(-20, 20)), min_size=2, max_size=8))
def test_what_a_seed_does_to_both_rows_alike_changes_no_difference(rows: dict[int, tuple[float, float, float]]) -> None:
    plain = paired_difference({seed: row[0] for seed, row in rows.items()}, {seed: row[1] for seed, row in rows.items()})
    moved = paired_difference({seed: row[0] + row[2] for seed, row in rows.items()}, {seed: row[1] + row[2] for seed, row in rows.items()})
    for name in ("mean", "std", "low", "high"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), abs=1e-6)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 20), st.tuples(accuracies, accuracies), min_size=2, max_size=8))
def test_swapping_the_rows_turns_the_difference_round(rows: dict[int, tuple[float, float]]) -> None:
    left, right = ({seed: row[side] for seed, row in rows.items()} for side in (0, 1))
    there, back = paired_difference(left, right), paired_difference(right, left)
    assert there.mean is not None and there.low is not None and there.high is not None and back.mean is not None
    assert there.mean == pytest.approx(-back.mean)
    assert there.std == pytest.approx(back.std)
    assert there.low == pytest.approx(-(back.high or 0))
    assert there.high == pytest.approx(-(back.low or 0))
    assert there.low <= there.mean <= there.high


def test_the_interval_is_that_of_students_t() -> None:
    # Two-sided 95% points of the printed table.
    assert [round(t_quantile(degrees), 3) for degrees in (1, 2, 4, 9)] == [12.706, 4.303, 2.776, 2.262]
    gap = paired_difference({0: 93.0, 1: 95.0, 2: 97.0}, {0: 92.0, 1: 93.0, 2: 94.0})
    assert (gap.mean, gap.std) == (2.0, 1.0)
    assert gap.low == pytest.approx(2.0 - 4.3027 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(("classes", "per_bit", "with_negatives"), [(10, 30.1, 26.75), (100, 15.05, 14.87), (1000, 10.03, 10.02), (2, 100.0, 100.0)])
def test_break_even_accuracy(classes: int, per_bit: float, with_negatives: float) -> None:
    found = break_even(classes)
    assert found["per_bit"] == pytest.approx(per_bit, abs=0.01)
    assert found["per_bit_with_negatives"] == pytest.approx(with_negatives, abs=0.01)
    assert found["per_second"] == pytest.approx(4.533, abs=0.001)
