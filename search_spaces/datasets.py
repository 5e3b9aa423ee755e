"""Sizes of data sets, known before anything is decoded: constants of the built-in ones, counted files of a folder, headers of a feature file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from search_spaces.config import DatasetConfig, DatasetFacts
from search_spaces.errors import SpecError
from search_spaces.image_folders import class_images, split_folders
from trainers.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSize:
    """What the checks of a spec need of a data set."""

    facts: DatasetFacts
    smallest_class: int
    """Training images of the class that has the fewest; of classes held out by shares, at least this many."""


def _images(name: str, num_classes: int, train_items: int, test_items: int, smallest_class: int) -> DatasetSize:
    facts = DatasetFacts(name=name, num_classes=num_classes, train_items=train_items, test_items=test_items, kind="images")
    return DatasetSize(facts=facts, smallest_class=smallest_class)


BUILT_IN: Final = {
    size.facts.name: size
    for size in (
        _images("digits", 10, 1200, 597, 116),
        _images("cifar10", 10, 50_000, 10_000, 5000),
        _images("cifar100", 100, 50_000, 10_000, 500),
        _images("mini_imagenet", 100, 50_000, 10_000, 500),
        _images("imagenet", 1000, 1_281_167, 50_000, 732),
    )
}


def facts(config: DatasetConfig) -> DatasetFacts:
    """What arithmetic needs to know of the data set.

    Raises:
        SpecError: the folder or file is not there or not what it should be.
    """
    return size(config).facts


def size(config: DatasetConfig) -> DatasetSize:
    """As `facts`, with the size of the smallest class."""
    if config.name in BUILT_IN:
        return BUILT_IN[config.name]
    read: Callable[[Path], DatasetSize] = _folder if config.name == "folder" else _features
    path = config.path or ""
    try:
        found = read(Path(path).expanduser())
    except DataError as error:
        raise SpecError(str(error), key="dataset.path", value=path) from None
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise SpecError(f"cannot be read ({reason})", key="dataset.path", value=path, hint=_FEATURES_HINT if config.name == "features" else None) from None
    if found.facts.num_classes < 2:
        raise SpecError("has one class only, and there is nothing to ask", key="dataset.path", value=path)
    return found


# What a truncated or mangled archive makes the zip and array readers raise.
_UNREADABLE: Final = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error)

_FEATURES_HINT: Final = "write it with numpy.savez(FILE, x=features, y=classes): x [N, D] numbers, y [N] whole numbers from 0"


def _folder(path: Path) -> DatasetSize:
    train_folder, test_folder = split_folders(path)
    train = {name: len(files) for name, files in class_images(train_folder).items()}
    test = class_images(test_folder)
    return _images("folder", len(train), sum(train.values()), sum(map(len, test.values())), min(train.values()))


def _features(path: Path) -> DatasetSize:
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        arrays = {name.removesuffix(".npy") for name in archive.namelist()}
        for name in ("x", "y"):
            if name not in arrays:
                raise DataError(f"has no array {name}; {_FEATURES_HINT}")
        if ("x_test" in arrays) != ("y_test" in arrays):
            raise DataError("x_test and y_test belong together, and only one of them is there")
        x_shape, _ = _header(archive, "x")
        y_shape, y_kind = _header(archive, "y")
        if len(x_shape) != 2 or len(y_shape) != 1 or x_shape[0] != y_shape[0] or not y_shape[0]:
            raise DataError(f"x has shape {list(x_shape)} and y {list(y_shape)}; {_FEATURES_HINT}")
        if y_kind not in "iu":
            raise DataError(f"y does not hold whole numbers; {_FEATURES_HINT}")
        test_items = _header(archive, "x_test")[0][0] if "x_test" in arrays else None
        with archive.open("y.npy") as file:
            labels = np.lib.format.read_array(file, allow_pickle=False)
    items = len(labels)
    if labels.min() < 0 or labels.max() >= items:
        raise DataError(f"y holds classes from {labels.min()} to {labels.max()}; they must run from 0 without gaps")
    counts = np.bincount(labels.astype(np.int64))
    if not counts.all():
        raise DataError(f"no row has class {int(counts.argmin())}; classes must run from 0 without gaps")
    smallest = int(counts.min())
    if test_items is None:
        # A fifth of every class is held out, rounded either way.
        test_items = items // 5
        smallest -= -(-smallest // 5)
        items -= test_items
    found = DatasetFacts(name="features", num_classes=len(counts), train_items=items, test_items=int(test_items), kind="features")
    return DatasetSize(facts=found, smallest_class=smallest)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], str]:
    """(shape, kind of dtype) of an array in the archive, without reading its numbers."""
    from numpy.lib import format as npy

    with archive.open(f"{name}.npy") as file:
        read: Any = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        return shape, dtype.kind
