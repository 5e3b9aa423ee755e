from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.choose import choose
from orchestrator.labelling.protocols import Draw, Query, Rank
from orchestrator.labelling.queries.answers import AnswerEntropy, EvenOdds
from orchestrator.labelling.queries.confidence import Mixed
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.tasks.multiclass import MultiClass
from trainers.errors import UserError
from trainers.stage import EXTRA_ARRAYS, SCORE_ARRAYS, Classes, Ids, StageInputs

STRATEGIES = INSTALLED.names("query")

Chosen = tuple[Ids, Classes, npt.NDArray[np.float32]]


def some_scores(n: int, seed: int = 0, levels: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Scores of n images whose ids have gaps; `levels` > 0: so few different values that many
    tie.
    """
    rng = np.random.default_rng(seed)

    def values() -> npt.NDArray[np.float32]:
        drawn = rng.permutation(n) / n if not levels else rng.integers(0, levels, n) / levels
        return drawn.astype(np.float32)

    arrays: dict[str, npt.NDArray[Any]] = {
        "item_ids": np.sort(rng.choice(3 * n, n, replace=False)).astype(np.int64)
    }
    names = ("confidence", "margin", "entropy", "uncertainty")
    for name in (*names, "raw_confidence", "raw_margin", "raw_entropy"):
        arrays[name] = values()
    for name in ("guess", "raw_guess"):
        arrays[name] = rng.integers(0, 7, n).astype(np.int32)
    arrays["embedding"] = rng.normal(size=(n, 4)).astype(np.float32)
    arrays["probabilities"] = rng.dirichlet(np.ones(7), n).astype(np.float32)
    return arrays


def pick(strategy: str, *arguments: Any, **settings: Any) -> Chosen:
    return chosen(INSTALLED.load("query", strategy)(), *arguments, **settings)


def chosen(
    query: Query,
    scores: dict[str, npt.NDArray[Any]],
    eligible: Ids,
    quota: int,
    seed: int = 0,
    number: int = 1,
    mask: bool = True,
) -> Chosen:
    asked = choose(
        MultiClass(),
        query,
        scores,
        eligible,
        quota,
        known=_nobody_has_a_label if getattr(query, "needs_of_labelled", ()) else _nothing_is_known,
        seed=seed,
        round=number,
        mask_refused=mask,
    )
    return asked.ids, asked.guesses, asked.confidences


def test_a_strategy_that_ranks_too_few_is_named() -> None:
    @dataclass(frozen=True)
    class Short:
        name: ClassVar[str] = "short"
        needs: ClassVar[tuple[str, ...]] = ()

        def rank(self, draw: Draw) -> Rank:
            return draw.keys()[1:]

    scores = some_scores(20)
    with pytest.raises(UserError, match=r"strategy short: its rank has the form \[19\] for 20"):
        chosen(Short(), scores, scores["item_ids"], 5)


def _nothing_is_known() -> StageInputs:
    raise AssertionError("a task of one class an image needs no more than the scores")


def _nobody_has_a_label() -> StageInputs:
    ids, classes = np.empty(0, np.int64), np.empty(0, np.int32)
    return StageInputs(
        pool_ids=ids,
        label_ids=ids,
        labels=classes,
        negative_ids=ids,
        negative_classes=classes,
        validation_ids=ids,
        validation_labels=classes,
    )


cases = given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    n=st.integers(1, 60),
    seed=st.integers(0, 99),
    levels=st.sampled_from([0, 3]),
    data=st.data(),
    mask=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@cases
def test_a_choice_is_of_the_eligible_ascending_and_as_many_as_the_quota(
    strategy: str, n: int, seed: int, levels: int, data: st.DataObject, mask: bool
) -> None:
    scores = some_scores(n, seed, levels)
    eligible = np.array(
        sorted(data.draw(st.sets(st.sampled_from(scores["item_ids"].tolist())))), np.int64
    )
    quota = data.draw(st.integers(0, n + 5))
    ids, guesses, confidences = pick(strategy, scores, eligible, quota, seed, mask=mask)
    assert ids.size == min(quota, eligible.size)
    assert np.all(np.diff(ids) > 0)
    assert np.isin(ids, eligible).all()
    at = np.searchsorted(scores["item_ids"], ids)
    assert np.array_equal(guesses, scores["guess" if mask else "raw_guess"][at])
    assert np.array_equal(confidences, scores["confidence" if mask else "raw_confidence"][at])
    assert [array.dtype.name for array in (ids, guesses, confidences)] == [
        "int64",
        "int32",
        "float32",
    ]


@settings(max_examples=60, deadline=None)
@cases
def test_the_order_of_the_eligible_changes_nothing(
    strategy: str, n: int, seed: int, levels: int, data: st.DataObject, mask: bool
) -> None:
    scores = some_scores(n, seed, levels)
    shuffled = np.array(data.draw(st.permutations(scores["item_ids"].tolist())), np.int64)
    one, other = (
        pick(strategy, scores, eligible, n // 2, mask=mask)
        for eligible in (scores["item_ids"], shuffled)
    )
    assert [array.tobytes() for array in one] == [array.tobytes() for array in other]


EXTREMAL = {
    "easy": ("confidence", 1),
    "hard": ("confidence", -1),
    "margin": ("margin", -1),
    "entropy": ("entropy", 1),
}


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from(sorted(EXTREMAL)),
    n=st.integers(2, 60),
    seed=st.integers(0, 99),
    levels=st.sampled_from([0, 3]),
    quota=st.integers(1, 60),
    mask=st.booleans(),
)
def test_a_choice_by_score_is_extremal(
    strategy: str, n: int, seed: int, levels: int, quota: int, mask: bool
) -> None:
    """By the scores without the refused classes where they may not be guessed, else by those of all
    classes.
    """
    scores = some_scores(n, seed, levels)
    name, sign = EXTREMAL[strategy]
    name = name if mask else f"raw_{name}"
    ids, _, _ = pick(strategy, scores, scores["item_ids"], quota, mask=mask)
    chosen = np.isin(scores["item_ids"], ids)
    value = sign * scores[name]
    if chosen.all():
        return
    assert value[chosen].min() >= value[~chosen].max()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_ties_are_drawn_uniformly_whatever_the_order_of_the_ids(strategy: str) -> None:
    """Rows of a feature file may be sorted by class: a tie that went by id would ask about the
    first classes alone.
    """
    scores = {name: np.zeros_like(array) for name, array in some_scores(100).items()} | {
        "item_ids": np.arange(100, dtype=np.int64)
    }
    hits = np.zeros(100)
    for number in range(1000):
        hits[pick(strategy, scores, scores["item_ids"], 10, number=number)[0]] += 1
    # 99 degrees of freedom: the 99.99% point is about 158.
    assert np.sum((hits - 100) ** 2 / 100) < 160
    first = pick(strategy, scores, scores["item_ids"], 10)[0]
    assert np.array_equal(first, pick(strategy, scores, scores["item_ids"][::-1], 10)[0])
    assert not np.array_equal(first, pick(strategy, scores, scores["item_ids"], 10, seed=1)[0])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 99), data=st.data())
def test_easy_is_what_hard_leaves(n: int, seed: int, data: st.DataObject) -> None:
    scores, quota = some_scores(n, seed), data.draw(st.integers(0, n))
    easy, _, _ = pick("easy", scores, scores["item_ids"], quota)
    hard, _, _ = pick("hard", scores, scores["item_ids"], n - quota)
    assert np.array_equal(np.sort(np.concatenate([easy, hard])), scores["item_ids"])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    levels=st.sampled_from([0, 3]),
    data=st.data(),
)
def test_mixed_takes_its_share_of_the_easy_and_the_rest_of_the_hard(
    n: int, seed: int, share: float, levels: int, data: st.DataObject
) -> None:
    scores, quota = some_scores(n, seed, levels), data.draw(st.integers(0, n))
    mixed = Mixed(easy_share=share)
    ids, _, _ = chosen(mixed, scores, scores["item_ids"], quota, seed)
    easy, _, _ = pick("easy", scores, scores["item_ids"], round(share * quota), seed)
    assert np.isin(easy, ids).all()
    rest = np.setdiff1d(scores["item_ids"], easy)
    hard, _, _ = pick("hard", scores, rest, quota - easy.size, seed)
    assert np.array_equal(ids, np.sort(np.concatenate([easy, hard])))


def test_masked_and_unmasked_rank_by_their_own_confidence() -> None:
    scores = some_scores(50)
    masked, unmasked = (
        pick("easy", scores, scores["item_ids"], 10, mask=mask)[0] for mask in (True, False)
    )
    assert set(unmasked.tolist()) == set(
        scores["item_ids"][np.argsort(-scores["raw_confidence"])[:10]].tolist()
    )
    assert not np.array_equal(masked, unmasked)


def test_random_depends_on_seed_round_and_id_alone() -> None:
    scores, other = some_scores(200), some_scores(200, levels=2)
    other["item_ids"] = scores["item_ids"]
    ids = scores["item_ids"]
    chosen = pick("random", scores, ids, 50)[0]
    assert np.array_equal(chosen, pick("random", other, ids, 50)[0])
    assert not np.array_equal(chosen, pick("random", scores, ids, 50, seed=1)[0])
    assert not np.array_equal(chosen, pick("random", scores, ids, 50, number=2)[0])
    # An image that is no longer eligible makes room for one other and moves nobody else.
    without = pick("random", scores, np.setdiff1d(ids, chosen[:1]), 50)[0]
    assert np.isin(chosen[1:], without).all()


def test_random_is_uniform_over_images() -> None:
    scores = some_scores(100)
    hits = np.zeros(100)
    for number in range(2000):
        hits[
            np.searchsorted(
                scores["item_ids"], pick("random", scores, scores["item_ids"], 10, number=number)[0]
            )
        ] += 1
    # 99 degrees of freedom: the 99.99% point is about 158.
    assert np.sum((hits - 200) ** 2 / 200) < 160


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 80), seed=st.integers(0, 99), quota=st.integers(0, 80))
def test_class_balanced_takes_turns(n: int, seed: int, quota: int) -> None:
    scores = some_scores(n, seed)
    _, guesses, _ = pick("class_balanced", scores, scores["item_ids"], quota, seed)
    taken, held = np.bincount(guesses, minlength=7), np.bincount(scores["guess"], minlength=7)
    # A class falls behind the fullest by more than one only where it has no more images.
    assert np.all((taken >= taken.max() - 1) | (taken == held))


@pytest.mark.parametrize("query", [EvenOdds(balanced=True), AnswerEntropy(balanced=True)])
def test_answers_that_tell_most_are_asked_of_every_class_in_turn(query: Query) -> None:
    taken = np.bincount(guesses_asked(query, 35), minlength=7)
    assert taken.max() - taken.min() <= 1


def test_even_odds_come_before_sure_and_before_hopeless_guesses() -> None:
    rank = EvenOdds().rank(one_guess_each([0.99, 0.52, 0.1, 0.45, 0.7]))
    assert np.argsort(rank).tolist() == [1, 3, 4, 2, 0]


def test_an_answer_is_asked_for_in_proportion_to_its_entropy() -> None:
    hits = np.zeros(4)
    for number in range(3000):
        rank = AnswerEntropy().rank(one_guess_each([0.5, 0.5, 0.89, 1.0], number))
        hits[np.argmin(rank)] += 1
    # Entropies ln 2, ln 2 and half of that: shares 2/5, 2/5 and 1/5, within four deviations.
    assert np.all(np.abs(hits - [1200, 1200, 600, 0]) < 4 * np.sqrt([720, 720, 480, 1]))


def one_guess_each(confidence: list[float], number: int = 0) -> Draw:
    count = len(confidence)
    scores = {"confidence": np.array(confidence, np.float32)}
    asked = Questions.singles(np.arange(count), np.zeros(count, int), scores["confidence"])
    return Draw(asked, scores, 0, number, 1)


def guesses_asked(query: Query, quota: int) -> npt.NDArray[np.integer[Any]]:
    rng = np.random.default_rng(0)
    scores = {"confidence": rng.random(140).astype(np.float32)}
    guesses = np.arange(140) % 7
    draw = Draw(
        Questions.singles(np.arange(140), guesses, scores["confidence"]), scores, 0, 1, quota
    )
    return guesses[draw.order(query.rank(draw))[:quota]]


def test_an_eligible_image_without_scores_is_an_error() -> None:
    scores = some_scores(10)
    for unknown in (
        int(scores["item_ids"].max()) + 1,
        int(np.setdiff1d(np.arange(30), scores["item_ids"])[0]),
    ):
        with pytest.raises(ValueError, match="every eligible image"):
            pick("random", scores, np.array([unknown]), 1)


def test_strategies_need_only_scores_that_a_stage_writes_or_some_method_offers() -> None:
    methods = [INSTALLED.load("method", name) for name in INSTALLED.own("method")]
    own = {name for method in methods for name in method.offers} - {*SCORE_ARRAYS}
    for strategy in (INSTALLED.load("query", name) for name in STRATEGIES):
        summaries = {*strategy.needs} - {*EXTRA_ARRAYS} - own
        assert {*summaries, *(f"raw_{name}" for name in summaries)} <= set(SCORE_ARRAYS)
