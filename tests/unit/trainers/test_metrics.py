"""Metrics: what is reported is what their names mean."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score

from trainers.metrics import METRICS


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6))
def test_mean_average_precision_is_that_of_scikit_learn(seed: int, n: int, classes: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 2, (n, classes))
    truth[:, 0] &= draw.integers(0, 2)
    # Some equal ones, or none.
    scores = draw.integers(0, draw.choice([3, 10**6]), (n, classes)).astype(np.float32)
    found = METRICS["mAP"].score(truth, scores)
    with warnings.catch_warnings():
        # Of a category without an image: it counts 0 there too.
        warnings.simplefilter("ignore", UserWarning)
        theirs = [average_precision_score(truth[:, c], scores[:, c]) for c in range(classes)]
    assert found == pytest.approx(100 * np.mean(theirs), abs=1e-9)


def test_one_category_an_image_may_be_written_as_its_number() -> None:
    scores = np.random.default_rng(0).random((30, 4))
    truth = np.arange(30) % 4
    assert METRICS["mAP"].score(truth, scores) == METRICS["mAP"].score(np.eye(4)[truth], scores)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_top_1_is_the_share_of_right_guesses(pairs: list[tuple[int, int]]) -> None:
    truth, guesses = np.array(pairs).T
    assert METRICS["top-1"].score(truth, guesses) == pytest.approx(
        100 * accuracy_score(truth, guesses)
    )
