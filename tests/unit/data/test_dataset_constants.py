"""What `plan` assumes of a data set is what preparing it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data.prepare import prepare
from orchestrator.data.sources.cifar import Cifar10, Cifar100
from orchestrator.data.sources.digits import Digits, DigitsFeatures
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder, Imagenet, MiniImagenet
from search_spaces.reading.datasets import contents
from tests.helpers.dataset_files import write_features, write_image_folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("config", [Digits(), DigitsFeatures()], ids=lambda config: config.name)
def test_the_constants_of_digits_are_those_of_the_prepared_digits(config: Any) -> None:
    data = prepare(config)
    assert contents(config).facts(config.name) == data.facts
    assert (
        contents(config).smallest_class == np.bincount(np.load(data.labels_dir / "train.npy")).min()
    )


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_a_counted_folder_has_as_many_images_as_the_prepared_one(
    tmp_path: Path, test_name: str
) -> None:
    root = write_image_folder(tmp_path / "photos", test_name=test_name)
    (root / "train/cat/.hidden.png").write_bytes(b"")
    (root / "train/cat/notes.txt").write_bytes(b"")
    config = Folder(path=str(root))
    assert contents(config).facts(config.name) == prepare(config).facts


@pytest.mark.parametrize("rows", [60, 61, 64])
def test_a_feature_files_header_tells_what_preparing_it_gives(tmp_path: Path, rows: int) -> None:
    x, y = np.random.default_rng(0).normal(size=(rows, 4)), np.arange(rows) % 3
    for path in (
        write_features(tmp_path / "a.npz", x=x, y=y),
        write_features(tmp_path / "b.npz", x=x, y=y, x_test=x[:7], y_test=y[:7]),
    ):
        config = Features(path=str(path))
        data = prepare(config)
        assert contents(config).facts(config.name) == data.facts
        assert (
            contents(config).smallest_class
            <= np.bincount(np.load(data.labels_dir / "train.npy")).min()
        )


def test_the_published_sizes_of_the_sets() -> None:
    """Numbers of the papers, written here a second time on purpose: what is in the tables of
    results depends on them.
    """
    found = {
        source.name: (held.num_classes, held.train_items, held.test_items, held.smallest_class)
        for source in (Cifar10(), Cifar100(), MiniImagenet(), Imagenet())
        for held in [contents(source)]
    }
    assert found == {
        "cifar10": (10, 50_000, 10_000, 5000),
        "cifar100": (100, 50_000, 10_000, 500),
        "mini_imagenet": (100, 50_000, 10_000, 500),
        "imagenet": (1000, 1_281_167, 50_000, 732),
    }
