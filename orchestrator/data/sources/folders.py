"""Image files in one folder per class: one's own (`folder`), Mini-ImageNet and ImageNet."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import numpy as np
from annotated_types import Interval, MinLen

from orchestrator.data.arrays import SPLITS, Labels, create_array, shuffled
from orchestrator.data.image_files import check_space, remarks_in_words, stat_of
from orchestrator.data.image_folders import (
    PassedOver,
    Splits,
    class_images,
    train_and_test,
)
from orchestrator.data.place import existing
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.storage.user_files import expand
from search_spaces.reading.config import Contents
from trainers.errors import DataError

if TYPE_CHECKING:
    from orchestrator.data.decoding import Crop, Remarks

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, on the 0..1 scale."""

MINI_IMAGENET_STATISTICS: Final[Statistics] = (
    (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255),
    (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255),
)
"""As in the code of one-bit supervision (Hu et al. 2020)."""

IMAGENET_STATISTICS: Final[Statistics] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

MINI_IMAGENET_VIEWS: Final = {"shift": 8, "flip": True, "rotation": 10.0}
IMAGENET_VIEWS: Final = {
    "rotation": 10.0,
    "resized_crop": True,
    "flip": True,
    "jitter": [0.4, 0.4, 0.4, 0.1],
}
"""As in the code of one-bit supervision (Hu et al. 2020), but that what a rotation needs is
interpolated and colours change in one fixed order.
"""

MINI_CLASSES, MINI_TRAIN, MINI_TEST = 100, 500, 100
IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_TEST = 1000, 1_281_167, 50_000
IMAGENET_SMALLEST = 732

Pixels = Annotated[int, Interval(ge=4, le=4096)]


class OfImages(ABC):
    """What sources of image files have in common."""

    __slots__ = ()

    def signature(self) -> str:
        return self._images().signature()

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        return self._images().load(folder, on_progress)

    @abstractmethod
    def _images(self) -> ImageFolders:
        """Returns the files, and what is made of them."""


class Published(OfImages):
    """A published set of image files: what it holds is known."""

    __slots__ = ()

    holds: ClassVar[Contents]

    def contents(self) -> Contents:
        return self.holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder(OfImages):
    """Any folder of images, one sub-folder a class."""

    name: ClassVar[str] = "folder"
    form: ClassVar[str] = "folder"

    path: Annotated[str, MinLen(1)]
    """The folder with train/ and test/ (or val/), each with one folder per class."""
    image_size: Pixels | None = None
    """Pixels: each image's shorter side is resized to this and its centre square kept; null: as
    they are.
    """

    def contents(self) -> Contents:
        splits = train_and_test(expand(self.path, "dataset.path"))
        train, test = (
            {name: len(files) for name, files in splits[split].items()} for split in SPLITS
        )
        return Contents(
            kind="images",
            num_classes=len(train),
            train_items=sum(train.values()),
            test_items=sum(test.values()),
            smallest_class=min(train.values()),
            class_names=tuple(train),
        )

    def _images(self) -> ImageFolders:
        return ImageFolders(existing(self), train_and_test, self.image_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniImagenet(Published):
    """Mini-ImageNet, 500 training and 100 test images a class as in Hu et al. 2020."""

    name: ClassVar[str] = "mini_imagenet"
    form: ClassVar[str] = "folder"
    holds: ClassVar[Contents] = Contents(
        kind="images",
        num_classes=MINI_CLASSES,
        train_items=MINI_CLASSES * MINI_TRAIN,
        test_items=MINI_CLASSES * MINI_TEST,
        smallest_class=MINI_TRAIN,
    )

    path: str | None = None
    """The folder with one folder per class, all side by side; null: mini_imagenet/ in
    $ORCHESTRATE_DATA.
    """
    image_size: Pixels | None = None
    """Pixels: each image's shorter side is resized to this and its centre square kept; null: 84."""

    def _images(self) -> ImageFolders:
        return ImageFolders(
            existing(self),
            mini_imagenet,
            self.image_size or 84,
            augment=MINI_IMAGENET_VIEWS,
            statistics=MINI_IMAGENET_STATISTICS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagenet(Published):
    """ImageNet: ILSVRC 2012, complete."""

    name: ClassVar[str] = "imagenet"
    form: ClassVar[str] = "folder"
    holds: ClassVar[Contents] = Contents(
        kind="images",
        num_classes=IMAGENET_CLASSES,
        train_items=IMAGENET_TRAIN,
        test_items=IMAGENET_TEST,
        smallest_class=IMAGENET_SMALLEST,
    )

    path: str | None = None
    """The folder with train/ and val/, each with one folder per class; null: imagenet/ in
    $ORCHESTRATE_DATA.
    """
    image_size: Pixels | None = None
    """Pixels of a view's side: each image is kept larger by the margin that a test image loses, and
    its centre square is the test view; null: 224.
    """

    def _images(self) -> ImageFolders:
        size = self.image_size or 224
        return ImageFolders(
            existing(self),
            imagenet,
            # Kept with the margin that a test image loses: random parts are cut from all of it.
            round(size * 256 / 224),
            augment=IMAGENET_VIEWS,
            views=size,
            statistics=IMAGENET_STATISTICS,
        )


@dataclass(frozen=True, slots=True)
class ImageFolders:
    """Image files of some layout, decoded to one size.

    Images are kept in a fixed shuffled order: in the order of folders an image's number would tell
    its class.
    """

    root: Path
    layout: Callable[[Path, PassedOver], Splits]
    side: int | None
    """Each image is cut to a square of so many pixels; None: all have one size already."""
    augment: dict[str, Any] | None = None
    """How a training view is made (trainers.data.augment.Recipe); None: mirrored, and shifted by up
    to an eighth of the width.
    """
    views: int | None = None
    """Height and width of a view; None: those of the decoded images."""
    statistics: Statistics | None = None

    def signature(self) -> str:
        digest = hashlib.sha256()
        for classes in self.layout(self.root, PassedOver(self.root)).values():
            for files in classes.values():
                for file in files:
                    stat = stat_of(file)
                    digest.update(
                        os.fsencode(file) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()
                    )
        return digest.hexdigest()

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        # Here, and not above: a spec that names a folder is checked without a decoder.
        from orchestrator.data.decoding import Crop, image_shape

        crop = Crop(self.side, self.side) if self.side else None
        passed = PassedOver(self.root)
        splits = self.layout(self.root, passed)
        total = sum(len(files) for classes in splits.values() for files in classes.values())
        first = next(iter(splits["train"].values()))[0]
        shape = image_shape(first, crop)
        check_space(self.root, folder, total, shape)
        done = 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            on_progress(done, total)

        labels, notes = {}, list(passed.lines())
        for split in SPLITS:
            labels[split], files, remarks = _decode_split(
                splits[split], folder / f"{split}.npy", shape, crop, count
            )
            notes += remarks_in_words(self.root, split, files, remarks)
        mean, std = self.statistics or (None, None)
        augment = {"shift": shape[1] // 8, "flip": True} if self.augment is None else self.augment
        return Loaded(
            kind="images",
            labels=labels,
            class_names=tuple(splits["train"]),
            augment=augment,
            crop=self.views,
            mean=mean,
            std=std,
            notes=tuple(notes),
        )


def mini_imagenet(root: Path, passed: PassedOver | None = None) -> Splits:
    """PATH/<class>/, 100 classes: in the order of file names the first 500 of each train, the last
    100 test.

    Source: 500 and 100 an image class, Hu et al. 2020 (arXiv:2009.06168), section 4.1; which ones
        is not published.
    """
    passed = passed or PassedOver(root)
    files_of = class_images(root, passed)
    if len(files_of) != MINI_CLASSES:
        raise DataError(
            f"{root}: {len(files_of)} class folders ({', '.join(list(files_of)[:3])}, ...);"
            f" Mini-ImageNet has {MINI_CLASSES}. Expected PATH/<class>/*.jpg, all classes side by"
            " side."
        )
    for name, files in files_of.items():
        if len(files) < MINI_TRAIN + MINI_TEST:
            raise DataError(
                f"{root / name}: {len(files)} images; Mini-ImageNet has {MINI_TRAIN + MINI_TEST} in"
                " each class."
            )
        passed.surplus += files[MINI_TRAIN:-MINI_TEST]
    return {
        "train": {name: files[:MINI_TRAIN] for name, files in files_of.items()},
        "test": {name: files[-MINI_TEST:] for name, files in files_of.items()},
    }


def imagenet(root: Path, passed: PassedOver | None = None) -> Splits:
    """PATH/train/<class>/ and PATH/val/<class>/ of ILSVRC 2012, complete."""
    splits = train_and_test(root, passed)
    sizes = tuple(sum(map(len, splits[split].values())) for split in SPLITS)
    if (len(splits["train"]), *sizes) != (IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_TEST):
        raise DataError(
            f"{root}: {len(splits['train'])} classes, {sizes[0]} training and {sizes[1]} test"
            f" images; ImageNet has {IMAGENET_CLASSES}, {IMAGENET_TRAIN} and {IMAGENET_TEST}. For a"
            " part of it use the data set `folder`."
        )
    return splits


def _decode_split(
    classes: dict[str, list[str]],
    target: Path,
    shape: tuple[int, int, int],
    crop: Crop | None,
    on_done: Callable[[int], None],
) -> tuple[Labels, list[str], Remarks]:
    """Decodes the images of a split. Returns the labels and files in the order in which the images
    are kept, and what was not plain about these.
    """
    from orchestrator.data.decoding import decode

    files = [file for images in classes.values() for file in images]
    labels = np.repeat(
        np.arange(len(classes), dtype=np.int32), [len(images) for images in classes.values()]
    )
    order = shuffled(len(files))
    create_array(target, (len(files), *shape), np.uint8)
    files = [files[k] for k in order]
    return labels[order], files, decode(files, target, crop, on_done)
