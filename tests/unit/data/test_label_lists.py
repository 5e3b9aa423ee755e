"""Published sets of images with several labels are read as their archives unpack; what is missing
or is no such list is named.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.catalogue import INSTALLED
from orchestrator.data.prepare import prepare
from orchestrator.labelling.hidden_labels import train_labels
from orchestrator.labelling.test_labels import read as read_test_labels
from tests.helpers.label_lists import CATEGORIES, EMPTY, TRUTH, WRITERS
from trainers.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


def source(name: str, root: Path, **settings: Any) -> Any:
    return INSTALLED.load("source", name)(path=str(root), **settings)


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_labels_are_those_of_the_lists_in_their_order(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path / "set")
    data = prepare(source(name, root, image_size=8))
    for split, labels in (
        ("train", train_labels(data.labels_dir)),
        ("test", read_test_labels(data.labels_dir)),
    ):
        assert labels.tolist() == TRUTH[split]
        images = np.load(data.images_dir / f"{split}.npy")
        assert images.shape == (len(labels), 8, 8, 3)
        # The whole of each image, stretched: no part of it is cut off.
        files = sorted(
            (path for path in root.rglob("*.jpg")),
            key=lambda path: path.name,
        )
        views = {
            np.asarray(
                Image.open(path).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
            ).tobytes()
            for path in files
        }
        assert all(image.tobytes() in views for image in images)
    held = source(name, root).contents()
    assert (held.several_labels, held.num_classes, held.smallest_class) == (True, 3, 2)
    assert [each.removeprefix("has::") for each in held.class_names] == list(CATEGORIES)
    said = [note for note in data.notes if "have no category" in note]
    assert len(said) == 2 * EMPTY[name]
    # An inner folder of the archive serves as well.
    for inner in ("VOCdevkit", "VOCdevkit/VOC2012", "CUB_200_2011"):
        if (root / inner).is_dir():
            assert source(name, root / inner).contents() == held


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_image_is_named_and_so_is_a_missing_list(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path / "set")
    image = sorted(root.rglob("*.jpg"))[0]
    image.unlink()
    told = re.escape(str(image.relative_to(root).name))
    with pytest.raises(
        DataError, match=rf"1 of \d+ images that its lists name are missing.*{told}"
    ):
        prepare(source(name, root))
    assert source(name, root).contents().test_items == len(TRUTH["test"]), "plan reads no image"
    lists = [path for path in root.rglob("*") if path.suffix in (".txt", ".json")]
    for path in lists:
        if path.name == "trainval.txt" or path.name.endswith(("_train.txt", "_Train.txt")):
            continue  # these say which categories there are
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(DataError, match=re.escape(path.name)):
            source(name, root).contents()
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "said"),
    [
        (
            "voc12",
            "bus_val.txt",
            " 1",
            " 2",
            r"bus_val.txt:\d: is '.* 2'; expected an image of val",
        ),
        (
            "coco14",
            "instances_val2014.json",
            '"images"',
            '"pictures"',
            "instances_val2014.json: is",
        ),
        ("coco14", "instances_val2014.json", '"bus"', '"van"', "has other categories than"),
        ("nuswide", "Labels_bus_Test.txt", "1\n", "1\n1\n", "has 7 lines, and TestImagelist.txt"),
        ("nuswide", "Labels_bus_Test.txt", "1\n", "yes\n", "Labels_bus_Test.txt:2: is 'yes'"),
        ("cub_attributes", "image_attribute_labels.txt", "1 1 1 3", "1 9 1 3", "txt:1: is '1 9 1"),
        ("cub_attributes", "images.txt", "1 001", "one 001", "images.txt:1: is 'one 001.Bird"),
    ],
)
def test_a_line_that_is_none_is_named(
    name: str, file: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    root = WRITERS[name](tmp_path / "set")
    path = next(root.rglob(file))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=said):
        source(name, root).contents()
