"""Initial labels that a query strategy chooses, by the vectors of the images alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.cold_start import ByStrategy, choice_of
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.oracles.simulated import LabelsOracle
from orchestrator.labelling.pool import Pool
from orchestrator.labelling.state import INITIAL, INITIAL_VALIDATION, PoolState
from orchestrator.labelling.terms import PoolTerms
from search_spaces.reading.config import ValidationConfig
from tests.helpers.pool_world import NO_VALIDATION, MemorySegments, labels_oracle, terms
from tests.unit.labelling.test_covering_queries import far_clusters
from tests.unit.labelling.test_round_zero import SlowOracle
from trainers.errors import DataError

COLD = tuple(
    name
    for name in INSTALLED.own("query")
    if getattr(INSTALLED.load("query", name), "starts_cold", False)
)
VECTORS, CLUSTER = far_clusters(8, 15)
"""Of the 120 images of `terms`, which buy 2 labels of each of 4 classes."""


def trial(name: str, **changes: Any) -> PoolTerms:
    return terms(**{"initial_choice": name, "validation": NO_VALIDATION, **changes})


def chooses(name: str, vectors: npt.NDArray[Any] = VECTORS) -> ByStrategy:
    # Two of the eight clusters make a class: the radius by four classes would cover both at once.
    settings = {"delta": 0.5} if name == "probcover" else {}
    strategy = INSTALLED.load("query", name)(**settings)
    return ByStrategy(strategy, lambda: vectors.astype(np.float32))


def labels() -> npt.NDArray[np.int32]:
    return (CLUSTER // 2).astype(np.int32)


def bought(
    of: PoolTerms, choice: ByStrategy, truth: npt.NDArray[np.int32] | None = None
) -> tuple[MemorySegments, PoolState]:
    segments = MemorySegments()
    oracle = LabelsOracle(labels() if truth is None else truth, 4)
    pool = Pool(of, Ledger(segments), oracle, choice)
    assert pool.open()
    return segments, pool.state()


def test_strategies_that_cover_start_cold_and_those_that_ask_a_model_do_not() -> None:
    assert set(COLD) == {"typiclust", "probcover", "max_herding"}
    for name in COLD:
        assert set(INSTALLED.load("query", name).needs) == {"embedding"}


@pytest.mark.parametrize("name", COLD)
def test_one_image_of_each_far_cluster_is_labelled_at_the_price_of_uniform(name: str) -> None:
    for seed in range(5):
        segments, state = bought(trial(name, seed=seed), chooses(name))
        ids = np.flatnonzero(state.origins == INITIAL)
        assert sorted(CLUSTER[ids].tolist()) == list(range(8))
        assert state.counts().label_bits == 16.0
        again = fold(None, Ledger(segments).read())
        assert again is not None and again.digest() == state.digest()


@pytest.mark.parametrize("name", COLD)
def test_no_label_decides_which_images_are_chosen(name: str) -> None:
    of = trial(name)
    state = bought(of, chooses(name))[1]
    other = bought(of, chooses(name), np.roll(labels(), 17))[1]
    assert np.array_equal(state.origins, other.origins)


@pytest.mark.parametrize("name", COLD)
def test_the_seed_of_the_trial_decides_and_the_place_in_the_file_does_not(name: str) -> None:
    # All alike: whatever is chosen, the strategy had no reason to.
    same = np.ones((120, 5))
    first, again, other = (
        np.flatnonzero(bought(trial(name, seed=seed), chooses(name, same))[1].origins == INITIAL)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.max() > 60 and other.max() > 60


@pytest.mark.parametrize("name", COLD)
def test_validation_images_are_neither_chosen_nor_looked_at(name: str) -> None:
    apart = ValidationConfig(source="split", per_class=3)
    of = trial(name, validation=apart, budget_bits=66.0)
    state = bought(of, chooses(name))[1]
    held_out = state.training_inputs().validation_ids
    vectors = VECTORS.copy()
    vectors[held_out] = np.random.default_rng(1).normal(size=(held_out.size, VECTORS.shape[1]))
    assert np.array_equal(bought(of, chooses(name, vectors))[1].origins, state.origins)
    assert held_out.size == 12


def test_validation_is_carved_blindly_from_labels_that_a_strategy_chose() -> None:
    of = trial("typiclust", validation=ValidationConfig(source="initial_labels", per_class=1))
    origins = bought(of, chooses("typiclust"))[1].origins
    assert [int(np.sum(origins == kind)) for kind in (INITIAL, INITIAL_VALIDATION)] == [4, 4]


@pytest.mark.parametrize("name", COLD)
def test_labels_that_come_later_or_never_are_those_at_once_or_the_next(name: str) -> None:
    of = trial(name)
    at_once = Pool(of, Ledger(MemorySegments()), labels_oracle(of), chooses(name))
    at_once.open()
    ids = at_once.training_inputs().label_ids
    for skipped in (frozenset[int](), frozenset(ids[:3].tolist())):
        segments, oracle = MemorySegments(), SlowOracle(of, skipped=skipped)
        waits = 0
        while not (pool := Pool(of, Ledger(segments), oracle, chooses(name))).open():
            waits += 1
            assert waits < 100
        got = pool.training_inputs().label_ids
        assert got.size == 8 and not skipped & set(got.tolist())
        assert set(ids.tolist()) - skipped <= set(got.tolist())


def test_more_labels_than_images_are_refused_and_nothing_is_bought() -> None:
    of = trial("typiclust", initial_labels_per_class=31, budget_bits=1000.0)
    segments = MemorySegments()
    with pytest.raises(DataError, match="124 initial labels are asked for, and there are 120"):
        Pool(of, Ledger(segments), LabelsOracle(labels(), 4), chooses("typiclust")).open()
    assert segments.held == {}


def test_a_pool_that_is_opened_again_looks_at_no_vector(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", VECTORS.astype(np.float32))
    of = trial("typiclust")
    choice = choice_of("typiclust", INSTALLED.load("query", "typiclust")(), tmp_path)
    segments = MemorySegments()
    state = Pool(of, Ledger(segments), LabelsOracle(labels(), 4), choice).state()
    assert sorted(CLUSTER[state.origins == INITIAL].tolist()) == list(range(8))
    (tmp_path / "train.npy").unlink()
    again = Pool(of, Ledger(segments), LabelsOracle(labels(), 4), choice)
    assert again.state().digest() == state.digest()
    with pytest.raises(DataError, match=r"train\.npy: the decoded data is gone"):
        fresh = Ledger(MemorySegments())
        Pool(replace(of, seed=1), fresh, LabelsOracle(labels(), 4), choice).open()
