"""What `plan` assumes of a data set is what preparing it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.data.prepare import prepare
from orchestrator.data.sources.cifar import CIFAR10, CIFAR100
from orchestrator.data.sources.folders import (
    IMAGENET_CLASSES,
    IMAGENET_TEST,
    IMAGENET_TRAIN,
    MINI_CLASSES,
    MINI_TEST,
    MINI_TRAIN,
)
from search_spaces.reading import datasets
from search_spaces.reading.config import DatasetConfig
from tests.helpers.dataset_files import write_features, write_image_folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


def test_the_constants_of_digits_are_those_of_the_prepared_digits() -> None:
    config = DatasetConfig(name="digits")
    data = prepare(config)
    assert datasets.facts(config) == data.facts
    assert (
        datasets.size(config).smallest_class
        == np.bincount(np.load(data.labels_dir / "train.npy")).min()
    )


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_a_counted_folder_has_as_many_images_as_the_prepared_one(
    tmp_path: Path, test_name: str
) -> None:
    root = write_image_folder(tmp_path / "photos", test_name=test_name)
    (root / "train/cat/.hidden.png").write_bytes(b"")
    (root / "train/cat/notes.txt").write_bytes(b"")
    config = DatasetConfig(name="folder", path=str(root))
    assert datasets.facts(config) == prepare(config).facts


@pytest.mark.parametrize("rows", [60, 61, 64])
def test_a_feature_files_header_tells_what_preparing_it_gives(tmp_path: Path, rows: int) -> None:
    x, y = np.random.default_rng(0).normal(size=(rows, 4)), np.arange(rows) % 3
    for path in (
        write_features(tmp_path / "a.npz", x=x, y=y),
        write_features(tmp_path / "b.npz", x=x, y=y, x_test=x[:7], y_test=y[:7]),
    ):
        config = DatasetConfig(name="features", path=str(path))
        data = prepare(config)
        assert datasets.facts(config) == data.facts
        assert (
            datasets.size(config).smallest_class
            <= np.bincount(np.load(data.labels_dir / "train.npy")).min()
        )


def test_the_constants_of_published_sets_are_those_their_readers_insist_on() -> None:
    for layout, name in ((CIFAR10, "cifar10"), (CIFAR100, "cifar100")):
        facts = datasets.facts(DatasetConfig(name=name))
        sizes = tuple(sum(layout.batches[split].values()) for split in ("train", "test"))
        assert (facts.num_classes, facts.train_items, facts.test_items) == (
            layout.num_classes,
            *sizes,
        )
    mini = datasets.facts(DatasetConfig(name="mini_imagenet"))
    assert (mini.num_classes, mini.train_items, mini.test_items) == (
        MINI_CLASSES,
        MINI_CLASSES * MINI_TRAIN,
        MINI_CLASSES * MINI_TEST,
    )
    imagenet = datasets.facts(DatasetConfig(name="imagenet"))
    assert (imagenet.num_classes, imagenet.train_items, imagenet.test_items) == (
        IMAGENET_CLASSES,
        IMAGENET_TRAIN,
        IMAGENET_TEST,
    )
