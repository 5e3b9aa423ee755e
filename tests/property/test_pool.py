from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from orchestrator.labelling.answers import PENDING
from orchestrator.labelling.first_labels import FirstLabels
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import ROLES, Ledger
from orchestrator.labelling.oracles.simulated import LabelsOracle, NoisyOracle
from orchestrator.labelling.pool import Pool, PoolTerms, Round
from orchestrator.labelling.protocols import Oracle
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.state import (
    BOUGHT,
    CONFIRMED,
    ELIMINATED,
    INITIAL,
    INITIAL_VALIDATION,
    NO_LABEL,
    SPLIT_VALIDATION,
    UNKNOWN,
)
from search_spaces.reading.config import ValidationConfig
from tests.helpers.pool_reference import Reference, replayed
from tests.helpers.pool_world import (
    Crash,
    MemorySegments,
    PeopleOracle,
    ask_round,
    charged,
    finish,
    labels_oracle,
    open_pool,
    scores,
    terms,
    true_labels,
)
from trainers.stage import Ids

_SOURCES = {
    "initial": INITIAL,
    "initial_validation": INITIAL_VALIDATION,
    "split_validation": SPLIT_VALIDATION,
    "bought": BOUGHT,
    "confirmed": CONFIRMED,
    "eliminated": ELIMINATED,
    "": UNKNOWN,
}


@st.composite
def trials(draw: st.DrawFn, least_rounds: int = 0) -> PoolTerms:
    num_classes = draw(st.integers(2, 5))
    per_class = draw(st.integers(0, 3))
    sources: list[Literal["split", "initial_labels", "none"]] = ["split", "none", "initial_labels"]
    source = draw(st.sampled_from(sources if per_class > 1 else sources[:2]))
    quotas = tuple(
        draw(st.lists(st.sampled_from([40, 20, 10, 7, 1, 0]), min_size=least_rounds, max_size=4))
    )
    choice = draw(
        st.sampled_from(
            ["random", "uniform", "priced_balanced"] if any(quotas) else ["random", "uniform"]
        )
    )
    buys = st.sampled_from(["answers", "answers", "labels"])
    of = PoolTerms(
        trial="0123456789ab",
        buys="answers" if choice == "priced_balanced" else draw(buys),
        seed=draw(st.integers(0, 2**31)),
        num_classes=num_classes,
        pool_items=draw(st.integers(num_classes * 6, 48)),
        initial_labels_per_class=per_class,
        validation=ValidationConfig(source=source, per_class=1),
        budget_bits=np.inf,
        quotas=quotas,
        requery=draw(st.sampled_from(["pool", "never"])),
        initial_choice=choice,
        split=tuple(quota / sum(quotas) for quota in quotas) if choice == "priced_balanced" else (),
    )
    label_bits = bought_first(of) * of.label_bits
    # Often exactly the price of the quotas, sometimes less or more.
    other = draw(st.sampled_from([0, 0, 0, -7, -0.5, 3, 0.5]))
    budget = label_bits + sum(quotas) * of.unit_bits + other
    return replace(of, budget_bits=max(budget, label_bits))


@cache
def bought_first(of: PoolTerms) -> int:
    """Labels in the budget of the first purchase."""
    return int(np.sum(_bought_at_once(of) != ROLES.index("split_validation")))


def check_against_reference(pool: Pool, segments: MemorySegments) -> None:
    """The vectorised state is that of the slow rules, and no rule was broken."""
    state, reference = pool.state(), replayed(segments)
    assert reference.problems == []
    assert state.spent() == pytest.approx(reference.spent, abs=1e-9)
    assert [
        image.label if image.label is not None else NO_LABEL for image in reference.images
    ] == state.labels.tolist()
    assert [_SOURCES[image.source] for image in reference.images] == state.origins.tolist()
    refused = [
        (item, c) for item, image in enumerate(reference.images) for c in sorted(image.refused)
    ]
    assert refused == list(
        zip(state.facts.negatives.ids.tolist(), state.facts.negatives.classes.tolist(), strict=True)
    )
    assert {
        one.number: dict(zip(one.ids.tolist(), one.guesses.tolist(), strict=True))
        for one in state.rounds
    } == reference.plans
    for one in state.rounds:
        assert {
            item: a
            for item, a in zip(one.ids.tolist(), one.answers.tolist(), strict=True)
            if a != PENDING
        } == reference.answers[one.number]
    check_counts(pool)
    if all(one.over for one in state.rounds):
        check_inputs(pool, reference)
    assert (pool.counts().wasted, pool.counts().conflicts) == (
        reference.wasted,
        reference.conflicts,
    )


def _bought_at_once(of: PoolTerms) -> npt.NDArray[Any]:
    """[n] the role of each image that an oracle with all labels sells in round 0."""
    step = FirstLabels(of, ()).next(labels_oracle(of))
    assert step is not None
    assert step[0] == "labels"
    return np.asarray(step[1]["role"])


def check_inputs(pool: Pool, reference: Reference) -> None:
    """A trainer gets what was bought, validation apart, and nothing else."""
    inputs = pool.training_inputs()
    held_out = {
        item: image.label
        for item, image in enumerate(reference.images)
        if "validation" in image.source
    }
    bought = {
        item: image.label
        for item, image in enumerate(reference.images)
        if image.label is not None and item not in held_out
    }
    assert (
        dict(zip(inputs.validation_ids.tolist(), inputs.validation_labels.tolist(), strict=True))
        == held_out
    )
    assert dict(zip(inputs.label_ids.tolist(), inputs.labels.tolist(), strict=True)) == bought
    assert inputs.pool_ids.tolist() == [
        item for item in range(len(reference.images)) if item not in held_out
    ]
    refused = [
        (item, c) for item, image in enumerate(reference.images) for c in sorted(image.refused)
    ]
    assert (
        list(zip(inputs.negative_ids.tolist(), inputs.negative_classes.tolist(), strict=True))
        == refused
    )


def check_counts(pool: Pool) -> None:
    """Each image is in one pool, each bit in one sum."""
    state, counts, of = pool.state(), pool.counts(), pool.state().terms
    # Pools are disjoint and cover everything; what was not bought is asked or not.
    assert counts.labelled == (
        counts.initial + counts.bought + counts.confirmed + counts.eliminated
    )
    assert (
        counts.labelled + counts.negative_only + counts.unasked + counts.validation == of.pool_items
    )
    bought = bought_first(of)
    assert bought == of.initial_labels_per_class * of.num_classes or (
        of.initial_choice == "priced_balanced" and bought > of.initial_labels_per_class
    )
    beside = counts.validation if of.validation.source == "split" else 0
    assert (
        counts.bought + counts.confirmed + counts.eliminated + counts.negative_only + counts.unasked
        == of.pool_items - bought - beside
    )
    # A yes is a confirmed image, one for one.
    assert counts.yes == counts.confirmed
    assert counts.label_bits == pytest.approx((bought + counts.bought) * of.label_bits)
    assert counts.bought == (len(charged(pool)) if of.buys == "labels" else 0)
    assert counts.questions == counts.yes + counts.no == counts.question_bits
    assert counts.label_bits + counts.question_bits <= of.budget_bits + 1e-6
    if of.split:
        # What the labels leave is shared out whole.
        assert (
            of.budget_bits - 1
            < counts.label_bits + sum(state.quotas) + 1e-6
            <= of.budget_bits + 2e-6
        )
    # A label that is known is never also refused.
    labelled = state.labels[state.facts.negatives.ids]
    assert not np.any((labelled != NO_LABEL) & (labelled == state.facts.negatives.classes))


class PoolMachine(RuleBasedStateMachine):
    """Processes open, ask, poll, die anywhere and come back, two at a time; people answer when they
    like.
    """

    pools = Bundle("pools")

    @initialize(
        target=pools,
        of=trials(least_rounds=3),
        seed=st.integers(0, 99),
        noise=st.sampled_from([0.0, 0.5]),
        mask=st.booleans(),
    )
    def begin(self, of: PoolTerms, seed: int, noise: float, mask: bool) -> Pool:
        self.terms, self.mask = of, mask
        self.segments = MemorySegments()
        perfect = labels_oracle(of)
        inner: Oracle = NoisyOracle(perfect, 0, noise, noise) if noise else perfect
        self.perfect = not noise
        self.people = PeopleOracle(inner, np.random.default_rng(seed))
        pool = open_pool(of, self.segments, self.people)
        self.people.labels_too = True
        self.charges: dict[tuple[int, int], int] = {}
        self.candidates = np.ones((of.pool_items, of.num_classes), np.bool_)
        return pool

    def teardown(self) -> None:
        """Whatever happened, another process can finish the trial."""
        if not hasattr(self, "segments"):
            return
        self.segments.die_before = self.segments.die_after = self.people.die = False
        self.segments.rival = None
        self.people.answered_share = 0.7
        pool = open_pool(self.terms, self.segments, self.people)
        for number in range(1, len(self.terms.quotas) + 1):
            while (asked := pool.round(number)) is None or not asked.over:
                self._ask_about(pool, number, pool.eligible(), 0)
            self.the_ledger_says_what_the_rules_say()

    def _ask_about(self, pool: Pool, number: int, candidates: Ids, first: int) -> Round:
        committed = pool.round(number)
        ids = (
            np.sort(candidates[: pool.quota(number)])
            if committed is None
            else np.empty(0, np.int64)
        )
        guesses = np.array([self._guess(pool, int(item), first) for item in ids], np.int32)
        return pool.ask(number, Questions.singles(ids, guesses, np.zeros(ids.size, np.float32)))

    @rule(target=pools)
    def start_process(self) -> Pool:
        return Pool(self.terms, Ledger(self.segments), self.people)

    @rule(
        answered=st.sampled_from([0.0, 0.5, 1.0]),
        skipped=st.sampled_from([0.0, 0.3]),
        die=st.booleans(),
    )
    def people_change(self, answered: float, skipped: float, die: bool) -> None:
        self.people.answered_share, self.people.skipped_share, self.people.die = (
            answered,
            skipped,
            die,
        )

    @rule(before=st.booleans())
    def next_put_dies(self, before: bool) -> None:
        self.segments.die_before, self.segments.die_after = before, not before

    @rule()
    def a_rival_will_be_first(self) -> None:
        """Another process, since a pool serves one call at a time."""

        def poll() -> None:
            with contextlib.suppress(Crash):
                Pool(self.terms, Ledger(self.segments), self.people).poll()

        self.segments.rival = poll

    @rule(pool=pools, data=st.data())
    def ask(self, pool: Pool, data: st.DataObject) -> None:
        try:
            last = pool.poll()
            number = (
                last.number if last is not None and not last.over else len(pool.state().rounds) + 1
            )
            if number > len(self.terms.quotas):
                return
            # From one end, so that images are often asked again, and often about the same class.
            eligible = pool.eligible()[:: data.draw(st.sampled_from([1, -1]))]
            few = data.draw(st.sampled_from([eligible.size, 5, 0]))
            asked = self._ask_about(
                pool, number, eligible[:few], data.draw(st.sampled_from([0, 1]))
            )
        except Crash:
            return
        assert asked.number == number
        if last is None or last.number != number:
            planned = replayed(self.segments).plans[number]
            assert planned == dict(zip(asked.ids.tolist(), asked.guesses.tolist(), strict=True))

    def _guess(self, pool: Pool, item: int, first: int) -> int:
        """The first class from `first` on that is not refused, or simply `first`."""
        refused = (
            pool.state().facts.negatives.classes[pool.state().facts.negatives.ids == item]
            if self.mask
            else []
        )
        return next(
            c % self.terms.num_classes
            for c in range(first, 2 * self.terms.num_classes)
            if c % self.terms.num_classes not in refused
        )

    @rule(pool=pools)
    def poll(self, pool: Pool) -> None:
        try:
            pool.poll()
        except Crash:
            return

    @rule(pool=pools)
    def ask_an_old_round_again(self, pool: Pool) -> None:
        try:
            pool.poll()
            for one in pool.state().rounds:
                if one.over:
                    again = pool.ask(one.number, one.asked.take(np.arange(0)))
                    assert np.array_equal(again.ids, one.ids)
                    assert np.array_equal(again.answers, one.answers)
        except Crash:
            return

    @invariant()
    @precondition(lambda self: hasattr(self, "segments") and self.segments.held)
    def the_ledger_says_what_the_rules_say(self) -> None:
        state = fold(None, Ledger(self.segments).read())
        assert state is not None
        fresh = Pool(
            self.terms,
            Ledger(self.segments),
            PeopleOracle(self.people.inner, answered_share=0.0, labels_too=True),
        )
        fresh.open()
        assert fresh.state().digest() == state.digest()
        check_against_reference(fresh, self.segments)

        # No charge ever goes away or changes, and none comes twice.
        charges = {(number, item): answer for number, item, answer in charged(fresh)}
        assert len(charges) == len(charged(fresh))
        assert self.charges.items() <= charges.items()
        self.charges = charges

        # Candidates only shrink and hold the truth, while nobody errs.
        if self.perfect:
            now = np.ones_like(self.candidates)
            now[state.facts.negatives.ids, state.facts.negatives.classes] = False
            known = np.flatnonzero(state.labels != NO_LABEL)
            now[known] = False
            now[known, state.labels[known]] = True
            assert not np.any(now & ~self.candidates)
            assert np.all(now[np.arange(self.terms.pool_items), true_labels(self.terms)])
            assert np.array_equal(now.sum(axis=1) == 1, state.labels != NO_LABEL)
            self.candidates = now

        # The oracle was never asked what no committed plan holds.
        planned = {
            (item, guess if self.terms.buys == "answers" else -1)
            for one in state.rounds
            for item, guess in zip(one.ids.tolist(), one.guesses.tolist(), strict=True)
        }
        assert set(self.people.asked) <= planned


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=40, deadline=None)
@given(
    of=trials(),
    strategy=st.sampled_from(["random", "easy", "hard", "class_balanced"]),
    mask=st.booleans(),
    skipped=st.sampled_from([0.0, 0.2]),
)
def test_every_trial_keeps_the_rules_and_its_replay_is_bit_for_bit_the_same(
    of: PoolTerms, strategy: str, mask: bool, skipped: float
) -> None:
    segments = MemorySegments()
    pool = finish(
        open_pool(of, segments, PeopleOracle(labels_oracle(of), skipped_share=skipped)),
        strategy,
        mask,
    )
    check_against_reference(pool, segments)
    replay = fold(None, Ledger(segments).read())
    assert replay is not None
    assert replay.digest() == pool.state().digest()
    for name in ("labels", "origins", "planned"):
        assert getattr(replay, name).tobytes() == getattr(pool.state(), name).tobytes()
    if mask:
        assert pool.counts().wasted == 0
    if of.requery == "never":
        asked = (
            np.concatenate([one.ids for one in pool.state().rounds])
            if pool.state().rounds
            else np.empty(0)
        )
        assert len(set(asked.tolist())) == asked.size


@settings(max_examples=60, deadline=None)
@given(of=trials(), skipped=st.sampled_from([0.0, 0.3]))
def test_questions_are_left_over_only_where_the_whole_pool_was_asked(
    of: PoolTerms, skipped: float
) -> None:
    segments = MemorySegments()
    pool = finish(open_pool(of, segments, PeopleOracle(labels_oracle(of), skipped_share=skipped)))
    counts, rounds, quotas = pool.counts(), pool.state().rounds, pool.state().quotas
    assert counts.unspent == sum(quotas) - len(charged(pool))
    for one in rounds:
        before = fold(
            None, (segment for segment in Ledger(segments).read() if segment.round < one.number)
        )
        assert before is not None
        # What an earlier round could not ask, or was skipped, is asked now, as far as bits and
        # images go.
        held = int((of.budget_bits - before.spent() + 1e-6) / of.unit_bits)
        granted = sum(quotas[: one.number]) - sum(each.charged for each in before.rounds)
        assert one.ids.size == min(held, granted, before.eligible().size)


@settings(max_examples=25, deadline=None)
@given(of=trials(), data=st.data(), strategy=st.sampled_from(["random", "easy", "hard"]))
def test_labels_never_asked_about_change_nothing(
    of: PoolTerms, data: st.DataObject, strategy: str
) -> None:
    truth = true_labels(of)
    first = MemorySegments()
    pool = finish(open_pool(of, first), strategy)
    state = pool.state()
    never_asked = np.flatnonzero((state.origins == UNKNOWN) & ~state.planned)
    poisoned = truth.copy()
    poisoned[never_asked] = data.draw(st.permutations(truth[never_asked].tolist()))
    second = MemorySegments()
    if of.initial_choice == "random" or of.validation.source == "split":
        # A purchase that is balanced over classes is the one thing that may look at every label: it
        # is given.
        second.held["0000.parquet"] = first.held["0000.parquet"]
    again = finish(open_pool(of, second, LabelsOracle(poisoned, of.num_classes)), strategy)
    assert second.held == first.held
    assert again.state().digest() == state.digest()


@settings(max_examples=25, deadline=None)
@given(of=trials(), shuffle=st.randoms(use_true_random=False))
def test_the_order_in_which_images_are_proposed_changes_nothing(
    of: PoolTerms, shuffle: Any
) -> None:
    assume(of.quotas)
    pool, other = open_pool(of, MemorySegments()), open_pool(of, MemorySegments())
    eligible = pool.eligible()[: pool.quota(1)]
    guesses, confidences = (
        np.arange(eligible.size, dtype=np.int32) % of.num_classes,
        np.linspace(0, 1, eligible.size, dtype=np.float32),
    )
    order = np.array(shuffle.sample(range(eligible.size), eligible.size), np.int64)
    pool.ask(1, Questions.singles(eligible, guesses, confidences))
    other.ask(1, Questions.singles(eligible[order], guesses[order], confidences[order]))
    assert pool.state().digest() == other.state().digest()


@settings(max_examples=25, deadline=None)
@given(of=trials())
def test_two_processes_on_one_ledger_never_charge_twice(of: PoolTerms) -> None:
    """The zombie proposes other questions at the worst instant: what is committed first is used by
    both.
    """
    segments, oracle = MemorySegments(), labels_oracle(of)
    pool, zombie = open_pool(of, segments, oracle), open_pool(of, segments, oracle)
    for number in range(1, len(of.quotas) + 1):
        segments.rival = partial(ask_round, zombie, number, "hard")
        mine = ask_round(pool, number, "easy")
        theirs = zombie.round(number)
        assert theirs is not None
        assert np.array_equal(mine.ids, theirs.ids)
        assert np.array_equal(mine.guesses, theirs.guesses)
        assert np.array_equal(mine.answers, theirs.answers)
    assert pool.state().digest() == zombie.state().digest()
    check_against_reference(pool, segments)


@settings(max_examples=20, deadline=None)
@given(of=trials(), strategy=st.sampled_from(["random", "easy"]))
def test_one_full_round_among_empty_ones_is_one_round(of: PoolTerms, strategy: str) -> None:
    total = sum(of.quotas)

    def asked(*places: int) -> PoolTerms:
        return replace(
            of,
            quotas=tuple(total * place for place in places),
            split=tuple(map(float, places)) if of.split else (),
        )

    single = finish(open_pool(asked(1), MemorySegments()), strategy).state().rounds[0]
    for place in range(3):
        padded = (
            finish(
                open_pool(asked(*(int(number == place) for number in range(3))), MemorySegments()),
                strategy,
            )
            .state()
            .rounds[place]
        )
        assert np.array_equal(single.ids, padded.ids)
        assert np.array_equal(single.answers, padded.answers)


@settings(max_examples=30, deadline=None)
@given(of=trials())
def test_only_rounds_in_which_something_was_asked_are_counted(of: PoolTerms) -> None:
    pool = finish(open_pool(of, MemorySegments()))
    asked = [one.ids.size > 0 for one in pool.state().rounds]
    assert [pool.counts(number).rounds for number in range(len(of.quotas) + 1)] == [
        sum(asked[:number]) for number in range(len(of.quotas) + 1)
    ]


def test_scores_of_the_fake_world_leave_refused_classes_out() -> None:
    pool = open_pool(terms(), MemorySegments())
    ask_round(pool, 1)
    given_scores = scores(pool, 2)
    refused = set(
        zip(
            pool.state().facts.negatives.ids.tolist(),
            pool.state().facts.negatives.classes.tolist(),
            strict=True,
        )
    )
    assert refused
    assert not refused & set(
        zip(given_scores["item_ids"].tolist(), given_scores["guess"].tolist(), strict=True)
    )
