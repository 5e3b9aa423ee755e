from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.labelling.answers import NO, PENDING, SKIPPED, YES, Answers
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.oracles.simulated import LabelsOracle
from orchestrator.labelling.pool import Pool, PoolTerms
from orchestrator.labelling.questions import Questions
from orchestrator.storage.files import StorageError
from search_spaces.reading.config import ValidationConfig
from tests.helpers.pool_world import (
    NO_VALIDATION,
    Crash,
    HalfOracle,
    MemorySegments,
    PeopleOracle,
    ask_round,
    charged,
    finish,
    labels_oracle,
    open_pool,
    terms,
    true_labels,
)
from trainers.errors import DataError
from trainers.stage import Classes, Ids

TWO_CLASSES = terms(
    num_classes=2,
    initial_labels_per_class=1,
    validation=NO_VALIDATION,
    budget_bits=102.0,
    quotas=(50, 50),
)


def _ask(pool: Pool, number: int, ids: Ids, guess: Classes | int) -> Answers:
    guesses = np.broadcast_to(np.asarray(guess, np.int32), ids.shape).astype(np.int32)
    return pool.ask(
        number, Questions.singles(ids, guesses, np.full(ids.size, 0.5, np.float32))
    ).answers


class TestFirstLabels:
    def test_split_validation_is_outside_pool_and_budget_and_the_same_for_every_seed(self) -> None:
        inputs = [
            open_pool(terms(seed=seed), MemorySegments()).training_inputs() for seed in (0, 1)
        ]
        for one in inputs:
            assert not np.isin(one.validation_ids, one.pool_ids).any()
            assert one.pool_ids.size == 120 - 12
            assert np.array_equal(one.validation_labels, true_labels(terms())[one.validation_ids])
            assert np.array_equal(one.labels, true_labels(terms())[one.label_ids])
            assert np.bincount(one.labels).tolist() == [2] * 4
        assert np.array_equal(inputs[0].validation_ids, inputs[1].validation_ids)
        assert not np.array_equal(inputs[0].label_ids, inputs[1].label_ids)
        counts = open_pool(terms(), MemorySegments()).counts()
        assert (counts.label_bits, counts.validation_bits) == (16.0, 24.0)

    def test_validation_of_the_initial_labels_is_inside_the_budget_and_not_trained_on(self) -> None:
        of = terms(
            validation=ValidationConfig(source="initial_labels", per_class=1),
            initial_labels_per_class=3,
            budget_bits=24.0 + 50,
        )
        pool = open_pool(of, MemorySegments())
        inputs, counts = pool.training_inputs(), pool.counts()
        assert np.bincount(inputs.validation_labels).tolist() == [1] * 4
        assert np.bincount(inputs.labels).tolist() == [2] * 4
        assert not np.isin(inputs.validation_ids, inputs.pool_ids).any()
        assert not np.isin(inputs.validation_ids, pool.eligible()).any()
        assert (counts.label_bits, counts.validation_bits) == (24.0, 0.0)
        # The very labels bought without validation.
        plain = open_pool(replace(of, validation=NO_VALIDATION), MemorySegments()).training_inputs()
        assert np.array_equal(
            plain.label_ids, np.sort(np.concatenate([inputs.label_ids, inputs.validation_ids]))
        )

    def test_without_validation_every_image_is_in_the_pool(self) -> None:
        inputs = open_pool(terms(validation=NO_VALIDATION), MemorySegments()).training_inputs()
        assert np.array_equal(inputs.pool_ids, np.arange(120))
        assert inputs.validation_ids.size == 0

    def test_a_second_open_buys_nothing(self) -> None:
        segments = MemorySegments()
        first = open_pool(terms(), segments)
        held = dict(segments.held)
        assert open_pool(terms(), segments).state().digest() == first.state().digest()
        first.open()
        assert segments.held == held

    def test_labels_beyond_the_budget_are_refused_before_any_is_bought(self) -> None:
        segments = MemorySegments()
        with pytest.raises(DataError, match=r"cost 16\.0 bits, and the budget is 15\.0"):
            open_pool(terms(budget_bits=15.0), segments)
        assert segments.held == {}

    def test_validation_that_takes_every_initial_label_is_refused(self) -> None:
        with pytest.raises(
            DataError, match=r"takes 2 of 2 initial labels .* lower validation\.per_class"
        ):
            open_pool(
                terms(validation=ValidationConfig(source="initial_labels", per_class=2)),
                MemorySegments(),
            )


class TestAnswers:
    def test_yes_makes_the_guess_the_label_and_no_refuses_it(self) -> None:
        pool, truth = open_pool(terms(), MemorySegments()), true_labels(terms())
        ids = pool.eligible()[:20]
        answers = _ask(pool, 1, ids, 2)
        inputs = pool.training_inputs()
        assert np.array_equal(answers == YES, truth[ids] == 2)
        confirmed = ids[answers == YES]
        assert np.isin(confirmed, inputs.label_ids).all()
        assert not np.isin(confirmed, pool.eligible()).any()
        assert np.array_equal(inputs.negative_ids, ids[answers == NO])
        assert set(inputs.negative_classes.tolist()) == {2}
        assert np.isin(inputs.negative_ids, pool.eligible()).all()

    def test_with_two_classes_every_answer_gives_the_label(self) -> None:
        pool = open_pool(TWO_CLASSES, MemorySegments())
        ids = pool.eligible()[:50]
        answers = _ask(pool, 1, ids, 0)
        counts, inputs = pool.counts(), pool.training_inputs()
        assert 0 < counts.eliminated == int(np.sum(answers == NO))
        assert counts.question_bits == 50
        assert np.array_equal(
            inputs.labels[np.searchsorted(inputs.label_ids, ids)], true_labels(TWO_CLASSES)[ids]
        )

    def test_the_last_class_left_is_the_label_for_free(self) -> None:
        of = terms(quotas=(20, 20, 20), budget_bits=16.0 + 60)
        pool, truth = open_pool(of, MemorySegments()), true_labels(of)
        ids = pool.eligible()[truth[pool.eligible()] == 3][:10]
        for number, guess in ((1, 0), (2, 1), (3, 2)):
            assert not np.isin(ids, pool.training_inputs().label_ids).any()
            assert np.all(_ask(pool, number, ids, guess) == NO)
        inputs = pool.training_inputs()
        assert np.all(inputs.labels[np.searchsorted(inputs.label_ids, ids)] == 3)
        assert (pool.counts().eliminated, pool.counts().question_bits) == (10, 30)

    def test_a_refused_class_asked_again_is_charged_and_counted_as_wasted(self) -> None:
        pool = open_pool(terms(), MemorySegments())
        ids = pool.eligible()[:20]
        again = ids[_ask(pool, 1, ids, 2) == NO]
        asked = pool.ask(
            2,
            Questions.singles(
                again, np.full(again.size, 2, np.int32), np.zeros(again.size, np.float32)
            ),
        )
        assert asked.wasted == again.size == pool.counts().wasted
        assert pool.counts().question_bits == 20 + again.size
        assert pool.training_inputs().negative_ids.size == again.size

    def test_an_oracle_that_changes_its_mind_is_believed_the_second_time(self) -> None:
        class Fickle(LabelsOracle):
            def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
                return np.where(repeats == 0, NO, YES).astype(np.int8)

        pool = open_pool(terms(), MemorySegments(), Fickle(true_labels(terms()), 4))
        ids = pool.eligible()[:10]
        assert np.all(_ask(pool, 1, ids, 1) == NO)
        assert np.all(_ask(pool, 2, ids, 1) == YES)
        inputs = pool.training_inputs()
        assert np.all(inputs.labels[np.searchsorted(inputs.label_ids, ids)] == 1)
        assert inputs.negative_ids.size == 0
        assert (pool.counts().conflicts, pool.counts().wasted) == (10, 10)

    def test_a_skipped_question_is_neither_charged_nor_wasted_nor_a_repeat(self) -> None:
        class SkipsTheSecond(LabelsOracle):
            heard: ClassVar[list[list[int]]] = []

            def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
                self.heard.append(sorted(set(repeats.tolist())))
                return np.full(len(asked), SKIPPED if len(self.heard) == 2 else NO, np.int8)

        of = terms(quotas=(10, 10, 10), budget_bits=16.0 + 30)
        pool = open_pool(of, MemorySegments(), SkipsTheSecond(true_labels(of), 4))
        ids, wasted = pool.eligible()[:10], []
        for number in (1, 2, 3):
            _ask(pool, number, ids, 1)
            wasted.append(pool.state().rounds[-1].wasted)
        assert wasted == [0, 0, 10]
        assert SkipsTheSecond.heard == [[0], [1], [1]]
        counts = pool.counts()
        assert (counts.question_bits, counts.skipped, counts.wasted, counts.negative_only) == (
            20,
            10,
            10,
            10,
        )

    def test_never_asks_an_image_once(self) -> None:
        pool = open_pool(terms(requery="never"), MemorySegments())
        ids = pool.eligible()[:20]
        _ask(pool, 1, ids, 2)
        assert not np.isin(ids, pool.eligible()).any()

    def test_inputs_and_counts_of_an_earlier_round_stay_available(self) -> None:
        pool = open_pool(terms(), MemorySegments())
        seen = [(pool.training_inputs().digest(), pool.counts())]
        for number in (1, 2):
            ask_round(pool, number)
            seen.append((pool.training_inputs().digest(), pool.counts()))
        assert [
            (pool.training_inputs(number).digest(), pool.counts(number)) for number in (0, 1, 2)
        ] == seen
        assert pool.counts() == seen[2][1]
        with pytest.raises(ValueError, match="2 rounds have been asked"):
            pool.counts(3)


class TestQuota:
    def test_a_float_price_costs_no_question(self) -> None:
        # 66.43856... + 265 need not be exact in binary.
        for num_classes, per_class, questions in (
            (10, 2, 265),
            (100, 30, 46_506),
            (1000, 30, 976_646),
            (3, 7, 1),
        ):
            budget = per_class * num_classes * float(np.log2(num_classes)) + questions
            of = terms(
                num_classes=num_classes,
                pool_items=num_classes * 40,
                validation=NO_VALIDATION,
                initial_labels_per_class=per_class,
                budget_bits=budget,
            )
            assert (
                open_pool(replace(of, quotas=(questions,)), MemorySegments()).quota(1) == questions
            )

    def test_not_one_bit_over_is_spent(self) -> None:
        pool = finish(open_pool(terms(budget_bits=16.0 + 37.9), MemorySegments()))
        assert pool.counts().question_bits == 37
        assert [one.ids.size for one in pool.state().rounds] == [30, 7]
        assert pool.counts().unspent == 13

    def test_what_a_round_does_not_charge_is_carried(self) -> None:
        people = PeopleOracle(labels_oracle(terms()), skipped_share=0.5)
        pool = open_pool(terms(), MemorySegments(), people)
        first = ask_round(pool, 1)
        assert 0 < first.charged < 30
        assert pool.quota(2) == 20 + 30 - first.charged
        assert pool.counts().unspent == 30 - first.charged

    def test_an_exhausted_pool_is_asked_once_whole(self) -> None:
        of = terms(requery="never", quotas=(90, 30), budget_bits=16.0 + 120)
        pool = finish(open_pool(of, MemorySegments()))
        assert [one.ids.size for one in pool.state().rounds] == [90, 10]
        assert pool.counts().unspent == 20
        assert pool.eligible().size == 0

    def test_an_empty_round_is_over_and_costs_nothing(self) -> None:
        segments = MemorySegments()
        pool = open_pool(terms(quotas=(0, 20)), segments)
        assert ask_round(pool, 1).over
        assert sorted(segments.held) == ["0000.parquet", "0001.parquet"]
        assert ask_round(pool, 2).charged == 20

    def test_the_oracle_is_not_asked_what_the_budget_does_not_hold(self) -> None:
        people = PeopleOracle(labels_oracle(terms()))
        pool = open_pool(terms(), segments := MemorySegments(), people)
        eligible, before = pool.eligible(), dict(segments.held)
        bad = [
            (eligible[:31], 0, "31 questions, and quota and budget hold 30"),
            (eligible[[0, 0]], 0, "a question stands there twice"),
            (eligible[[0, 0]], np.array([0, 1]), "an image is asked about twice"),
            (pool.training_inputs().label_ids, 0, "not eligible"),
            (pool.training_inputs().validation_ids, 0, "not eligible"),
            (np.array([-1]), 0, "not eligible"),
            (np.array([120]), 0, "not eligible"),
            (eligible[:3], 4, "a class that there is"),
            (eligible[:3], -1, "a class that there is"),
        ]
        for ids, guess, message in bad:
            with pytest.raises(ValueError, match=message):
                _ask(pool, 1, ids, guess)
        for number in (0, 2, 3):
            with pytest.raises(ValueError, match="0 of 2 rounds have been asked"):
                _ask(pool, number, eligible[:1], 0)
        assert people.asked == []
        assert segments.held == before


class TestOpenRounds:
    def test_a_slow_oracle_is_recorded_part_by_part_over_many_processes(self) -> None:
        segments = MemorySegments()
        asked = open_pool(terms(), segments, HalfOracle(labels_oracle(terms())))
        ids = asked.eligible()[:30]
        assert np.sum(_ask(asked, 1, ids, 1) == PENDING) == 15
        outstanding = []
        for _ in range(8):
            # Each process asks once and ends.
            pool = open_pool(terms(), segments, HalfOracle(labels_oracle(terms())))
            last = pool.state().rounds[-1]
            outstanding.append(int(np.sum(last.answers == PENDING)))
            if last.over:
                break
            with pytest.raises(RuntimeError, match="not over"):
                pool.training_inputs()
            with pytest.raises(RuntimeError, match="not over"):
                pool.quota(2)
        assert outstanding == [7, 3, 1, 0]
        whole = open_pool(terms(), MemorySegments())
        _ask(whole, 1, ids, 1)
        assert whole.training_inputs().digest() == pool.training_inputs().digest()
        assert whole.counts() == pool.counts()

    def test_nothing_new_adds_no_segment(self) -> None:
        segments = MemorySegments()
        pool = open_pool(
            terms(), segments, PeopleOracle(labels_oracle(terms()), answered_share=0.0)
        )
        asked = pool.ask(
            1,
            Questions.singles(pool.eligible()[:5], np.zeros(5, np.int32)),
        )
        for _ in range(3):
            pool.poll()
            pool.ask(1, asked.asked)
        assert sorted(segments.held) == ["0000.parquet", "0001.parquet"]

    def test_an_oracle_that_dies_between_plan_and_answers_is_asked_the_same_again(self) -> None:
        segments, people = MemorySegments(), PeopleOracle(labels_oracle(terms()), die=True)
        pool = open_pool(terms(), segments, people)
        ids = pool.eligible()[:10]
        with pytest.raises(Crash):
            _ask(pool, 1, ids, 1)
        first, people.asked = people.asked, []
        again = open_pool(terms(), segments, people)
        assert people.asked == first
        # Whatever a retrained model would ask now, the committed plan stands.
        asked = again.ask(
            1,
            Questions.singles(
                again.eligible()[:30], np.zeros(30, np.int32), np.zeros(30, np.float32)
            ),
        )
        assert np.array_equal(asked.ids, ids)
        assert np.all(asked.guesses == 1)
        assert asked.over
        assert again.counts().question_bits == 10

    def test_a_second_ask_changes_nothing(self) -> None:
        segments = MemorySegments()
        pool = open_pool(terms(), segments)
        asked, held = ask_round(pool, 1), dict(segments.held)
        again = pool.ask(
            1,
            Questions.singles(pool.eligible()[:3], np.zeros(3, np.int32)),
        )
        assert np.array_equal(again.ids, asked.ids)
        assert segments.held == held

    def test_answers_of_two_processes_are_merged_and_each_is_charged_once(self) -> None:
        segments = MemorySegments()
        processes = [
            open_pool(
                terms(),
                segments,
                PeopleOracle(
                    labels_oracle(terms()), np.random.default_rng(seed), answered_share=0.4
                ),
            )
            for seed in (1, 2)
        ]
        ids = processes[0].eligible()[:30]
        _ask(processes[0], 1, ids, 2)
        while not all(pool.state().rounds[0].over for pool in processes):
            for pool, rival in (processes, processes[::-1]):
                segments.rival = rival.poll
                pool.poll()
        assert processes[0].state().digest() == processes[1].state().digest()
        assert len(charged(processes[0])) == len(set(charged(processes[0]))) == 30

    def test_who_loses_the_race_for_answers_records_the_rest_at_once(self) -> None:
        segments = MemorySegments()
        pool, slow = (
            open_pool(terms(), segments),
            open_pool(terms(), segments, HalfOracle(labels_oracle(terms()))),
        )
        ids = pool.eligible()[:30]

        def slow_is_first_with_answers() -> None:
            segments.rival = slow.poll

        segments.rival = slow_is_first_with_answers
        answers = _ask(pool, 1, ids, 2)
        assert sorted(segments.held) == [
            "0000.parquet",
            "0001.parquet",
            "0002.parquet",
            "0003.parquet",
        ]
        assert np.array_equal(answers == YES, true_labels(terms())[ids] == 2)

    def test_an_oracle_that_answers_nonsense_is_a_defect(self) -> None:
        class Nonsense(LabelsOracle):
            def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
                return np.full(len(asked), 2, np.int8)

        with pytest.raises(ValueError, match="one of 1, 0, -1, -2"):
            ask_round(open_pool(terms(), MemorySegments(), Nonsense(true_labels(terms()), 4)), 1)


def test_a_pool_built_anew_answers_at_once() -> None:
    """An actor that was restarted is called without open()."""
    segments = MemorySegments()
    finish(open_pool(terms(), segments))
    fresh = [Pool(terms(), Ledger(segments), labels_oracle(terms())) for _ in range(4)]
    assert fresh[0].counts().questions == 50
    assert fresh[1].round(2) is not None
    assert fresh[2].eligible().size > 0
    assert fresh[3].poll() is not None


def test_a_fetch_that_fails_in_passing_loses_no_segment() -> None:
    class Flaky(MemorySegments):
        failing: str | None = None

        def get(self, name: str) -> bytes:
            if name == self.failing:
                self.failing = None
                raise StorageError("the endpoint is gone")
            return super().get(name)

    segments = Flaky()
    reader, writer = open_pool(terms(), segments), open_pool(terms(), segments)
    finish(writer)
    segments.failing = "0003.parquet"
    with pytest.raises(StorageError):
        reader.poll()
    reader.poll()
    assert reader.state().digest() == writer.state().digest()


def imagenet_terms(questions: int = 977_000) -> PoolTerms:
    return terms(
        num_classes=1000,
        pool_items=1_281_167,
        initial_labels_per_class=30,
        validation=NO_VALIDATION,
        budget_bits=30_000 * float(np.log2(1000)) + questions,
        quotas=(questions,),
    )


def test_imagenet_with_977000_answers_fits_in_64_mib() -> None:
    of = imagenet_terms()
    rng = np.random.default_rng(0)
    pool = open_pool(
        of,
        segments := MemorySegments(),
        LabelsOracle(rng.integers(0, 1000, of.pool_items, dtype=np.int32), 1000),
    )
    ids = np.sort(rng.choice(pool.eligible(), 977_000, replace=False))
    pool.ask(
        1,
        Questions.singles(
            ids,
            rng.integers(0, 1000, ids.size, dtype=np.int32),
            rng.random(ids.size, dtype=np.float32),
        ),
    )
    assert pool.state().facts.negatives.ids.size > 970_000
    assert pool.state().nbytes() < 64 * 2**20
    # And what a process that folds it anew really holds.
    ledger = Ledger(segments)
    tracemalloc.start()
    state = fold(None, ledger.read())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert state is not None
    assert held < 64 * 2**20
