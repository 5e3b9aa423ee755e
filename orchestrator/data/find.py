"""Finds a data set's files from its name and path; the sources themselves are one module a kind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.data.arrays import Loaded, Progress, Source, held_out_rows, write_array
from orchestrator.data.decoding import Crop
from orchestrator.data.sources.cifar import CIFAR10, CIFAR100, Cifar
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import (
    IMAGENET_STATISTICS,
    IMAGENET_VIEWS,
    MINI_IMAGENET_STATISTICS,
    MINI_IMAGENET_VIEWS,
    ImageFolders,
    imagenet,
    mini_imagenet,
)
from search_spaces.reading.config import DatasetConfig
from search_spaces.reading.datasets import NAMES as DATASETS
from search_spaces.reading.image_folders import train_and_test
from search_spaces.reading.user_files import expand
from trainers.errors import DataError

DIGITS_TEST_ITEMS: Final = 597

OWN: Final = ("folder", "features")
"""Names that stand for any data of that form, so that they always need a path."""

RESIZED: Final = ("folder", "mini_imagenet", "imagenet")


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits that ship inside scikit-learn: 1,797 images of 8 x 8 pixels (UCI, Alpaydin
    and Kaynak 1998).
    """

    def signature(self) -> str:
        # The set never changes, so a cache that was brought here serves where scikit-learn is not
        # installed.
        return "digits"

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(
                f"digits: the images ship inside scikit-learn, which cannot be imported ({error})."
                " Install it: pip install scikit-learn"
            ) from None
        found = load_digits()
        # 0..16 in the source.
        images = np.rint(found.images * 255 / 16).astype(np.uint8)[..., None]
        labels = found.target.astype(np.int32)
        is_test = np.zeros(len(labels), bool)
        is_test[held_out_rows(labels, DIGITS_TEST_ITEMS)] = True
        write_array(folder / "train.npy", images[~is_test])
        write_array(folder / "test.npy", images[is_test])
        on_progress(len(images), len(images))
        return Loaded(
            kind="images",
            labels={"train": labels[~is_test], "test": labels[is_test]},
            class_names=tuple(str(digit) for digit in range(10)),
            augment={"shift": 1, "flip": False},  # a mirrored 2 is no 2
        )


def open_source(config: DatasetConfig) -> Source:
    """The source of a data set.

    Raises:
        DataError: if the name is unknown, or nothing says where the data is, or nothing is there.
    """
    if config.image_size is not None and config.name not in RESIZED:
        raise DataError(
            f"dataset.image_size: {config.name} has images of a size of its own. It can be set for"
            f" {', '.join(RESIZED)}."
        )
    match config.name:
        case "digits":
            return Digits()
        case "features":
            return Features(_existing(config))
        case "cifar10":
            return Cifar(_existing(config), CIFAR10)
        case "cifar100":
            return Cifar(_existing(config), CIFAR100)
        case "folder":
            return ImageFolders(
                _existing(config),
                train_and_test,
                Crop(config.image_size, config.image_size) if config.image_size else None,
            )
        case "mini_imagenet":
            size = config.image_size or 84
            return ImageFolders(
                _existing(config),
                mini_imagenet,
                Crop(size, size),
                augment=MINI_IMAGENET_VIEWS,
                statistics=MINI_IMAGENET_STATISTICS,
            )
        case "imagenet":
            size = config.image_size or 224
            # Kept with the margin that a test image loses: random parts are cut from all of it.
            stored = round(size * 256 / 224)
            return ImageFolders(
                _existing(config),
                imagenet,
                Crop(stored, stored),
                augment=IMAGENET_VIEWS,
                views=size,
                statistics=IMAGENET_STATISTICS,
            )
        case unknown:
            raise DataError(f"{unknown}: no such data set. Known: {', '.join(DATASETS)}.")


def source_path(config: DatasetConfig) -> Path | None:
    """Absolute place of the data: dataset.path, else $ORCHESTRATE_DATA/<name>; None for digits, and
    where neither is set.

    Raises:
        DataError: the path begins with the home folder of nobody.
    """
    if config.name == "digits":
        return None
    if config.path is not None:
        return expand(config.path, "dataset.path")
    place = os.environ.get("ORCHESTRATE_DATA")
    if place and config.name not in OWN:
        return expand(place, "ORCHESTRATE_DATA") / config.name
    return None


def _existing(config: DatasetConfig) -> Path:
    path = source_path(config)
    if path is None:
        otherwise = (
            ""
            if config.name in OWN
            else f", or set ORCHESTRATE_DATA to the folder that holds {config.name}/"
        )
        raise DataError(
            f"{config.name}: nothing says where the data is. Set dataset.path{otherwise}. Nothing"
            " is downloaded."
        )
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such {'file' if config.name == 'features' else 'folder'} ({config.name})."
            " Set dataset.path to where the data is."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Set dataset.path to where the"
            " data is."
        ) from None
    return path
