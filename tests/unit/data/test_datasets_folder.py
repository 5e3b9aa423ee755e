"""Image folders: every decoded row is its file, and what is wrong with a folder is named."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from orchestrator.catalogue import INSTALLED
from orchestrator.data.arrays import create_array
from orchestrator.data.decoding import Crop, _decode_with, decode, read_image
from orchestrator.data.image_folders import class_images, train_and_test
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.sources.folders import Folder, ImageFolders, imagenet, mini_imagenet
from search_spaces.reading.datasets import contents
from tests.helpers.dataset_files import random_image, write_image_folder
from trainers.data.augment import Recipe
from trainers.data.items import open_data
from trainers.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "photos")


def prepare_folder(root: Path, image_size: int | None = None) -> PreparedData:
    return prepare(Folder(path=str(root), image_size=image_size))


def pairs(data: PreparedData, split: str) -> set[tuple[bytes, int]]:
    images, labels = (
        np.load(data.images_dir / f"{split}.npy"),
        np.load(data.labels_dir / f"{split}.npy"),
    )
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_every_image_keeps_its_pixels_and_its_class(tmp_path: Path, test_name: str) -> None:
    root = write_image_folder(tmp_path / "set", test_name=test_name)
    data = prepare_folder(root)
    for split, folder in (("train", "train"), ("test", test_name)):
        files = {
            (np.asarray(Image.open(path)).tobytes(), label)
            for label, name in enumerate(("cat", "dog", "emu"))
            for path in (root / folder / name).iterdir()
        }
        assert pairs(data, split) == files
    assert (data.facts.num_classes, data.facts.train_items, data.facts.test_items) == (3, 15, 6)


def test_the_same_files_give_the_same_fingerprint_wherever_they_lie(
    tmp_path: Path, photos: Path
) -> None:
    assert (
        prepare_folder(photos).fingerprint
        == prepare_folder(write_image_folder(tmp_path / "elsewhere")).fingerprint
    )


def test_hidden_other_and_deeper_files_and_links_are_read_as_one_expects(
    tmp_path: Path, photos: Path
) -> None:
    before = prepare_folder(photos)
    (photos / "train/.cache").mkdir()
    (photos / "train/README.txt").write_text("hello")
    (photos / "train/cat/.hidden.png").write_bytes(b"no image")
    (photos / "train/cat/notes.txt").write_text("hello")
    deeper = photos / "train/cat/images"
    deeper.mkdir()
    (photos / "train/cat/cat-0.png").rename(deeper / "cat-0.png")
    (photos / "train/dog").rename(tmp_path / "dogs")
    (photos / "train/dog").symlink_to(tmp_path / "dogs")
    (deeper / "round").symlink_to(deeper)
    after = prepare_folder(photos)
    assert pairs(after, "train") == pairs(before, "train")
    assert after.facts == before.facts, "an image was counted twice"


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "1", "LA", "CMYK"):
        file = tmp_path / f"{mode}.{'tiff' if mode == 'CMYK' else 'png'}"
        image = random_image(1).convert(mode)
        image.save(file)
        assert np.array_equal(read_image(str(file), None), np.asarray(image.convert("RGB"))), mode


def test_image_size_resizes_the_shorter_side_and_keeps_the_centre(tmp_path: Path) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    for k, (width, height) in enumerate([(40, 30), (30, 41), (9, 20), (16, 16), (25, 10)]):
        image = random_image(k, size=(width, height))
        image.save(tmp_path / "image.png")
        for crop in (Crop(16, 16), Crop(18, 16)):
            expected = np.asarray(Compose([Resize(crop.resize), CenterCrop(crop.size)])(image))
            if (width, height) != (16, 16):
                assert np.array_equal(read_image(str(tmp_path / "image.png"), crop), expected), (
                    width,
                    height,
                    crop,
                )
    assert np.array_equal(read_image(str(tmp_path / "image.png"), Crop(10, 10)).shape, (10, 10, 3))


def test_a_folder_of_mixed_sizes_is_prepared_at_image_size(photos: Path) -> None:
    random_image(7, size=(30, 20)).save(photos / "train/cat/large.png")
    with pytest.raises(
        DataError,
        match=(
            r"(large.png: is 30 x 20 pixels, but the first image is 8 x 8|is 8 x 8 pixels, but the"
            r" first image is 30 x 20).*dataset.image_size"
        ),
    ):
        prepare_folder(photos)
    data = prepare_folder(photos, image_size=6)
    assert np.load(data.images_dir / "train.npy").shape == (16, 6, 6, 3)


def test_processes_decode_what_one_process_decodes(tmp_path: Path, photos: Path) -> None:
    files = [file for images in class_images(photos / "train").values() for file in images]
    found, reports = [], []
    for name, run in (
        ("one", lambda target: decode(files, target, None, lambda n: None)),
        ("three", lambda target: _decode_with(3, files, target, None, reports.append)),
    ):
        create_array(tmp_path / f"{name}.npy", (len(files), 8, 8, 3), np.uint8)
        run(tmp_path / f"{name}.npy")
        found.append(np.load(tmp_path / f"{name}.npy"))
    assert np.array_equal(found[0], found[1])
    assert sum(reports) == len(files)


def test_processes_name_the_first_image_that_cannot_be_decoded(
    tmp_path: Path, photos: Path
) -> None:
    files = [file for images in class_images(photos / "train").values() for file in images] * 20
    bad = [tmp_path / "first.png", tmp_path / "second.png"]
    for path, index in zip(bad, (150, 250), strict=True):
        path.write_bytes(b"no image")
        files[index] = str(path)
    create_array(tmp_path / "a.npy", (len(files), 8, 8, 3), np.uint8)
    with pytest.raises(DataError, match=rf"{bad[0]}: cannot be decoded"):
        _decode_with(2, files, tmp_path / "a.npy", None, lambda n: None)
    assert not multiprocessing.active_children()


def test_a_killed_process_is_an_error_and_ends_the_others(tmp_path: Path, photos: Path) -> None:
    files = [file for images in class_images(photos / "train").values() for file in images] * 1000
    create_array(tmp_path / "a.npy", (len(files), 8, 8, 3), np.uint8)

    def kill_one(images: int) -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    with pytest.raises(DataError, match="a process that decodes images was killed"):
        _decode_with(2, files, tmp_path / "a.npy", None, kill_one)
    assert not multiprocessing.active_children()


DECODING = """
import os, sys
from orchestrator.data.decoding import _decode_with

def report(images):
    import multiprocessing
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    sys.stdin.read()

if __name__ == "__main__":
    _decode_with(2, [sys.argv[1]] * 10_000, sys.argv[2], None, report)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(
    tmp_path: Path, photos: Path, number: signal.Signals
) -> None:
    file = next(iter(class_images(photos / "train").values()))[0]
    create_array(tmp_path / "a.npy", (10_000, 8, 8, 3), np.uint8)
    script = tmp_path / "decoding.py"
    script.write_text(DECODING)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, script, file, tmp_path / "a.npy"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as parent:
        assert parent.stdout and parent.stderr
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        children = [psutil.Process(pid) for pid in pids]
        loaded = [Path(region.path).name for child in children for region in child.memory_maps()]
        parent.send_signal(number)
        parent.wait(60)
        assert psutil.wait_procs(children, timeout=60)[1] == []
        assert parent.stderr.read().count("Traceback") == (
            number == signal.SIGINT
        )  # the parent's own
    assert len(pids) == 2
    assert not [name for name in loaded if "torch" in name]


def broken(root: Path, name: str) -> str:
    """Breaks the folder in a way; returns what the message must say."""
    train, test = root / "train", root / "test"
    match name:
        case "no such folder":
            root.rename(root.parent / "gone")
            return f"{root}: no such folder"
        case "a file":
            root.rename(root.parent / "gone")
            root.write_text("")
            return f"{root}: not a folder. Expected one folder per class"
        case "no train":
            train.rename(root / "training")
            return f"{root}: has no folder train. Expected one folder per class"
        case "no test":
            test.rename(root / "holdout")
            return f"{root}: has no folder test or val"
        case "no class folders":
            test.rename(root / "old")
            test.mkdir()
            return f"{test}: no class folders in it"
        case "class missing in test":
            (test / "dog").rename(root / "dog")
            return f"{train}/dog: a class that {test} has no folder for"
        case "class missing in train":
            (train / "dog").rename(root / "dog")
            return f"{test}/dog: a class that {train} has no folder for"
        case "no images in a class":
            for file in (train / "emu").iterdir():
                file.rename(file.with_suffix(".txt"))
            return (
                f"{train}/emu: a class without images (it holds emu-0.txt, emu-1.txt, emu-2.txt,"
                " ...)"
            )
        case "one class":
            for folder in (train, test):
                (folder / "cat").rename(root / f"cat-{folder.name}")
                (folder / "dog").rename(root / f"dog-{folder.name}")
            return f"{train}: one class folder only"
        case "not an image":
            (train / "cat/cat-3.png").write_text("hello")
            return f"{train}/cat/cat-3.png: cannot be decoded as an image"
        case "empty image":
            (train / "cat/cat-3.png").write_bytes(b"")
            return f"{train}/cat/cat-3.png: cannot be decoded as an image"
        case "truncated image":
            file = test / "cat/cat-0.png"
            file.write_bytes(file.read_bytes()[:-60])
            return f"{file}: cannot be decoded as an image"
        case "16 bits":
            Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(train / "cat/cat-1.png")
            return f"{train}/cat/cat-1.png: has more than 8 bits a channel"
        case "link to nothing":
            (train / "cat/zebra.png").symlink_to(root / "nothing.png")
            return f"{train}/cat/zebra.png: a link to a file that does not exist"
        case "a device with an image's name":
            (train / "cat/zebra.png").symlink_to(os.devnull)
            return f"{train}/cat/zebra.png: is a device, not a file"
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name",
    [
        "no such folder",
        "a file",
        "no train",
        "no test",
        "no class folders",
        "class missing in test",
        "class missing in train",
        "no images in a class",
        "one class",
        "not an image",
        "empty image",
        "truncated image",
        "16 bits",
        "link to nothing",
        "a device with an image's name",
    ],
)
def test_a_broken_folder_is_named(photos: Path, name: str) -> None:
    message = broken(photos, name)
    with pytest.raises(DataError) as raised:
        prepare_folder(photos)
    assert message in str(raised.value)


def write_names(root: Path, classes: int, images: int) -> None:
    for c in range(classes):
        (root / f"n{c:03}").mkdir(parents=True)
        for k in range(images):
            (root / f"n{c:03}" / f"{k:04}.jpg").touch()


def test_mini_imagenet_takes_the_first_500_names_for_training_and_the_last_100_for_the_test(
    tmp_path: Path,
) -> None:
    write_names(tmp_path / "mini", 100, 601)
    splits = mini_imagenet(tmp_path / "mini")
    assert len(splits["train"]) == len(splits["test"]) == 100
    for folder, files in splits["train"].items():
        assert [Path(file).name for file in files] == [f"{k:04}.jpg" for k in range(500)]
        assert [Path(file).name for file in splits["test"][folder]] == [
            f"{k:04}.jpg" for k in range(501, 601)
        ]


def test_another_set_is_not_taken_for_mini_imagenet_or_imagenet(
    tmp_path: Path, photos: Path
) -> None:
    write_names(tmp_path / "short", 100, 3)
    with pytest.raises(
        DataError, match=r"short/n000: 3 images; Mini-ImageNet has 600 in each class"
    ):
        mini_imagenet(tmp_path / "short")
    with pytest.raises(
        DataError, match=r"photos: 2 class folders \(test, train, ...\); Mini-ImageNet has 100"
    ):
        mini_imagenet(photos)
    with pytest.raises(
        DataError,
        match=(
            r"photos: 3 classes, 15 training and 6 test images; ImageNet has 1000, 1281167 and"
            r" 50000"
        ),
    ):
        imagenet(photos)


def test_data_too_large_for_the_disk_is_refused_before_decoding(
    tmp_path: Path, photos: Path
) -> None:
    with pytest.raises(
        DataError,
        match=(
            r"21 images of 9000000 x 9000000 pixels take 5103000.0 GB decoded.*set"
            r" ORCHESTRATE_CACHE"
        ),
    ):
        ImageFolders(
            photos,
            lambda root, passed: {split: class_images(root / split) for split in ("train", "test")},
            9_000_000,
        ).load(tmp_path, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "size", "stored", "recipe"),
    [
        (
            "imagenet",
            14,
            16,
            Recipe(rotation=10, resized_crop=True, flip=True, jitter=(0.4, 0.4, 0.4, 0.1)),
        ),
        ("mini_imagenet", 12, 12, Recipe(shift=8, rotation=10, flip=True)),
    ],
)
def test_views_of_the_imagenets_are_made_as_published(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: int,
    stored: int,
    recipe: Recipe,
) -> None:
    """The sets themselves are too large for a test: a small folder is read in their place, with all
    else as theirs.
    """
    for layout in ("imagenet", "mini_imagenet"):
        monkeypatch.setattr(f"orchestrator.data.sources.folders.{layout}", train_and_test)
    cls = INSTALLED.load("source", name)
    monkeypatch.setattr(cls, "holds", contents(Folder(path=str(photos))))
    data = open_data(prepare(cls(path=str(photos), image_size=size)).images_dir)
    assert data.recipe == recipe
    assert data.shape == (size, size, 3)
    assert data.train.shape[1:] == (stored, stored, 3)
