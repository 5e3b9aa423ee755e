"""Two ranks train by ObCP what one trains, and hold the same queue: in float64 and without batch
norm (I35).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.helpers.obcp import SMALL, obcp
from tests.helpers.stage_world import some_inputs, write_cache
from trainers.data.items import open_data
from trainers.distributed.ranks import ALONE, Ranks

EXACT = dataclasses.replace(
    SMALL, backbone="small_cnn_gn", batch_size=40, mask_same_class=True, class_negatives=None
)


def train(folder: Path, name: str, ranks: Ranks) -> None:
    """Trains past the first question and leaves the state of this rank in a file."""
    for predictions in ("eval", "online"):
        config = dataclasses.replace(EXACT, predictions=predictions)
        inputs = torch.load(folder / "inputs.pt", weights_only=False)
        trainer = obcp(config, open_data(folder / "cache"), inputs, ranks=ranks, rounds=1)
        for epoch in (0, 1):
            trainer.train_epoch(epoch)
            if epoch == 0:
                uncertainty = trainer.scores("pool", inputs.pool_ids, ("uncertainty",))
        state = {**trainer.state(), "uncertainty": torch.from_numpy(uncertainty["uncertainty"])}
        torch.save(state, folder / f"{name}-{predictions}-{ranks.rank}.pt")


def train_one_rank(rank: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    try:
        train(folder, "together", Ranks(rank, 2))
    finally:
        dist.destroy_process_group()


def tensors(state: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Name -> tensor of everything in a state."""
    if isinstance(state, torch.Tensor):
        return {name: state.double()}
    pairs = state.items() if isinstance(state, dict) else enumerate(state)
    found = {}
    for key, value in pairs:
        if isinstance(value, torch.Tensor | dict | list):
            found |= tensors(value, f"{name}/{key}")
    return found


@pytest.mark.slow
def test_two_ranks_train_what_one_trains_and_hold_the_same_queue(tmp_path: Path) -> None:
    _, truth = write_cache(tmp_path / "cache")
    torch.save(some_inputs(truth), tmp_path / "inputs.pt")
    train(tmp_path, "alone", ALONE)
    mp.start_processes(train_one_rank, (tmp_path,), nprocs=2, start_method="spawn")
    for predictions in ("eval", "online"):
        alone, first, second = (
            tensors(torch.load(tmp_path / f"{name}-{predictions}-{rank}.pt", weights_only=True))
            for name, rank in (("alone", 0), ("together", 0), ("together", 1))
        )
        assert {name.split("/")[1] for name in alone} >= {"queue", "labelled", "key", "uncertainty"}
        assert any(name.startswith("/history") for name in alone)
        for name, expected in alone.items():
            # Predictions and their sums have 32 bits.
            bits = 1e-4 if name.startswith(("/history", "/uncertainty")) else 1e-10
            torch.testing.assert_close(first[name], expected, atol=bits, rtol=0, msg=name)
            if not name.startswith("/history"):
                assert torch.equal(first[name], second[name]), name
        assert not any(name.startswith("/history") for name in second)
