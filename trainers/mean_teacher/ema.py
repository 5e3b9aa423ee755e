"""The teacher: an exponential moving average of the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decay_at(step: int, decay: float) -> float:
    """Share of the old teacher that step number `step`, counted from 1, keeps: min(1 - 1/(step +
    1), decay).

    Until the two are equal the teacher is the plain mean of its start and all students so far
    (Tarvainen & Valpola 2017, section 3 and their published code).
    """
    return min(1.0 - 1.0 / (step + 1), decay)


@torch.no_grad()
def update(teacher: Sequence[Tensor], student: Sequence[Tensor], keep: float) -> None:
    """Updates teacher <- keep * teacher + (1 - keep) * student, in place, in one call."""
    torch._foreach_lerp_(list(teacher), list(student), 1.0 - keep)
