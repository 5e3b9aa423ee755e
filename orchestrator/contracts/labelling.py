"""The laws of query strategies, oracles and tasks."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from orchestrator.contracts.plugins import PluginContract
from orchestrator.labelling.answers import NO, PENDING, SKIPPED, YES, Answers
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.protocols import Draw, Oracle, Query, Scores, Simulation, Task
from orchestrator.labelling.questions import ClassSets, Questions
from search_spaces.reading.initial_choices import INITIAL_CHOICES
from trainers.metrics import METRICS, Metric
from trainers.stage import EXTRA_ARRAYS, POOL_ARRAYS, Ids

CLASSES: Final = 5
ITEMS: Final = 200


def some_scores(rows: int, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Returns every kind of score array for `rows` questions."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {
        name: rng.random(rows).astype(np.float32) for name in ("confidence", "margin", "entropy")
    }
    arrays["embedding"] = rng.normal(size=(rows, 8)).astype(np.float32)
    arrays["probabilities"] = rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32)
    return arrays


class QueryContract(PluginContract):
    """A query strategy ranks the questions of a round, as a function of them alone."""

    own_arrays: ClassVar[tuple[str, ...]] = ()
    """Score arrays that it needs and that only some methods offer, one number an image each."""

    @abstractmethod
    def make(self) -> Query: ...

    def draw(self, quota: int = 20, *, seed: int = 0, order: Any = None) -> Draw:
        """Returns ITEMS questions that the strategy may rank, or those of them in `order`."""
        query, rng = self.make(), np.random.default_rng(1)
        ids = np.sort(rng.choice(10 * ITEMS, ITEMS, replace=False))
        scores = self._scores(ITEMS)
        asked = Questions.singles(ids, rng.integers(0, CLASSES, ITEMS), scores["confidence"])
        at = np.arange(ITEMS) if order is None else order
        needed = {name: scores[name][at] for name in query.needs}
        labelled: Scores = {
            name: self._scores(12, seed=2)[name] for name in getattr(query, "needs_of_labelled", ())
        }
        return Draw(asked.take(at), needed, seed, 1, quota, False, labelled, CLASSES)

    def _scores(self, rows: int, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
        own = np.random.default_rng(seed).random((len(self.own_arrays), rows)).astype(np.float32)
        return some_scores(rows, seed) | dict(zip(self.own_arrays, own, strict=True))

    def test_what_it_needs_is_a_score_array(self) -> None:
        known = set(self._scores(1))
        query = self.make()
        for name in (*query.needs, *getattr(query, "needs_of_labelled", ())):
            assert name in known, (
                f"needs {name!r}, which no method offers; `own_arrays` names one of your own"
            )

    def test_it_gives_each_question_a_finite_number(self) -> None:
        rank = np.asarray(self.make().rank(self.draw()))
        assert rank.shape == (ITEMS,), f"expected one number a question, found {rank.shape}"
        assert np.all(np.isfinite(rank.astype(float)))

    def test_the_same_draw_is_ranked_the_same(self) -> None:
        first, again = (self.make().rank(self.draw()) for _ in range(2))
        assert np.array_equal(first, again)

    def test_it_changes_nothing_that_it_is_given(self) -> None:
        draw = self.draw()
        before = pickle.dumps((draw.ids, draw.guesses, draw.scores))
        self.make().rank(draw)
        assert pickle.dumps((draw.ids, draw.guesses, draw.scores)) == before

    def test_a_round_with_nothing_to_ask_is_ranked_too(self) -> None:
        assert len(self.make().rank(self.draw(0, order=np.arange(0)))) == 0

    def test_one_question_is_ranked_too(self) -> None:
        assert len(self.make().rank(self.draw(1, order=np.arange(1)))) == 1


TRUTH: Final = np.random.default_rng(0).permutation(np.arange(400, dtype=np.int32) % CLASSES)
"""Classes of the 400 images that an oracle of OracleContract is opened over."""

_NONE = np.empty(0, np.int64)


def ask(oracle: Oracle, asked: Questions, repeat: int = 0) -> Answers:
    """Returns every answer, however often one must ask for it."""
    answers = np.full(len(asked), PENDING, np.int8)
    for _ in range(100):
        open_at = np.flatnonzero(answers == PENDING)
        if not open_at.size:
            return answers
        repeats = np.full(open_at.size, repeat, np.int32)
        answers[open_at] = oracle.answer(asked.take(open_at), repeats)
    raise AssertionError("the oracle never answers some questions")


class OracleContract(PluginContract):
    """An oracle answers by the question alone. Give the settings in `make`, and in `opened` the
    oracle over TRUTH.
    """

    errs: ClassVar[bool] = False
    """Whether it may be wrong about every eighth question."""
    skips: ClassVar[bool] = False
    """Whether it may leave questions unanswered for good."""

    @abstractmethod
    def make(self) -> Any: ...

    @abstractmethod
    def opened(self) -> Oracle:
        """Returns the oracle of a trial whose images are of the classes TRUTH."""

    def simulation(self) -> Simulation | None:
        """Returns it as one that knows all labels, or None."""
        found: Any = self.opened()
        return found if hasattr(found, "balanced") else None

    def test_a_label_is_the_truth_whichever_image_and_however_often(self) -> None:
        oracle, ids = self.opened(), np.array([7, 3, 399, 3])
        given = np.full(ids.size, PENDING, np.int8)
        for _ in range(100):
            labels = oracle.label(ids, "label")
            assert labels.given.shape == ids.shape
            assert len(labels.sets) == ids.size
            for at in np.flatnonzero(labels.given == YES):
                assert labels.sets.take(np.array([at])).classes.tolist() == [TRUTH[ids[at]]]
            given = np.maximum(given, labels.given)
            if np.all(given != PENDING):
                break
        assert np.all(given != PENDING), "the oracle never gives some labels"
        assert oracle.label(_NONE, "label").given.size == 0

    def test_answers_are_answers(self) -> None:
        answers = self.opened().answer(Questions.singles(np.arange(400), TRUTH), _zeros(400))
        assert answers.dtype == np.int8
        assert answers.shape == (400,)
        assert set(np.unique(answers)) <= {YES, NO, SKIPPED, PENDING}
        none = Questions.singles(_NONE, _NONE)
        assert self.opened().answer(none, _zeros(0)).shape == (0,)

    def test_the_same_question_has_the_same_answer_alone_or_among_others(self) -> None:
        oracle, ids = self.opened(), np.arange(0, 400, 3)
        asked = Questions.singles(ids, (TRUTH[ids] + ids % 2) % CLASSES)
        together = ask(oracle, asked)
        assert np.array_equal(together, ask(oracle, asked))
        backwards = np.arange(ids.size)[::-1]
        assert np.array_equal(together, ask(oracle, asked.take(backwards))[::-1])
        alone = [int(ask(oracle, asked.take(np.array([at])))[0]) for at in range(50)]
        assert alone == together[:50].tolist()

    def test_a_question_about_several_classes_is_whether_one_of_them_is_right(self) -> None:
        ids = np.arange(400)
        sets = ClassSets.of([(int(c), int(c + 1) % CLASSES) for c in TRUTH])
        asked = Questions(ids=ids, sets=sets, confidences=np.zeros(400, np.float32))
        wrong = ClassSets.of([((c + 2) % CLASSES, (c + 3) % CLASSES) for c in TRUTH.tolist()])
        other = Questions(ids=ids, sets=wrong, confidences=np.zeros(400, np.float32))
        self._mostly(ask(self.opened(), asked), YES)
        self._mostly(ask(self.opened(), other), NO)

    def test_most_answers_are_right(self) -> None:
        ids = np.arange(400)
        self._mostly(ask(self.opened(), Questions.singles(ids, TRUTH)), YES)
        self._mostly(ask(self.opened(), Questions.singles(ids, (TRUTH + 1) % CLASSES)), NO)

    def _mostly(self, answers: Answers, right: int) -> None:
        told = answers[answers != SKIPPED]
        assert self.skips or told.size == answers.size, "it skips questions"
        share = float(np.mean(told == right)) if told.size else 0.0
        assert share > 0.8 if self.errs else share == 1.0

    def test_one_that_knows_all_labels_finds_balanced_images(self) -> None:
        oracle = self.simulation()
        if oracle is None:
            return
        for purpose in ("initial", "validation"):
            ids = oracle.balanced(purpose, 4, 3, _NONE)
            assert np.all(np.diff(ids) > 0)
            assert np.bincount(TRUTH[ids], minlength=CLASSES).tolist() == [4] * CLASSES
        taken = oracle.balanced("validation", 30, 0, _NONE)
        assert not np.isin(oracle.balanced("initial", 40, 0, taken), taken).any()

    def test_balanced_images_are_drawn_by_the_seed_and_more_of_them_are_those_and_others(
        self,
    ) -> None:
        oracle = self.simulation()
        if oracle is None:
            return
        few, same, other = (oracle.balanced("initial", 2, seed, _NONE) for seed in (3, 3, 4))
        assert np.array_equal(few, same)
        assert not np.array_equal(few, other)
        assert np.isin(few, oracle.balanced("initial", 5, 3, _NONE)).all()


def _zeros(count: int) -> npt.NDArray[np.int32]:
    return np.zeros(count, np.int32)


class TaskContract(PluginContract):
    """A task says what a label costs, what may be asked and what answers teach."""

    @abstractmethod
    def make(self) -> Task: ...

    def labels(self, ids: Ids) -> ClassSets:
        """Returns labels of these images as the task's oracle would give them."""
        rng = np.random.default_rng(3)
        if not self.make().several_labels:
            return ClassSets.singles(rng.integers(0, CLASSES, ids.size))
        return ClassSets.of([rng.choice(CLASSES, 2, replace=False).tolist() for _ in ids])

    def known(self) -> Facts:
        """Returns what is known once every tenth of ITEMS images is labelled."""
        ids = np.arange(0, ITEMS, 10)
        return self.make().know(Facts.none(ITEMS, CLASSES), ids, self.labels(ids))

    def asked(self, facts: Facts) -> Questions:
        """Returns a question about one class of each image that is open."""
        ids = np.flatnonzero(self.make().open(facts))
        return Questions.singles(ids, np.random.default_rng(4).integers(0, CLASSES, ids.size))

    def test_a_label_has_a_price_and_an_answer_costs_one_bit(self) -> None:
        task = self.make()
        for classes in (2, CLASSES, 1000):
            prices = task.prices(classes)
            assert prices[task.label] > 0
            assert prices["answer"] == 1.0
            assert all(np.isfinite(bits) and bits > 0 for bits in prices.values())

    def test_what_it_says_of_itself_is_complete(self) -> None:
        task = self.make()
        metric = task.metric
        assert isinstance(metric, Metric), "metric is a trainers.metrics.Metric"
        assert METRICS.get(metric.name, metric) == metric, "another metric has that name"
        assert metric.array in {*POOL_ARRAYS, *EXTRA_ARRAYS}
        assert pickle.loads(pickle.dumps(metric)) == metric, "score is a function of a module"  # noqa: S301  # its own
        assert isinstance(task.trained_as, str)
        assert {*task.needs} <= {*POOL_ARRAYS, *EXTRA_ARRAYS}
        assert isinstance(task.several_labels, bool)
        assert isinstance(task.several_questions, bool)
        assert isinstance(task.yes_is_label, bool)
        assert task.choices
        assert set(task.choices) <= INITIAL_CHOICES.keys()

    def test_labels_are_known_and_nothing_is_known_of_other_images(self) -> None:
        ids = np.arange(0, ITEMS, 10)
        facts, labels = self.known(), self.labels(ids)
        assert np.array_equal(np.unique(facts.positives.ids), ids)
        held = set(zip(facts.positives.ids.tolist(), facts.positives.classes.tolist(), strict=True))
        told = set(zip(ids[labels.rows].tolist(), labels.classes.tolist(), strict=True))
        assert told == held
        assert np.isin(facts.negatives.ids, ids).all()
        self._holds_together(facts)

    def test_labels_that_come_later_leave_what_was_known(self) -> None:
        task, ids = self.make(), np.arange(0, ITEMS, 10)
        labels, first = self.labels(ids), ids < ITEMS // 3
        part = task.know(Facts.none(ITEMS, CLASSES), ids[first], labels.take(first))
        assert _same(task.know(part, ids[~first], labels.take(~first)), self.known())

    def test_an_image_of_which_nothing_is_known_is_open(self) -> None:
        assert np.all(self.make().open(Facts.none(ITEMS, CLASSES)))

    def test_a_yes_is_learned_and_a_no_is_learned(self) -> None:
        facts = self.known()
        asked = self.asked(facts)
        for answer, held in ((YES, "positives"), (NO, "negatives")):
            learned = self.make().learn(facts, asked, np.full(len(asked), answer, np.int8))
            pairs = getattr(learned.facts, held)
            keys = pairs.keys(CLASSES)
            assert np.isin(asked.ids * CLASSES + asked.guesses, keys).all()
            self._holds_together(learned.facts)

    def test_where_a_yes_is_a_label_it_teaches_what_a_label_does(self) -> None:
        task, none = self.make(), Facts.none(ITEMS, CLASSES)
        if not task.yes_is_label:
            return
        asked = self.asked(none)
        yes = task.learn(none, asked, np.full(len(asked), YES, np.int8)).facts
        assert _same(yes, task.know(none, asked.ids, asked.sets))

    def test_a_skipped_question_teaches_nothing(self) -> None:
        facts = self.known()
        asked = self.asked(facts)
        learned = self.make().learn(facts, asked, np.full(len(asked), SKIPPED, np.int8))
        assert _same(learned.facts, facts)
        assert (learned.wasted, learned.conflicts) == (0, 0)

    def test_answers_in_parts_teach_what_they_teach_together(self) -> None:
        facts = self.known()
        asked = self.asked(facts)
        answers = (np.arange(len(asked)) % 3 - 1).astype(np.int8)
        whole = self.make().learn(facts, asked, answers)
        part = facts
        for at in np.array_split(np.arange(len(asked)), 4):
            part = self.make().learn(part, asked.take(at), answers[at]).facts
        assert _same(whole.facts, part)

    def test_an_answer_that_was_known_is_wasted_and_one_that_contradicts_it_stands(self) -> None:
        facts = self.known()
        asked = self.asked(facts).take(np.arange(20))
        no = self.make().learn(facts, asked, np.full(20, NO, np.int8)).facts
        again = self.make().learn(no, asked, np.full(20, NO, np.int8))
        assert again.wasted == 20
        assert again.conflicts == 0
        assert _same(again.facts, no)
        yes = self.make().learn(no, asked, np.full(20, YES, np.int8))
        assert yes.conflicts == 20
        self._holds_together(yes.facts)
        keys = yes.facts.positives.keys(CLASSES)
        assert np.isin(asked.ids * CLASSES + asked.guesses, keys).all()

    def test_learning_changes_nothing_that_it_is_given(self) -> None:
        facts = self.known()
        before = pickle.dumps(facts)
        self.make().learn(facts, self.asked(facts), np.full(len(self.asked(facts)), NO, np.int8))
        assert pickle.dumps(facts) == before

    def _holds_together(self, facts: Facts) -> None:
        yes, no = facts.positives.keys(CLASSES), facts.negatives.keys(CLASSES)
        assert np.all(np.diff(yes) > 0), "positives must ascend by (id, class), none twice"
        assert np.all(np.diff(no) > 0), "negatives must ascend by (id, class), none twice"
        assert not np.isin(yes, no).any(), "a class is known to be right and to be wrong"


def _same(one: Facts, other: Facts) -> bool:
    return all(
        np.array_equal(first.keys(CLASSES), second.keys(CLASSES))
        for first, second in (
            (one.positives, other.positives),
            (one.negatives, other.negatives),
        )
    )
