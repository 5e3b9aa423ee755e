"""Laws of two-stream batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.sampler import TwoStreamSampler
from trainers.stage import Ids

often = settings(deadline=None, max_examples=60)


@st.composite
def samplers(draw: st.DrawFn, least: int = 1) -> TwoStreamSampler:
    total = draw(st.integers(2 * least, 150))
    labelled = draw(st.integers(least, total - least))
    ids = np.random.default_rng(draw(st.integers(0, 999))).permutation(400)[:total].astype(np.int64)
    return TwoStreamSampler(
        unlabelled_ids=np.sort(ids[labelled:]),
        labelled_ids=np.sort(ids[:labelled]),
        batch_size=draw(st.integers(2, 40)),
        labelled_share=draw(st.none() | st.floats(0, 1)),
        labelled_rows=draw(st.none() | st.integers(1, 60)),
        seed=draw(st.integers(0, 2**40)),
    )


@often
@given(samplers())
def test_every_batch_has_its_part_of_each_stream(sampler: TwoStreamSampler) -> None:
    epoch = sampler.epoch(2)
    assert epoch.batch_size == sampler.batch_size
    assert epoch.unlabelled == sampler.batch_size - sampler.labelled_per_batch
    assert 1 <= sampler.labelled_per_batch <= sampler.batch_size - 1
    assert np.isin(epoch.ids[:, : epoch.unlabelled], sampler.unlabelled_ids).all()
    assert np.isin(epoch.ids[:, epoch.unlabelled :], sampler.labelled_ids).all()


@often
@given(samplers())
def test_an_epoch_is_at_most_one_pass_over_the_unlabelled(sampler: TwoStreamSampler) -> None:
    epoch = sampler.epoch(1)
    counts = Counter(epoch.ids[:, : epoch.unlabelled].ravel().tolist())
    if len(sampler.unlabelled_ids) >= epoch.unlabelled:
        assert epoch.steps == len(sampler.unlabelled_ids) // epoch.unlabelled
        assert max(counts.values()) == 1
    else:  # too few for one batch: repeated as evenly as can be
        assert epoch.steps == 1
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == len(sampler.unlabelled_ids)


@often
@given(samplers(), st.integers(1, 6))
def test_visits_to_the_labelled_never_differ_by_more_than_one(
    sampler: TwoStreamSampler, epochs: int
) -> None:
    counts = dict.fromkeys(sampler.labelled_ids.tolist(), 0)
    for number in range(epochs):
        epoch = sampler.epoch(number)
        for row, visit in zip(
            epoch.ids[:, epoch.unlabelled :].ravel().tolist(),
            epoch.visits[:, epoch.unlabelled :].ravel().tolist(),
            strict=True,
        ):
            assert counts[row] == visit
            counts[row] += 1
            assert max(counts.values()) - min(counts.values()) <= 1


@often
@given(samplers(), st.integers(1, 5))
def test_ranks_share_out_each_batch_whole(sampler: TwoStreamSampler, world_size: int) -> None:
    epoch = sampler.epoch(0)
    shares = [epoch.share(rank, world_size) for rank in range(world_size)]
    for part in (slice(None, epoch.unlabelled), slice(epoch.unlabelled, None)):
        whole = np.sort(epoch.ids[:, part], axis=1)
        parts = [
            s.ids[:, : s.unlabelled] if part.start is None else s.ids[:, s.unlabelled :]
            for s in shares
        ]
        assert np.array_equal(np.sort(np.concatenate(parts, axis=1), axis=1), whole)
        sizes = [p.shape[1] for p in parts]
        assert max(sizes) - min(sizes) <= 1
    sizes = [s.batch_size for s in shares]
    assert max(sizes) - min(sizes) <= 1


@often
@given(samplers())
def test_batches_are_a_function_of_inputs_seed_and_epoch(sampler: TwoStreamSampler) -> None:
    first, again, other = sampler.epoch(3), sampler.epoch(3), sampler.epoch(4)
    assert np.array_equal(first.ids, again.ids) and np.array_equal(first.visits, again.visits)
    if len(sampler.unlabelled_ids) > 20 and first.steps * first.unlabelled > 20:
        assert not np.array_equal(first.ids, other.ids)


def sampler_of(labelled: int, unlabelled: int, batch_size: int) -> TwoStreamSampler:
    ids: Ids = np.arange(labelled + unlabelled, dtype=np.int64)
    return TwoStreamSampler(
        labelled_ids=ids[:labelled],
        unlabelled_ids=ids[labelled:],
        batch_size=batch_size,
        labelled_share=None,
        seed=0,
    )


@pytest.mark.parametrize(("labelled", "expected"), [(3000, 56), (16338, 193), (28300, 315)])
def test_the_labelled_share_is_that_of_the_pool_and_a_twentieth(
    labelled: int, expected: int
) -> None:
    assert sampler_of(labelled, 50000 - labelled, 512).labelled_per_batch == expected


def test_labelled_rows_are_as_many_as_told() -> None:
    """The published batches of CIFAR-100 (Hu et al. 2020): 512 images with 50 labelled ones, 101
    steps over 47,000 images without a label.
    """
    ids = np.arange(50_000, dtype=np.int64)
    sampler = TwoStreamSampler(
        unlabelled_ids=ids[3000:],
        labelled_ids=ids[:3000],
        batch_size=512,
        labelled_share=None,
        labelled_rows=50,
        seed=0,
    )
    assert (sampler.labelled_per_batch, sampler.steps) == (50, 101)


def test_a_pool_all_labelled_is_passed_over_once_an_epoch() -> None:
    sampler = sampler_of(50, 0, 16)
    epoch = sampler.epoch(0)
    assert (epoch.steps, epoch.unlabelled, epoch.batch_size) == (3, 0, 16)
    assert len(set(epoch.ids.ravel().tolist())) == 48


def test_a_pool_without_labels_trains_on_the_unlabelled() -> None:
    epoch = sampler_of(0, 50, 16).epoch(0)
    assert (epoch.steps, epoch.unlabelled) == (3, 16)


def test_leaving_an_image_out_keeps_the_order_of_the_others() -> None:
    full, less = sampler_of(1, 40, 20).epoch(0), sampler_of(1, 39, 20).epoch(0)
    order = [i for i in full.ids[:, : full.unlabelled].ravel().tolist() if i != 40]
    without = less.ids[:, : less.unlabelled].ravel().tolist()
    shortest = min(len(order), len(without))
    assert shortest > 30
    assert order[:shortest] == without[:shortest]
