"""A quick ObCP on the small data cache of tests.helpers.stage_world."""

from __future__ import annotations

import torch

from trainers.data.items import StageData
from trainers.distributed.ranks import ALONE, Ranks
from trainers.method import as_planned
from trainers.obcp.settings import ObcpConfig
from trainers.obcp.trainer import ObcpTrainer
from trainers.stage import StageInputs

SMALL = ObcpConfig(
    backbone="small_cnn",
    epochs=4,
    first_query_epoch=1,
    batch_size=20,
    queue_size=40,
    projection_dim=6,
    learning_rate=0.1,
    contrastive_weight=0.5,
    negative_weight=0.5,
    temperature=0.3,
    key_momentum=0.9,
    weight_decay=0.01,
    class_negatives=12,
    mean_epochs=3,
    recent_epochs=2,
    precision="fp64",
)
"""N is more than some classes have labels."""

CPU = torch.device("cpu")


def obcp(
    config: ObcpConfig,
    data: StageData,
    inputs: StageInputs,
    *,
    seed: int = 5,
    device: torch.device = CPU,
    ranks: Ranks = ALONE,
    rounds: int = 0,
) -> ObcpTrainer:
    """The trainer of the whole training as one stage, on one rank; with rounds that of the stage
    before the first of them, which knows answers even so.
    """
    plan = config.stage(0, rounds, has_negatives=True)
    return ObcpTrainer(
        plan,
        as_planned(config, plan),
        data,
        inputs,
        seed=seed,
        device=device,
        ranks=ranks,
        parent=None,
    )
