"""Image files below one folder per class, found in an order that is the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trainers.errors import DataError

IMAGE_SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

LAYOUT: Final = "Expected one folder per class: PATH/train/<class>/*.jpg, and the same classes in PATH/test or PATH/val"


def class_images(folder: Path) -> dict[str, list[str]]:
    """Class -> paths of its image files, both sorted.

    Files may lie deeper (`<class>/images/`); links are followed; hidden names and files that are no images are passed over.

    Raises:
        DataError: if there is no such folder, or no class folder in it, or a class without images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}. {LAYOUT}.")
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
        found = {name: sorted(_images(folder / name)) for name in names}
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}. The folder cannot be read.") from None
    if not found:
        raise DataError(f"{folder}: no class folders in it. {LAYOUT}.")
    for name, images in found.items():
        if not images:
            raise DataError(f"{folder / name}: a class without images{_instead(folder / name)}. Add some ({' '.join(IMAGE_SUFFIXES)}), or remove the folder.")
    return found


def split_folders(root: Path) -> tuple[Path, Path]:
    """The training folder and the test folder: `test` where there is one, else `val`.

    Raises:
        DataError: if one is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}. {LAYOUT}.")
    for needed in ("train", "test"):
        if not (root / needed).is_dir() and not (needed == "test" and (root / "val").is_dir()):
            raise DataError(f"{root}: has no folder {'train' if needed == 'train' else 'test or val'}. {LAYOUT}.")
    return root / "train", root / ("test" if (root / "test").is_dir() else "val")


def same_classes(train: Path, test: Path, train_names: list[str], test_names: list[str]) -> None:
    """Both have the same class folders.

    Raises:
        DataError: names a folder that only one of them has.
    """
    for here, there, names, others in ((train, test, train_names, test_names), (test, train, test_names, train_names)):
        extra = sorted(set(names) - set(others))
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise DataError(f"{here / extra[0]}{more}: a class that {there} has no folder for. Both need the same class folders.")


def _images(folder: Path) -> Iterator[str]:
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above would be walked for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield os.path.join(place, name)  # noqa: PTH118 (a million Path objects would be slow)


def _raise(error: OSError) -> None:
    raise error


def _instead(folder: Path) -> str:
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return f" (it holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''})" if others else ""
