"""Sizes of data sets, known before anything is decoded: constants of the built-in ones, counted
files of a folder, headers of a feature file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from search_spaces.reading.config import DatasetConfig, DatasetFacts
from search_spaces.reading.errors import SpecError
from search_spaces.reading.image_folders import train_and_test
from search_spaces.reading.user_files import expand
from trainers.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSize:
    """What the checks of a spec need of a data set."""

    facts: DatasetFacts
    smallest_class: int
    """Training images of the class that has the fewest; of classes held out by shares, at least
    this many.
    """


def _images(
    name: str, num_classes: int, train_items: int, test_items: int, smallest_class: int
) -> DatasetSize:
    facts = DatasetFacts(
        name=name,
        num_classes=num_classes,
        train_items=train_items,
        test_items=test_items,
        kind="images",
    )
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


NAMES: Final = (*BUILT_IN, "folder", "features")
"""Every data set by its name in a spec."""


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
    path = config.path or ""
    try:
        place = expand(path, "dataset.path")
        match config.name:
            case "folder":
                found = _folder(place)
            case "features":
                found = _features(place)
            case unknown:
                raise SpecError(
                    f"no reader knows the sizes of data set {unknown}",
                    key="dataset.name",
                    value=unknown,
                )
    except DataError as error:
        raise SpecError(str(error), key="dataset.path", value=path) from None
    except OSError as error:
        raise SpecError(
            f"cannot be read ({error.strerror or error})", key="dataset.path", value=path
        ) from None
    return found


def _folder(path: Path) -> DatasetSize:
    splits = train_and_test(path)
    train = {name: len(files) for name, files in splits["train"].items()}
    test = splits["test"]
    return _images(
        "folder", len(train), sum(train.values()), sum(map(len, test.values())), min(train.values())
    )


def _features(path: Path) -> DatasetSize:
    import numpy as np

    from search_spaces.reading.feature_files import TEST_SHARE, read_feature_file

    read = read_feature_file(path)
    smallest, items = int(np.bincount(read.y).min()), len(read.y)
    if read.y_test is None:
        # A share of every class is held out, rounded either way.
        test_items = items // TEST_SHARE
        smallest -= -(-smallest // TEST_SHARE)
        items -= test_items
    else:
        test_items = len(read.y_test)
    facts = DatasetFacts(
        name="features",
        num_classes=len(read.class_names),
        train_items=items,
        test_items=test_items,
        kind="features",
    )
    return DatasetSize(facts=facts, smallest_class=smallest)
