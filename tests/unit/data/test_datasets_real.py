"""Real images, where there are some: ORCHESTRATE_TEST_DATA names a folder with tiny100-32.tar.gz
and cifar10-jpg.tar.gz (class folders of 32 x 32 JPEGs).
"""

from __future__ import annotations

import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.data.image_folders import class_images
from orchestrator.data.prepare import prepare
from orchestrator.data.sources.cifar import CIFAR10, Cifar10
from orchestrator.data.sources.folders import Folder
from tests.helpers.dataset_files import write_pickle

pytestmark = pytest.mark.slow


def unpack(archive: str, place: Path) -> Path:
    file = Path(os.environ.get("ORCHESTRATE_TEST_DATA", "")) / archive
    if "ORCHESTRATE_TEST_DATA" not in os.environ or not file.is_file():
        pytest.skip(f"needs {archive} in the folder that ORCHESTRATE_TEST_DATA names")
    with tarfile.open(file) as opened:
        opened.extractall(place, filter="data")
    return place / archive.removesuffix(".tar.gz")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


def test_fifty_thousand_jpegs_are_decoded_once(tmp_path: Path) -> None:
    root = unpack("tiny100-32.tar.gz", tmp_path)
    config = Folder(path=str(root))
    start = time.perf_counter()
    data = prepare(config)
    decoded = time.perf_counter()
    assert prepare(config) == data
    print(
        f"decoded in {decoded - start:.1f} s, found again in {time.perf_counter() - decoded:.2f} s"
    )
    assert (data.facts.num_classes, data.facts.train_items, data.facts.test_items) == (
        100,
        50_000,
        5_000,
    )
    images, labels = (
        np.load(data.images_dir / "test.npy", mmap_mode="r"),
        np.load(data.labels_dir / "test.npy"),
    )
    rows = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    for label, files in enumerate(class_images(root / "val").values()):
        assert rows[np.asarray(Image.open(files[7]).convert("RGB")).tobytes()] == label


def test_cifar_batches_and_the_same_images_in_folders_are_the_same_data(tmp_path: Path) -> None:
    root = unpack("cifar10-jpg.tar.gz", tmp_path)
    images = {split: class_images(root / split) for split in ("train", "test")}
    names = list(images["train"])
    folder = tmp_path / CIFAR10.folder
    folder.mkdir()
    write_pickle(folder / CIFAR10.names_file, {CIFAR10.names_key: names})
    for split, batches in CIFAR10.batches.items():
        files = [(file, label) for label, name in enumerate(names) for file in images[split][name]]
        order = np.random.default_rng(0).permutation(len(files))
        for batch, chosen in zip(batches, np.split(order, len(batches)), strict=True):
            pixels = np.stack(
                [np.asarray(Image.open(files[k][0])).transpose(2, 0, 1).reshape(-1) for k in chosen]
            )
            write_pickle(
                folder / batch, {"data": pixels, CIFAR10.labels_key: [files[k][1] for k in chosen]}
            )
    from_batches, from_files = (
        prepare(Cifar10(path=str(folder))),
        prepare(Folder(path=str(root))),
    )
    for split in ("train", "test"):
        found = [
            sorted(
                (image.tobytes(), int(label))
                for image, label in zip(
                    np.load(data.images_dir / f"{split}.npy"),
                    np.load(data.labels_dir / f"{split}.npy"),
                    strict=True,
                )
            )
            for data in (from_batches, from_files)
        ]
        assert found[0] == found[1]
