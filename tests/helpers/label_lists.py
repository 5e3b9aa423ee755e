"""Small folders in the layouts of published sets of images with several labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from tests.helpers.dataset_files import random_image

CATEGORIES: Final = ("bird", "boat", "bus")

TRUTH: Final = {
    "train": [[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]],
    "test": [[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]],
}
"""Split -> what is on its images, in the order of the lists; every set has these."""

EMPTY: Final = {"voc12": 0, "coco14": 1, "nuswide": 1, "cub_attributes": 0}
"""Set -> further images of each list that have nothing on them, the last of it."""


def _image(path: Path, *key: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random_image(*key, size=(9 + key[-1], 6)).save(path)


def write_voc12(root: Path) -> Path:
    """ROOT/VOCdevkit/VOC2012."""
    inner = root / "VOCdevkit" / "VOC2012"
    main = inner / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for part, split in (("train", "train"), ("val", "test")):
        ids = [f"2008_{split == 'test':d}{k:05}" for k in range(len(TRUTH[split]))]
        (main / f"{part}.txt").write_text("".join(f"{image}\n" for image in ids))
        for c, name in enumerate(CATEGORIES):
            # What is only there with difficulty is marked 0, and counts as absent.
            said = [
                "1" if row[c] else ("0" if k % 2 else "-1") for k, row in enumerate(TRUTH[split])
            ]
            lines = [f"{image} {value:>2}\n" for image, value in zip(ids, said, strict=True)]
            (main / f"{name}_{part}.txt").write_text("".join(lines))
        for k, image in enumerate(ids):
            _image(inner / "JPEGImages" / f"{image}.jpg", split == "train", k)
    (main / "trainval.txt").write_text("")
    return root


def write_coco14(root: Path) -> Path:
    """ROOT/annotations, train2014, val2014."""
    (root / "annotations").mkdir(parents=True)
    numbers = [17, 5, 90]  # of the categories; their order is that of the numbers
    order = np.argsort(numbers)
    for part, split in (("train2014", "train"), ("val2014", "test")):
        rows = [*TRUTH[split], [0, 0, 0]]
        images = [{"id": 7 * k + 3, "file_name": f"COCO_{part}_{k}.jpg"} for k in range(len(rows))]
        annotations = [
            {"image_id": 7 * k + 3, "category_id": sorted(numbers)[c]}
            for k, row in enumerate(rows)
            for c, there in enumerate(row)
            for _ in range(2 * there)  # two objects of a category are one label
        ]
        categories = [
            {"id": numbers[at], "name": CATEGORIES[rank]} for rank, at in enumerate(order.tolist())
        ]
        (root / "annotations" / f"instances_{part}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
        for k, image in enumerate(images[:-1]):
            _image(root / part / str(image["file_name"]), split == "train", k)
    return root


def write_nuswide(root: Path) -> Path:
    """ROOT/ImageList, Groundtruth/TrainTestLabels, Flickr."""
    truth = root / "Groundtruth" / "TrainTestLabels"
    truth.mkdir(parents=True)
    (root / "ImageList").mkdir()
    for part, split in (("Train", "train"), ("Test", "test")):
        rows = [*TRUTH[split], [0, 0, 0]]
        images = [f"actor\\{k:04}_{split}.jpg" for k in range(len(rows))]
        (root / "ImageList" / f"{part}Imagelist.txt").write_text("\r\n".join(images) + "\r\n")
        for c, name in enumerate(CATEGORIES):
            (truth / f"Labels_{name}_{part}.txt").write_text("".join(f"{row[c]}\n" for row in rows))
        for k in range(len(rows) - 1):
            _image(root / "Flickr" / "actor" / f"{k:04}_{split}.jpg", split == "train", k)
    return root


def write_cub_attributes(root: Path) -> Path:
    """ROOT/attributes.txt beside ROOT/CUB_200_2011, as the archive unpacks."""
    inner = root / "CUB_200_2011"
    (inner / "attributes").mkdir(parents=True)
    names = "".join(f"{c + 1} has::{name}\n" for c, name in enumerate(CATEGORIES))
    (root / "attributes.txt").write_text(names)
    rows = [*TRUTH["train"], *TRUTH["test"]]
    split = ["1"] * len(TRUTH["train"]) + ["0"] * len(TRUTH["test"])
    images = [f"001.Bird/a_{k}.jpg" for k in range(len(rows))]
    for name, values in (("images", images), ("train_test_split", split)):
        lines = [f"{k + 1} {value}\n" for k, value in enumerate(values)]
        (inner / f"{name}.txt").write_text("".join(lines))
    (inner / "attributes" / "image_attribute_labels.txt").write_text(
        "".join(
            # Some lines of the published file have two columns more.
            f"{k + 1} {c + 1} {there} 3 {'0 0 ' * (k == 4)}1.509\n"
            for k, row in enumerate(rows)
            for c, there in enumerate(row)
        )
    )
    for k, image in enumerate(images):
        _image(inner / "images" / image, k)
    return root


WRITERS: Final = {
    "voc12": write_voc12,
    "coco14": write_coco14,
    "nuswide": write_nuswide,
    "cub_attributes": write_cub_attributes,
}
