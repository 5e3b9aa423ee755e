"""Small data sets on disk, as users have them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orchestrator.data.sources.cifar import BatchLayout

SMALL_CIFAR = BatchLayout(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    batches={"train": {"data_batch_1": 20, "data_batch_2": 20}, "test": {"test_batch": 10}},
    labels_key="labels",
    names_file="batches.meta",
    names_key="label_names",
    num_classes=10,
)


def random_image(*key: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """RGB noise of `size` (width, height), the same for the same key."""
    return Image.fromarray(
        np.random.default_rng(key).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def write_image_folder(
    root: Path,
    *,
    classes: tuple[str, ...] = ("cat", "dog", "emu"),
    train: int = 5,
    test: int = 2,
    test_name: str = "test",
) -> Path:
    """ROOT/train and ROOT/<test_name> with PNG images of 8 x 8 pixels; no two images are alike."""
    for split, count in (("train", train), (test_name, test)):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                random_image(c, k, split == "train").save(folder / f"{name}-{k}.png")
    return root


def write_cifar(root: Path, layout: BatchLayout = SMALL_CIFAR, protocol: int = 2) -> Path:
    """Random images in the published layout; classes go round, so that every class is there."""
    folder = root / layout.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for batches in layout.batches.values():
        for name, items in batches.items():
            batch = {
                "data": rng.integers(0, 256, (items, 3072), dtype=np.uint8),
                layout.labels_key: [k % layout.num_classes for k in range(items)],
            }
            write_pickle(folder / name, batch, protocol)
    write_pickle(
        folder / layout.names_file,
        {layout.names_key: [f"class {c}" for c in range(layout.num_classes)]},
        protocol,
    )
    return root


def write_pickle(path: Path, value: Any, protocol: int = 2) -> None:
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def write_features(path: Path, **changes: Any) -> Path:
    """60 rows of 4 features in 3 classes; `changes` replaces arrays, or leaves one out where it is
    None.
    """
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x": rng.normal(size=(60, 4)).astype(np.float32),
        "y": np.arange(60) % 3,
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path
