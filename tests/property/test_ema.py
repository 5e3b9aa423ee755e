"""Laws of the teacher's average."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.mean_teacher import ema

decays = st.sampled_from([0.9, 0.97, 0.99, 0.999])


@settings(deadline=None, max_examples=30)
@given(decays, st.integers(1, 60), st.integers(0, 2**31))
def test_the_average_is_plain_until_the_decay_and_exponential_after(
    decay: float, steps: int, seed: int
) -> None:
    history = torch.randn(
        steps + 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    teacher = [history[0].clone()]
    for step in range(1, steps + 1):
        ema.update(teacher, [history[step]], ema.decay_at(step, decay))
        if 1 - 1 / (step + 1) <= decay:
            torch.testing.assert_close(
                teacher[0], history[: step + 1].mean(0), atol=1e-12, rtol=1e-12
            )
    crossing = max(s for s in range(steps + 1) if 1 - 1 / (s + 1) <= decay)
    weights = [decay ** (steps - s) * (1 - decay) for s in range(crossing + 1, steps + 1)]
    closed = decay ** (steps - crossing) * history[: crossing + 1].mean(0)
    closed = closed + sum(
        (w * h for w, h in zip(weights, history[crossing + 1 :], strict=True)),
        torch.zeros(3, dtype=torch.float64),
    )
    torch.testing.assert_close(teacher[0], closed, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("decay", "first"), [(0.97, 33), (0.999, 999), (0.9997, 3333)])
def test_the_decay_is_reached_at_the_published_step(decay: float, first: int) -> None:
    assert ema.decay_at(1, decay) == 0.5
    reached = next(step for step in range(1, 5000) if ema.decay_at(step, decay) == decay)
    assert abs(reached - first) <= 1  # at the crossing both are the decay up to rounding


def test_a_student_at_rest_is_reached() -> None:
    teacher, student = (
        [torch.zeros(4, 2), torch.ones(3)],
        [torch.full((4, 2), 5.0), torch.full((3,), -1.0)],
    )
    for step in range(1, 800):
        ema.update(teacher, student, ema.decay_at(step, 0.97))
    for t, s in zip(teacher, student, strict=True):
        torch.testing.assert_close(t, s)
