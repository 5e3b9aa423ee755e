"""Everything in the catalogue keeps the contract of its kind, and each law of a contract is broken
by some fake.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import yaml

import orchestrator as oc
from orchestrator.catalogue import INSTALLED
from orchestrator.contracts.labelling import (
    CLASSES,
    TRUTH,
    OracleContract,
    QueryContract,
    TaskContract,
)
from orchestrator.contracts.searches import SearchContract
from orchestrator.labelling.answers import NO, PENDING, YES, Answers
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.oracles.simulated import Labels, LabelsOracle, Noisy, NoisyOracle
from orchestrator.labelling.protocols import Draw, Learned, Oracle, Rank
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.tasks.multiclass import MultiClass
from orchestrator.search.algorithms import Random as RandomSearch
from orchestrator.search.algorithms import Row, Tpe
from search_spaces.reading.config import Spec
from search_spaces.reading.errors import SpecError
from tests.helpers.pool_world import PeopleOracle
from tests.helpers.sweeps import ONE_TRIAL_SPEC
from tests.toys.k_centre import KCentre
from trainers.metrics import Metric, mean_average_precision
from trainers.stage import Ids


def laws(contract: type[Any]) -> list[str]:
    return sorted(name for name in dir(contract) if name.startswith("test_"))


@pytest.mark.parametrize("law", laws(QueryContract))
@pytest.mark.parametrize("name", INSTALLED.own("query"))
def test_every_query_strategy_keeps_its_contract(name: str, law: str) -> None:
    class Contract(QueryContract):
        own_arrays = ("uncertainty",)

        def make(self) -> Any:
            return INSTALLED.load("query", name)()

    getattr(Contract(), law)()


class TestKCentre(QueryContract):
    """A strategy that reads arrays, of labelled images too."""

    def make(self) -> KCentre:
        return KCentre(limit=30)

    def test_it_asks_first_about_the_image_farthest_from_those_that_are_labelled(self) -> None:
        draw = self.draw()
        features, centres = (one["embedding"] for one in (draw.scores, draw.labelled))
        nearest = ((features[:, None] - centres[None]) ** 2).sum(2).min(1)
        assert np.argmin(self.make().rank(draw)) == np.argmax(nearest)

    def test_where_no_image_is_labelled_it_begins_anywhere(self) -> None:
        draw = self.draw()
        bare = replace(draw, labelled={"embedding": draw.labelled["embedding"][:0]})
        rank = self.make().rank(bare)
        assert sorted(rank)[:30] == list(range(30))


@pytest.mark.parametrize("law", laws(TaskContract))
@pytest.mark.parametrize("name", INSTALLED.own("task"))
def test_every_task_keeps_its_contract(name: str, law: str) -> None:
    class Contract(TaskContract):
        def make(self) -> Any:
            return INSTALLED.load("task", name)()

    getattr(Contract(), law)()


@pytest.mark.parametrize("law", laws(SearchContract))
@pytest.mark.parametrize("name", INSTALLED.own("search"))
def test_every_search_algorithm_keeps_its_contract(name: str, law: str, tmp_path: Path) -> None:
    class Contract(SearchContract):
        def make(self) -> Any:
            return INSTALLED.load("search", name)()

    _obey(Contract(), law, tmp_path)


def _obey(contract: Any, law: str, folder: Path) -> None:
    method = getattr(contract, law)
    method(**({"tmp_path": folder} if "tmp_path" in inspect.signature(method).parameters else {}))


class TestLabels(OracleContract):
    def make(self) -> Labels:
        return Labels()

    def opened(self) -> Oracle:
        return LabelsOracle(TRUTH, CLASSES)


class TestNoisy(OracleContract):
    errs = True

    def make(self) -> Noisy:
        return Noisy()

    def opened(self) -> Oracle:
        return NoisyOracle(LabelsOracle(TRUTH, CLASSES), seed=0)


class TestPeople(OracleContract):
    """The fake of the pool tests: answers come in parts."""

    def make(self) -> Labels:
        return Labels()

    def opened(self) -> Oracle:
        return PeopleOracle(LabelsOracle(TRUTH, CLASSES), answered_share=0.5)


def test_every_oracle_of_the_catalogue_is_held_to_its_contract() -> None:
    assert set(INSTALLED.own("oracle")) == {TestLabels().make().name, TestNoisy().make().name}


class LiveStreamOracle(NoisyOracle):
    """Draws errors from a stream, so that an answer depends on what was asked before."""

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        rng = self.__dict__.setdefault("_rng", np.random.default_rng(0))
        right = super().answer(asked, repeats)
        return np.where(rng.random(len(asked)) < 0.1, 1 - right, right).astype(np.int8)


class UnbalancedOracle(LabelsOracle):
    def balanced(self, purpose: Any, per_class: int, seed: int, without: Ids, **_: Any) -> Ids:
        rng = np.random.default_rng(seed)
        return np.sort(rng.choice(TRUTH.size, per_class * CLASSES, replace=False))


class SeedlessOracle(LabelsOracle):
    def balanced(self, purpose: Any, per_class: int, seed: int, without: Ids, **_: Any) -> Ids:
        return super().balanced(purpose, per_class, 0, without)


class ForgetfulOracle(LabelsOracle):
    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        return np.full(len(asked), PENDING, np.int8)


class OneClassOracle(LabelsOracle):
    """Hears only the first class of a question."""

    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        last = asked.sets.classes[asked.sets.starts[1:] - 1] if len(asked) else asked.ids
        return np.equal(TRUTH[asked.ids], last).astype(np.int8)


class WordyOracle(LabelsOracle):
    def answer(self, asked: Questions, repeats: npt.NDArray[np.int32]) -> Answers:
        return super().answer(asked, repeats) + np.int8(1)


SHIFTED = ((TRUTH + 1) % CLASSES).astype(np.int32)


@pytest.mark.parametrize(
    ("oracle", "law"),
    [
        (
            LiveStreamOracle(LabelsOracle(TRUTH, CLASSES), 0),
            "test_the_same_question_has_the_same_answer_alone_or_among_others",
        ),
        (UnbalancedOracle(TRUTH, CLASSES), "test_one_that_knows_all_labels_finds_balanced_images"),
        (
            SeedlessOracle(TRUTH, CLASSES),
            "test_balanced_images_are_drawn_by_the_seed_and_more_of_them_are_those_and_others",
        ),
        (ForgetfulOracle(TRUTH, CLASSES), "test_most_answers_are_right"),
        (
            OneClassOracle(TRUTH, CLASSES),
            "test_a_question_about_several_classes_is_whether_one_of_them_is_right",
        ),
        (WordyOracle(TRUTH, CLASSES), "test_answers_are_answers"),
        (LabelsOracle(SHIFTED, CLASSES), "test_most_answers_are_right"),
        (
            LabelsOracle(SHIFTED, CLASSES),
            "test_a_label_is_the_truth_whichever_image_and_however_often",
        ),
    ],
)
def test_the_contract_catches_an_oracle_that_breaks_it(oracle: Oracle, law: str) -> None:
    class Contract(OracleContract):
        def make(self) -> Labels:
            return Labels()

        def opened(self) -> Oracle:
            return oracle

    with pytest.raises(AssertionError):
        getattr(Contract(), law)()


@dataclass(frozen=True)
class Broken:
    """A strategy that breaks one law, by what it is told to do."""

    rank_by: Callable[[Draw], Rank] = field(compare=False)
    name: ClassVar[str] = "broken"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)

    def rank(self, draw: Draw) -> Rank:
        return self.rank_by(draw)


def _spoils(draw: Draw) -> Rank:
    np.asarray(draw.scores["confidence"])[:] = 0
    return draw.keys()


def _luck(draw: Draw) -> Rank:
    return np.random.default_rng().random(len(draw.ids))


def _first_only(draw: Draw) -> Rank:
    return np.full(len(draw.ids), draw.scores["confidence"][0])


@pytest.mark.parametrize(
    ("rank_by", "law"),
    [
        (_spoils, "test_it_changes_nothing_that_it_is_given"),
        (_luck, "test_the_same_draw_is_ranked_the_same"),
        (lambda draw: draw.keys()[:3], "test_it_gives_each_question_a_finite_number"),
        (
            lambda draw: np.full(len(draw.ids), np.nan),
            "test_it_gives_each_question_a_finite_number",
        ),
        (lambda draw: np.zeros(1), "test_a_round_with_nothing_to_ask_is_ranked_too"),
        (lambda draw: np.zeros(2), "test_one_question_is_ranked_too"),
        (_luck, "test_its_settings_are_what_a_spec_can_hold"),
    ],
)
def test_the_contract_catches_a_strategy_that_breaks_it(
    rank_by: Callable[[Draw], Rank], law: str
) -> None:
    class Contract(QueryContract):
        def make(self) -> Any:
            return Broken(rank_by)

    with pytest.raises(AssertionError):
        getattr(Contract(), law)()


@dataclass
class NotFrozen:
    name: ClassVar[str] = "not_frozen"


@dataclass(frozen=True)
class Needy:
    name: ClassVar[str] = "needy"
    needs: ClassVar[tuple[str, ...]] = ("crystal_ball",)


@dataclass(frozen=True)
class Nameless:
    name: str = "nameless"


@pytest.mark.parametrize(
    ("made", "law"),
    [
        (Needy(), "test_what_it_needs_is_a_score_array"),
        (NotFrozen(), "test_its_class_is_a_frozen_dataclass_with_a_name"),
        (Nameless(), "test_its_class_is_a_frozen_dataclass_with_a_name"),
        (object(), "test_its_class_is_a_frozen_dataclass_with_a_name"),
    ],
)
def test_the_contract_catches_a_class_that_is_no_plug_in(made: Any, law: str) -> None:
    class Contract(QueryContract):
        def make(self) -> Any:
            return made

    with pytest.raises(AssertionError):
        getattr(Contract(), law)()


@dataclass(frozen=True)
class Stubborn(MultiClass):
    """Believes the first answer."""

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        known = np.isin(asked.ids, facts.negatives.ids)
        return super().learn(facts, asked.take(~known), answers[~known])


@dataclass(frozen=True)
class Guesser(MultiClass):
    """Takes a skipped question for a no."""

    def learn(self, facts: Facts, asked: Questions, answers: Answers) -> Learned:
        return super().learn(facts, asked, np.where(answers == YES, YES, NO).astype(np.int8))


@dataclass(frozen=True)
class Closed(MultiClass):
    def open(self, facts: Facts) -> npt.NDArray[np.bool_]:
        return super().open(facts) & (np.arange(facts.images) % 2 == 0)


@dataclass(frozen=True)
class Gift(MultiClass):
    def prices(self, num_classes: int) -> dict[str, float]:
        return {"label": 0.0, "answer": 1.0}


@dataclass(frozen=True)
class Judged(MultiClass):
    metric: ClassVar[Metric] = Metric("top-1", "guess", mean_average_precision)


@pytest.mark.parametrize(
    ("task", "law"),
    [
        (
            Stubborn(),
            "test_an_answer_that_was_known_is_wasted_and_one_that_contradicts_it_stands",
        ),
        (Guesser(), "test_a_skipped_question_teaches_nothing"),
        (Closed(), "test_an_image_of_which_nothing_is_known_is_open"),
        (Gift(), "test_a_label_has_a_price_and_an_answer_costs_one_bit"),
        (Judged(), "test_what_it_says_of_itself_is_complete"),
    ],
)
def test_the_contract_catches_a_task_that_breaks_it(task: Any, law: str) -> None:
    class Contract(TaskContract):
        def make(self) -> Any:
            return task

    with pytest.raises(AssertionError):
        getattr(Contract(), law)()


_luck_of_the_process = np.random.default_rng()


@dataclass(frozen=True, kw_only=True)
class Lucky(RandomSearch):
    """Draws other candidates each time."""

    name: ClassVar[str] = "lucky"

    def candidates(self, spec: Spec) -> Iterator[Row]:
        for cases, settings in super().candidates(spec):
            weight = float(_luck_of_the_process.uniform(1, 100))
            yield cases, settings | {"method.consistency_weight": weight}


@dataclass(frozen=True, kw_only=True)
class Greedy(RandomSearch):
    """Draws one more than it is asked for."""

    name: ClassVar[str] = "greedy"

    def candidates(self, spec: Spec) -> Iterator[Row]:
        rows = list(super().candidates(spec))
        yield from itertools.chain(rows, rows[:1])


@dataclass(frozen=True, kw_only=True)
class Backwards(RandomSearch):
    """Draws the last candidate first."""

    name: ClassVar[str] = "backwards"

    def candidates(self, spec: Spec) -> Iterator[Row]:
        yield from reversed(list(super().candidates(spec)))


@dataclass(frozen=True, kw_only=True)
class Wild(RandomSearch):
    """Draws what no trial can be."""

    name: ClassVar[str] = "wild"

    def candidates(self, spec: Spec) -> Iterator[Row]:
        for cases, settings in super().candidates(spec):
            yield cases, settings | {"method.consistency_weight": -1.0}


@dataclass(frozen=True, kw_only=True)
class Forgetful(Tpe):
    """Gives no candidate again that was drawn before it was stopped."""

    name: ClassVar[str] = "forgetful"

    def source(self, spec: Spec, layout: Any, candidates: list[Any]) -> Any:
        found: Any = super().source(spec, layout, candidates)
        found._left.clear()
        return found


@pytest.mark.parametrize(
    ("algorithm", "law"),
    [
        (Lucky(), "test_the_same_spec_gives_the_same_candidates"),
        (Greedy(), "test_as_many_are_drawn_as_are_asked_for"),
        (Backwards(), "test_a_longer_search_begins_as_a_shorter_one"),
        (Wild(), "test_its_spec_is_read_and_every_candidate_is_a_valid_trial"),
        (Forgetful(), "test_stopped_after_any_candidate_it_goes_on_with_those_on_record"),
    ],
)
def test_the_contract_catches_a_search_that_breaks_it(
    algorithm: Any, law: str, tmp_path: Path
) -> None:
    class Contract(SearchContract):
        def make(self) -> Any:
            return algorithm

    with pytest.raises((AssertionError, SpecError)):
        _obey(Contract(), law, tmp_path)


def test_a_search_that_is_not_adaptive_is_swept_by_its_own_candidates() -> None:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    del spec["cases"]
    spec |= {
        "vary": {"method.consistency_weight": {"uniform": [1, 20]}},
        "search": {"algorithm": Backwards(), "num_candidates": 3},
    }
    drawn = [trial["id"] for trial in oc.plan(spec)["trials"]]
    spec["search"] = {"algorithm": "random", "num_candidates": 3}
    assert drawn == [trial["id"] for trial in oc.plan(spec)["trials"]][::-1]
