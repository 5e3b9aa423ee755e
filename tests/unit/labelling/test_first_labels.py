"""What a trial buys before any question: from whose labels, at what price, and what is left."""

from __future__ import annotations

import json
import typing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.labelling.answers import SKIPPED, YES
from orchestrator.labelling.first_labels import CHOICES, Drawn, Uniform, by_share
from orchestrator.labelling.fold import fold
from orchestrator.labelling.keyed import keyed_uint64
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.oracles.simulated import LabelsOracle
from orchestrator.labelling.pool import Pool
from orchestrator.labelling.protocols import GivenLabels
from orchestrator.labelling.questions import ClassSets
from orchestrator.labelling.state import INITIAL, INITIAL_VALIDATION
from orchestrator.labelling.terms import PoolTerms
from search_spaces.reading.config import ValidationConfig
from search_spaces.reading.initial_choices import INITIAL_CHOICES, InitialChoiceName
from search_spaces.reading.schedule import quotas
from tests.helpers.pool_world import NO_VALIDATION, MemorySegments, finish, open_pool, terms
from trainers.errors import DataError
from trainers.stage import Classes, Ids

SHARES = (0.7, 0.2, 0.1)
ITEMS = 300
LABELS: Classes = np.random.default_rng(0).permutation(
    np.repeat(np.arange(3, dtype=np.int32), [round(ITEMS * share) for share in SHARES])
)
"""Of unlike frequency, so that a blind draw is unlike a balanced one."""


class Shop(LabelsOracle):
    """Keeps count of the labels it sells."""

    def __init__(self) -> None:
        super().__init__(LABELS, 3)
        self.sold: list[int] = []

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        self.sold += ids.tolist()
        return super().label(ids, kind)


def trial(choice: str, **changes: object) -> PoolTerms:
    base = terms(
        num_classes=3,
        pool_items=ITEMS,
        initial_labels_per_class=4,
        validation=NO_VALIDATION,
        budget_bits=400.0,
        quotas=(40, 20),
        initial_choice=choice,
    )
    return replace(base, split=(2 / 3, 1 / 3) if choice == "priced_balanced" else (), **changes)  # type: ignore[arg-type]


def bought(of: PoolTerms, shop: Shop | None = None) -> tuple[Ids, Classes]:
    inputs = open_pool(of, MemorySegments(), shop or Shop()).training_inputs()
    return inputs.label_ids, inputs.labels


def test_uniform_labels_follow_the_frequencies_of_the_pool() -> None:
    runs = 400
    counts = np.array(
        [np.bincount(bought(trial("uniform", seed=seed))[1], minlength=3) for seed in range(runs)]
    )
    assert np.all(counts.sum(axis=1) == 12)
    share = np.array(SHARES)
    # Drawn without replacement: a hypergeometric count's standard deviation.
    deviation = np.sqrt(12 * share * (1 - share) * (ITEMS - 12) / (ITEMS - 1))
    assert np.all(np.abs(counts.mean(axis=0) - 12 * share) < 4 * deviation / np.sqrt(runs))
    assert np.all(np.abs(counts.std(axis=0) - deviation) < 0.15 * deviation)
    assert (counts == 0).any(), "a class is missing now and then"


def test_uniform_costs_what_as_many_balanced_labels_cost() -> None:
    for choice in ("random", "uniform"):
        pool = open_pool(trial(choice), MemorySegments(), Shop())
        assert pool.counts().label_bits == pytest.approx(12 * np.log2(3))
        assert (pool.quota(1), pool.state().quotas) == (40, (40, 20))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), per_class=st.integers(1, 8), apart=st.sampled_from([0, 5]))
def test_priced_balanced_keeps_every_draw_and_stops_at_the_first_moment_all_are_filled(
    seed: int, per_class: int, apart: int
) -> None:
    validation = ValidationConfig(source="split", per_class=apart) if apart else NO_VALIDATION
    of, shop = (
        trial(
            "priced_balanced",
            seed=seed,
            initial_labels_per_class=per_class,
            budget_bits=1000.0,
            validation=validation,
        ),
        Shop(),
    )
    pool = open_pool(of, MemorySegments(), shop)
    inputs = pool.training_inputs()
    # One image after the other, in the keyed order, as a person would do it.
    held, drawn = np.zeros(3, int), []
    order = sorted(
        inputs.pool_ids.tolist(), key=lambda item: int(keyed_uint64("initial", seed, item)[0])
    )
    for item in order:
        drawn.append(item)
        held[LABELS[item]] += 1
        if held.min() >= per_class:
            break
    sold = [item for item in shop.sold if item not in inputs.validation_ids]
    assert sorted(drawn) == inputs.label_ids.tolist() == sorted(sold)
    assert np.array_equal(inputs.labels, LABELS[inputs.label_ids])
    assert pool.counts().label_bits == pytest.approx(len(drawn) * np.log2(3))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    budget=st.floats(60, 400),
    split=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
)
def test_the_rounds_share_what_the_draws_leave_and_nothing_is_over_budget(
    seed: int, budget: float, split: list[int]
) -> None:
    shares = tuple(part / sum(split) for part in split)
    of = replace(
        trial("priced_balanced", seed=seed, budget_bits=budget),
        split=shares,
        quotas=(0,) * len(split),
    )
    segments = MemorySegments()
    try:
        pool = open_pool(of, segments, Shop())
    except DataError:
        assert segments.held == {}
        return
    spent = pool.counts().label_bits
    found = pool.state().quotas
    assert budget - 1 - 1e-6 < spent + sum(found) <= budget + 1e-6
    assert found == quotas(sum(found), shares)
    finish(pool)
    counts = pool.counts()
    assert counts.label_bits + counts.question_bits <= budget + 1e-6
    assert counts.unspent == sum(found) - counts.questions
    # The ledger alone says the same: the fold, and a process that comes later.
    again = fold(None, Ledger(segments).read())
    assert again is not None
    assert again.quotas == found
    assert Pool(of, Ledger(segments), Shop()).state().digest() == pool.state().digest()


def test_balanced_labels_of_a_seed_are_among_those_that_were_paid_for_blindly() -> None:
    """So trials with the same seed differ in the labels added, and not in those they share."""
    for seed in range(5):
        assert set(bought(trial("random", seed=seed))[0].tolist()) <= set(
            bought(trial("priced_balanced", seed=seed))[0].tolist()
        )


@pytest.mark.parametrize("budget", [20.0, 40.0, 60.0])
def test_draws_that_the_budget_does_not_hold_fail_with_advice_and_buy_nothing(
    budget: float,
) -> None:
    failed = 0
    for seed in range(20):
        segments, shop = MemorySegments(), Shop()
        try:
            open_pool(trial("priced_balanced", seed=seed, budget_bits=budget), segments, shop)
        except DataError as error:
            failed += 1
            assert (
                "raise the budget, lower schedule.initial_labels_per_class, or write"
                " schedule.initial_choice: uniform" in str(error)
            )
            assert segments.held == {}
        assert len(shop.sold) * np.log2(3) <= budget + 1e-6
    assert failed


def test_a_class_that_cannot_be_filled_is_named() -> None:
    with pytest.raises(DataError, match=r"class 2 has too few images for 40 initial labels"):
        open_pool(
            trial("priced_balanced", initial_labels_per_class=40, budget_bits=10_000.0),
            MemorySegments(),
            Shop(),
        )
    with pytest.raises(
        DataError, match="360 initial labels are asked for, and there are 300 images"
    ):
        open_pool(
            trial("uniform", initial_labels_per_class=120, budget_bits=10_000.0),
            MemorySegments(),
            Shop(),
        )


@pytest.mark.parametrize("choice", ["uniform", "priced_balanced"])
def test_labels_never_bought_decide_nothing_of_a_blind_draw(choice: str) -> None:
    """Unlike a balanced purchase, which looks at every label."""
    of, first = trial(choice), MemorySegments()
    state = open_pool(of, first, Shop()).state()
    other = np.where(np.isin(state.origins, [INITIAL]), LABELS, (LABELS + 1) % 3).astype(np.int32)
    second = MemorySegments()
    open_pool(of, second, LabelsOracle(other, 3))
    assert second.held == first.held


def test_validation_is_carved_blindly_from_blind_labels_and_by_class_from_filled_ones() -> None:
    validation = ValidationConfig(source="initial_labels", per_class=1)
    uniform = open_pool(trial("uniform", validation=validation), MemorySegments(), Shop()).state()
    assert np.count_nonzero(uniform.origins == INITIAL_VALIDATION) == 3
    priced = open_pool(
        trial("priced_balanced", validation=validation), MemorySegments(), Shop()
    ).state()
    assert np.bincount(priced.labels[priced.origins == INITIAL_VALIDATION]).tolist() == [1, 1, 1]
    assert np.bincount(priced.labels[priced.origins == INITIAL]).min() == 3


def test_terms_of_earlier_ledgers_are_read() -> None:
    for of in (terms(), trial("priced_balanced")):
        written = json.loads(json.dumps(of.to_mapping()))
        assert PoolTerms.from_mapping(written) == of
    old = terms().to_mapping()
    del old["initial_choice"], old["split"]
    assert PoolTerms.from_mapping(json.loads(json.dumps(old))) == terms()


def test_every_value_of_initial_choice_is_described_and_drawn() -> None:
    names = typing.get_args(InitialChoiceName)
    assert tuple(INITIAL_CHOICES) == tuple(CHOICES) == names
    assert {name for name, known in INITIAL_CHOICES.items() if known.bits_decide} == {
        "priced_balanced"
    }


@given(st.integers(5, 400), st.sampled_from([0.1, 0.2, 0.5]))
def test_a_share_for_validation_is_the_same_images_whatever_their_classes(
    images: int, share: float
) -> None:
    ids = by_share(images, share)
    assert ids.size == round(share * images) and np.all(np.diff(ids) > 0)
    order = np.random.RandomState(1200).permutation(images)
    assert set(order[: images - ids.size].tolist()) == set(range(images)) - set(ids.tolist())


def test_a_share_for_validation_is_out_of_the_pool_and_beside_the_budget() -> None:
    shared = ValidationConfig(source="share", share=0.25)
    states = [
        open_pool(trial("random", validation=shared, seed=seed), MemorySegments(), Shop()).state()
        for seed in (0, 1)
    ]
    for state in states:
        assert np.array_equal(np.flatnonzero(~state.in_pool), by_share(ITEMS, 0.25))
        assert state.spent() == pytest.approx(12 * np.log2(3))
        assert state.counts().validation_bits == pytest.approx(75 * np.log2(3))
        assert state.terms.to_mapping()["validation"]["share"] == 0.25
    assert "share" not in trial("random").to_mapping()["validation"]


def test_images_that_give_no_label_are_named_where_too_many_labels_are_wanted() -> None:
    """Of images of several labels those without any give no single positive."""
    of = terms(initial_choice="uniform")
    images = np.arange(of.pool_items - 1)
    given = np.full(images.size, SKIPPED, np.int8)
    given[: of.initial_labels_per_class * of.num_classes - 5] = YES
    sets = ClassSets.of([(0,) if one == YES else () for one in given])
    drawn, skipped = Drawn(images, GivenLabels(given, sets)), int((given == SKIPPED).sum())
    with pytest.raises(DataError) as failed:
        Uniform().next(of, None, np.empty(0, np.int64), drawn)  # type: ignore[arg-type]
    assert f"{skipped} of which gave no label" in str(failed.value)
    assert str(failed.value).endswith(f"ask for at most {of.pool_items - skipped}")
