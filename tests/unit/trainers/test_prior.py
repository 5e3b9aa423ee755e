"""Guesses by prior scores: the softmax of scores over a temperature, given or fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from orchestrator.contracts.stages import committed, some_inputs, write_cache
from trainers.errors import DataError
from trainers.prior.method import fitted
from trainers.prior.settings import PriorScores
from trainers.run import run_stage
from trainers.stage import StageInputs, StageOutcome, StageRequest


def trained(
    folder: Path, method: PriorScores, inputs: StageInputs | None = None, **changes: Any
) -> tuple[StageRequest, StageOutcome]:
    data, truth = write_cache(folder / "cache", kind="features", **{"prior": True} | changes)
    (folder / "work").mkdir()
    request = StageRequest(
        key="k",
        stage=0,
        seed=0,
        method=method,
        plan=method.stage(0, 1, has_negatives=False),
        data_dir=data,
        inputs=some_inputs(truth) if inputs is None else inputs,
        work_dir=folder / "work",
        attempt="a",
        wants=("probabilities",),
    )
    return request, run_stage(request)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 30.0])
def test_probabilities_are_the_softmax_of_the_scores_over_the_temperature(
    tmp_path: Path, temperature: float
) -> None:
    request, outcome = trained(tmp_path, PriorScores(temperature=temperature))
    arrays = committed(request, outcome).scores()
    scores = np.load(tmp_path / "cache" / "train_scores.npy")[arrays["item_ids"]]
    expected = softmax(scores.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(arrays["probabilities"], expected, atol=1e-6)
    assert np.array_equal(arrays["raw_guess"], scores.argmax(1))
    test = np.load(tmp_path / "cache" / "test_scores.npy")
    assert np.array_equal(arrays["test_guess_last"], test.argmax(1))


def test_the_fitted_temperature_makes_the_validation_labels_likeliest() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 5, 400)
    for true in (0.02, 1.0, 25.0):
        # Drawn by the model itself: its temperature is `true`.
        logits = rng.normal(0, 2, (400, 5))
        classes = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
        scores = (logits * true).astype(np.float32)

        def unlikely(log: float, scores: Any = scores, classes: Any = classes) -> float:
            said = log_softmax(scores.astype(np.float64) / np.exp(log), axis=1)
            return -float(said[np.arange(400), classes].mean())

        best = minimize_scalar(unlikely, bounds=(np.log(true) - 3, np.log(true) + 3)).x
        found = fitted(scores, classes)
        assert np.log(found) == pytest.approx(best, abs=1e-4)
        assert found == pytest.approx(true, rel=0.3)


def test_a_fit_does_not_depend_on_the_unit_or_offset_of_the_scores() -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 4, 100)
    scores = 2 * np.eye(4)[classes] + rng.normal(0, 1, (100, 4))
    one = fitted(scores, classes)
    assert fitted(1000 * scores + 7, classes) == pytest.approx(1000 * one, rel=1e-6)


def test_scores_that_are_always_right_or_say_nothing_have_a_finite_temperature() -> None:
    sure = np.eye(3)[np.arange(30) % 3]
    assert 0 < fitted(sure, np.arange(30) % 3) < 0.01
    assert fitted(np.ones((30, 3)), np.arange(30) % 3) == 1.0


def test_where_no_image_validates_nothing_is_fitted(tmp_path: Path) -> None:
    _, truth = write_cache(tmp_path / "first", kind="features", prior=True)
    inputs = some_inputs(truth)
    none = np.empty(0, np.int64)
    bare = StageInputs(
        pool_ids=inputs.pool_ids,
        label_ids=none,
        labels=none.astype(np.int32),
        negative_ids=none,
        negative_classes=none.astype(np.int32),
        validation_ids=none,
        validation_labels=none.astype(np.int32),
    )
    (tmp_path / "fit").mkdir()
    _, outcome = trained(tmp_path / "fit", PriorScores(temperature=None), bare)
    assert outcome.metrics["history"][0]["temperature"] == 1.0
    (tmp_path / "fit2").mkdir()
    _, outcome = trained(tmp_path / "fit2", PriorScores(temperature=None))
    assert outcome.metrics["history"][0]["temperature"] != 1.0


def test_data_without_scores_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cache: has no prior scores \(train_scores.npy"):
        trained(tmp_path, PriorScores(), prior=False)
