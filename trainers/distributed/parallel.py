"""A network whose gradients are averaged over ranks."""

from __future__ import annotations

import inspect
from typing import Any, Final

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainers.distributed.ranks import Ranks

_SWITCHES = inspect.signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: Final[Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _SWITCHES else "broadcast_buffers": False
}
"""Each rank keeps its batch norm statistics between steps; torch 2.15 has renamed the switch."""


def data_parallel(net: nn.Module, ranks: Ranks) -> nn.Module:
    """Returns the network as all ranks train it together: gradients are means over ranks, and each
    keeps its own statistics. Alone it is the network itself.
    """
    return net if ranks.world_size == 1 else DistributedDataParallel(net, **_OWN_BUFFERS)
