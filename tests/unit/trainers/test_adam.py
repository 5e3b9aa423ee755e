"""Our Adam against torch.optim.Adam."""

from __future__ import annotations

import torch

from trainers.adam import Adam


def test_every_step_equals_that_of_torch_bit_for_bit_also_after_a_restart() -> None:
    draw = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=draw) for shape in [(3, 5), (7,), (2, 3, 3, 3), (1,)]]
    theirs = [weight.clone() for weight in ours]
    for weight in (*ours, *theirs):
        weight.requires_grad_(True)
    mine, of_torch = Adam(ours), torch.optim.Adam(theirs, lr=1.0, fused=True)
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
        again = Adam(ours)
        again.load(mine.state())
        mine = again
