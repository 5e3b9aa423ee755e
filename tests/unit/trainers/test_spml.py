"""The training of a stage from few labels: what it learns from, when it ends, how it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import CPU, committed, some_inputs, stage_request, write_cache
from trainers.data.items import open_data
from trainers.distributed.ranks import ALONE
from trainers.errors import SettingsError
from trainers.method import as_planned
from trainers.metrics import MEAN_AVERAGE_PRECISION
from trainers.run import run_stage
from trainers.spml.settings import READS, Spml
from trainers.spml.trainer import SpmlTrainer
from trainers.stage import StageInputs, StageRequest

QUICK = Spml(epochs=6, warmup_epochs=2, batch_size=8, learning_rate=0.05, expected_positives=1.0)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, StageInputs]:
    data, truth = write_cache(tmp_path / "cache", kind="features")
    return data, some_inputs(truth, labelled=32, refused=20)


def request_of(
    world: tuple[Path, StageInputs], tmp_path: Path, method: Spml, number: int = 0, **changes: Any
) -> StageRequest:
    plan = method.stage(number, 1, has_negatives=True)
    work = tmp_path / f"stage-{number}-{method.loss}"
    changes |= {"method": method, "plan": plan, "metric": MEAN_AVERAGE_PRECISION, "stage": number}
    return stage_request(*world, work, **changes)


def trainer(world: tuple[Path, StageInputs], method: Spml, number: int = 0) -> SpmlTrainer:
    plan = method.stage(number, 1, has_negatives=True)
    settings = as_planned(method, plan)
    named: dict[str, Any] = {"seed": 0, "device": CPU, "ranks": ALONE, "parent": None}
    return SpmlTrainer(plan, settings, open_data(world[0]), world[1], **named)


@pytest.mark.parametrize("loss", READS)
def test_every_loss_learns_from_single_positives(
    loss: Any, world: tuple[Path, StageInputs], tmp_path: Path
) -> None:
    inputs = replace(
        world[1],
        negative_ids=np.empty(0, np.int64),
        negative_classes=np.empty(0, np.int32),
    )
    outcome = run_stage(request_of((world[0], inputs), tmp_path, replace(QUICK, loss=loss)))
    # By chance it is about 25.
    assert outcome.metrics["validation_best"] > (40 if loss == "iu" else 80)
    assert "named" not in outcome.metrics


def test_images_of_which_nothing_is_known_are_left_to_the_student(
    world: tuple[Path, StageInputs], tmp_path: Path
) -> None:
    inputs = world[1]
    known = np.union1d(inputs.label_ids, inputs.negative_ids)
    assert np.array_equal(trainer(world, QUICK).ids, known) and len(known) < len(inputs.pool_ids)
    method = replace(QUICK, student="last", threshold=0.5)
    first = request_of(world, tmp_path, method)
    teacher = committed(first, run_stage(first))
    request = request_of(world, tmp_path, method, 1, parent=teacher)
    outcome = run_stage(request)
    pairs = teacher.scores()["probabilities"] > 0.5
    at = np.searchsorted(inputs.pool_ids, inputs.negative_ids)
    pairs[at, inputs.negative_classes] = False
    pairs[np.searchsorted(inputs.pool_ids, inputs.label_ids), inputs.labels] = True
    count = outcome.metrics["named"]["pseudo labels per image"]
    assert count == pytest.approx(pairs.sum() / len(pairs))
    assert outcome.metrics["steps"] == 6 * (len(inputs.pool_ids) // 8)


def test_a_teacher_reads_nothing_of_its_student() -> None:
    plain = QUICK.stage(0, 1, has_negatives=True)
    other = replace(QUICK, student="last", threshold=0.95, keep_observed=False)
    assert other.stage(0, 1, has_negatives=True) == plain
    student = other.stage(1, 1, has_negatives=True)
    assert student.reads == ("scores",) and "loss" not in student.settings
    assert replace(other, loss="an").stage(1, 1, has_negatives=True) == student
    assert other.stage(1, 2, has_negatives=True).reads == ()
    assert replace(other, student="all").stage(1, 2, has_negatives=True).reads == ("scores",)


@pytest.mark.parametrize(
    ("patience", "values", "over"),
    [
        (None, [3, 2, 1], False),
        (1, [], False),
        (1, [3], False),
        (1, [3, 3], True),
        (1, [3, 4], False),
        (2, [3, 2], False),
        (2, [3, 2, 3], True),
        (2, [3, 2, 4], False),
        (1, [None, None], False),
    ],
)
def test_a_training_ends_where_validation_has_not_gained(
    patience: int | None, values: list[Any], over: bool, world: tuple[Path, StageInputs]
) -> None:
    history = [{"validation": value} for value in values]
    assert trainer(world, replace(QUICK, patience=patience)).is_over(history) is over


@pytest.mark.parametrize("scaling", ["common", "each"])
def test_features_keep_their_spread_under_one_number_for_all(
    scaling: Any, world: tuple[Path, StageInputs]
) -> None:
    found = trainer(world, replace(QUICK, scaling=scaling))
    values = torch.from_numpy(np.array(open_data(world[0]).train))
    seen = found.net.trunk(found.items.plain(values))
    assert float(seen.square().mean()) == pytest.approx(1, rel=1e-4)
    ratio = seen.std(0) / values.std(0)
    assert (float(ratio.std() / ratio.mean()) < 1e-4) is (scaling == "common")


@dataclass(frozen=True)
class Facts:
    """What the settings are checked against."""

    kind: str = "features"
    num_classes: int = 6


@pytest.mark.parametrize("loss", ["epr", "role"])
def test_no_more_categories_are_expected_of_an_image_than_there_are(loss: Any) -> None:
    replace(QUICK, loss=loss, expected_positives=6.0).check(Facts())
    with pytest.raises(SettingsError, match="6 categories at most"):
        replace(QUICK, loss=loss, expected_positives=6.5).check(Facts())
    # Other losses do not read it.
    replace(QUICK, loss="em", expected_positives=7.0).check(Facts())
