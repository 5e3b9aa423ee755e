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
    } | changes
    number = 0 if parts["parent"] is None else 1
    negatives = bool(parts["inputs"].negative_ids.size)
    planned = {"plan": parts["method"].stage(number, 2, has_negatives=negatives)}
    return stage_key(**(planned | parts))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"draw": 2},
        {"fingerprint": "other data"},
        {"world_size": 2},
        {"device_kind": "cuda"},
        {"salt": "a trial"},
        {"metric": "mAP"},
        {"inputs": dataclasses.replace(INPUTS, labels=np.array([1, 1], np.int32))},
        {"method": MeanTeacherConfig(epochs=1)},
        {"method": MeanTeacherConfig(init="continue")},
    ],
)
def test_whatever_a_stage_depends_on_is_in_its_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


LISTED = MeanTeacherConfig(labelled_per_batch=(3, 4), warmup_epochs=1.0, nls=False)
NONE_REFUSED = dataclasses.replace(
    INPUTS, negative_ids=INPUTS.negative_ids[:0], negative_classes=INPUTS.negative_classes[:0]
)


@pytest.mark.parametrize(
    ("method", "inputs", "keys"),
    [
        (
            MeanTeacherConfig(),
            INPUTS,
            ("a2abf821eb5b041cf4c0744be512917d", "d57637e630ab38f5aae6a885789aefb7"),
        ),
        (
            MeanTeacherConfig(init="continue"),
            INPUTS,
            ("a2abf821eb5b041cf4c0744be512917d", "b6fb74eb07e04db8e866c92d7c56b295"),
        ),
        (
            LISTED,
            INPUTS,
            ("38ab726e2b37f43ed1de4fde9aa11c3e", "949edbcf3f92c17610caa6fbdca58e18"),
        ),
        (
            MeanTeacherConfig(nls=False, negative_weight=0.5),
            NONE_REFUSED,
            ("b2ec922e3311a84c71afa178c6561bd9", "d91e2279f52718a2c2670866e6932500"),
        ),
    ],
)
def test_keys_of_stages_on_disk_are_what_they_were_in_0_2_0(
    method: MeanTeacherConfig, inputs: StageInputs, keys: tuple[str, str]
) -> None:
    """So that a sweep that is resumed finds what it trained."""
    found = (
        key(method=method, inputs=inputs, parent=None, draw=0),
        key(method=method, inputs=inputs, draw=1),
    )
    assert found == keys


def test_all_that_a_plan_says_is_in_the_key() -> None:
    plan = MeanTeacherConfig().stage(1, 2, has_negatives=True)
    changes: list[dict[str, Any]] = [
        {},
        {"settings": {**plan.settings, "momentum": 0.5}},
        {"epochs": (0, 21)},
        {"epochs": (20, 40)},
        {"epochs": (20, 20)},
        *({"reads": reads} for reads in (("model",), ("state",), ("scores",), ("state", "scores"))),
    ]
    keys = [key(plan=dataclasses.replace(plan, **change)) for change in changes]
    assert len(set(keys)) == len(keys)


def test_the_stage_before_is_in_the_key_only_where_weights_come_from_it() -> None:
    assert key(parent="another") == key()
    going_on = MeanTeacherConfig(init="continue")
    assert key(method=going_on, parent="another") != key(method=going_on)
