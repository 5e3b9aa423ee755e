"""Published sets of images with several labels: VOC 2012, COCO 2014, NUS-WIDE and the attributes of
CUB, in the folders that their archives unpack to.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from orchestrator.data import label_lists
from orchestrator.data.arrays import SPLITS, create_array
from orchestrator.data.image_files import check_space, remarks_in_words, stat_of
from orchestrator.data.image_folders import named
from orchestrator.data.label_lists import Listed
from orchestrator.data.place import existing
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.data.sources.folders import IMAGENET_STATISTICS, Pixels
from search_spaces.reading.config import Contents
from trainers.errors import DataError

_SIDE: Final = 448
"""Pixels, as in Cole et al. 2021."""

_WORDS: Final = {"train": "training", "test": "test"}


class Lists(ABC):
    """Images that lists name, each with its categories. The whole image is kept, stretched to a
    square: what a centre square cuts off may be what a label is about.
    """

    __slots__ = ()

    listed: ClassVar[Callable[[Path], Listed]]
    """Reads the lists below a folder."""
    path: str | None
    image_size: int | None

    def contents(self) -> Contents:
        held = self._read()
        train, test = (len(held.files[split]) for split in SPLITS)
        return Contents(
            kind="images",
            num_classes=len(held.names),
            train_items=train,
            test_items=test,
            smallest_class=train // len(held.names),
            class_names=held.names,
            several_labels=True,
        )

    def signature(self) -> str:
        held, root = self._read(), existing(self)
        digest = hashlib.sha256(repr(held.names).encode())
        for split in SPLITS:
            _check_there(root, held.files[split])
            digest.update(held.labels[split].tobytes())
            for file in held.files[split]:
                stat = stat_of(file)
                said = f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()
                digest.update(os.fsencode(file) + said)
        return digest.hexdigest()

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        # Here, and not above: a spec that names a set is checked without a decoder.
        from orchestrator.data.decoding import Crop, decode

        held, root, size = self._read(), existing(self), self.image_size or _SIDE
        total = sum(map(len, held.files.values()))
        shape = (size, size, 3)
        check_space(root, folder, total, shape)
        done, notes = 0, []

        def count(images: int) -> None:
            nonlocal done
            done += images
            on_progress(done, total)

        for split in SPLITS:
            files = held.files[split]
            _check_there(root, files)
            target = folder / f"{split}.npy"
            create_array(target, (len(files), *shape), np.uint8)
            # In the order of the lists, of which published splits are made.
            remarks = decode(files, target, Crop(size, size, whole=True), count)
            notes += remarks_in_words(root, split, files, remarks)
            if held.empty[split]:
                notes.append(
                    f"left out {held.empty[split]:,} of {held.empty[split] + len(files):,}"
                    f" {_WORDS[split]} images, which have no category"
                )
        mean, std = IMAGENET_STATISTICS
        return Loaded(
            kind="images",
            labels=held.labels,
            class_names=held.names,
            augment={"flip": True},
            mean=mean,
            std=std,
            notes=tuple(notes),
        )

    def _read(self) -> Listed:
        return type(self).listed(existing(self))


def _check_there(root: Path, files: list[str]) -> None:
    """Checks that every image that a list names is there.

    Raises:
        DataError: some are missing; names the first of them.
    """
    missing = [file for file in files if not os.path.lexists(file)]
    if missing:
        raise DataError(
            f"{root}: {len(missing):,} of {len(files):,} images that its lists name are missing:"
            f" {named(missing, root)}. Unpack the whole set there, or take these lines out of the"
            " lists."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Voc12(Lists):
    """PASCAL VOC 2012, 20 categories; the official val is the test set. An image counts for the
    categories of which an object is not marked as difficult.
    """

    name: ClassVar[str] = "voc12"
    form: ClassVar[str] = "folder"
    listed: ClassVar[Callable[[Path], Listed]] = staticmethod(label_lists.voc12)

    path: str | None = None
    """VOCdevkit/VOC2012, or a folder that holds it; null: voc12/ in $ORCHESTRATE_DATA."""
    image_size: Pixels | None = None
    """Pixels: both sides of each image are resized to this, and nothing is cut off; null: 448."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coco14(Lists):
    """COCO 2014, 80 categories; the official val is the test set."""

    name: ClassVar[str] = "coco14"
    form: ClassVar[str] = "folder"
    listed: ClassVar[Callable[[Path], Listed]] = staticmethod(label_lists.coco14)

    path: str | None = None
    """The folder with annotations/, train2014/ and val2014/; null: coco14/ in $ORCHESTRATE_DATA."""
    image_size: Pixels | None = None
    """Pixels: both sides of each image are resized to this, and nothing is cut off; null: 448."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NusWide(Lists):
    """NUS-WIDE, 81 concepts, in its own division into training and test images."""

    name: ClassVar[str] = "nuswide"
    form: ClassVar[str] = "folder"
    listed: ClassVar[Callable[[Path], Listed]] = staticmethod(label_lists.nuswide)

    path: str | None = None
    """The folder with ImageList/, Groundtruth/ and Flickr/; null: nuswide/ in $ORCHESTRATE_DATA."""
    image_size: Pixels | None = None
    """Pixels: both sides of each image are resized to this, and nothing is cut off; null: 448."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CubAttributes(Lists):
    """The 312 attributes of CUB-200-2011, in its own division into training and test images."""

    name: ClassVar[str] = "cub_attributes"
    form: ClassVar[str] = "folder"
    listed: ClassVar[Callable[[Path], Listed]] = staticmethod(label_lists.cub_attributes)

    path: str | None = None
    """CUB_200_2011, or the folder that holds it; null: cub_attributes/ in $ORCHESTRATE_DATA."""
    image_size: Pixels | None = None
    """Pixels: both sides of each image are resized to this, and nothing is cut off; null: 448."""
