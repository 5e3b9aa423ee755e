"""Laws of the parts of ObCP: its losses, what images are held against, and how unsure a history of
predictions is (I18, I23, I24, I26, I27).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.helpers.obcp import CPU, SMALL, obcp
from tests.helpers.stage_world import some_inputs, write_cache
from trainers import randomness
from trainers.data.items import open_data
from trainers.obcp import losses
from trainers.obcp.history import History
from trainers.obcp.memory import LabelledFeatures, Queue, last_of_each
from trainers.obcp.settings import ObcpConfig

often = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**32 - 1)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- losses


@often
@given(seeds, st.integers(1, 6), st.integers(0, 9))
def test_a_contrast_is_the_cross_entropy_of_the_positive_among_all(
    seed: int, rows: int, keys: int
) -> None:
    positive, others = 5 * numbers(seed, rows), 5 * numbers(seed + 1, rows, keys)
    loss = losses.contrast(positive, others)
    logits = torch.cat([positive[:, None], others], 1)
    zeros = torch.zeros(rows, dtype=torch.int64)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, zeros, reduction="none"))
    order = torch.randperm(keys, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(losses.contrast(positive, others[:, order]), loss)


@often
@given(seeds)
def test_exchanged_keys_are_those_of_their_places_alone(seed: int) -> None:
    others, by = numbers(seed, 4, 9), numbers(seed + 1, 4, 3)
    slots = torch.stack(
        [torch.tensor(np.random.default_rng(seed + r).permutation(9)[:3]) for r in range(4)]
    )
    valid = numbers(seed + 2, 4, 3) > 0
    found = losses.replaced(others, slots, by, valid)
    for row in range(4):
        expected = others[row].clone()
        for slot, value, counts in zip(slots[row], by[row], valid[row], strict=True):
            if counts:
                expected[slot] = value
        assert torch.equal(found[row], expected)
    assert torch.equal(losses.replaced(others, slots, by, torch.zeros_like(valid)), others)


@often
@given(seeds, st.integers(2, 12))
def test_a_refusal_counts_from_one_over_c_on_and_has_its_known_gradient(
    seed: int, classes: int
) -> None:
    logits = (3 * numbers(seed, 8, classes)).requires_grad_()
    rows = torch.arange(8)
    refused = torch.tensor(np.random.default_rng(seed).integers(0, classes, 8))
    loss = losses.negative(logits, rows, refused)
    p = torch.softmax(logits.detach(), 1)
    counts = p[rows, refused] >= 1 / classes
    assert torch.equal(loss.detach() > 0, counts)
    torch.testing.assert_close(loss[counts], -torch.log1p(-p[rows, refused][counts]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(
        gradient.sum(1), torch.zeros(8, dtype=torch.float64), atol=1e-8, rtol=0
    )
    wanted = -p * (p[rows, refused] / (1 - p[rows, refused]))[:, None]
    wanted[rows, refused] = p[rows, refused]
    torch.testing.assert_close(gradient, wanted * counts[:, None], atol=1e-8, rtol=0)


def test_a_refusal_counts_at_one_over_c_and_is_finite_however_sure_the_model_is() -> None:
    for classes in (2, 3, 7, 10, 100):
        even = torch.zeros(1, classes)
        at = torch.zeros(1, dtype=torch.int64)
        assert losses.negative(even, at, at) > 0
        for size in (1e4, -1e4):
            sure = even.clone()
            sure[0, 0] = size
            sure.requires_grad_()
            loss = losses.negative(sure, at, at)
            assert torch.isfinite(loss).all() and (loss > 0) == (size > 0)
            assert torch.isfinite(torch.autograd.grad(loss.sum(), sure)[0]).all()


@often
@given(seeds, st.floats(-50, 50))
def test_a_refusal_does_not_change_with_a_shift_of_all_logits(seed: int, shift: float) -> None:
    logits, rows = numbers(seed, 5, 4), torch.arange(5)
    refused = rows % 4
    torch.testing.assert_close(
        losses.negative(logits + shift, rows, refused), losses.negative(logits, rows, refused)
    )


# --- reductions of the whole step


def terms(folder: Path, config: ObcpConfig, *, refused: int, even: bool = False) -> Tensor:
    """Loss, cross entropy, contrast and refusals of the first batch of epoch 2; `even`: all rows
    count the same in the contrast.
    """
    epoch = 2
    cache, truth = write_cache(folder)
    trainer = obcp(config, open_data(cache), some_inputs(truth, refused=refused))
    batch = next(trainer.epoch_batches(epoch)[1])
    if even:
        weights = torch.full_like(batch.contrast_weights, 1 / len(batch.ids))
        batch = dataclasses.replace(batch, contrast_weights=weights)
    trainer.key.train()
    found = trainer.take_step(batch, epoch, learning_rate=0.0)
    assert all(not key.requires_grad for key in (trainer.queue.keys, trainer.labelled.features))
    assert all(weight.grad is None for weight in trainer.key_weights)
    return found


def test_without_a_refused_class_its_settings_mean_nothing(tmp_path: Path) -> None:
    other = dataclasses.replace(
        SMALL, negative_weight=9.0, class_negatives=40, with_replacement=True
    )
    one, two = (
        terms(tmp_path / str(at), config, refused=0) for at, config in enumerate((SMALL, other))
    )
    assert torch.equal(one, two)
    assert one[3] == 0


def test_without_exchanged_keys_and_pairs_of_a_class_the_contrast_is_that_of_views(
    tmp_path: Path,
) -> None:
    plain = dataclasses.replace(SMALL, class_positives=False, class_negatives=0)
    before = dataclasses.replace(plain, first_query_epoch=4)
    for name, config in (("plain", plain), ("before", before), ("published", SMALL)):
        found = terms(tmp_path / name, config, refused=40, even=True)
        if name == "plain":
            expected = found
        elif name == "before":
            assert torch.equal(found[1:3], expected[1:3])
        else:
            assert found[1] == expected[1] and found[2] > expected[2] + 0.01


# --- the queue and the labelled features


@often
@given(seeds, st.integers(1, 5))
def test_the_queue_holds_the_latest_keys(seed: int, pushes: int) -> None:
    queue = Queue(12, 3, seed=seed, device=CPU, dtype=torch.float64)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(12, dtype=torch.float64))
    latest: deque[tuple[int, Tensor]] = deque(
        zip([-1] * 12, queue.keys.clone(), strict=True), maxlen=12
    )
    for push in range(pushes):
        keys, ids = numbers(seed + push, 4, 3), torch.arange(4) + 10 * push
        queue.push(keys, ids)
        latest.extend(zip(ids.tolist(), keys, strict=True))
    assert queue.ids.roll(-queue.at).tolist() == [id_ for id_, _ in latest]
    assert torch.equal(queue.keys.roll(-queue.at, 0), torch.stack([key for _, key in latest]))


def labelled(seed: int, images: int, classes: int) -> tuple[LabelledFeatures, dict[int, int]]:
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(500, images, replace=False))
    labels = rng.integers(0, classes, images).astype(np.int32)
    held = LabelledFeatures(
        ids, labels, num_classes=classes, items=500, dim=3, device=CPU, dtype=torch.float64
    )
    return held, dict(zip(ids.tolist(), labels.tolist(), strict=True))


@often
@given(seeds, st.integers(1, 40), st.integers(1, 6))
def test_a_partner_is_another_image_of_the_class(seed: int, images: int, classes: int) -> None:
    held, label_of = labelled(seed, images, classes)
    alone = [list(label_of.values()).count(label) == 1 for label in label_of.values()]
    rows = held.others(held.ids, np.zeros_like(held.ids), seed)
    for id_, row, single in zip(held.ids.tolist(), rows.tolist(), alone, strict=True):
        if single:
            assert row == len(held.ids)
        else:
            other = int(held.ids[row])
            assert other != id_ and label_of[other] == label_of[id_]


def test_partners_and_exchanged_images_are_drawn_evenly() -> None:
    held, label_of = labelled(3, 12, 2)
    (least, fewest), (_, most) = sorted((list(label_of.values()).count(c), c) for c in (0, 1))
    visits = np.repeat(np.arange(3000), 12)
    rows = held.others(np.tile(held.ids, 3000), visits, 7).reshape(3000, 12)
    at = next(i for i, id_ in enumerate(held.ids.tolist()) if label_of[id_] == most)
    counts = np.bincount(rows[:, at], minlength=12)
    expected = 3000 / (12 - least - 1)
    assert counts[at] == 0 and (abs(counts[counts > 0] - expected) < 5 * expected**0.5).all()
    classes = torch.full((3000,), fewest)
    bits = randomness.draws(
        7,
        torch.arange(3000),
        torch.zeros(3000, dtype=torch.int64),
        held.bits_of_classes(2, False),
    )
    members, valid = held.of_classes(classes, bits, count=2, with_replacement=False)
    drawn = np.bincount(members[valid].numpy(), minlength=12)
    per = 6000 / least if least > 1 else 3000
    assert (abs(drawn[drawn > 0] - per) < 5 * per**0.5).all()


@often
@given(seeds, st.integers(0, 30), st.integers(1, 5), st.integers(1, 12), st.booleans())
def test_exchanged_images_are_of_the_class_and_as_many_as_there_are(
    seed: int, images: int, classes: int, count: int, twice: bool
) -> None:
    held, label_of = labelled(seed, images, classes)
    asked = torch.arange(classes)
    width = held.bits_of_classes(count, twice)
    bits = randomness.draws(seed, asked, asked * 0, width)
    members, valid = held.of_classes(asked, bits, count=count, with_replacement=twice)
    for class_ in range(classes):
        found = members[class_][valid[class_]].tolist()
        have = list(label_of.values()).count(class_)
        assert {label_of[int(held.ids[row])] for row in found} <= {class_}
        if twice:
            assert len(found) == (count if have else 0)
        else:
            assert len(set(found)) == len(found) == min(count, have)


def test_an_image_that_is_twice_in_a_batch_is_kept_once() -> None:
    rows = np.array([[3, 1, 3, 2], [5, 5, 5, 5], [1, 2, 3, 4]])
    assert last_of_each(rows, 9).tolist() == [[9, 1, 3, 2], [9, 9, 9, 5], [1, 2, 3, 4]]


# --- uncertainty


def predictions(seed: int, epochs: int, images: int, classes: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), (epochs, images))
    return drawn.astype(np.float32)


@often
@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 6), st.integers(0, 8))
def test_uncertainty_is_the_cross_entropy_of_the_mean_and_recent_predictions(
    seed: int, m: int, t: int, gap: int, cut: int
) -> None:
    """Of every round, however close they are, and across a stage that another process goes on
    with.
    """
    rounds = [4, 4 + gap, 4 + 2 * gap]
    said = predictions(seed, rounds[-1], 5, 3)
    windows = [tuple((max(r - n, 0), r) for r in rounds) for n in (m, t)]
    history = History(*windows, images=5, classes=3)
    for epoch, p in enumerate(said):
        if epoch == cut:
            after = History(*windows, images=5, classes=3)
            after.load(history.state())
            history = after
        history.add(epoch, np.arange(5), p)
        if epoch + 1 in rounds:
            last = said[max(epoch + 1 - m, 0) : epoch + 1].astype(np.float64).mean(0)
            recent = np.log(np.maximum(said[max(epoch + 1 - t, 0) : epoch + 1], 1e-8))
            expected = -(last * recent.sum(0)).sum(1)
            found = history.uncertainty(epoch + 1)
            assert found is not None
            np.testing.assert_allclose(found, expected, rtol=1e-4)


@often
@given(seeds, st.integers(1, 6), st.integers(2, 8))
def test_uncertainty_is_least_where_predictions_agree(seed: int, t: int, classes: int) -> None:
    said = predictions(seed, t, 20, classes)
    history = History([(0, t)], [(0, t)], images=20, classes=classes)
    same = History([(0, t)], [(0, t)], images=20, classes=classes)
    for epoch in range(t):
        history.add(epoch, np.arange(20), said[epoch])
        same.add(epoch, np.arange(20), said[0])
    found, agreed = history.uncertainty(t), same.uncertainty(t)
    assert found is not None and agreed is not None

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(np.maximum(p, 1e-8))).sum(1)

    assert (found >= t * entropy(said.mean(0)) - 1e-3).all()
    np.testing.assert_allclose(agreed, t * entropy(said[0]), rtol=1e-3, atol=1e-4)


def test_an_image_of_which_nothing_was_said_is_asked_last() -> None:
    history = History([(0, 2)], [(1, 2)], images=3, classes=2)
    for epoch in (0, 1):
        history.add(epoch, np.array([0, 2]), np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    found = history.uncertainty(2)
    assert found is not None and found.argsort().tolist() == [1, 2, 0]
    assert history.uncertainty(1) is None
    assert not history.needs(2)


# --- plans


def test_a_stage_adds_up_what_the_rounds_to_come_need() -> None:
    plans = [ObcpConfig().stage(n, 4, has_negatives=n > 0) for n in range(5)]
    assert [plan.epochs for plan in plans] == [
        (0, 100),
        (100, 125),
        (125, 150),
        (150, 175),
        (175, 200),
    ]
    assert plans[0].settings["mean_windows"] == ((70, 100), (95, 125))
    assert plans[1].settings["recent_windows"] == ((120, 125),)
    assert plans[4].settings["mean_windows"] == ()
    imagenet = ObcpConfig(epochs=100, first_query_epoch=60)
    assert imagenet.query_epochs(4) == (60, 70, 80, 90)


@pytest.mark.parametrize(
    "changes",
    [
        {"negative_weight": 0.0},
        {"class_negatives": 0},
        {"class_positives": False},
        {"confirmed_labels": False},
        {"mask_same_class": True},
        {"with_replacement": True},
    ],
)
def test_the_modules_share_the_training_before_the_first_question(
    changes: dict[str, object],
) -> None:
    other = dataclasses.replace(ObcpConfig(), **changes)  # type: ignore[arg-type]
    first, second = (one.stage(0, 4, has_negatives=False) for one in (ObcpConfig(), other))
    assert first == second
    assert ObcpConfig().stage(1, 4, has_negatives=True) != other.stage(1, 4, has_negatives=True)


def test_confirmed_labels_may_be_left_out_of_the_cross_entropy(tmp_path: Path) -> None:
    cache, truth = write_cache(tmp_path / "cache")
    config, data = dataclasses.replace(SMALL, confirmed_labels=False), open_data(cache)
    before, after = (some_inputs(truth, labelled=n) for n in (16, 24))
    trainer = obcp(config, data, after)
    trainer.load(obcp(config, data, before).state())
    seen = set()
    for epoch in (1, 2):
        for batch in trainer.epoch_batches(epoch)[1]:
            ids = batch.ids[-len(batch.labels) :].tolist()
            counts = [id_ in before.label_ids for id_ in ids]
            seen |= set(counts)
            expected = torch.tensor(counts).double() / max(sum(counts), 1)
            torch.testing.assert_close(batch.class_weights, expected)
    assert seen == {False, True}
