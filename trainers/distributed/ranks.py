"""The processes that train one stage together, and what they tell each other. World size 1 needs no
process group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of the stage. With world_size > 1 torch's default process group must
    be open, and every method is called by all ranks.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that reads checkpoints and writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums over ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensors: list[Tensor]) -> None:
        """Replaces every tensor by its mean over ranks."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor.div_(self.world_size)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Gathers the rows of all ranks one under the other; every rank brings the same number."""
        if self.world_size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def share_bytes(self, data: bytes | None, device: torch.device) -> bytes | None:
        """Sends what the first rank holds to every rank. Others pass None."""
        if self.world_size == 1:
            return data
        size = torch.tensor([-1 if data is None else len(data)], dtype=torch.int64, device=device)
        dist.broadcast(size, 0)
        if int(size) < 0:
            return None
        content = torch.empty(int(size), dtype=torch.uint8, device=device)
        if data is not None and self.first:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()

    def any(self, here: bool, device: torch.device) -> bool:
        """Returns whether it is so on some rank."""
        if self.world_size == 1:
            return here
        return bool(self.sum(torch.tensor([int(here)], device=device)).item())

    def wait(self) -> None:
        """Waits until every rank has come this far."""
        if self.world_size > 1:
            dist.barrier()


ALONE = Ranks()
