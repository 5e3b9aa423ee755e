"""A stage is a function of its request and the data, and every setting does what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import (
    CLASSES,
    QUICK,
    TEST,
    VALIDATION_IDS,
    committed,
    files_of,
    mean_teacher,
    score_bytes,
    scores,
    some_inputs,
    stage_request,
    write_cache,
)
from trainers.data.items import open_data
from trainers.distributed.ranks import ALONE
from trainers.errors import DataError
from trainers.mean_teacher.method import MeanTeacher
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.networks.precision import precision_used
from trainers.run import _Stage, run_stage
from trainers.stage import SCORE_ARRAYS, Classes, StageInputs, StageOutcome, StageRequest


def test_a_stage_leaves_scores_a_model_and_nothing_else(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(data_dir, inputs, tmp_path)
    seen: list[dict[str, Any]] = []
    outcome = run_stage(request, on_epoch=seen.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == files_of("a")
    arrays = scores(request, outcome)
    assert tuple(arrays) == SCORE_ARRAYS
    assert np.array_equal(arrays["item_ids"], inputs.pool_ids)
    assert {name: array.dtype.str for name, array in arrays.items()} == {
        "item_ids": "<i8",
        "guess": "<i4",
        "confidence": "<f4",
        "margin": "<f4",
        "entropy": "<f4",
        "raw_guess": "<i4",
        "raw_confidence": "<f4",
        "raw_margin": "<f4",
        "raw_entropy": "<f4",
        "val_guess_last": "<i4",
        "test_guess_last": "<i4",
        "test_guess_best_val": "<i4",
    }
    assert len(arrays["test_guess_last"]) == TEST
    metrics = outcome.metrics
    assert (
        100 * (arrays["val_guess_last"] == inputs.validation_labels).mean()
        == metrics["validation_last"]
    )
    assert (
        [entry["epoch"] for entry in metrics["history"]]
        == list(range(QUICK.epochs))
        == [entry["epoch"] for entry in seen]
    )
    assert metrics["validation_last"] == metrics["history"][-1]["validation"]
    assert (
        metrics["validation_best"]
        == max(entry["validation"] for entry in metrics["history"])
        == metrics["history"][metrics["best_val_epoch"]]["validation"]
    )
    assert metrics["images"] == metrics["steps"] * QUICK.batch_size
    assert metrics["resumed_from_epoch"] is None


def test_arrays_that_are_wanted_are_kept_and_change_nothing_else(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    request = stage_request(data_dir, inputs, tmp_path, wants=("embedding",))
    outcome = run_stage(request)
    found = scores(request, outcome)
    assert found["embedding"].shape == (len(inputs.pool_ids), 64)
    assert found["embedding"].dtype == np.float32
    assert np.isfinite(found["embedding"]).all()
    features = torch.from_numpy(np.array(found["embedding"]))
    model = torch.load(tmp_path / outcome.files["model"], weights_only=True)["teacher"]
    logits = features @ model["class_head.weight"].T + model["class_head.bias"]
    assert np.array_equal(logits.argmax(1), found["raw_guess"])
    assert {k: v for k, v in score_bytes(request, outcome).items() if k != "embedding"} == (
        uninterrupted
    )


def test_arrays_are_made_of_a_trained_stage_as_its_training_would_have_made_them(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    wanted = stage_request(data_dir, inputs, tmp_path / "wanted", wants=("embedding",))
    expected = score_bytes(wanted, run_stage(wanted))["embedding"]
    plain = stage_request(data_dir, inputs, tmp_path / "plain")
    files = committed(plain, run_stage(plain))
    later = dataclasses.replace(plain, attempt="b", wants=("embedding",), committed=files)
    seen: list[dict[str, Any]] = []
    outcome = run_stage(later, on_epoch=seen.append)
    assert (list(outcome.files), seen) == (["scores/embedding"], [])
    assert score_bytes(later, outcome) == {"embedding": expected}
    (plain.work_dir / "model-a.pt").write_bytes(b"rubbish")
    rubbish = dataclasses.replace(
        later, committed=committed(plain, StageOutcome(files={"model": "model-a.pt"}, metrics={}))
    )
    with pytest.raises(DataError, match=r"model-a\.pt: embedding cannot be made of it"):
        run_stage(rubbish)


def test_patterns_are_learnt(
    data_dir: Path, cache: tuple[Path, Classes], inputs: StageInputs, tmp_path: Path
) -> None:
    request = stage_request(
        data_dir, inputs, tmp_path, method=dataclasses.replace(QUICK, epochs=20)
    )
    outcome = run_stage(request)
    assert outcome.metrics["validation_last"] > 70
    arrays = scores(request, outcome)
    assert (arrays["test_guess_last"] == np.arange(TEST) % CLASSES).mean() > 0.7
    assert (arrays["raw_guess"] == cache[1][arrays["item_ids"]]).mean() > 0.7


def test_refused_classes_are_never_guessed(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    # Refuse what an untrained net would say, so that masking has something to do.
    resting = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-9)
    request = stage_request(data_dir, inputs, tmp_path / "first", method=resting)
    before = scores(request, run_stage(request))
    refused = dataclasses.replace(
        inputs, negative_ids=before["item_ids"][20:], negative_classes=before["raw_guess"][20:]
    )
    request = stage_request(data_dir, refused, tmp_path / "second", method=resting)
    after = scores(request, run_stage(request))
    assert not (after["guess"][20:] == refused.negative_classes).any()
    assert (after["raw_guess"][20:] == refused.negative_classes).mean() > 0.5
    assert (after["confidence"][20:] >= 1 / CLASSES).all()
    for name in ("guess", "confidence", "margin", "entropy"):
        assert np.array_equal(after[name][:20], after[f"raw_{name}"][:20])
    # Of all classes they are what they were before anything was refused.
    for name in ("raw_confidence", "raw_margin", "raw_entropy"):
        assert np.allclose(after[name], before[name], atol=1e-5)
    assert (np.abs(after["margin"][20:] - after["raw_margin"][20:]) > 1e-4).any()
    assert (np.abs(after["entropy"][20:] - after["raw_entropy"][20:]) > 1e-4).any()


def test_the_same_request_gives_the_same_bytes(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    """Neither names, folders, the number of the stage, nor the state of the global generators
    enter.
    """
    torch.manual_seed(99)
    np.random.seed(99)
    request = stage_request(data_dir, inputs, tmp_path, attempt="b", key="other", stage=7)
    assert score_bytes(request, run_stage(request)) == uninterrupted
    other = stage_request(data_dir, inputs, tmp_path, attempt="c", seed=4)
    assert score_bytes(other, run_stage(other)) != uninterrupted


def test_stages_of_one_seed_are_independent_draws_and_equal_draws_are_equal(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    def drawn(**changes: Any) -> tuple[list[torch.Tensor], Any, torch.Tensor]:
        trainer = _Stage(
            stage_request(data_dir, inputs, tmp_path, **changes), ALONE, torch.device("cpu")
        ).trainer
        assert isinstance(trainer, MeanTeacher)
        epoch = trainer.sampler.epoch(0)
        weights = [
            weight.detach().flatten()
            for name, weight in trainer.student.named_parameters()
            if weight.ndim > 1
        ]
        return weights, epoch.ids, next(iter(trainer.batches(0, epoch))).student_view

    first, again, later = drawn(stage=1, draw=1), drawn(stage=4, draw=1), drawn(stage=1, draw=2)
    assert all(torch.equal(one, other) for one, other in zip(first[0], again[0], strict=True))
    assert np.array_equal(first[1], again[1]) and torch.equal(first[2], again[2])
    # Weights of another stage are no nearer than those of another seed: nothing of the start is
    # shared.
    for one, other in zip(first[0], later[0], strict=True):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 4 / len(one) ** 0.5
    assert (first[1] == later[1]).mean() < 0.2
    # And a row's view is another even where the image is the same.
    assert not torch.equal(first[2], later[2])


def test_a_stage_that_goes_on_from_the_one_before_has_batches_of_its_own(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    parent = stage_request(data_dir, inputs, tmp_path / "parent")
    model = committed(parent, run_stage(parent))
    going_on = dataclasses.replace(QUICK, init="continue", epochs=1)
    found = []
    for draw in (1, 2):
        request = stage_request(
            data_dir, inputs, tmp_path / str(draw), method=going_on, parent=model, draw=draw
        )
        found.append(score_bytes(request, run_stage(request)))
    assert found[0] != found[1]


def test_the_outcome_knows_only_the_inputs(
    data_dir: Path,
    cache: tuple[Path, Classes],
    inputs: StageInputs,
    tmp_path: Path,
    uninterrupted: dict[str, bytes],
) -> None:
    """Labels beside the cache, right or wrong, are not read; a label bought is."""
    other = tmp_path / "images" / "patterns"
    other.mkdir(parents=True)
    for file in data_dir.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    labels = tmp_path / "labels" / "patterns"
    labels.mkdir(parents=True)
    np.save(labels / "train.npy", cache[1][::-1])
    request = stage_request(other, inputs, tmp_path / "work")
    assert score_bytes(request, run_stage(request)) == uninterrupted
    changed = dataclasses.replace(inputs, labels=(inputs.labels + 1) % CLASSES)
    request = stage_request(other, changed, tmp_path / "changed")
    assert score_bytes(request, run_stage(request)) != uninterrupted


def test_validation_labels_choose_the_best_epoch_and_nothing_else(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    changed = dataclasses.replace(
        inputs, validation_labels=(inputs.validation_labels + 1) % CLASSES
    )
    request = stage_request(data_dir, changed, tmp_path)
    found = score_bytes(request, run_stage(request))
    assert {k: v for k, v in found.items() if k != "test_guess_best_val"} == {
        k: v for k, v in uninterrupted.items() if k != "test_guess_best_val"
    }


def test_without_validation_the_last_epoch_is_the_best(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    empty = dataclasses.replace(
        inputs, validation_ids=VALIDATION_IDS[:0], validation_labels=np.empty(0, np.int32)
    )
    request = stage_request(data_dir, empty, tmp_path)
    outcome = run_stage(request)
    arrays = scores(request, outcome)
    assert np.array_equal(arrays["test_guess_last"], arrays["test_guess_best_val"])
    assert (
        outcome.metrics["validation_last"],
        outcome.metrics["validation_best"],
        outcome.metrics["best_val_epoch"],
    ) == (None, None, None)


def both(
    data_dir: Path, inputs: StageInputs, folder: Path, a: MeanTeacherConfig, b: MeanTeacherConfig
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    found = []
    for name, method in (("a", a), ("b", b)):
        request = stage_request(data_dir, inputs, folder, attempt=name, method=method)
        found.append(score_bytes(request, run_stage(request)))
    return found[0], found[1]


@pytest.mark.parametrize("change", [{"nls": False}, {"negative_weight": 0.5}])
def test_settings_of_refusals_are_read_exactly_when_declared(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, change: dict[str, Any]
) -> None:
    changed = dataclasses.replace(QUICK, **change)
    none = dataclasses.replace(
        inputs, negative_ids=inputs.negative_ids[:0], negative_classes=inputs.negative_classes[:0]
    )
    for given, name in ((inputs, "some"), (none, "none")):
        a, b = both(data_dir, given, tmp_path / name, QUICK, changed)
        negatives = len(given.negative_ids) > 0
        declared = QUICK.stage(0, 1, has_negatives=negatives) == changed.stage(
            0, 1, has_negatives=negatives
        )
        assert (a == b) == declared == (not negatives)


@pytest.mark.parametrize(
    "change",
    [
        {"consistency": "kl"},
        {"nls_positive": "onehot"},
        {"logit_distance_weight": -1.0},
        {"entropy_weight": 0.3},
        {"teacher_init": "random"},
        {"ema_decay": 0.9},
        {"labelled_share": 0.5},
        {"labelled_per_batch": (7,)},
        {"warmup_epochs": 1.0},
        {"precision": "fp64"},
        {"backbone": "small_cnn_gn"},
    ],
)
def test_every_setting_trains_and_matters(
    data_dir: Path, inputs: StageInputs, tmp_path: Path, change: dict[str, Any]
) -> None:
    method = dataclasses.replace(QUICK, epochs=2, consistency_rampup_epochs=0.0, ema_decay=0.8)
    a, b = both(data_dir, inputs, tmp_path, method, dataclasses.replace(method, **change))
    assert a != b


def test_continue_starts_from_the_stage_before(
    data_dir: Path, inputs: StageInputs, tmp_path: Path
) -> None:
    parent = stage_request(data_dir, inputs, tmp_path / "parent")
    before = committed(parent, run_stage(parent))
    model = before.path("model")
    resting = dataclasses.replace(
        QUICK, init="continue", learning_rate=1e-12, weight_decay=0.0, momentum=0.0
    )
    request = stage_request(
        data_dir, inputs, tmp_path / "child", method=resting, parent=before, seed=77
    )
    run_stage(request)
    saved = {
        path: torch.load(path, weights_only=True)
        for path in (model, tmp_path / "child" / "model-a.pt")
    }
    students = [state["student"] for state in saved.values()]
    weights = [name for name in students[0] if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(students[0][name], students[1][name], atol=1e-6) for name in weights)
    fresh = stage_request(
        data_dir,
        inputs,
        tmp_path / "fresh",
        method=dataclasses.replace(resting, init="scratch"),
        parent=before,
        seed=77,
    )
    run_stage(fresh)
    other = torch.load(tmp_path / "fresh" / "model-a.pt", weights_only=True)["student"]
    assert not any(
        torch.allclose(students[0][name], other[name], atol=1e-3)
        for name in weights
        if "head" in name
    )


def test_features_train_on_a_perceptron_and_on_a_linear_head(tmp_path: Path) -> None:
    folder, truth = write_cache(tmp_path / "features", kind="features")
    for backbone in ("auto", "linear"):
        method = dataclasses.replace(
            QUICK, backbone=backbone, epochs=6, learning_rate=0.1, feature_noise=0.2
        )
        request = stage_request(folder, some_inputs(truth), tmp_path / backbone, method=method)
        outcome = run_stage(request)
        assert outcome.metrics["backbone"] == {"auto": "mlp", "linear": "linear"}[backbone]
        assert outcome.metrics["validation_last"] > 70


def test_bf16_is_used_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert precision_used("bf16", "cpu", "images") == expected
        assert precision_used("bf16", "cpu", "features") == "fp32"
    assert precision_used("bf16", "cuda", "features") == "bf16"
    assert precision_used("fp64", "cpu", "images") == "fp64"


def test_a_pool_all_labelled_still_trains(
    data_dir: Path, cache: tuple[Path, Classes], inputs: StageInputs, tmp_path: Path
) -> None:
    full = dataclasses.replace(
        inputs,
        label_ids=inputs.pool_ids,
        labels=cache[1][inputs.pool_ids],
        negative_ids=inputs.negative_ids[:0],
        negative_classes=inputs.negative_classes[:0],
    )
    outcome = run_stage(stage_request(data_dir, full, tmp_path))
    assert outcome.metrics["steps"] == QUICK.epochs * (len(inputs.pool_ids) // QUICK.batch_size)


@pytest.mark.parametrize("kind", ["images", "features"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"consistency": "kl"},
        {"nls_positive": "onehot"},
        {"nls": False},
        {"negative_weight": 0.5},
        {"entropy_weight": 0.01},
        {"logit_distance_weight": -1.0},
        {"labelled_share": 0.7},
        {"labelled_per_batch": (9,)},
    ],
)
def test_labels_that_miss_classes_train_under_every_loss_and_sampler(
    tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    """As blind draws may: with one class of four missing, and with one class there alone, in a
    single label.
    """
    folder, truth = write_cache(tmp_path / "cache", kind=kind)
    inputs = some_inputs(truth)
    for name, held in (("missing", np.flatnonzero(inputs.labels != 2)), ("alone", np.array([0]))):
        few = dataclasses.replace(
            inputs, label_ids=inputs.label_ids[held], labels=inputs.labels[held]
        )
        method = dataclasses.replace(QUICK, backbone="auto", epochs=2, learning_rate=0.1, **change)
        request = stage_request(folder, few, tmp_path / name, method=method)
        outcome = run_stage(request)
        assert outcome.metrics["epochs"] == 2
        assert np.isfinite(outcome.metrics["loss_last"])
        assert all(np.isfinite(array).all() for array in scores(request, outcome).values())


def test_student_and_teacher_see_other_views_of_the_same_images(
    data_dir: Path, inputs: StageInputs
) -> None:
    trainer = mean_teacher(QUICK, open_data(data_dir), inputs)
    for number in (0, 1):
        epoch = trainer.sampler.epoch(number)
        batches = list(trainer.batches(number, epoch))
        assert len(batches) == epoch.steps
        for step, batch in enumerate(batches):
            assert not torch.equal(batch.student_view, batch.teacher_view)
            assert (
                batch.labels.tolist()
                == trainer.label_of[epoch.ids[step, epoch.unlabelled :]].tolist()
            )
            refused = {
                (int(i), int(c))
                for i, c in zip(inputs.negative_ids, inputs.negative_classes, strict=True)
                if i in epoch.ids[step]
            }
            found = zip(
                epoch.ids[step][batch.negative_rows.numpy()].tolist(),
                batch.negative_classes.tolist(),
                strict=True,
            )
            assert set(found) == refused


def test_the_request_sets_the_threads(data_dir: Path, inputs: StageInputs, tmp_path: Path) -> None:
    request: StageRequest = stage_request(
        data_dir, inputs, tmp_path, threads=2, method=dataclasses.replace(QUICK, epochs=1)
    )
    try:
        run_stage(request)
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(1)
