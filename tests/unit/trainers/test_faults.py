"""A stage that died goes on as if it had not, and one that cannot be trained says why."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import (
    CLASSES,
    QUICK,
    VALIDATION_IDS,
    files_of,
    score_bytes,
    scores,
    stage_request,
)
from trainers import checkpoint, predict
from trainers.artefacts import StageDamaged, StageFile, StageFiles, sha256_of
from trainers.data.items import Items, open_data
from trainers.distributed.ranks import ALONE
from trainers.errors import DataError
from trainers.networks import backbones as networks
from trainers.run import run_stage
from trainers.stage import Interrupted, StageInputs, TrainingFailed


class Killed(BaseException):
    """Stands for the death of the process: nothing in the product catches it."""


def dies_after(epochs: int) -> Callable[[dict[str, Any]], None]:
    def on_epoch(entry: dict[str, Any]) -> None:
        if entry["epoch"] + 1 == epochs:
            raise Killed

    return on_epoch


def test_the_best_epochs_test_guesses_are_those_of_its_teacher(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    # Validation labels that the untrained teacher of the first epoch meets best: it says one class
    # of nearly all images.
    request = stage_request(data_dir, inputs, tmp_path / "first")
    with pytest.raises(Killed):
        run_stage(request, on_epoch=dies_after(1))
    state = torch.load(
        io.BytesIO((request.work_dir / "epoch-00001-a.ckpt").read_bytes()[32:]), weights_only=True
    )
    data = open_data(data_dir)
    teacher = networks.build("small_cnn", data, single_head=False, seed=0)
    teacher.load_state_dict(state["trainer"]["teacher"])
    train, test = (
        Items(data, split, device=torch.device("cpu"), dtype=torch.float32, feature_noise=0)
        for split in ("train", "test")
    )
    said = predict.guesses(teacher.eval(), train, ALONE)
    request = stage_request(
        data_dir,
        dataclasses.replace(inputs, validation_labels=said[VALIDATION_IDS]),
        tmp_path / "whole",
    )
    outcome = run_stage(request)
    assert (outcome.metrics["best_val_epoch"], outcome.metrics["validation_best"]) == (0, 100.0)
    arrays = scores(request, outcome)
    assert np.array_equal(arrays["test_guess_best_val"], predict.guesses(teacher, test, ALONE))
    assert not np.array_equal(arrays["test_guess_best_val"], arrays["test_guess_last"])


@pytest.mark.parametrize("epochs", range(1, QUICK.epochs + 1))
def test_a_stage_killed_at_an_epoch_boundary_ends_as_if_it_had_not_been(
    data_dir: Path,
    inputs: StageInputs,
    tmp_path: Path,
    uninterrupted: dict[str, bytes],
    epochs: int,
) -> None:
    request = stage_request(data_dir, inputs, tmp_path)
    with pytest.raises(Killed):
        run_stage(request, on_epoch=dies_after(epochs))
    again = dataclasses.replace(request, attempt="b")
    outcome = run_stage(again)
    assert outcome.metrics["resumed_from_epoch"] == min(epochs, QUICK.epochs - 1)
    assert len(outcome.metrics["history"]) == QUICK.epochs
    assert score_bytes(again, outcome) == uninterrupted
    assert sorted(path.name for path in tmp_path.iterdir()) == files_of("b")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    data_dir: Path,
    inputs: StageInputs,
    tmp_path: Path,
    uninterrupted: dict[str, bytes],
    damage: str,
) -> None:
    request = stage_request(data_dir, inputs, tmp_path)
    with pytest.raises(Killed):
        run_stage(request, on_epoch=dies_after(3))
    newest = tmp_path / "epoch-00003-a.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "flipped": bytes(content),
            "empty": b"",
            "text": b"not a checkpoint",
        }[damage]
    )
    again = dataclasses.replace(request, attempt="b")
    outcome = run_stage(again)
    assert outcome.metrics["resumed_from_epoch"] == 2
    assert score_bytes(again, outcome) == uninterrupted


def test_a_checkpoint_of_another_stage_is_not_taken_up(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(data_dir, inputs, tmp_path)
    with pytest.raises(Killed):
        run_stage(request, on_epoch=dies_after(2))
    outcome = run_stage(dataclasses.replace(request, key="x" * 64, attempt="b"))
    assert outcome.metrics["resumed_from_epoch"] is None


def test_checkpoints_outlive_a_death_before_the_artefacts_are_in_place(
    data_dir: Path,
    inputs: StageInputs,
    tmp_path: Path,
    uninterrupted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = stage_request(data_dir, inputs, tmp_path)
    write = checkpoint._write

    def dies_at_the_model(path: Path, content: bytes) -> None:
        if path.name.startswith("model"):
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", dies_at_the_model)
        with pytest.raises(Killed):
            run_stage(request)
    assert list(tmp_path.glob("epoch-*.ckpt"))
    again = dataclasses.replace(request, attempt="b")
    assert score_bytes(again, run_stage(again)) == uninterrupted


def test_checkpoints_keep_their_distance_in_time(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(data_dir, inputs, tmp_path, checkpoint_seconds=3600)
    with pytest.raises(Killed):
        run_stage(request, on_epoch=dies_after(3))
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_is_asked_to_end_saves_after_the_epoch_and_loses_nothing(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    whole = stage_request(data_dir, inputs, tmp_path / "whole")
    uninterrupted = score_bytes(whole, run_stage(whole))
    request = stage_request(data_dir, inputs, tmp_path / "asked", checkpoint_seconds=3600)
    epochs: list[int] = []
    with pytest.raises(Interrupted, match="saved after epoch 1"):
        run_stage(
            request,
            on_epoch=lambda entry: epochs.append(entry["epoch"]),
            is_asked_to_end=lambda: True,
        )
    assert epochs == [0]
    assert [path.name for path in request.work_dir.iterdir()] == ["epoch-00001-a.ckpt"]
    again = dataclasses.replace(request, attempt="b")
    outcome = run_stage(again, is_asked_to_end=lambda: False)
    assert outcome.metrics["resumed_from_epoch"] == 1
    assert score_bytes(again, outcome) == uninterrupted


def test_a_rank_that_is_asked_to_end_in_its_last_epoch_ends_the_stage(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(data_dir, inputs, tmp_path, method=dataclasses.replace(QUICK, epochs=1))
    assert run_stage(request, is_asked_to_end=lambda: True).metrics["epochs"] == 1


def test_a_loss_that_is_not_finite_ends_the_stage_with_its_place(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(
        data_dir, inputs, tmp_path, stage=2, method=dataclasses.replace(QUICK, learning_rate=1e30)
    )
    with pytest.raises(
        TrainingFailed,
        match=r"stage 2: the loss is .* at step \d+ of epoch 1; try a lower method.learning_rate",
    ):
        run_stage(request)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_huge_ends_the_stage(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(
        data_dir,
        inputs,
        tmp_path,
        method=dataclasses.replace(QUICK, consistency_weight=1e9, learning_rate=1e-9),
    )
    with pytest.raises(TrainingFailed, match="the loss is"):
        run_stage(request)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no more"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_memory_that_runs_out_ends_the_stage_with_advice(
    data_dir: Path,
    inputs: StageInputs,
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("trainers.mean_teacher.method.MeanTeacher.train_epoch", exhausted)
    with pytest.raises(TrainingFailed, match=r"memory ran out on cpu.*smaller method\.batch_size"):
        run_stage(stage_request(data_dir, inputs, tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"pool_ids": np.array([3, 2, 1])},
        {"pool_ids": np.array([0, 500])},
        {"labels": np.array([CLASSES] * 16, np.int32)},
        {"labels": np.zeros(3, np.int32)},
        {"negative_classes": np.full(40, -1, np.int32)},
        {"negative_ids": np.repeat(VALIDATION_IDS, 2)},
        {"validation_ids": np.array([5, 5])},
        {"validation_labels": np.full((len(VALIDATION_IDS), CLASSES), 2)},
        {"validation_labels": np.ones((len(VALIDATION_IDS), CLASSES + 1), np.int8)},
        {"label_ids": np.repeat(np.arange(1, 5), 4), "labels": np.tile([0, 1, 1, 2], 4)},
        {
            "pool_ids": np.empty(0, np.int64),
            "label_ids": np.empty(0, np.int64),
            "labels": np.empty(0, np.int32),
        },
    ],
)
def test_inputs_that_do_not_fit_the_data_are_refused(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="patterns"):
        run_stage(stage_request(data_dir, dataclasses.replace(inputs, **change), tmp_path))


@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_a_parent_that_cannot_be_read_is_named(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, content: bytes
) -> None:
    model = tmp_path / "model-p.pt"
    model.write_bytes(content)
    request = stage_request(
        data_dir,
        inputs,
        tmp_path / "child",
        method=dataclasses.replace(QUICK, init="continue"),
        parent=StageFiles({"model": StageFile(model, sha256_of(model))}),
    )
    with pytest.raises(DataError, match=r"model-p\.pt: expected the model of the stage before"):
        run_stage(request)
    for damage in (lambda: model.write_bytes(b"other bytes"), model.unlink):
        damage()
        with pytest.raises(StageDamaged, match=r"model-p\.pt: missing or damaged"):
            run_stage(request)


def test_images_of_several_classes_are_refused_by_a_method_that_knows_one(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    twice = dataclasses.replace(
        inputs,
        label_ids=np.repeat(inputs.label_ids[:3], 2),
        labels=np.array([0, 1, 0, 2, 1, 3], np.int32),
    )
    several = dataclasses.replace(
        inputs, validation_labels=np.ones((len(VALIDATION_IDS), CLASSES), np.int8)
    )
    for given, said in ((twice, "image 1 has the classes 0 and 1"), (several, "the validation")):
        with pytest.raises(DataError, match=f"mean_teacher trains images of one class .*{said}"):
            run_stage(stage_request(data_dir, given, tmp_path))


def test_a_backbone_for_other_data_is_refused(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    with pytest.raises(
        DataError,
        match=(
            r"backbone 'mlp' does not take the data set 'patterns', which holds images; choose"
            r" auto, small_cnn"
        ),
    ):
        run_stage(
            stage_request(
                data_dir, inputs, tmp_path, method=dataclasses.replace(QUICK, backbone="mlp")
            )
        )
