"""Questions about sets of classes: each halves what is possible, and what is known never
contradicts itself.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.labelling.answers import NO, YES
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.oracles.simulated import LabelsOracle, NoisyOracle
from orchestrator.labelling.protocols import Oracle
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.tasks import multiclass_sets
from orchestrator.labelling.tasks.multiclass import MultiClass
from orchestrator.labelling.tasks.multiclass_sets import MultiClassSets, halves
from orchestrator.reporting.words import seconds_in_words
from search_spaces.reading.schedule import hours_range, task_seconds
from trainers.stage import StageInputs

TASK = MultiClassSets()


def told(facts: Facts) -> StageInputs:
    none = np.empty(0, np.int64)
    return StageInputs(
        pool_ids=np.arange(facts.images),
        label_ids=none,
        labels=none.astype(np.int32),
        negative_ids=facts.negatives.ids.astype(np.int64),
        negative_classes=facts.negatives.classes.astype(np.int32),
        validation_ids=none,
        validation_labels=none.astype(np.int32),
    )


def asked_of(facts: Facts, probabilities: npt.NDArray[Any]) -> Questions:
    ids = np.flatnonzero(TASK.open(facts))
    scores = {"item_ids": np.arange(facts.images), "probabilities": probabilities}
    asked, rows = TASK.questions(ids, scores, (), lambda: told(facts), mask_refused=True)
    assert rows == {}
    return asked


def step(facts: Facts, oracle: Oracle, probabilities: npt.NDArray[Any]) -> tuple[Any, Questions]:
    asked = asked_of(facts, probabilities)
    answers = oracle.answer(asked, np.zeros(len(asked), np.int32))
    return TASK.learn(facts, asked, answers), asked


def refused(facts: Facts) -> npt.NDArray[np.bool_]:
    found = np.zeros((facts.images, facts.num_classes), np.bool_)
    found[facts.negatives.ids, facts.negatives.classes] = True
    return found


@given(classes=st.integers(2, 70))
def test_under_a_uniform_model_every_image_is_named_after_log2_of_the_classes(
    classes: int,
) -> None:
    truth = np.arange(classes, dtype=np.int32)
    oracle, facts = LabelsOracle(truth, classes), Facts.none(classes, classes)
    uniform = np.full((classes, classes), 1 / classes, np.float32)
    rounds = 0
    while TASK.open(facts).any():
        facts, rounds = step(facts, oracle, uniform)[0].facts, rounds + 1
        assert rounds < 10, "images are asked about what is known"
    assert rounds == math.ceil(math.log2(classes))
    assert np.array_equal(facts.positives.classes, truth)


@given(
    classes=st.integers(2, 12), seed=st.integers(0, 10**6), errs=st.sampled_from([0.0, 0.0, 0.3])
)
def test_information_is_never_contradictory(classes: int, seed: int, errs: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(60, dtype=np.int32) % classes)
    oracle: Oracle = LabelsOracle(truth, classes)
    if errs:
        oracle = NoisyOracle(LabelsOracle(truth, classes), seed, errs, errs)
    facts = Facts.none(60, classes)
    for _ in range(4 * classes):
        before = refused(facts)
        learned, asked = step(facts, oracle, rng.dirichlet(np.full(classes, 0.3), 60))
        # What is asked is not known, so that every answer tells something.
        assert (learned.wasted, learned.conflicts) == (0, 0)
        inside = np.zeros_like(before)
        inside[asked.ids[asked.sets.rows], asked.sets.classes] = True
        assert not np.any(inside & before)
        assert not np.any((inside | before)[asked.ids].all(axis=1))
        facts = learned.facts
        labelled = facts.has_positive()
        assert not refused(facts)[labelled].any()
        assert (refused(facts).sum(axis=1) < classes - 1).all()
        if not errs:
            assert np.array_equal(truth[facts.positives.ids], facts.positives.classes)
            assert not refused(facts)[np.arange(60), truth].any()
    assert labelled.all()


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 9))
def test_the_set_is_the_likeliest_classes_up_to_nearest_one_half(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.5), 30)
    possible = rng.random((30, classes)) < 0.7
    possible[:, :2] = True
    inside, mass = halves(p, possible)
    for row in range(30):
        order = sorted(np.flatnonzero(possible[row]), key=lambda c, row=row: (-p[row, c], c))
        total = sum(p[row, c] for c in order)
        sums = [sum(p[row, c] for c in order[: k + 1]) / total for k in range(len(order) - 1)]
        size = int(inside[row].sum())
        assert set(np.flatnonzero(inside[row])) == set(order[:size])
        assert abs(sums[size - 1] - 0.5) == pytest.approx(min(abs(s - 0.5) for s in sums))
        assert mass[row] == pytest.approx(sums[size - 1])
        assert size <= TASK.most_classes(classes)


def test_where_the_model_gives_the_possible_classes_nothing_they_count_alike() -> None:
    inside, mass = halves(
        np.array([[1.0, 0, 0, 0, 0]]), np.array([[False, True, True, True, True]])
    )
    assert inside.tolist() == [[False, True, True, False, False]] and mass.tolist() == [0.5]


def test_many_images_are_asked_about_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    p, facts = rng.dirichlet(np.full(7, 0.4), 50), Facts.none(50, 7)
    facts = step(facts, LabelsOracle(np.arange(50, dtype=np.int32) % 7, 7), p)[0].facts
    whole = asked_of(facts, p)
    monkeypatch.setattr(multiclass_sets, "_VALUES_AT_ONCE", 7 * 6)
    parts = asked_of(facts, p)
    for name in ("starts", "classes"):
        assert np.array_equal(getattr(whole.sets, name), getattr(parts.sets, name))
    assert np.array_equal(whole.confidences, parts.confidences)
    labels = ClassSets.singles(np.zeros(50, np.int32))
    assert len(asked_of(TASK.know(Facts.none(50, 7), np.arange(50), labels), p)) == 0


def test_answers_about_sets_of_any_size_teach_in_parts_what_they_teach_together() -> None:
    rng = np.random.default_rng(2)
    p, facts = rng.dirichlet(np.full(5, 2.0), 40), Facts.none(40, 5)
    asked = asked_of(facts, p)
    assert {1, 2} <= set(asked.sets.sizes.tolist())
    answers = np.where(np.arange(40) % 3 == 0, YES, NO).astype(np.int8)
    whole = TASK.learn(facts, asked, answers).facts
    for at in (np.flatnonzero(asked.sets.sizes == size) for size in (1, 2, 3)):
        facts = TASK.learn(facts, asked.take(at), answers[at]).facts
    for name in ("positives", "negatives"):
        assert np.array_equal(getattr(whole, name).keys(5), getattr(facts, name).keys(5))


def test_the_time_of_an_answer_grows_with_the_classes_that_it_is_about() -> None:
    assert TASK.answer_seconds(1) == pytest.approx(2.72)
    task = MultiClassSets(seconds=2, seconds_per_class=0.5)
    assert hours_range(task, 9, 3, 10) == pytest.approx(
        ((180 + 10 * 2.5) / 3600, (180 + 10 * 4.5) / 3600)
    )


class Slow(MultiClass):
    """A task that says how long a label takes, and an answer."""

    label_seconds = 7.0

    def answer_seconds(self, classes: float) -> float:
        return 2.0 * classes


def test_a_task_may_say_how_long_a_label_takes() -> None:
    assert hours_range(Slow(), 9, 3, 10) == ((21 + 20) / 3600, (21 + 20) / 3600)
    assert hours_range(MultiClass(), 9, 3, 10) == ((180 + 27.2) / 3600, (180 + 27.2) / 3600)
    row = {"seconds": asdict(task_seconds(Slow(), 9))}
    assert seconds_in_words([row]) == "2 s a question and 7 s a label, as the task says"
    measured = {"seconds": asdict(task_seconds(MultiClass(), 9))}
    assert "Hu et al. 2020" in seconds_in_words([measured, measured])
    assert "the task of each" in seconds_in_words([row, measured])
