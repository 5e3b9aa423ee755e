"""Losses for images of which some labels are known, against loops over pairs in float64; pseudo
labels; and soft labels of what is taken for absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.spml import losses
from trainers.spml.labels import (
    NONE,
    asymmetric_pseudo_labels,
    known_states,
    pseudo_labels,
    taken_for_absent,
)
from trainers.stage import StageInputs

K, ALPHA, BETA, SMOOTHING = 1.7, 0.3, 0.6, 0.1
Loss = Callable[..., Tensor]
often = settings(deadline=None, max_examples=40)


def log(p: float) -> float:
    return math.log(p + losses.EPSILON)


def crossed(p: float, target: float) -> float:
    return -target * log(p) - (1 - target) * log(1 - p)


def pairwise(p: Any, z: Any, unknown: Callable[[float, int, int], float]) -> float:
    """The mean over pairs, one after the other."""
    total = 0.0
    for n, row in enumerate(z.tolist()):
        for k, state in enumerate(row):
            q = float(p[n, k])
            total += -log(q) if state > 0 else -log(1 - q) if state < 0 else unknown(q, n, k)
    return total / z.numel()


def expected(p: Any) -> float:
    batch, categories = p.shape
    return float((p.sum() / batch - K) ** 2 / categories**2)


def smoothed(p: Any, z: Any) -> float:
    target = {1: 1 - SMOOTHING, 0: SMOOTHING, -1: SMOOTHING}
    pairs = zip(p.flatten().tolist(), z.flatten().tolist(), strict=True)
    return sum(crossed(q, target[state]) for q, state in pairs) / z.numel()


def both_sides(p: Any, z: Any, estimate: Any) -> float:
    def side(learns: Any, fixed: Any) -> float:
        pairs = zip(learns.flatten().tolist(), fixed.flatten().tolist(), strict=True)
        mean = sum(crossed(q, target) for q, target in pairs) / z.numel()
        return pairwise(learns, z, lambda q, n, k: 0.0) + mean + expected(learns)

    return (side(p, estimate) + side(estimate, p)) / 2


def with_soft(p: Any, z: Any, soft: Any) -> float:
    def unknown(q: float, n: int, k: int) -> float:
        target = float(soft[n, k])
        return -ALPHA * crossed(q, q) if target < 0 else BETA * crossed(q, target)

    return pairwise(p, z, unknown)


LOSSES: dict[str, tuple[Loss, Callable[..., float]]] = {
    "an": (
        losses.assume_negative,
        lambda p, z, e, s: pairwise(p, z, lambda q, n, k: -log(1 - q)),
    ),
    "wan": (
        partial(losses.assume_negative, weight=0.25),
        lambda p, z, e, s: pairwise(p, z, lambda q, n, k: -0.25 * log(1 - q)),
    ),
    "an_ls": (
        partial(losses.assume_negative_smoothed, smoothing=SMOOTHING),
        lambda p, z, e, s: smoothed(p, z),
    ),
    "iu": (losses.ignore_unknown, lambda p, z, e, s: pairwise(p, z, lambda q, n, k: 0.0)),
    "epr": (
        partial(losses.expected_positive, positives=K),
        lambda p, z, e, s: pairwise(p, z, lambda q, n, k: 0.0) + expected(p),
    ),
    "role": (partial(losses.role, positives=K), lambda p, z, e, s: both_sides(p, z, e)),
    "em": (
        partial(losses.entropy_maximisation, weight=ALPHA),
        lambda p, z, e, s: pairwise(p, z, lambda q, n, k: -ALPHA * crossed(q, q)),
    ),
    "em_apl": (
        partial(losses.entropy_maximisation, weight=ALPHA, soft_weight=BETA),
        lambda p, z, e, s: with_soft(p, z, s),
    ),
}
"""Name -> the loss, and the same by loops."""


def batch(seed: int, rows: int = 4, categories: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, states with all three values, estimated logits, and soft labels of some unknowns."""
    draw = torch.Generator().manual_seed(seed)
    logits, other = (
        3 * torch.randn(rows, categories, generator=draw, dtype=torch.float64) for _ in range(2)
    )
    z = torch.randint(-1, 2, (rows, categories), generator=draw)
    z[0, 0], z[0, 1], z[0, 2] = 1, 0, -1
    soft = torch.rand(rows, categories, generator=draw, dtype=torch.float64) / 2
    keep = torch.rand(rows, categories, generator=draw) < 0.5
    return logits, z, other, torch.where(keep, soft, NONE)


def called(name: str, p: Tensor, z: Tensor, estimate: Tensor, soft: Tensor) -> Tensor:
    loss = LOSSES[name][0]
    if name == "role":
        return loss(p, z, estimate)
    return loss(p, z, soft=soft) if name == "em_apl" else loss(p, z)


@pytest.mark.parametrize("name", LOSSES)
@often
@given(seed=st.integers(0, 10**6))
def test_a_loss_is_its_sum_over_pairs(name: str, seed: int) -> None:
    logits, z, other, soft = batch(seed)
    p, estimate = logits.sigmoid(), other.sigmoid()
    expected_ = LOSSES[name][1](p, z, estimate, soft)
    assert float(called(name, p, z, estimate, soft)) == pytest.approx(expected_, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "role"])
def test_a_gradient_is_the_slope_of_its_loss(name: str) -> None:
    logits, z, _, soft = batch(1)

    def loss(w: Tensor) -> Tensor:
        p = w.sigmoid()
        return called(name, p, z, p, soft)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


def test_each_side_of_role_learns_from_the_other_held_fixed() -> None:
    logits, z, other, _ = batch(2)
    mine, theirs = logits.clone().requires_grad_(), other.clone().requires_grad_()
    losses.role(mine.sigmoid(), z, theirs.sigmoid(), positives=K).backward()
    for grad, at, fixed in ((mine.grad, logits, other), (theirs.grad, other, logits)):

        def side(w: Tensor, fixed: Tensor = fixed) -> Tensor:
            p, target = w.sigmoid(), fixed.sigmoid()
            cross = losses.cross_entropy(p, target).mean()
            return (losses.expected_positive(p, z, positives=K) + cross) / 2

        slope = torch.zeros_like(at)
        for index in np.ndindex(*at.shape):
            step = torch.zeros_like(at)
            step[index] = 1e-6
            slope[index] = (side(at + step) - side(at - step)) / 2e-6
        assert grad is not None
        torch.testing.assert_close(grad, slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_known_to_be_absent_is_a_negative_to_every_loss(name: str) -> None:
    logits, z, other, soft = batch(3)
    absent = z.clone()
    absent[0, 1] = -1
    soft[0, 1] = NONE
    p = logits.sigmoid().requires_grad_()
    (unknown,), (known,) = (
        torch.autograd.grad(called(name, p, states, other.sigmoid(), soft), p)
        for states in (z, absent)
    )
    q, epsilon = float(p[0, 1].detach()), losses.EPSILON
    slope = 1 / (1 - q + epsilon) / z.numel()
    of_entropy = log(q) + q / (q + epsilon) - log(1 - q) - (1 - q) / (1 - q + epsilon)
    was = {"an": slope, "wan": 0.25 * slope, "em": ALPHA * of_entropy / z.numel()}
    was |= {"em_apl": was["em"], "role": slope / 2, "an_ls": slope}
    gain = slope - was.get(name, 0.0)
    assert float(known[0, 1] - unknown[0, 1]) == pytest.approx(gain, rel=1e-6, abs=1e-12)
    rest = torch.ones_like(z, dtype=torch.bool)
    rest[0, 1] = False
    assert torch.equal(known[rest], unknown[rest])


@pytest.mark.parametrize("name", LOSSES)
@often
@given(size=st.sampled_from([1.0, 50.0, 1e4]), seed=st.integers(0, 100))
def test_a_loss_and_its_gradient_are_finite_and_know_no_order(
    name: str, size: float, seed: int
) -> None:
    logits, z, other, soft = batch(seed)
    for dtype in (torch.float32, torch.float64):
        w = (size * logits).to(dtype).requires_grad_()
        loss = called(name, w.sigmoid(), z, other.to(dtype).sigmoid(), soft.to(dtype))
        loss.backward()
        assert w.grad is not None and torch.isfinite(loss) and torch.isfinite(w.grad).all()
    p, estimate = logits.sigmoid(), other.sigmoid()
    turned = called(name, p.flip(0), z.flip(0), estimate.flip(0), soft.flip(0))
    torch.testing.assert_close(turned, called(name, p, z, estimate, soft))


@often
@given(logit=st.floats(-8, 8), alpha=st.floats(0.01, 1))
def test_entropy_draws_a_prediction_to_one_half_and_never_beyond(
    logit: float, alpha: float
) -> None:
    w = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    unknown = torch.zeros(1, 1, dtype=torch.long)
    em = partial(losses.entropy_maximisation, z=unknown, weight=alpha)
    loss = em(w.sigmoid(), epsilon=0.0)
    assert float(loss) >= -alpha * math.log(2) - 1e-12
    (slope,) = torch.autograd.grad(loss, w)
    p = float(w.sigmoid())
    assert float(slope) == pytest.approx(alpha * p * (1 - p) * logit, abs=1e-9)
    # p (1 - p) is at most a quarter: a step below 4 / alpha does not pass zero.
    moved = logit - 3.9 / alpha * float(slope)
    assert moved * logit >= -1e-12 and abs(moved) <= abs(logit) + 1e-12
    half = em(torch.tensor([[0.5]], dtype=torch.float64), epsilon=0.0)
    assert float(half) == pytest.approx(-alpha * math.log(2))


def test_what_is_known_is_one_of_three_states() -> None:
    def ids(*values: int) -> Any:
        return np.array(values, np.int64)

    inputs = StageInputs(
        pool_ids=ids(2, 5, 9),
        label_ids=ids(5, 5, 9),
        labels=ids(0, 3, 1).astype(np.int32),
        negative_ids=ids(5, 9),
        negative_classes=ids(1, 0).astype(np.int32),
        validation_ids=ids(),
        validation_labels=np.zeros((0, 4), np.int32),
    )
    assert known_states(inputs, 4).tolist() == [[0, 0, 0, 0], [1, -1, 0, 1], [-1, 1, 0, 0]]


@often
@given(
    seed=st.integers(0, 10**6),
    thresholds=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.55, 0.75, 0.95]), min_size=2),
    keep=st.booleans(),
)
def test_fewer_pseudo_labels_are_positive_the_higher_the_threshold(
    seed: int, thresholds: list[float], keep: bool
) -> None:
    random = np.random.default_rng(seed)
    # Quarters, so that some are equal to a threshold.
    p = (random.integers(0, 5, (6, 4)) / 4).astype(np.float32)
    z = random.integers(-1, 2, (6, 4)).astype(np.int8)
    found = [pseudo_labels(p, z, t, keep_observed=keep) for t in sorted(thresholds)]
    counts = [int((labels > 0).sum()) for labels in found]
    assert counts == sorted(counts, reverse=True)
    for labels, threshold in zip(found, sorted(thresholds), strict=True):
        assert set(np.unique(labels)) <= {-1, 1}
        free = z == 0 if keep else z >= 0
        assert np.array_equal(labels[free] > 0, p[free] > threshold), "p = tau is no positive"
        assert (labels[z < 0] < 0).all()
        assert not keep or (labels[z > 0] > 0).all()


@often
@given(seed=st.integers(0, 10**6), epochs=st.integers(1, 6), share=st.floats(0, 1))
def test_the_least_likely_are_taken_for_absent_once_and_for_all(
    seed: int, epochs: int, share: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    z = torch.randint(-1, 2, (30, 4), generator=draw)
    soft = torch.full(z.shape, NONE)
    counts = taken_for_absent(z, share=share, epochs=epochs)
    unknown = (z == 0).sum(0)
    assert torch.equal(counts, torch.tensor([math.floor(share * int(n) / epochs) for n in unknown]))
    for epoch in range(1, epochs + 1):
        # Many equal ones, and exact zeros: a soft label of 0 is one.
        p = torch.randint(0, 4, z.shape, generator=draw) / 4
        after = asymmetric_pseudo_labels(p, z, soft, counts)
        old = soft != NONE
        assert torch.equal(after[old], soft[old]), "they are not revised"
        new = (after != NONE) & ~old
        assert (z[after != NONE] == 0).all(), "what is known is no candidate"
        assert torch.equal(after[new], p[new])
        assert torch.equal((after != NONE).sum(0), epoch * counts)
        for k in range(z.shape[1]):
            left = (z[:, k] == 0) & (after[:, k] == NONE)
            if new[:, k].any() and left.any():
                assert p[new[:, k], k].max() <= p[left, k].min()
        soft = after
