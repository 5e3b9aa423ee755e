"""What is wrong with a data cache is said with the file and what was expected of it."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.stage_world import (
    CLASSES,
    TRAIN,
    score_bytes,
    scores,
    some_inputs,
    stage_request,
    write_cache,
)
from trainers.data.items import Items, open_data
from trainers.errors import DataError
from trainers.negatives import Negatives
from trainers.run import run_stage


def meta_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        meta = {name: value for name, value in {**meta, **changes}.items() if value is not None}
        (folder / "meta.json").write_text(json.dumps(meta))

    return change


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no meta": (
        lambda folder: (folder / "meta.json").unlink(),
        r"meta\.json: cannot be read .* expected a prepared data cache",
    ),
    "half a meta": (
        lambda folder: (folder / "meta.json").write_text('{"name": '),
        r"meta\.json: cannot be read as JSON",
    ),
    "meta is a list": (
        lambda folder: (folder / "meta.json").write_text("[1]"),
        r"meta\.json: lacks name",
    ),
    "meta without a key": (meta_with(fingerprint=None), r"meta\.json: lacks fingerprint"),
    "unknown kind": (meta_with(kind="sound"), r"meta\.json: kind: 'sound'; expected"),
    "wrong number of means": (
        meta_with(mean=[0.1, 0.2]),
        r"meta\.json: mean and std have 2 and 1 values; expected 1",
    ),
    "no images": (lambda folder: (folder / "train.npy").unlink(), r"train\.npy: cannot be read"),
    "cut images": (
        lambda folder: (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:-9]),
        r"train\.npy: cannot be read",
    ),
    "empty images": (
        lambda folder: (folder / "test.npy").write_bytes(b""),
        r"test\.npy: cannot be read",
    ),
    "pickled images": (
        lambda folder: np.save(folder / "test.npy", np.array([{}], object), allow_pickle=True),
        r"test\.npy: cannot be read",
    ),
    "too few images": (
        lambda folder: np.save(folder / "train.npy", np.zeros((3, 8, 8, 1), np.uint8)),
        r"train\.npy: holds uint8 \[3, 8, 8, 1\]; meta\.json says uint8 \[120",
    ),
    "images of another type": (
        lambda folder: np.save(folder / "train.npy", np.zeros((TRAIN, 8, 8, 1))),
        r"train\.npy: holds float64",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_cache_is_named(tmp_path: Path, name: str) -> None:
    folder, _ = write_cache(tmp_path / "cache")
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(DataError, match=message):
        open_data(folder)


def test_a_cache_is_opened_once_and_again_when_it_changed(tmp_path: Path) -> None:
    folder, _ = write_cache(tmp_path / "cache")
    first = open_data(folder)
    assert open_data(folder) is first
    meta_with(name="renamed")(folder)
    assert open_data(folder).name == "renamed"


@pytest.mark.parametrize("kind", ["images", "features"])
def test_items_are_normalised(tmp_path: Path, kind: str) -> None:
    folder, _ = write_cache(tmp_path / "cache", kind=kind)
    items = Items(
        open_data(folder),
        "train",
        device=torch.device("cpu"),
        dtype=torch.float64,
        feature_noise=0.5,
    )
    (rows,) = items.rows([np.arange(TRAIN)])
    values = items.plain(rows)
    over = (0, 2, 3) if kind == "images" else (0,)
    assert torch.allclose(values.mean(over), torch.zeros(1, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(
        values.std(over, correction=0), torch.ones(1, dtype=torch.float64), atol=1e-5
    )
    ids, visits = torch.arange(TRAIN), torch.zeros(TRAIN, dtype=torch.int64)
    one, other = items.view(rows, ids, visits, 1), items.view(rows, ids, visits, 2)
    assert one.shape == other.shape == values.shape
    assert not torch.equal(one, other)
    if kind == "features":
        assert (one - values).std().item() == pytest.approx(0.5, rel=0.05)


def test_a_constant_feature_stays_zero_in_every_view(tmp_path: Path) -> None:
    folder, _ = write_cache(tmp_path / "cache", kind="features")
    values = np.load(folder / "train.npy")
    values[:, 3] = 0.25
    np.save(folder / "train.npy", values)
    meta = json.loads((folder / "meta.json").read_text())
    meta["mean"][3], meta["std"][3] = 0.25, 0.0
    (folder / "meta.json").write_text(json.dumps(meta))
    items = Items(
        open_data(folder),
        "train",
        device=torch.device("cpu"),
        dtype=torch.float32,
        feature_noise=0.5,
    )
    ids = torch.arange(TRAIN)
    (rows,) = items.rows([np.arange(TRAIN)])
    assert (items.view(rows, ids, ids, 1)[:, 3] == 0).all()


def test_items_that_are_streamed_train_the_same_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    outcomes = []
    for name in ("resident", "streamed"):
        request = stage_request(folder, some_inputs(truth), tmp_path / name)
        outcomes.append(score_bytes(request, run_stage(request)))
        monkeypatch.setattr("trainers.data.items._fits", lambda rows, device: False)
    assert outcomes[0] == outcomes[1]


def test_streamed_items_come_in_order_and_leave_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.data.items._fits", lambda rows, device: False)
    folder, _ = write_cache(tmp_path / "cache")
    items = Items(
        open_data(folder), "train", device=torch.device("cpu"), dtype=torch.float32, feature_noise=0
    )
    stored = np.load(folder / "train.npy")
    parts = [np.arange(start, TRAIN, 7) for start in range(7)]
    for part, rows in zip(parts, items.rows(parts), strict=True):
        assert np.array_equal(rows.numpy(), stored[part])
    assert not multiprocessing.active_children()


def test_images_kept_larger_than_their_views_are_cut_to_the_middle(tmp_path: Path) -> None:
    folder, truth = write_cache(tmp_path / "cache")
    meta_with(crop=6, augment={"rotation": 10.0, "resized_crop": True, "flip": True})(folder)
    data = open_data(folder)
    assert data.shape == (6, 6, 1)
    items = Items(data, "test", device=torch.device("cpu"), dtype=torch.float64, feature_noise=0)
    (rows,) = items.rows([np.arange(4)])
    middle = np.load(folder / "test.npy")[:4, 1:7, 1:7]
    expected = (middle / 255 - np.array(data.mean)) / np.array(data.std)
    np.testing.assert_allclose(items.plain(rows).permute(0, 2, 3, 1).numpy(), expected, atol=1e-12)
    request = stage_request(folder, some_inputs(truth), tmp_path / "stage")
    assert np.isfinite(scores(request, run_stage(request))["confidence"]).all()


def test_a_recipe_of_another_version_is_refused(tmp_path: Path) -> None:
    folder, _ = write_cache(tmp_path / "cache")
    meta_with(augment={"shift": 1, "cutout": 4})(folder)
    with pytest.raises(DataError, match=r"augment: cutout is not known here"):
        open_data(folder)


def test_refused_classes_are_found_by_image() -> None:
    truth = (np.arange(TRAIN) % CLASSES).astype(np.int32)
    inputs = some_inputs(truth)
    negatives = Negatives(inputs, TRAIN, CLASSES)
    wanted = np.array(
        [
            inputs.negative_ids[3],
            inputs.label_ids[0],
            inputs.negative_ids[0],
            inputs.negative_ids[3],
        ]
    )
    rows, classes = negatives.pairs(wanted)
    assert rows.tolist() == [0, 2, 3]
    assert classes.tolist() == inputs.negative_classes[[3, 0, 3]].tolist()
    assert len(negatives) == len(inputs.negative_ids)


def test_refusals_that_cannot_all_be_true_are_left_out() -> None:
    truth = (np.arange(TRAIN) % CLASSES).astype(np.int32)
    inputs = some_inputs(truth)
    labelled, unlabelled = inputs.label_ids[0], inputs.pool_ids[-1]
    from dataclasses import replace

    ids = np.array([labelled, labelled] + [unlabelled] * CLASSES)
    classes = np.array(
        [truth[labelled], (truth[labelled] + 1) % CLASSES, *range(CLASSES)], np.int32
    )
    negatives = Negatives(
        replace(inputs, negative_ids=ids, negative_classes=classes), TRAIN, CLASSES
    )
    rows, kept = negatives.pairs(np.array([labelled, unlabelled]))
    assert (rows.tolist(), kept.tolist()) == ([0], [(truth[labelled] + 1) % CLASSES])
