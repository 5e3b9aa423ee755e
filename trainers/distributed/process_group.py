"""Opens and closes the process group in which ranks train together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from trainers.distributed.ranks import ALONE, Ranks

LONGEST_WAIT = timedelta(minutes=30)
"""A collective call that takes longer has lost a rank that nobody saw die."""


@contextmanager
def process_group(
    *, rank: int, world_size: int, address: str, port: int, device: str
) -> Iterator[Ranks]:
    """This process is rank `rank` of `world_size` for the length of the block: gloo on CPUs, nccl
    on GPUs.

    Args:
        address: where rank 0 listens, on `port`.
    """
    if world_size == 1:
        yield ALONE
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(
        backend,
        init_method=f"tcp://{address}:{port}",
        rank=rank,
        world_size=world_size,
        timeout=LONGEST_WAIT,
    )
    try:
        yield Ranks(rank=rank, world_size=world_size)
    finally:
        dist.destroy_process_group()
