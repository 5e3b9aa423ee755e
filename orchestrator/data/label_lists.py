"""Published sets of images with several labels, as their archives unpack: which image files there
are, and which categories each has.

Lists alone are read here, no image. The order of categories is that of the set: by name in VOC and
NUS-WIDE, by number in COCO and CUB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.data.arrays import SPLITS, Labels
from orchestrator.storage.user_files import read_regular
from trainers.errors import DataError

_LARGEST: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The images of a set with at least one category, in the order of its lists."""

    names: tuple[str, ...]
    """[L] of the categories."""
    files: dict[str, list[str]]
    """Split -> paths of its images."""
    labels: dict[str, Labels]
    """Split -> [n, L] 1 for the categories of each image, else 0."""
    empty: dict[str, int]
    """Split -> images of the lists that have no category, and are left out."""


def voc12(root: Path) -> Listed:
    """PASCAL VOC 2012: ImageSets/Main/<category>_train.txt and _val.txt, JPEGImages/. A category
    counts where an object of it is not marked as difficult.
    """
    root = _below(root, "VOC2012", "VOCdevkit/VOC2012", lists="ImageSets/Main")
    main = root / "ImageSets" / "Main"
    names = sorted(path.name.removesuffix("_train.txt") for path in main.glob("*_train.txt"))
    if not names:
        raise DataError(f"{main}: holds no <category>_train.txt. {_EXPECTED['voc12']}")
    found: dict[str, tuple[list[str], Labels]] = {}
    for split, part in zip(SPLITS, ("train", "val"), strict=True):
        images = [line for _, line in _lines(main / f"{part}.txt")]
        row_of = {image: row for row, image in enumerate(images)}
        labels = np.zeros((len(images), len(names)), np.int32)
        for column, name in enumerate(names):
            path = main / f"{name}_{part}.txt"
            for number, line in _lines(path):
                image, _, said = line.partition(" ")
                if image not in row_of or said.strip() not in ("-1", "0", "1"):
                    raise _bad(path, number, line, f"an image of {part}.txt and -1, 0 or 1")
                labels[row_of[image], column] = said.strip() == "1"
        found[split] = [str(root / "JPEGImages" / f"{image}.jpg") for image in images], labels
    return _listed(root, tuple(names), found)


def coco14(root: Path) -> Listed:
    """COCO 2014: annotations/instances_train2014.json and instances_val2014.json, train2014/,
    val2014/. A category counts where it has an annotated object.
    """
    names: tuple[str, ...] = ()
    found: dict[str, tuple[list[str], Labels]] = {}
    for split, part in zip(SPLITS, ("train2014", "val2014"), strict=True):
        path = root / "annotations" / f"instances_{part}.json"
        try:
            said = json.loads(_read(path))
            categories = {int(each["id"]): str(each["name"]) for each in said["categories"]}
            columns = {number: column for column, number in enumerate(sorted(categories))}
            rows = {int(each["id"]): row for row, each in enumerate(said["images"])}
            files = [str(root / part / str(each["file_name"])) for each in said["images"]]
            labels = np.zeros((len(files), len(columns)), np.int32)
            for each in said["annotations"]:
                labels[rows[int(each["image_id"])], columns[int(each["category_id"])]] = 1
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: is no list of COCO's instances ({type(error).__name__}: {error})."
                f" {_EXPECTED['coco14']}"
            ) from None
        here = tuple(categories[number] for number in sorted(categories))
        if names and here != names:
            raise DataError(f"{path}: has other categories than those of the training images.")
        names, found[split] = here, (files, labels)
    return _listed(root, names, found)


def nuswide(root: Path) -> Listed:
    """NUS-WIDE: ImageList/TrainImagelist.txt and TestImagelist.txt, images below Flickr/,
    Groundtruth/TrainTestLabels/Labels_<category>_Train.txt and _Test.txt with 0 or 1 a line.
    """
    truth = next(
        (
            root / place
            for place in ("Groundtruth/TrainTestLabels", "TrainTestLabels")
            if (root / place).is_dir()
        ),
        root / "Groundtruth" / "TrainTestLabels",
    )
    names = sorted(
        path.name.removeprefix("Labels_").removesuffix("_Train.txt")
        for path in truth.glob("Labels_*_Train.txt")
    )
    if not names:
        raise DataError(f"{truth}: holds no Labels_<category>_Train.txt. {_EXPECTED['nuswide']}")
    found: dict[str, tuple[list[str], Labels]] = {}
    for split, part in zip(SPLITS, ("Train", "Test"), strict=True):
        images = [line for _, line in _lines(root / "ImageList" / f"{part}Imagelist.txt")]
        labels = np.zeros((len(images), len(names)), np.int32)
        for column, name in enumerate(names):
            path = truth / f"Labels_{name}_{part}.txt"
            lines = list(_lines(path))
            if len(lines) != len(images):
                raise DataError(
                    f"{path}: has {len(lines):,} lines, and {part}Imagelist.txt names"
                    f" {len(images):,} images."
                )
            for row, (number, line) in enumerate(lines):
                if line not in ("0", "1"):
                    raise _bad(path, number, line, "0 or 1")
                labels[row, column] = line == "1"
        files = [str(root / "Flickr" / image.replace("\\", "/")) for image in images]
        found[split] = files, labels
    return _listed(root, tuple(names), found)


def cub_attributes(root: Path) -> Listed:
    """Attributes of CUB-200-2011: images.txt, train_test_split.txt, images/,
    attributes/image_attribute_labels.txt, and attributes.txt in attributes/ or beside the folder,
    as it unpacks. An attribute counts where it is marked as present, however certain.
    """
    root = _below(root, "CUB_200_2011", lists="images.txt")
    places = (root / "attributes", root, root.parent)
    listed = next((p / "attributes.txt" for p in places if (p / "attributes.txt").is_file()), None)
    attributes = dict(_numbered(listed or places[0] / "attributes.txt"))
    names = tuple(attributes[number] for number in sorted(attributes))
    column_of = {number: column for column, number in enumerate(sorted(attributes))}
    images = dict(_numbered(root / "images.txt"))
    order = sorted(images)
    row_of = {number: row for row, number in enumerate(order)}
    labels = np.zeros((len(order), len(names)), np.int32)
    path = root / "attributes" / "image_attribute_labels.txt"
    for number, line in _lines(path):
        # Some lines of the published file have more columns than it says.
        said = line.split(maxsplit=3)
        try:
            row, column = row_of[int(said[0])], column_of[int(said[1])]
            labels[row, column] = {"0": 0, "1": 1}[said[2]]
        except (ValueError, KeyError, IndexError):
            raise _bad(path, number, line, "an image, an attribute and 0 or 1") from None
    split_of = dict(_numbered(root / "train_test_split.txt"))
    found: dict[str, tuple[list[str], Labels]] = {}
    for split, part in zip(SPLITS, ("1", "0"), strict=True):
        rows = [row for row, number in enumerate(order) if split_of.get(number) == part]
        found[split] = [str(root / "images" / images[order[row]]) for row in rows], labels[rows]
    return _listed(root, names, found)


_EXPECTED: Final = {
    "voc12": "Expected what VOCtrainval_11-May-2012.tar unpacks to: VOCdevkit/VOC2012 with"
    " ImageSets/Main and JPEGImages.",
    "coco14": "Expected PATH/annotations/instances_train2014.json and instances_val2014.json,"
    " PATH/train2014 and PATH/val2014.",
    "nuswide": "Expected PATH/ImageList, PATH/Groundtruth/TrainTestLabels and PATH/Flickr.",
}
"""Set -> its layout, for messages."""


def _listed(
    root: Path, names: tuple[str, ...], found: dict[str, tuple[list[str], Labels]]
) -> Listed:
    """Returns the images with a category.

    Raises:
        DataError: a split has none.
    """
    files, labels, empty = {}, {}, {}
    for split, (paths, all_labels) in found.items():
        kept = np.flatnonzero(all_labels.any(axis=1))
        if not kept.size:
            raise DataError(f"{root}: no image of its {split} list has a category.")
        files[split] = [paths[row] for row in kept.tolist()]
        labels[split] = all_labels[kept]
        empty[split] = len(paths) - kept.size
    return Listed(names=names, files=files, labels=labels, empty=empty)


def _below(root: Path, *inner: str, lists: str) -> Path:
    """Returns the folder that holds `lists`: the root itself, or one in it, as archives unpack."""
    return next((root / name for name in ("", *inner) if (root / name / lists).exists()), root)


def _read(path: Path) -> str:
    try:
        return read_regular(path, most=_LARGEST).decode("utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file. Set dataset.path to the folder that the set was unpacked in."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text ({error}).") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (number, content) of each line that is not empty."""
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if content := line.strip():
            yield number, content


def _numbered(path: Path) -> Iterable[tuple[int, str]]:
    """Yields (number, rest) of lines that begin with a number."""
    for number, line in _lines(path):
        first, _, rest = line.partition(" ")
        if not first.isdigit() or not rest:
            raise _bad(path, number, line, "a number and what it is of")
        yield int(first), rest.strip()


def _bad(path: Path, number: int, line: str, expected: str) -> DataError:
    return DataError(f"{path}:{number}: is {line[:60]!r}; expected {expected}.")
