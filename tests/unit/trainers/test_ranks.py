"""The number of ranks changes nothing but the time: float64, no batch norm."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from orchestrator.engines.launch import device_of_rank
from tests.helpers.stage_world import QUICK, scores, some_inputs, stage_request, write_cache
from trainers.distributed.ranks import Ranks
from trainers.run import run_stage
from trainers.stage import StageRequest

EXACT = dataclasses.replace(
    QUICK,
    backbone="small_cnn_gn",
    precision="fp64",
    batch_size=17,
    negative_weight=0.2,
    entropy_weight=0.1,
)
"""An odd batch, so that the ranks' shares differ."""


def train_one_rank(rank: int, world_size: int, requests: list[StageRequest], meeting: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    try:
        for request in requests:
            run_stage(request, Ranks(rank, world_size))
    finally:
        dist.destroy_process_group()


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "model-a.pt", weights_only=True)[name]
    return state


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_two_ranks_train_what_one_trains(tmp_path: Path) -> None:
    data_dir, truth = write_cache(tmp_path / "cache")
    inputs = some_inputs(truth)
    alone = stage_request(data_dir, inputs, tmp_path / "alone", method=EXACT)
    expected = scores(alone, run_stage(alone))

    def dies_after_two(entry: dict[str, int]) -> None:
        if entry["epoch"] == 1:
            raise Killed

    # The second stage was begun by one rank and is finished by two.
    together = stage_request(data_dir, inputs, tmp_path / "together", method=EXACT)
    taken_up = stage_request(data_dir, inputs, tmp_path / "taken_up", method=EXACT)
    with pytest.raises(Killed):
        run_stage(taken_up, on_epoch=dies_after_two)
    mp.start_processes(
        train_one_rank,
        (2, [together, taken_up], str(tmp_path / "meeting")),
        nprocs=2,
        start_method="spawn",
    )

    for request in (together, taken_up):
        for net in ("student", "teacher"):
            one, two = weights(alone.work_dir, net), weights(request.work_dir, net)
            for name in one:
                torch.testing.assert_close(two[name], one[name], atol=1e-10, rtol=0)
        for name, array in expected.items():
            found = np.load(request.work_dir / f"scores-a.{name}.npy")
            if array.dtype.kind == "i":
                assert np.array_equal(found, array), name
            else:
                np.testing.assert_allclose(found, array, atol=1e-6)
        assert not list(request.work_dir.glob("epoch-*"))


def test_each_rank_of_a_machine_has_a_gpu_of_its_own() -> None:
    assert [device_of_rank("cuda", rank) for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [device_of_rank("cpu", rank) for rank in range(2)] == ["cpu", "cpu"]
    assert device_of_rank("cuda:1", 0) == "cuda:1"
