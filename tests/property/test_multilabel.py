"""Images with several labels: what is known of each pair of an image and a category, what may be
asked, and what it costs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalogue import INSTALLED
from orchestrator.contracts import TaskContract
from orchestrator.labelling.answers import NO, SKIPPED, YES
from orchestrator.labelling.choose import choose
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.oracles.simulated import LabelsOracle, NoisyOracle
from orchestrator.labelling.pool import Pool, PoolTerms, Round
from orchestrator.labelling.protocols import Oracle
from orchestrator.labelling.questions import ClassSets, Questions
from orchestrator.labelling.tasks.multilabel import MultiLabel
from orchestrator.reporting.words import seconds_in_words
from search_spaces.reading.config import Bought, ValidationConfig
from search_spaces.reading.schedule import hours_range, task_seconds
from tests.helpers.pool_world import MemorySegments
from tests.helpers.pool_world import terms as some_terms
from tests.toys.inbox import OpenInbox
from trainers.stage import StageInputs

STRATEGIES = ["random", "easy", "hard", "margin", "entropy", "even_odds", "class_balanced"]


class TestPositives(TaskContract):
    def make(self) -> Any:
        return MultiLabel(label="positive")


def inputs_of(facts: Facts) -> StageInputs:
    none = np.empty(0, np.int64)
    return StageInputs(
        pool_ids=np.arange(facts.images),
        label_ids=facts.positives.ids.astype(np.int64),
        labels=facts.positives.classes.astype(np.int32),
        negative_ids=facts.negatives.ids.astype(np.int64),
        negative_classes=facts.negatives.classes.astype(np.int32),
        validation_ids=none,
        validation_labels=none.astype(np.int32),
    )


@given(st.integers(1, 12), st.integers(2, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_every_pair_of_which_nothing_is_known_may_be_asked_and_no_other(
    n: int, classes: int, seed: int, mask: bool
) -> None:
    rng = np.random.default_rng(seed)
    states = rng.integers(-1, 2, (n, classes))
    yes, no = (np.flatnonzero(states.ravel() == value) for value in (1, -1))
    facts = Facts.none(n, classes).with_keys(yes, no)
    task = MultiLabel()
    images = np.flatnonzero(task.open(facts) & (rng.random(n) < 0.8))
    assert np.array_equal(task.open(facts), (states == 0).any(axis=1))
    scores = {
        "item_ids": np.arange(n),
        "probabilities": rng.random((n, classes)).astype(np.float32),
    }
    needs = ("confidence", "margin", "entropy")
    asked, arrays = task.questions(
        images, scores, needs, lambda: inputs_of(facts), mask_refused=mask
    )
    free = states == 0 if mask else states <= 0
    expected = [(i, k) for i in images.tolist() for k in range(classes) if free[i, k]]
    assert list(zip(asked.ids.tolist(), asked.guesses.tolist(), strict=True)) == expected
    p = np.array([scores["probabilities"][pair] for pair in expected], np.float32)
    assert np.array_equal(asked.confidences, p)
    assert np.array_equal(arrays["confidence"], p)
    # Of all strategies that look at how sure the model is, `margin` asks nearest one half first.
    assert np.allclose(arrays["margin"], 2 * np.abs(p - 0.5), atol=1e-6)
    assert np.all(np.diff(arrays["entropy"][np.argsort(arrays["margin"], kind="stable")]) <= 1e-4)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[PoolTerms, npt.NDArray[np.int32]]:
    classes, images = draw(st.integers(2, 4)), draw(st.integers(20, 30))
    label = draw(st.sampled_from(["vector", "positive"]))
    source = draw(st.sampled_from(["split", "share", "none", "initial_labels"]))
    task = MultiLabel(label=label, per_image=draw(st.integers(1, 3)))
    buys: Bought = draw(st.sampled_from(["answers", "answers", "labels"]))
    bought, quotas = 2 * classes, tuple(draw(st.lists(st.integers(0, 20), min_size=1, max_size=3)))
    price = task.prices(classes)[label]
    if buys == "labels":
        quotas = tuple(min(quota, 3) for quota in quotas)
    terms = PoolTerms(
        trial="0123456789ab",
        seed=draw(st.integers(0, 9)),
        num_classes=classes,
        pool_items=images,
        initial_labels_per_class=2,
        validation=ValidationConfig(source=source, per_class=1),
        budget_bits=bought * price + sum(quotas) * (price if buys == "labels" else 1.0),
        quotas=quotas,
        requery=draw(st.sampled_from(["pool", "never"])),
        initial_choice="uniform",
        buys=buys,
        task=task,
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return terms, rng.integers(0, 2, (images, classes)).astype(np.int32)


def run(terms: PoolTerms, oracle: Oracle, strategy: str) -> tuple[Pool, MemorySegments]:
    segments = MemorySegments()
    pool = Pool(terms, Ledger(segments), oracle)
    assert pool.open()
    for number in range(1, len(terms.quotas) + 1):
        ask(pool, number, strategy)
    return pool, segments


def ask(pool: Pool, number: int, strategy: str = "random") -> Round:
    """Asks a round by random scores, or asks again what is open of it."""
    begun = pool.round(number)
    if begun is not None:
        return pool.ask(number, begun.asked)
    terms = pool.state().terms
    rng = np.random.default_rng(number)
    inputs = pool.training_inputs()
    p = rng.random((inputs.pool_ids.size, terms.num_classes)).astype(np.float32)
    asked = choose(
        terms.task,
        INSTALLED.load("query", strategy)(),
        {"item_ids": inputs.pool_ids, "probabilities": p},
        pool.eligible(),
        pool.quota(number),
        known=pool.training_inputs,
        seed=terms.seed,
        round=number,
        mask_refused=True,
        buys=terms.buys,
    )
    return pool.ask(number, asked)


def known_of(facts: Facts) -> npt.NDArray[np.int64]:
    """[N, L] +1, 0 or -1."""
    states = np.zeros((facts.images, facts.num_classes), np.int64)
    states[facts.positives.ids, facts.positives.classes] = 1
    assert not states[facts.negatives.ids, facts.negatives.classes].any()
    states[facts.negatives.ids, facts.negatives.classes] = -1
    return states


@settings(max_examples=60, deadline=None)
@given(worlds(), st.sampled_from(STRATEGIES))
def test_every_trial_keeps_the_rules_of_pairs(
    world: tuple[PoolTerms, npt.NDArray[np.int32]], strategy: str
) -> None:
    terms, truth = world
    if terms.task.label == "positive":
        # Whoever has none cannot be bought: see the test of that.
        truth[~truth.any(axis=1), 0] = 1
    pool, segments = run(terms, LabelsOracle(truth, terms.num_classes, seed=terms.seed), strategy)
    state = pool.state()
    states = known_of(state.facts)
    assert np.all(truth[states == 1] == 1) and np.all(truth[states == -1] == 0)

    price = terms.task.prices(terms.num_classes)[terms.task.label]
    answered = sum(one.charged for one in state.rounds)
    unit = price if terms.buys == "labels" else 1.0
    spent = 2 * terms.num_classes * price + answered * unit
    assert state.spent() == pytest.approx(spent)
    assert spent <= terms.budget_bits + 1e-6
    counts = pool.counts()
    assert counts.label_bits + counts.question_bits == pytest.approx(spent)
    assert counts.wasted == counts.conflicts == 0

    pairs = [
        (image, int(guess))
        for one in state.rounds
        for image, guess in zip(one.ids.tolist(), one.guesses.tolist(), strict=True)
    ]
    assert len(set(pairs)) == len(pairs), "no pair is asked twice"
    most = 1 if terms.buys == "labels" else getattr(terms.task, "per_image", 0)
    for one in state.rounds:
        assert np.bincount(one.ids, minlength=1).max(initial=0) <= most
    if terms.requery == "never" or terms.buys == "labels":
        rounds_of = [set(one.ids.tolist()) for one in state.rounds]
        assert sum(map(len, rounds_of)) == len(set().union(*rounds_of))

    inputs = pool.training_inputs()
    held_out = inputs.validation_ids
    if terms.validation.apart:
        # Whatever the labels of the pool are, the validation set has all of its own.
        assert np.array_equal(inputs.validation_labels, truth[held_out])
        assert counts.validation_bits == held_out.size * terms.num_classes
    assert not np.isin(inputs.label_ids, held_out).any()
    assert not np.isin([image for image, _ in pairs], held_out).any()
    again = fold(None, Ledger(segments).read())
    assert again is not None and again.digest() == state.digest()


@settings(max_examples=25, deadline=None)
@given(worlds(), st.integers(0, 9))
def test_of_answers_that_contradict_each_other_the_later_one_stands(
    world: tuple[PoolTerms, npt.NDArray[np.int32]], seed: int
) -> None:
    terms, truth = world
    terms = replace(terms, buys="answers", quotas=(9, 9), budget_bits=1000.0)
    oracle = NoisyOracle(LabelsOracle(truth, terms.num_classes), seed, 0.4, 0.4)
    pool, _ = run(terms, oracle, "random")
    state = pool.state()
    states, inside = known_of(state.facts), state.in_pool
    for one in state.rounds:
        said = np.where(one.answers == YES, 1, -1)
        assert np.array_equal(states[one.ids, one.guesses], said)
    facts, asked = state.facts, Questions.singles(np.flatnonzero(inside)[:3], np.zeros(3, np.int32))
    for answer, value in ((NO, -1), (YES, 1), (NO, -1)):
        before = known_of(facts)[asked.ids, 0]
        learned = terms.task.learn(facts, asked, np.full(3, answer, np.int8))
        assert learned.conflicts == int((before == -value).sum())
        assert learned.wasted == int((before != 0).sum())
        facts = learned.facts
        assert np.all(known_of(facts)[asked.ids, 0] == value)


def test_what_each_kind_of_label_tells_and_costs() -> None:
    none, ids = Facts.none(3, 4), np.array([0, 2])
    labels = ClassSets.of([(1, 3), ()])
    vector = known_of(MultiLabel().know(none, ids, labels))
    assert vector.tolist() == [[-1, 1, -1, 1], [0] * 4, [-1] * 4]
    positive = MultiLabel(label="positive")
    assert known_of(positive.know(none, ids[:1], ClassSets.of([(3,)])))[0].tolist() == [0, 0, 0, 1]
    assert (
        MultiLabel().prices(4)
        == positive.prices(4)
        == {
            "vector": 4.0,
            "positive": 2.0,
            "answer": 1.0,
        }
    )
    task = MultiLabel(seconds_per_question=3, seconds_per_vector=40, seconds_per_positive=5)
    assert hours_range(task, 4, 9, 10) == ((360 + 30) / 3600,) * 2
    assert hours_range(replace(task, label="positive"), 4, 9, 10) == ((45 + 30) / 3600,) * 2
    # Of vectors and positives nobody has measured anything, whatever number stands there.
    for each, said in (
        (task, "3 s a question and 40 s"),
        (MultiLabel(), "2.72 s a question and 60 s"),
    ):
        row = {"seconds": asdict(task_seconds(each, 4))}
        assert seconds_in_words([row]) == f"{said} a label, as the task says"


def test_a_positive_of_an_image_without_a_category_is_skipped_and_free() -> None:
    oracle = LabelsOracle(np.array([[0, 1], [0, 0]], np.int32), 2)
    given = oracle.label(np.array([1, 0]), "positive")
    assert given.given.tolist() == [SKIPPED, YES]
    assert oracle.label(np.array([1, 0]), "vector").given.tolist() == [YES, YES]


def test_random_questions_are_random_whatever_the_model_says() -> None:
    """Not the model's two best of each image, in a random order."""
    n, classes = 400, 6
    p = np.tile(np.linspace(0.1, 0.9, classes), (n, 1)).astype(np.float32)
    asked = choose(
        MultiLabel(per_image=2),
        INSTALLED.load("query", "random")(),
        {"item_ids": np.arange(n), "probabilities": p},
        np.arange(n),
        300,
        known=lambda: inputs_of(Facts.none(n, classes)),
        seed=0,
        round=1,
        mask_refused=True,
    )
    counts = np.bincount(asked.guesses, minlength=classes)
    # Each of six with a chance of a sixth of 300: 50, standard deviation 6.5.
    assert counts.min() > 50 - 5 * 6.5 and counts.max() < 50 + 5 * 6.5


@pytest.mark.parametrize("label", ["vector", "positive"])
def test_people_answer_about_pairs_through_an_inbox_in_parts(tmp_path: Path, label: Any) -> None:
    truth = np.random.default_rng(5).integers(0, 2, (40, 4)).astype(np.int32)
    truth[:, 1] |= ~truth.any(axis=1)
    terms = some_terms(
        pool_items=40,
        validation=ValidationConfig(source="share", share=0.2),
        initial_choice="uniform",
        budget_bits=200.0,
        task=MultiLabel(label=label, per_image=3),
    )
    simulated = LabelsOracle(truth, 4, seed=terms.seed)
    whole, _ = run(terms, simulated, "easy")

    def put(name: str, content: Any) -> None:
        (tmp_path / name).write_text(json.dumps(content))

    segments = MemorySegments()
    pool = Pool(terms, Ledger(segments), OpenInbox(tmp_path))
    assert not pool.open(), "nobody has said anything yet"
    out = set(np.flatnonzero(~whole.state().in_pool).tolist())
    every = np.arange(40)
    kinds = {kind: simulated.label(every, kind).sets for kind in ("vector", "positive")}
    said = {
        str(i): kinds["vector" if i in out else label].take(np.array([i])).classes.tolist()
        for i in every.tolist()
    }
    put("labels.json", {i: labels for i, labels in said.items() if int(i) % 2})
    assert not pool.open()
    put("labels.json", said)
    assert pool.open()
    answers: dict[str, dict[str, int]] = {}
    for number in range(1, len(terms.quotas) + 1):
        one = ask(pool, number, "easy")
        while not one.over:
            open_at = np.flatnonzero(one.answers < SKIPPED)
            for image, k in zip(
                one.ids[open_at][::2].tolist(), one.guesses[open_at][::2].tolist(), strict=True
            ):
                answers.setdefault(str(image), {})[str(k)] = int(truth[image, k])
            put("answers.json", answers)
            one = ask(pool, number)
    assert np.array_equal(known_of(pool.state().facts), known_of(whole.state().facts))
    assert pool.counts() == whole.counts()
