"""What makes two stages one: the key under which a trained stage is kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from orchestrator.sweeps.stage_store import stage_key
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.stage import StageInputs

IDS = np.arange(6, dtype=np.int64)
INPUTS = StageInputs(
    pool_ids=IDS,
    label_ids=IDS[:2],
    labels=np.array([0, 1], np.int32),
    negative_ids=IDS[3:4],
    negative_classes=np.array([1], np.int32),
    validation_ids=IDS[:0],
    validation_labels=np.empty(0, np.int32),
)


def key(**changes: Any) -> str:
    parts: dict[str, Any] = {
        "method": MeanTeacherConfig(),
        "fingerprint": "data",
        "inputs": INPUTS,
        "seed": 0,
        "draw": 1,
        "parent": "before",
        "world_size": 1,
        "device_kind": "cpu",
    }
    return stage_key(**(parts | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"draw": 2},
        {"fingerprint": "other data"},
        {"world_size": 2},
        {"device_kind": "cuda"},
        {"salt": "a trial"},
        {"inputs": dataclasses.replace(INPUTS, labels=np.array([1, 1], np.int32))},
        {"method": MeanTeacherConfig(epochs=1)},
        {"method": MeanTeacherConfig(init="continue")},
    ],
)
def test_whatever_a_stage_depends_on_is_in_its_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_the_stage_before_is_in_the_key_only_where_weights_come_from_it() -> None:
    assert key(parent="another") == key()
    going_on = MeanTeacherConfig(init="continue")
    assert key(method=going_on, parent="another") != key(method=going_on)
