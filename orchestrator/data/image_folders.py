"""Image files below one folder per class, found in an order that is the same everywhere; what is
passed over is counted.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.storage.user_files import check_regular
from trainers.errors import DataError

IMAGE_SUFFIXES: Final = (
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)

LAYOUT: Final = (
    "Expected one folder per class: PATH/train/<class>/*.jpg, and the same classes in PATH/test or"
    " PATH/val"
)

_LITTER: Final = (".ds_store", "thumbs.db", "desktop.ini")
"""What file managers leave, and names that begin with `._`: passed over without a word."""

_NAMED: Final = 5
"""Names that a line gives as examples."""

Splits = dict[str, dict[str, list[str]]]
"""Split -> class -> image files; both splits have the same classes, in order."""


@dataclass(slots=True)
class PassedOver:
    """What lies in a folder of images and is not read as one of them."""

    root: Path
    beside: list[str] = field(default_factory=list)
    """Beside the folders that are read."""
    others: list[str] = field(default_factory=list)
    """In class folders, with another suffix."""
    hidden: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    """Images beyond those that a published set takes of each class."""

    def lines(self) -> tuple[str, ...]:
        """A line for each sort, with their number and some of their names."""
        found = []
        if self.beside:
            found.append(
                f"passed over {len(self.beside)} files and folders beside those that are read:"
                f" {named(self.beside, self.root)}"
            )
        if self.others:
            endings = (os.path.splitext(path)[1] for path in self.others)  # noqa: PTH122
            suffixes = Counter(ending.lower() or "no suffix" for ending in endings)
            counts = ", ".join(
                f"{count} {suffix}" for suffix, count in suffixes.most_common(_NAMED)
            )
            more = ", ..." if len(suffixes) > _NAMED else ""
            known = " ".join(IMAGE_SUFFIXES)
            found.append(
                f"passed over {len(self.others)} files in class folders ({counts}{more}; read are"
                f" {known}): {named(self.others, self.root)}"
            )
        if self.hidden:
            found.append(
                f"passed over {len(self.hidden)} hidden files and folders:"
                f" {named(self.hidden, self.root)}"
            )
        if self.surplus:
            found.append(
                f"passed over {len(self.surplus)} images beyond those that the set takes of each"
                f" class: {named(self.surplus, self.root)}"
            )
        return tuple(found)


def named(paths: Iterable[str], root: Path) -> str:
    """Some of the paths, as they are called below `root`."""
    ordered = sorted(paths)
    shown = [os.path.relpath(path, root) for path in ordered[:_NAMED]]
    return ", ".join(shown) + (", ..." if len(ordered) > _NAMED else "")


def train_and_test(root: Path, passed: PassedOver | None = None) -> Splits:
    """PATH/train/<class>/ and the same classes in PATH/test/ or PATH/val/.

    Args:
        passed: told what is not read.

    Raises:
        DataError: if the folder has another layout.
    """
    train, test = split_folders(root, passed)
    splits = {"train": class_images(train, passed), "test": class_images(test, passed)}
    same_classes(train, test, list(splits["train"]), list(splits["test"]))
    if len(splits["train"]) < 2:
        raise DataError(f"{train}: one class folder only; there is nothing to ask.")
    return splits


def class_images(folder: Path, passed: PassedOver | None = None) -> dict[str, list[str]]:
    """Class -> paths of its image files, both sorted.

    Files may lie deeper (`<class>/images/`); links are followed; hidden names and files that are no
    images are passed over.

    Raises:
        DataError: if there is no such folder, or no class folder in it, or a class without images,
            or an image that is no file.
    """
    passed = passed or PassedOver(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}. {LAYOUT}."
        )
    try:
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_hidden(entry, passed):
                    continue
                if entry.is_dir():
                    names.append(entry.name)
                else:
                    passed.beside.append(entry.path)
        found = {name: sorted(_images(folder / name, passed)) for name in sorted(names)}
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: {error.strerror or error}. The folder cannot be read."
        ) from None
    if not found:
        raise DataError(f"{folder}: no class folders in it. {LAYOUT}.")
    for name, images in found.items():
        if not images:
            raise DataError(
                f"{folder / name}: a class without images{_instead(folder / name)}. Add some"
                f" ({' '.join(IMAGE_SUFFIXES)}), or remove the folder."
            )
    _check_forms(folder, folder, list(found), list(found))
    return found


def split_folders(root: Path, passed: PassedOver | None = None) -> tuple[Path, Path]:
    """The training folder and the test folder: `test` where there is one, else `val`.

    Raises:
        DataError: if one is missing.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: {'not a folder' if root.exists() else 'no such folder'}. {LAYOUT}."
        )
    for needed in ("train", "test"):
        if not (root / needed).is_dir() and not (needed == "test" and (root / "val").is_dir()):
            raise DataError(
                f"{root}: has no folder {'train' if needed == 'train' else 'test or val'}."
                f" {LAYOUT}."
            )
    test = "test" if (root / "test").is_dir() else "val"
    if passed is not None:
        try:
            with os.scandir(root) as entries:
                passed.beside += [
                    entry.path
                    for entry in entries
                    if not _is_hidden(entry, passed) and entry.name not in ("train", test)
                ]
        except OSError as error:
            raise DataError(
                f"{root}: {error.strerror or error}. The folder cannot be read."
            ) from None
    return root / "train", root / test


def same_classes(train: Path, test: Path, train_names: list[str], test_names: list[str]) -> None:
    """Both have the same class folders.

    Raises:
        DataError: names a folder that only one of them has.
    """
    _check_forms(train, test, train_names, test_names)
    for here, there, names, others in (
        (train, test, train_names, test_names),
        (test, train, test_names, train_names),
    ):
        extra = sorted(set(names) - set(others))
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise DataError(
                f"{here / extra[0]}{more}: a class that {there} has no folder for. Both need the"
                " same class folders."
            )


def _check_forms(here: Path, there: Path, names: list[str], others: list[str]) -> None:
    """Two names that differ in their Unicode form alone print alike, so they are said with their
    code points.
    """
    forms = {unicodedata.normalize("NFC", name): name for name in others}
    for name in names:
        other = forms.get(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise DataError(
                f"{here / name} and {there / other}: the names {name!a} and {other!a} differ in"
                " their Unicode form alone (the same letters, composed or not). Name both folders"
                " alike, for example by renaming one to the other's name."
            )


def _images(folder: Path, passed: PassedOver) -> list[str]:
    found, seen, left = [], set(), [str(folder)]
    while left:
        place = left.pop()
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above would be walked for ever
            continue
        seen.add(real)
        with os.scandir(place) as entries:
            for entry in entries:
                if _is_hidden(entry, passed):
                    continue
                if entry.is_dir():
                    left.append(entry.path)
                elif not entry.name.lower().endswith(IMAGE_SUFFIXES):
                    passed.others.append(entry.path)
                else:
                    if not entry.is_file():
                        _refuse(entry)
                    found.append(entry.path)
    return found


def _refuse(entry: os.DirEntry[str]) -> None:
    try:
        check_regular(entry.path, entry.stat().st_mode)
    except FileNotFoundError:
        gone = (
            "a link to a file that does not exist"
            if stat.S_ISLNK(entry.stat(follow_symlinks=False).st_mode)
            else "vanished while the folder was read"
        )
        raise DataError(f"{entry.path}: {gone}.") from None


def _is_hidden(entry: os.DirEntry[str], passed: PassedOver) -> bool:
    """Whether it is passed over by its name alone."""
    lower = entry.name.lower()
    if lower in _LITTER or lower.startswith("._"):
        return True
    if entry.name.startswith("."):
        passed.hidden.append(entry.path)
        return True
    return False


def _instead(folder: Path) -> str:
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return (
        f" (it holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''})" if others else ""
    )
