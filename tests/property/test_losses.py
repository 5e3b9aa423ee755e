"""Laws of the losses: what a refused class means, what gets a gradient, and which sums divide by
what.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.mean_teacher import losses
from trainers.mean_teacher.method import Batch, stage_loss, teacher_target
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.negatives import suppress_negatives

often = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(1, 9), st.integers(2, 12))


def logits(shape: tuple[int, int], seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def refusals(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Random refused pairs, at most C - 1 in a row."""
    generator = torch.Generator().manual_seed(seed + 1)
    mask = torch.rand(shape, generator=generator) < 0.4
    mask[torch.arange(shape[0]), torch.randint(shape[1], (shape[0],), generator=generator)] = False
    rows, classes = mask.nonzero(as_tuple=True)
    return rows, classes


def batch(shape: tuple[int, int], labelled: int, pairs: tuple[Tensor, Tensor], seed: int) -> Batch:
    view = torch.zeros(shape[0], 1)
    labels = torch.randint(shape[1], (labelled,), generator=torch.Generator().manual_seed(seed + 2))
    return Batch(view, view, labels, *pairs)


NO_PAIRS = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


@often
@given(
    sizes,
    seeds,
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from([1.0, 1e3]),
)
def test_refused_classes_get_exactly_zero_and_the_others_keep_their_ratios(
    shape: tuple[int, int], seed: int, dtype: torch.dtype, scale: float
) -> None:
    rows, classes = refusals(shape, seed)
    z = logits(shape, seed, scale).to(dtype)
    masked = torch.softmax(suppress_negatives(z, rows, classes), 1).double()
    assert (masked[rows, classes] == 0).all()
    torch.testing.assert_close(
        masked.sum(1), torch.ones(shape[0], dtype=torch.float64), atol=1e-6, rtol=0
    )
    free = torch.ones(shape, dtype=torch.bool)
    free[rows, classes] = False
    expected = torch.softmax(z.double().masked_fill(~free, -math.inf), 1)
    torch.testing.assert_close(masked, expected, atol=1e-5, rtol=0)


@often
@given(sizes, seeds)
def test_no_refusal_is_plain_mean_teacher(shape: tuple[int, int], seed: int) -> None:
    z1, z2 = logits(shape, seed).requires_grad_(), logits(shape, seed + 7).requires_grad_()
    found = []
    for nls in (True, False):
        config = MeanTeacherConfig(nls=nls, negative_weight=0.5)
        loss = stage_loss(
            config,
            batch(shape, 1, NO_PAIRS, seed),
            z1,
            z2,
            logits(shape, seed + 9),
            consistency_weight=10,
            batch_size=shape[0],
        )[0]
        found.append((loss, *torch.autograd.grad(loss, (z1, z2))))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@often
@given(sizes, seeds)
def test_refusals_are_a_set(shape: tuple[int, int], seed: int) -> None:
    rows, classes = refusals(shape, seed)
    z = logits(shape, seed)
    once = suppress_negatives(z, rows, classes)
    assert torch.equal(once, suppress_negatives(z, rows.flip(0), classes.flip(0)))
    assert torch.equal(once, suppress_negatives(once, rows, classes))
    half = len(rows) // 2
    in_two = suppress_negatives(
        suppress_negatives(z, rows[:half], classes[:half]), rows[half:], classes[half:]
    )
    assert torch.equal(once, in_two)


@often
@given(sizes, seeds, st.sampled_from(["mse", "kl"]))
def test_no_gradient_reaches_the_teacher(
    shape: tuple[int, int], seed: int, consistency: str
) -> None:
    teacher = logits(shape, seed + 9).requires_grad_()
    student = logits(shape, seed).requires_grad_()
    config = replace(MeanTeacherConfig(), consistency=consistency)
    loss = stage_loss(
        config,
        batch(shape, 1, refusals(shape, seed), seed),
        student,
        student,
        teacher,
        consistency_weight=10,
        batch_size=shape[0],
    )[0]
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


@often
@given(sizes, seeds)
def test_gradient_of_the_suppressed_consistency_loss_is_the_analytic_one(
    shape: tuple[int, int], seed: int
) -> None:
    rows, classes = refusals(shape, seed)
    z = logits(shape, seed).requires_grad_()
    target = torch.softmax(suppress_negatives(logits(shape, seed + 9), rows, classes), 1)
    weight, (size, width) = 7.0, shape
    (weight * losses.consistency_mse(z, target, size)).backward()
    s = torch.softmax(z.detach(), 1)
    off = s - target
    analytic = 2 * weight / (size * width) * s * (off - (s * off).sum(1, keepdim=True))
    assert z.grad is not None
    torch.testing.assert_close(z.grad, analytic, atol=1e-8, rtol=0)


@often
@given(sizes, seeds)
def test_gradient_of_the_negative_loss_is_the_analytic_one(
    shape: tuple[int, int], seed: int
) -> None:
    """One refused class c of a row: p_c for c itself, -p_c p_j / (1 - p_c) for the others, which
    sum to zero.
    """
    rows = torch.arange(shape[0])
    classes = torch.randint(shape[1], (shape[0],), generator=torch.Generator().manual_seed(seed))
    z = logits(shape, seed).requires_grad_()
    losses.negative_loss(z, rows, classes, shape[0]).backward()
    p = torch.softmax(z.detach(), 1)
    refused = p[rows, classes][:, None]
    analytic = -refused * p / (1 - refused)
    analytic[rows, classes] = refused[:, 0]
    assert z.grad is not None
    torch.testing.assert_close(z.grad, analytic / shape[0], atol=1e-8, rtol=0)


@often
@given(sizes, seeds, st.floats(-50, 50))
def test_equal_shifts_of_the_logits_change_no_loss(
    shape: tuple[int, int], seed: int, shift: float
) -> None:
    z1, z2, target = (
        logits(shape, seed),
        logits(shape, seed + 1),
        torch.softmax(logits(shape, seed + 2), 1),
    )
    labels = batch(shape, shape[0], NO_PAIRS, seed).labels
    rows, classes = refusals(shape, seed)

    def values(a: Tensor, b: Tensor) -> list[Tensor]:
        return [
            losses.class_loss(a, labels, 5),
            losses.consistency_mse(b, target, 5),
            losses.consistency_kl(b, target, 5),
            losses.negative_loss(a, rows, classes, 5),
            losses.entropy_loss(a, 5),
            losses.logit_distance(a, b, 5),
        ]

    for before, after in zip(values(z1, z2), values(z1 + shift, z2 + shift), strict=True):
        torch.testing.assert_close(before, after, atol=1e-9, rtol=1e-9)


def test_logit_distance_feels_a_shift_of_one_head() -> None:
    z = torch.zeros(2, 4)
    assert losses.logit_distance(z + 3, z, 2).item() == pytest.approx(9.0)


@often
@given(st.integers(2, 6), seeds, st.sampled_from([1e4, -1e4]))
def test_negative_loss_is_finite_for_a_sure_student(width: int, seed: int, value: float) -> None:
    z = torch.zeros(1, width)
    z[0, 0] = value
    z.requires_grad_()
    loss = losses.negative_loss(z, torch.tensor([0]), torch.tensor([0]), 1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert loss.isfinite() and loss >= 0 and z.grad.isfinite().all()


def test_negative_loss_is_minus_log_of_one_minus_p() -> None:
    z = logits((3, 5), 0)
    p = torch.softmax(z, 1)
    found = losses.negative_loss(z, torch.tensor([0, 2, 2]), torch.tensor([1, 0, 4]), 3)
    expected = -(torch.log(1 - p[0, 1]) + torch.log(1 - p[2, 0]) + torch.log(1 - p[2, 4])) / 3
    torch.testing.assert_close(found, expected)


def test_class_loss_divides_by_the_batch_and_consistency_by_classes_too() -> None:
    z, target = torch.zeros(2, 4), torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    assert losses.class_loss(z, torch.tensor([0, 1]), 8).item() == pytest.approx(
        2 * math.log(4) / 8
    )
    assert losses.consistency_mse(z, target, 2).item() == pytest.approx(
        (0.75**2 + 3 * 0.25**2) / (2 * 4)
    )
    assert losses.consistency_kl(z, target, 2).item() == pytest.approx(math.log(4) / 2)


@often
@given(sizes, seeds, st.integers(0, 9))
def test_order_within_a_batch_does_not_matter(
    shape: tuple[int, int], seed: int, labelled: int
) -> None:
    size = shape[0]
    labelled = min(labelled, size)
    config = MeanTeacherConfig(negative_weight=0.3, entropy_weight=0.2)
    z1, z2, t = logits(shape, seed), logits(shape, seed + 1), logits(shape, seed + 2)
    rows, classes = refusals(shape, seed)
    straight = batch(shape, labelled, (rows, classes), seed)
    order = torch.cat(
        [torch.arange(size - labelled).flip(0), torch.arange(size - labelled, size).flip(0)]
    )
    place = torch.argsort(order)
    turned = replace(straight, labels=straight.labels.flip(0), negative_rows=place[rows])
    a = stage_loss(config, straight, z1, z2, t, consistency_weight=10, batch_size=size)
    b = stage_loss(
        config, turned, z1[order], z2[order], t[order], consistency_weight=10, batch_size=size
    )
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_onehot_makes_the_label_the_target_and_leaves_the_others() -> None:
    pairs = (torch.tensor([0]), torch.tensor([2]))
    t = logits((3, 4), 5)
    soft = teacher_target(MeanTeacherConfig(), batch((3, 4), 1, pairs, 0), t)
    one = batch((3, 4), 1, pairs, 0)
    onehot = teacher_target(MeanTeacherConfig(nls_positive="onehot"), one, t)
    assert torch.equal(onehot[:2], soft[:2])
    assert onehot[2].tolist() == [1.0 if c == int(one.labels[0]) else 0.0 for c in range(4)]


def test_without_nls_the_teacher_keeps_refused_classes() -> None:
    t = logits((2, 4), 5)
    target = teacher_target(
        MeanTeacherConfig(nls=False), batch((2, 4), 1, (torch.tensor([0]), torch.tensor([2])), 0), t
    )
    assert torch.equal(target, torch.softmax(t, 1))


def test_ramp_has_the_published_steps() -> None:
    assert [round(losses.consistency_ramp(e, 5), 4) for e in range(7)] == [
        0.0067,
        0.0408,
        0.1653,
        0.4493,
        0.8187,
        1.0,
        1.0,
    ]
    assert losses.consistency_ramp(0, 0) == 1.0


def test_learning_rate_rises_in_a_straight_line_before_it_falls() -> None:
    assert [round(losses.warmed_up(0.2, e / 2, 2.0, 0.1), 6) for e in range(6)] == [
        0.1,
        0.125,
        0.15,
        0.175,
        0.2,
        0.2,
    ]
    assert [losses.warmed_up(0.2, e, 0.0, 0.1) for e in range(3)] == [0.2] * 3


def test_learning_rate_falls_along_half_a_cosine() -> None:
    rates = [losses.cosine_rate(0.2, e / 4, 210) for e in range(4 * 250)]
    assert rates[0] == 0.2
    assert all(a >= b for a, b in itertools.pairwise(rates))
    assert losses.cosine_rate(0.2, 180, 210) == pytest.approx(0.0099, abs=1e-4)
    assert rates[-1] == 0.0
