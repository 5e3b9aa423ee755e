"""A small data cache and stage requests for tests of the trainers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from orchestrator.contracts.stages import (
    CLASSES,
    TEST,
    TRAIN,
    VALIDATION_IDS,
    committed,
    some_inputs,
    write_cache,
)
from trainers.data.items import StageData
from trainers.distributed.ranks import ALONE
from trainers.mean_teacher.method import MeanTeacher
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.method import Method, as_planned
from trainers.stage import SCORE_ARRAYS, StageInputs, StageOutcome, StageRequest

CPU = torch.device("cpu")
QUICK = MeanTeacherConfig(
    backbone="small_cnn",
    epochs=4,
    batch_size=18,
    learning_rate=0.3,
    ema_decay=0.7,
    precision="fp32",
    consistency_rampup_epochs=2,
)


def stage_request(
    data_dir: Path, inputs: StageInputs, work_dir: Path, **changes: Any
) -> StageRequest:
    """A quick stage 1 of 4, planned by its method; the changes are fields of StageRequest."""
    work_dir.mkdir(parents=True, exist_ok=True)
    method: Method = changes.pop("method", QUICK)
    plan = method.stage(1, 4, has_negatives=bool(len(inputs.negative_ids)))
    request = StageRequest(
        key="k" * 64,
        stage=1,
        seed=3,
        method=method,
        plan=plan,
        data_dir=data_dir,
        inputs=inputs,
        work_dir=work_dir,
        attempt="a",
        checkpoint_seconds=0,
    )
    return dataclasses.replace(request, **changes)


__all__ = [
    "CLASSES",
    "TEST",
    "TRAIN",
    "VALIDATION_IDS",
    "committed",
    "some_inputs",
    "write_cache",
]


def mean_teacher(
    config: MeanTeacherConfig,
    data: StageData,
    inputs: StageInputs,
    *,
    seed: int = 0,
    device: torch.device = CPU,
) -> MeanTeacher:
    """The trainer of a stage of its own, on one rank."""
    plan = config.stage(0, 0, has_negatives=True)
    return MeanTeacher(
        plan,
        as_planned(config, plan),
        data,
        inputs,
        seed=seed,
        device=device,
        ranks=ALONE,
        parent=None,
    )


def files_of(attempt: str) -> list[str]:
    """Names of the files that a finished attempt leaves, ascending."""
    return [f"model-{attempt}.pt", *sorted(f"scores-{attempt}.{name}.npy" for name in SCORE_ARRAYS)]


def scores(request: StageRequest, outcome: StageOutcome) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a stage, by name."""
    return dict(committed(request, outcome).scores())


def score_bytes(request: StageRequest, outcome: StageOutcome) -> dict[str, bytes]:
    """Each array's own bytes: equal only if every bit is."""
    return {
        name: array.dtype.str.encode() + array.tobytes()
        for name, array in scores(request, outcome).items()
    }
