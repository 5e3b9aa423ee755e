from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from orchestrator.labelling.answers import NO, PENDING, YES, Answers
from orchestrator.labelling.oracles.simulated import (
    USER_STUDY_FLIP,
    Labels,
    LabelsOracle,
    Noisy,
    NoisyOracle,
    check_labels,
)
from orchestrator.labelling.protocols import Oracle, OraclePlace
from search_spaces.reading.config import DatasetFacts
from tests.helpers.pool_world import PeopleOracle
from trainers.errors import DataError
from trainers.stage import Classes, Ids

NUM_CLASSES = 5
TRUTH: Classes = np.random.default_rng(0).permutation(np.arange(400, dtype=np.int32) % NUM_CLASSES)
NONE_TAKEN = np.empty(0, np.int64)


def _ask(oracle: Oracle, ids: Ids, guesses: Classes, repeat: int = 0) -> Answers:
    """Every answer, however often one must ask for it."""
    answers = np.full(ids.size, PENDING, np.int8)
    for _ in range(100):
        open_at = np.flatnonzero(answers == PENDING)
        if not open_at.size:
            return answers
        answers[open_at] = oracle.answer(
            ids[open_at], guesses[open_at], np.full(open_at.size, repeat, np.int32)
        )
    raise AssertionError("the oracle never answers some questions")


class OracleContract:
    """Laws of every oracle. A subclass gives the fixture `oracle`, over TRUTH."""

    errs = False

    def test_full_labels_are_true_balanced_and_ascending(self, oracle: Oracle) -> None:
        for ids, labels in (oracle.initial_labels(4, 3, NONE_TAKEN), oracle.validation_labels(4)):
            assert np.array_equal(labels, TRUTH[ids])
            assert np.bincount(labels, minlength=NUM_CLASSES).tolist() == [4] * NUM_CLASSES
            assert np.all(np.diff(ids) > 0)

    def test_a_full_label_is_the_truth_whichever_image_and_however_often(
        self, oracle: Oracle
    ) -> None:
        ids = np.array([7, 3, 399, 3])
        assert np.array_equal(oracle.full_labels(ids), TRUTH[ids])
        assert oracle.full_labels(NONE_TAKEN).size == 0

    def test_initial_labels_leave_out_what_is_taken(self, oracle: Oracle) -> None:
        taken, _ = oracle.validation_labels(30)
        ids, _ = oracle.initial_labels(40, 0, taken)
        assert not np.isin(ids, taken).any()

    def test_initial_labels_follow_the_seed_and_validation_does_not(self, oracle: Oracle) -> None:
        assert np.array_equal(
            oracle.initial_labels(4, 3, NONE_TAKEN)[0], oracle.initial_labels(4, 3, NONE_TAKEN)[0]
        )
        assert not np.array_equal(
            oracle.initial_labels(4, 3, NONE_TAKEN)[0], oracle.initial_labels(4, 4, NONE_TAKEN)[0]
        )
        assert len({oracle.validation_labels(4)[0].tobytes() for _ in range(5)}) == 1

    def test_more_initial_labels_keep_the_fewer(self, oracle: Oracle) -> None:
        few, many = (
            oracle.initial_labels(2, 0, NONE_TAKEN)[0],
            oracle.initial_labels(5, 0, NONE_TAKEN)[0],
        )
        assert np.isin(few, many).all()

    def test_a_scarce_class_is_named(self, oracle: Oracle) -> None:
        with pytest.raises(DataError, match=r"class \d has 80 images .* 81 of each class"):
            oracle.initial_labels(81, 0, NONE_TAKEN)

    def test_an_answer_is_one_of_four(self, oracle: Oracle) -> None:
        answers = oracle.answer(np.arange(400), TRUTH, np.zeros(400, np.int32))
        assert answers.shape == (400,)
        assert answers.dtype == np.int8
        assert set(answers.tolist()) <= {1, 0, -1, -2}

    def test_the_same_question_has_the_same_answer_alone_or_among_others(
        self, oracle: Oracle
    ) -> None:
        ids = np.arange(400)
        guesses = (ids % NUM_CLASSES).astype(np.int32)
        together = _ask(oracle, ids, guesses)
        assert np.array_equal(together, _ask(oracle, ids, guesses))
        backwards = _ask(oracle, ids[::-1], guesses[::-1])
        assert np.array_equal(together, backwards[::-1])
        alone = [int(_ask(oracle, ids[i : i + 1], guesses[i : i + 1])[0]) for i in range(50)]
        assert alone == together[:50].tolist()

    def test_most_answers_are_right(self, oracle: Oracle) -> None:
        ids = np.arange(400)
        right = (
            np.mean(_ask(oracle, ids, TRUTH) == YES),
            np.mean(_ask(oracle, ids, (TRUTH + 1) % NUM_CLASSES) == NO),
        )
        assert min(right) > 0.8
        assert self.errs or min(right) == 1


class TestLabelsOracle(OracleContract):
    @pytest.fixture
    def oracle(self) -> Oracle:
        return LabelsOracle(TRUTH, NUM_CLASSES)


class TestNoisyOracle(OracleContract):
    errs = True

    @pytest.fixture
    def oracle(self) -> Oracle:
        return NoisyOracle(LabelsOracle(TRUTH, NUM_CLASSES), seed=0)


class TestPeopleOracle(OracleContract):
    """The fake of the pool tests: answers come in parts."""

    @pytest.fixture
    def oracle(self) -> Oracle:
        return PeopleOracle(LabelsOracle(TRUTH, NUM_CLASSES), answered_share=0.5)


class LiveStreamOracle(NoisyOracle):
    """Draws errors from a stream, so that an answer depends on what was asked before."""

    def answer(self, ids: Ids, guesses: Classes, repeats: Classes) -> Answers:
        rng = self.__dict__.setdefault("_rng", np.random.default_rng(0))
        right = super().answer(ids, guesses, repeats)
        return np.where(rng.random(ids.size) < 0.1, 1 - right, right).astype(np.int8)


class UnbalancedOracle(LabelsOracle):
    def initial_labels(self, per_class: int, seed: int, without: Ids) -> tuple[Ids, Classes]:
        ids = np.sort(
            np.random.default_rng(seed).choice(TRUTH.size, per_class * NUM_CLASSES, replace=False)
        )
        return ids, TRUTH[ids]


class ForgetfulOracle(LabelsOracle):
    def answer(self, ids: Ids, guesses: Classes, repeats: Classes) -> Answers:
        return np.full(ids.size, PENDING, np.int8)


@pytest.mark.parametrize(
    ("oracle", "broken"),
    [
        (
            LiveStreamOracle(LabelsOracle(TRUTH, NUM_CLASSES), 0),
            OracleContract.test_the_same_question_has_the_same_answer_alone_or_among_others,
        ),
        (
            UnbalancedOracle(TRUTH, NUM_CLASSES),
            OracleContract.test_full_labels_are_true_balanced_and_ascending,
        ),
        (ForgetfulOracle(TRUTH, NUM_CLASSES), OracleContract.test_most_answers_are_right),
        (
            LabelsOracle((TRUTH + 1) % NUM_CLASSES, NUM_CLASSES),
            OracleContract.test_most_answers_are_right,
        ),
    ],
)
def test_the_contract_catches_an_oracle_that_breaks_it(
    oracle: Oracle, broken: Callable[[Any, Oracle], None]
) -> None:
    with pytest.raises(AssertionError):
        broken(OracleContract(), oracle)


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
        (TRUTH[:, None], "one whole number an image"),
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
    oracle = LabelsOracle(TRUTH, NUM_CLASSES, first_labels=True)
    expected = sorted(
        int(i) for c in range(NUM_CLASSES) for i in np.flatnonzero(np.equal(TRUTH, c))[:3]
    )
    assert [oracle.initial_labels(3, seed, NONE_TAKEN)[0].tolist() for seed in (0, 7)] == [
        expected,
        expected,
    ]
    # Validation images are drawn as ever.
    assert np.array_equal(
        oracle.validation_labels(3)[0], LabelsOracle(TRUTH, NUM_CLASSES).validation_labels(3)[0]
    )
