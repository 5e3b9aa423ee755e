"""Our SGD against torch.optim.SGD, and what it spares."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from trainers.sgd import Sgd


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_every_step_equals_that_of_torch_bit_for_bit(
    momentum: float, nesterov: bool, weight_decay: float
) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (7,), (2, 3, 3, 3), (1,)]
    ours = [torch.randn(shape, generator=draw) for shape in shapes]
    theirs = [weight.clone() for weight in ours]
    for weight in (*ours, *theirs):
        weight.requires_grad_(True)
    mine = Sgd(ours, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    of_torch = torch.optim.SGD(
        theirs,
        lr=0.1,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
        fused=True,
    )
    for step in range(6):
        mine.zero_grad()
        of_torch.zero_grad()
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            # One weight never has a gradient, as a head that nothing reaches.
            if index:
                a.grad = torch.randn(a.shape, generator=draw)
                b.grad = a.grad.clone()
        of_torch.param_groups[0]["lr"] = 0.1 / (step + 1)
        mine.step(0.1 / (step + 1))
        of_torch.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        kept = [
            of_torch.state[weight].get("momentum_buffer") if weight in of_torch.state else None
            for weight in theirs
        ]
        assert [v is None for v in mine.velocities] == [k is None for k in kept]
        assert all(
            torch.equal(v, k)
            for v, k in zip(mine.velocities, kept, strict=True)
            if v is not None and k is not None
        )


def test_a_step_does_not_load_the_compiler() -> None:
    code = """
import sys, torch
from trainers.sgd import Sgd
weight = torch.zeros(3, requires_grad=True)
optimizer = Sgd([weight], momentum=0.9, nesterov=True, weight_decay=0.1)
(weight * 2).sum().backward()
optimizer.step(0.1)
optimizer.zero_grad()
print("torch._dynamo" in sys.modules, weight.grad is None)
"""
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split() == ["False", "True"]
