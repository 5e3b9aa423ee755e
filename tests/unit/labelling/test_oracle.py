from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from orchestrator.contracts.labelling import TRUTH, ask
from orchestrator.labelling.answers import NO, YES, Answers
from orchestrator.labelling.oracles.simulated import (
    USER_STUDY_FLIP,
    Labels,
    LabelsOracle,
    Noisy,
    NoisyOracle,
    check_labels,
)
from orchestrator.labelling.protocols import Oracle, OraclePlace
from orchestrator.labelling.questions import Questions
from search_spaces.reading.config import DatasetFacts
from trainers.errors import DataError
from trainers.stage import Classes, Ids

NUM_CLASSES = 5
NONE_TAKEN = np.empty(0, np.int64)


def _ask(oracle: Oracle, ids: Ids, guesses: Classes, repeat: int = 0) -> Answers:
    return ask(oracle, Questions.singles(ids, guesses), repeat)


@pytest.mark.parametrize(
    ("false_yes", "false_no"), [(USER_STUDY_FLIP, USER_STUDY_FLIP), (0.3, 0.0), (0.0, 0.2)]
)
def test_noise_flips_at_its_rates(false_yes: float, false_no: float) -> None:
    n = 100_000
    truth = np.arange(n, dtype=np.int32) % 10
    oracle = NoisyOracle(LabelsOracle(truth, 10), 7, false_yes, false_no)
    ids = np.arange(n)
    flips = {
        "no": (int(np.sum(_ask(oracle, ids, truth) == NO)), false_no),
        "yes": (int(np.sum(_ask(oracle, ids, (truth + 3) % 10) == YES)), false_yes),
    }
    for count, rate in flips.values():
        low, high = binom.interval(0.999, n, rate)
        assert low <= count <= high


def test_a_repeated_question_is_an_independent_draw() -> None:
    n = 100_000
    truth = np.zeros(n, np.int32)
    oracle = NoisyOracle(LabelsOracle(truth, 2), 0, 0.3, 0.3)
    first, second = (_ask(oracle, np.arange(n), truth, repeat) == NO for repeat in (0, 1))
    low, high = binom.interval(0.999, n, 0.09)
    assert low <= np.sum(first & second) <= high


def test_noise_differs_by_seed() -> None:
    truth = np.zeros(1000, np.int32)
    answers = [
        _ask(NoisyOracle(LabelsOracle(truth, 2), seed, 0.3, 0.3), np.arange(1000), truth)
        for seed in (0, 1)
    ]
    assert not np.array_equal(answers[0], answers[1])


FACTS = DatasetFacts(
    name="digits", num_classes=NUM_CLASSES, train_items=400, test_items=0, kind="images"
)


def test_labels_as_described_pass(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", TRUTH)
    check_labels(tmp_path, FACTS)
    place = OraclePlace(labels_dir=tmp_path, num_classes=NUM_CLASSES, seed=0)
    assert isinstance(Labels().open(place), LabelsOracle)
    noisy = Noisy(false_yes=1.0, false_no=1.0).open(place)
    assert np.all(_ask(noisy, np.arange(400), TRUTH) == NO)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (TRUTH[:399], "399 labels, expected 400"),
        (np.where(np.arange(400) == 7, 5, TRUTH), "image 7 has class 5, expected 0 to 4"),
        (np.where(np.arange(400) == 7, -1, TRUTH), "image 7 has class -1"),
        (TRUTH.astype(np.float32), "one whole number an image"),
        (TRUTH[:, None], "0 or 1 for each of 5 classes"),
        (TRUTH[:, None, None], "one whole number an image"),
    ],
)
def test_wrong_labels_are_said_with_file_and_image(
    tmp_path: Path, labels: Any, message: str
) -> None:
    np.save(tmp_path / "train.npy", labels)
    with pytest.raises(DataError, match=message) as caught:
        check_labels(tmp_path, FACTS)
    assert "train.npy" in str(caught.value)


def test_missing_truncated_or_pickled_labels_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training labels here"):
        check_labels(tmp_path, FACTS)
    np.save(tmp_path / "train.npy", TRUTH)
    whole = (tmp_path / "train.npy").read_bytes()
    for broken in (whole[:200], whole[:20], b""):
        (tmp_path / "train.npy").write_bytes(broken)
        with pytest.raises(DataError, match="cannot be read"):
            check_labels(tmp_path, FACTS)
    np.save(tmp_path / "train.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        check_labels(tmp_path, FACTS)


def test_the_first_images_of_each_class_are_bought_whatever_the_seed() -> None:
    oracle = LabelsOracle(TRUTH, NUM_CLASSES)
    expected = sorted(
        int(i) for c in range(NUM_CLASSES) for i in np.flatnonzero(np.equal(TRUTH, c))[:3]
    )
    found = [
        oracle.balanced("initial", 3, seed, NONE_TAKEN, first=True).tolist() for seed in (0, 7)
    ]
    assert found == [expected, expected]


SEVERAL = np.random.default_rng(2).integers(0, 2, (50, 6))
SEVERAL[:, 0] |= SEVERAL.sum(axis=1) == 0


def test_an_image_of_several_classes_has_them_all_in_a_vector_and_one_as_a_positive() -> None:
    oracle, ids = LabelsOracle(SEVERAL, 6), np.array([4, 2, 49])
    vectors = oracle.label(ids, "vector").sets
    assert [vectors.take(np.array([i])).classes.tolist() for i in range(3)] == [
        np.flatnonzero(SEVERAL[item]).tolist() for item in ids
    ]
    one = oracle.label(ids, "positive").sets
    assert one.single
    assert np.all(SEVERAL[ids, one.classes] == 1)
    assert np.array_equal(oracle.label(ids[::-1], "positive").sets.classes[::-1], one.classes)


def test_a_question_about_an_image_of_several_classes_is_whether_it_has_the_class() -> None:
    oracle = LabelsOracle(SEVERAL, 6)
    ids, classes = np.repeat(np.arange(50), 6), np.tile(np.arange(6), 50)
    assert _ask(oracle, ids, classes.astype(np.int32)).tolist() == SEVERAL.ravel().tolist()
