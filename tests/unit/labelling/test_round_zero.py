"""Round 0 where labels come later: what is waited for is on record, nothing is asked for twice in
vain, and it ends as if all labels had been there at once.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.labelling.answers import PENDING, SKIPPED, YES
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger, LedgerError
from orchestrator.labelling.oracles.simulated import LabelsOracle
from orchestrator.labelling.pool import Pool
from orchestrator.labelling.protocols import GivenLabels
from orchestrator.labelling.questions import ClassSets
from orchestrator.labelling.state import INITIAL
from orchestrator.labelling.terms import PoolTerms
from search_spaces.reading.config import ValidationConfig
from tests.helpers.pool_world import (
    NO_VALIDATION,
    Crash,
    MemorySegments,
    finish,
    open_pool,
    terms,
    true_labels,
)
from trainers.stage import Ids

CHOICES = ("random", "first", "uniform", "priced_balanced")


class SlowOracle(LabelsOracle):
    """Gives each label the third time it is asked for, or skips it for good. It is asked twice at
    once: before the plan is on record, and after."""

    def __init__(self, of: PoolTerms, *, skipped: frozenset[int] = frozenset()) -> None:
        super().__init__(true_labels(of), of.num_classes)
        self.seen: dict[int, int] = {}
        self.skipped = skipped

    def label(self, ids: Ids, kind: str) -> GivenLabels:
        truth = super().label(ids, kind).sets.classes
        given = []
        for item in ids.tolist():
            self.seen[item] = self.seen.get(item, 0) + 1
            skipped = item in self.skipped
            given.append(PENDING if self.seen[item] < 3 else SKIPPED if skipped else YES)
        sets = ClassSets.of(
            [(int(c),) if g == YES else () for c, g in zip(truth, given, strict=True)]
        )
        return GivenLabels(np.array(given, np.int8), sets)


def slow_trial(choice: str, seed: int = 0, source: str = "none") -> PoolTerms:
    validation = (
        NO_VALIDATION if source == "none" else ValidationConfig(source=source, per_class=1)  # type: ignore[arg-type]
    )
    split = (0.6, 0.4) if choice == "priced_balanced" else ()
    return replace(
        terms(seed=seed, initial_choice=choice, validation=validation, budget_bits=200.0),
        split=split,
    )


@settings(max_examples=40, deadline=None)
@given(
    choice=st.sampled_from(CHOICES),
    seed=st.integers(0, 99),
    source=st.sampled_from(["none", "split", "initial_labels"]),
)
def test_labels_that_come_later_are_those_that_would_have_been_there_at_once(
    choice: str, seed: int, source: str
) -> None:
    of = slow_trial(choice, seed, source)
    at_once = finish(open_pool(of, MemorySegments()))
    segments, oracle = MemorySegments(), SlowOracle(of)
    waits = 0
    while not Pool(of, Ledger(segments), oracle).open():
        waits += 1
        assert waits < 100
    assert waits
    later = finish(open_pool(of, segments, oracle))
    assert later.state().digest() == at_once.state().digest()
    replay = fold(None, Ledger(segments).read())
    assert replay is not None
    assert replay.digest() == at_once.state().digest()
    # Nobody is asked again for a label that is on record.
    assert max(oracle.seen.values()) == 3


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("when", ["die_before", "die_after"])
def test_a_death_at_any_write_of_round_zero_changes_nothing(choice: str, when: str) -> None:
    of = slow_trial(choice, source="split")
    whole, oracle = MemorySegments(), SlowOracle(of)
    while not Pool(of, Ledger(whole), oracle).open():
        pass
    for write in range(len(whole.held)):
        segments, again, puts = MemorySegments(), SlowOracle(of), 0
        opened = False
        while not opened:
            if puts == write:
                setattr(segments, when, True)
            held = len(segments.held)
            with contextlib.suppress(Crash):
                opened = Pool(of, Ledger(segments), again).open()
            puts += max(len(segments.held) - held, 0) or 1
        state = open_pool(of, segments, again).state()
        assert state.digest() == open_pool(of, whole, oracle).state().digest()


def test_the_order_in_which_labels_come_changes_nothing_of_what_is_known() -> None:
    of = slow_trial("uniform")
    first = open_pool(of, MemorySegments()).state()
    segments, oracle = MemorySegments(), SlowOracle(of)
    pool = Pool(of, Ledger(segments), oracle)
    assert not pool.open()
    # Half of the images are asked for by somebody else: those labels come a round earlier.
    oracle.seen |= dict.fromkeys(first.facts.positives.ids[::2].tolist(), 1)
    while not pool.open():
        pass
    assert pool.state().digest() == first.digest()


@pytest.mark.parametrize("choice", ["uniform", "priced_balanced"])
def test_a_label_that_cannot_be_given_is_replaced_and_costs_nothing(choice: str) -> None:
    of = slow_trial(choice)
    bought = open_pool(of, MemorySegments()).training_inputs().label_ids.tolist()
    skipped = frozenset(bought[:3])
    segments, oracle = MemorySegments(), SlowOracle(of, skipped=skipped)
    while not (pool := Pool(of, Ledger(segments), oracle)).open():
        pass
    inputs = pool.training_inputs()
    assert not skipped & set(inputs.label_ids.tolist())
    assert pool.counts().label_bits == pytest.approx(inputs.label_ids.size * of.label_bits)
    if choice == "uniform":
        assert inputs.label_ids.size == len(bought)
    else:
        assert np.bincount(inputs.labels, minlength=of.num_classes).min() >= 2
    # They stay in the pool, and may be asked about.
    assert skipped <= set(pool.eligible().tolist())


def test_while_labels_are_to_come_nothing_else_can_be_asked() -> None:
    of, segments = slow_trial("uniform"), MemorySegments()
    pool = Pool(of, Ledger(segments), SlowOracle(of))
    assert pool.open() is False
    fresh = Pool(of, Ledger(segments), LabelsOracle(true_labels(of), 4))
    assert fresh.open() is True
    waiting = Pool(of, Ledger(MemorySegments()), SlowOracle(of))
    with pytest.raises(RuntimeError, match="round 0 is not over"):
        waiting.training_inputs()


def test_another_trial_cannot_go_on_with_an_open_round_zero() -> None:
    of, segments = slow_trial("uniform"), MemorySegments()
    assert not Pool(of, Ledger(segments), SlowOracle(of)).open()
    with pytest.raises(LedgerError, match="begun with budget_bits"):
        Pool(replace(of, budget_bits=100.0), Ledger(segments), SlowOracle(of)).open()


def test_two_processes_that_wait_for_labels_write_one_history() -> None:
    of, segments = slow_trial("priced_balanced"), MemorySegments()
    first, second = SlowOracle(of), SlowOracle(of)
    one, two = (Pool(of, Ledger(segments), oracle) for oracle in (first, second))
    done = False
    while not done:
        segments.rival = two.open
        done = one.open()
    alone = open_pool(of, MemorySegments()).state()
    assert one.state().digest() == alone.digest() == open_pool(of, segments).state().digest()
    assert np.count_nonzero(one.state().origins == INITIAL) == alone.counts().initial
