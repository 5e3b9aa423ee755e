"""CIFAR in its published layout: pixels in the right order, nothing but arrays unpickled, damage
named.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data.prepare import prepare
from orchestrator.data.protocols import Loaded
from orchestrator.data.sources.cifar import CIFAR10, CIFAR100, Batches, Cifar100
from tests.helpers.dataset_files import SMALL_CIFAR, write_cifar, write_pickle
from trainers.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cifar(tmp_path / "cifar")


def load(root: Path, folder: Path) -> Loaded:
    folder.mkdir(exist_ok=True)
    source = Batches(root, SMALL_CIFAR)
    source.signature()
    return source.load(folder, lambda done, total: None)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("inner", [False, True])
def test_batches_become_images_in_file_order(tmp_path: Path, protocol: int, inner: bool) -> None:
    root = write_cifar(tmp_path / "cifar", protocol=protocol)
    loaded = load(root / SMALL_CIFAR.folder if inner else root, tmp_path / "out")
    images = np.load(tmp_path / "out/train.npy")
    assert images.shape == (40, 32, 32, 3)
    batches = [
        pickle.loads((root / SMALL_CIFAR.folder / f"data_batch_{k}").read_bytes()) for k in (1, 2)
    ]
    flat = np.concatenate([batch["data"] for batch in batches])
    # A row is 1,024 red values, then green, then blue, each line by line.
    assert np.array_equal(
        images[23, 4, 5], [flat[23, channel * 1024 + 4 * 32 + 5] for channel in range(3)]
    )
    assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(40, 3072), flat)
    assert loaded.labels["train"].tolist() == [
        label for batch in batches for label in batch["labels"]
    ]
    assert loaded.labels["train"].dtype == np.int32
    assert (loaded.augment, loaded.crop, len(loaded.class_names)) == (
        {"shift": 4, "flip": True},
        None,
        10,
    )


class Harmful:
    """Would make a folder when unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def test_a_batch_cannot_run_code(tmp_path: Path, root: Path) -> None:
    write_pickle(root / SMALL_CIFAR.folder / "test_batch", {"data": Harmful(tmp_path / "made")})
    with pytest.raises(DataError, match=r"test_batch: cannot be read .*refers to posix.mkdir"):
        load(root, tmp_path / "out")
    assert not (tmp_path / "made").exists()


def damage(folder: Path, name: str) -> str:
    """Damages the batches; returns what the message must say."""
    file = folder / "data_batch_2"
    batch = pickle.loads(file.read_bytes())
    match name:
        case "missing batch":
            file.unlink()
            layout = (
                "PATH/cifar-10-batches-py/ with data_batch_1, data_batch_2, test_batch and"
                " batches.meta"
            )
            return (
                f"data_batch_2: no such file. Expected CIFAR-10's python version unpacked: {layout}"
            )
        case "missing names":
            (folder / "batches.meta").unlink()
            return "batches.meta: no such file"
        case "truncated":
            file.write_bytes(file.read_bytes()[:-1000])
            return "data_batch_2: cannot be read"
        case "empty":
            file.write_bytes(b"")
            return "data_batch_2: cannot be read"
        case "too few images":
            write_pickle(file, {"data": batch["data"][:7], "labels": batch["labels"][:7]})
            return "data_batch_2: `data` is uint8 [7, 3072]; expected uint8 [20, 3072]"
        case "other type":
            write_pickle(file, batch | {"data": batch["data"].astype(float)})
            return "data_batch_2: `data` is float64 [20, 3072]"
        case "no data":
            write_pickle(file, {"labels": batch["labels"]})
            return "data_batch_2: `data` is NoneType"
        case "a list":
            write_pickle(file, [1, 2])
            return "data_batch_2: holds list, not a batch"
        case "too few labels":
            write_pickle(file, batch | {"labels": batch["labels"][:7]})
            return "data_batch_2: `labels` is not a list of 20 whole numbers"
        case "ragged labels":
            write_pickle(file, batch | {"labels": [[1], [2, 3]]})
            return "data_batch_2: `labels` is not a list of 20 whole numbers"
        case "label out of range":
            write_pickle(file, batch | {"labels": [*batch["labels"][:5], 10, *batch["labels"][6:]]})
            return "data_batch_2: labels[5] is 10; CIFAR-10's classes are 0..9"
        case "negative label":
            write_pickle(file, batch | {"labels": [*batch["labels"][:5], -1, *batch["labels"][6:]]})
            return "data_batch_2: labels[5] is -1"
        case "class without images":
            for number in (1, 2):
                write_pickle(
                    folder / f"data_batch_{number}", batch | {"labels": [k % 9 for k in range(20)]}
                )
            return "no train image has class 9 (class 9)"
        case "names of other length":
            write_pickle(folder / "batches.meta", {"label_names": ["one"]})
            return "batches.meta: label_names is not a list of 10 names"
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        "missing batch",
        "missing names",
        "truncated",
        "empty",
        "too few images",
        "other type",
        "no data",
        "a list",
        "too few labels",
        "ragged labels",
        "label out of range",
        "negative label",
        "class without images",
        "names of other length",
    ],
)
def test_damage_is_named(tmp_path: Path, root: Path, name: str) -> None:
    message = damage(root / SMALL_CIFAR.folder, name)
    with pytest.raises(DataError) as raised:
        load(root, tmp_path / "out")
    assert message in str(raised.value)


def test_the_layouts_are_those_that_torchvision_reads() -> None:
    from torchvision import datasets

    for layout, theirs in ((CIFAR10, datasets.CIFAR10), (CIFAR100, datasets.CIFAR100)):
        assert layout.folder == theirs.base_folder
        assert list(layout.batches["train"]) == [name for name, _ in theirs.train_list]
        assert list(layout.batches["test"]) == [name for name, _ in theirs.test_list]
        assert (layout.names_file, layout.names_key) == (
            theirs.meta["filename"],
            theirs.meta["key"],
        )
        assert (sum(layout.batches["train"].values()), sum(layout.batches["test"].values())) == (
            50_000,
            10_000,
        )


def test_cifar100_of_full_size_is_prepared_with_the_published_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data/cifar-100-python"
    folder.mkdir(parents=True)
    write_pickle(
        folder / "meta",
        {"fine_label_names": [f"class {c}" for c in range(100)], "coarse_label_names": []},
    )
    for name, items in (("train", 50_000), ("test", 10_000)):
        pixels = np.zeros((items, 3072), np.uint8)
        pixels[:, 0] = np.arange(items) % 251
        write_pickle(
            folder / name,
            {
                "data": pixels,
                "fine_labels": [k % 100 for k in range(items)],
                "coarse_labels": [0] * items,
            },
        )
    data = prepare(Cifar100(path=str(tmp_path / "data")))
    assert (data.facts.num_classes, data.facts.train_items, data.facts.test_items) == (
        100,
        50_000,
        10_000,
    )
    meta = json.loads((data.images_dir / "meta.json").read_text())
    assert (meta["mean"], meta["std"]) == ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
    assert np.load(data.images_dir / "train.npy", mmap_mode="r")[300, 0, 0].tolist() == [
        300 % 251,
        0,
        0,
    ]
