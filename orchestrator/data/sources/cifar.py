"""CIFAR-10 and CIFAR-100 in the layout in which they are published and torchvision keeps them:
pickled batches of 32 x 32 images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from orchestrator.data.arrays import SPLITS, Array, Labels, write_array
from orchestrator.data.place import existing
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.data.sources.cifar_pickle import PickleRefused, read_pickle
from orchestrator.storage.user_files import check_regular, read_regular
from search_spaces.reading.config import Contents
from trainers.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLayout:
    """Which files hold what."""

    title: str
    folder: str
    batches: dict[str, dict[str, int]]
    """Split -> file -> number of images in it."""
    labels_key: str
    names_file: str
    names_key: str
    num_classes: int

    @property
    def contents(self) -> Contents:
        train, test = (sum(self.batches[split].values()) for split in SPLITS)
        return Contents(
            kind="images",
            num_classes=self.num_classes,
            train_items=train,
            test_items=test,
            # Every class has as many.
            smallest_class=train // self.num_classes,
        )

    @property
    def expected(self) -> str:
        files = ", ".join(file for split in SPLITS for file in self.batches[split])
        return (
            f"Expected {self.title}'s python version unpacked: PATH/{self.folder}/ with {files} and"
            f" {self.names_file}"
        )


CIFAR10: Final = BatchLayout(
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    batches={
        "train": {f"data_batch_{k}": 10_000 for k in range(1, 6)},
        "test": {"test_batch": 10_000},
    },
    labels_key="labels",
    names_file="batches.meta",
    names_key="label_names",
    num_classes=10,
)

CIFAR100: Final = BatchLayout(
    title="CIFAR-100",
    folder="cifar-100-python",
    batches={"train": {"train": 50_000}, "test": {"test": 10_000}},
    labels_key="fine_labels",
    names_file="meta",
    names_key="fine_label_names",
    num_classes=100,
)

MEAN: Final = (0.4914, 0.4822, 0.4465)
STD: Final = (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10; used for CIFAR-100 too, as the published mean-teacher code does (Tarvainen and
Valpola 2017).
"""


_LARGEST_NAMES: Final = 1 << 20
_LARGEST_ITEM: Final = 8192
"""Bytes that a file of names, and an image with its label and file name in a batch, never exceed in
any way of writing them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar10:
    """CIFAR-10 (Krizhevsky 2009)."""

    name: ClassVar[str] = "cifar10"
    form: ClassVar[str] = "folder"
    layout: ClassVar[BatchLayout] = CIFAR10
    holds: ClassVar[Contents] = CIFAR10.contents

    path: str | None = None
    """Folder of the unpacked python version, or the one above it; null: cifar10/ in
    $ORCHESTRATE_DATA.
    """

    def contents(self) -> Contents:
        return self.holds

    def signature(self) -> str:
        return Batches(existing(self), self.layout).signature()

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        return Batches(existing(self), self.layout).load(folder, on_progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar100(Cifar10):
    """CIFAR-100 with its fine classes (Krizhevsky 2009)."""

    name: ClassVar[str] = "cifar100"
    layout: ClassVar[BatchLayout] = CIFAR100
    holds: ClassVar[Contents] = CIFAR100.contents

    path: str | None = None
    """Folder of the unpacked python version, or the one above it; null: cifar100/ in
    $ORCHESTRATE_DATA.
    """


@dataclass(frozen=True, slots=True)
class Batches:
    """The folder of the batches, or the one above it. Nothing is downloaded, and nothing is
    unpickled (orchestrator.data.sources.cifar_pickle).
    """

    root: Path
    layout: BatchLayout

    def signature(self) -> str:
        folder = self._folder()
        names = [
            *(file for split in SPLITS for file in self.layout.batches[split]),
            self.layout.names_file,
        ]
        return repr(
            [
                (name, stat.st_size, stat.st_mtime_ns)
                for name in names
                for stat in [self._file(folder, name).stat()]
            ]
        )

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        source, layout = self._folder(), self.layout
        names = _read(self._file(source, layout.names_file), layout, 0)
        class_names = names.get(layout.names_key)
        if (
            not isinstance(class_names, list)
            or len(class_names) != layout.num_classes
            or not all(isinstance(name, str) for name in class_names)
        ):
            raise DataError(
                f"{source / layout.names_file}: {layout.names_key} is not a list of"
                f" {layout.num_classes} names. {layout.expected}."
            )
        total, done, labels = (
            sum(sum(batches.values()) for batches in layout.batches.values()),
            0,
            {},
        )
        for split, batches in layout.batches.items():
            images, classes = [], []
            for file, items in batches.items():
                data, batch_labels = _batch(self._file(source, file), layout, items)
                images.append(data)
                classes.append(batch_labels)
                done += items
                on_progress(done, total)
            labels[split] = np.concatenate(classes)
            empty = np.flatnonzero(np.bincount(labels[split], minlength=layout.num_classes) == 0)
            if len(empty):
                raise DataError(
                    f"{source}: no {split} image has class {empty[0]} ({class_names[empty[0]]})."
                    f" {layout.expected}."
                )
            write_array(folder / f"{split}.npy", np.concatenate(images))
        return Loaded(
            kind="images",
            labels=labels,
            class_names=tuple(class_names),
            augment={"shift": 4, "flip": True},
            mean=MEAN,
            std=STD,
        )

    def _folder(self) -> Path:
        inner = self.root / self.layout.folder
        if inner.is_dir():
            return inner
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. {self.layout.expected}.")
        return self.root

    def _file(self, folder: Path, name: str) -> Path:
        path = folder / name
        if not path.exists():
            raise DataError(f"{path}: no such file. {self.layout.expected}.")
        check_regular(path, path.stat().st_mode)
        return path


def _batch(path: Path, layout: BatchLayout, items: int) -> tuple[Array, Labels]:
    """uint8 [items, 32, 32, 3] and int32 [items]."""
    batch = _read(path, layout, items)
    data, labels = batch.get("data"), batch.get(layout.labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (items, 3072):
        what = (
            f"{data.dtype} {list(data.shape)}"
            if isinstance(data, np.ndarray)
            else type(data).__name__
        )
        raise DataError(
            f"{path}: `data` is {what}; expected uint8 [{items}, 3072]. {layout.expected}."
        )
    # Looked at one by one: lists in lists may stand for far more than a file's bytes.
    plain = isinstance(labels, list) and all(
        isinstance(label, (int, np.integer)) and abs(int(label)) < 2**31 for label in labels
    )
    classes = np.asarray(labels) if plain or isinstance(labels, np.ndarray) else np.zeros(0)
    if classes.shape != (items,) or classes.dtype.kind not in "iu":
        raise DataError(
            f"{path}: `{layout.labels_key}` is not a list of {items} whole numbers."
            f" {layout.expected}."
        )
    if classes.min() < 0 or classes.max() >= layout.num_classes:
        row = int(np.argmax((classes < 0) | (classes >= layout.num_classes)))
        raise DataError(
            f"{path}: {layout.labels_key}[{row}] is {classes[row]}; {layout.title}'s classes are"
            f" 0..{layout.num_classes - 1}."
        )
    return data.reshape(items, 3, 32, 32).transpose(0, 2, 3, 1), classes.astype(np.int32)


def _read(path: Path, layout: BatchLayout, items: int) -> dict[str, Any]:
    """The dict in a batch of so many images, or (0) in the file of names."""
    try:
        batch = read_pickle(read_regular(path, most=_LARGEST_NAMES + items * _LARGEST_ITEM))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). {layout.expected}."
        ) from None
    except PickleRefused as error:
        raise DataError(
            f"{path}: cannot be read ({error}); truncated or damaged? {layout.expected}."
        ) from None
    if not isinstance(batch, dict):
        raise DataError(f"{path}: holds {type(batch).__name__}, not a batch. {layout.expected}.")
    return batch
