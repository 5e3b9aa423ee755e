"""The network of ObCP: a trunk under a class head and a head of contrastive features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.data.items import Items, StageData
from trainers.distributed.ranks import Ranks
from trainers.networks import backbones
from trainers.obcp.settings import ObcpConfig
from trainers.stage import Ids


class Encoder(backbones.TwoHeads):
    """Trunk [n, ...] -> [n, width], class head [n, C] and projection [n, d] to unit length."""

    def __init__(self, net: backbones.TwoHeads, config: ObcpConfig) -> None:
        width = net.class_head.in_features
        super().__init__(net.trunk, width, net.class_head.out_features, single=True)
        self.class_head = net.class_head
        last = nn.Linear(width, config.projection_dim)
        self.projection = (
            last
            if config.projection == "linear"
            else nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), last)
        )

    def forward(self, x: Tensor, plain: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Returns the class logits [plain, C] of the first `plain` rows, and the contrastive
        features [n - plain, d] of the others.
        """
        features = self.trunk(x)
        return self.class_head(features[:plain]), self._unit(features[plain:])

    def keys(self, x: Tensor) -> Tensor:
        """Returns the contrastive features [n, d]."""
        return self._unit(self.trunk(x))

    def _unit(self, features: Tensor) -> Tensor:
        found = self.projection(features)
        return functional.normalize(found if found.dtype == torch.float64 else found.float(), dim=1)


def build(
    name: str, data: StageData, config: ObcpConfig, *, seed: int, device: torch.device
) -> Encoder:
    """Returns the network with weights that are a function of (name, shapes, settings, seed)."""
    net = backbones.build(name, data, single_head=True, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        encoder = Encoder(net, config)
    encoder.to(device=device, dtype=torch.float64 if config.precision == "fp64" else torch.float32)
    return (
        encoder.to(memory_format=torch.channels_last) if backbones.channels_last(name) else encoder
    )


@torch.no_grad()
def keys_of(net: Encoder, items: Items, ids: Ids, ranks: Ranks) -> Tensor:
    """Returns the contrastive features [n, d] of images as they are, in eval mode, in the order of
    `ids`, at least one. Ranks split the work and get the same.
    """
    padded = np.resize(ids, -(-len(ids) // ranks.world_size) * ranks.world_size)
    mine = padded[ranks.rank :: ranks.world_size]
    parts = [mine[start : start + items.at_once] for start in range(0, len(mine), items.at_once)]
    net.eval()
    keys = torch.cat([net.keys(items.plain(rows)) for rows in items.rows(parts)])
    by_rank = ranks.gather_rows(keys).view(ranks.world_size, -1, keys.shape[1])
    return by_rank.transpose(0, 1).flatten(0, 1)[: len(ids)]


@torch.no_grad()
def follow(key: Sequence[Tensor], query: Sequence[Tensor], keep: float) -> None:
    """Updates key <- keep * key + (1 - keep) * query, in place (He et al. 2020)."""
    torch._foreach_lerp_(list(key), list(query), 1.0 - keep)
