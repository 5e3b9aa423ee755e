"""What a picture file becomes, what is passed over, and that both are said, once."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator import cli
from orchestrator.data.arrays import create_array
from orchestrator.data.decoding import _decode_with, decode, read_image
from orchestrator.data.image_folders import PassedOver
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder, mini_imagenet
from search_spaces.reading.datasets import contents
from tests.helpers.dataset_files import random_image, write_features, write_image_folder
from trainers.errors import DataError

TURNED = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation -> what makes the image upright."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "photos", classes=("cat", "dog"))


def prepare_folder(root: Path, image_size: int | None = None) -> PreparedData:
    return prepare(Folder(path=str(root), image_size=image_size))


def kept(data: PreparedData, split: str = "train") -> set[bytes]:
    return {image.tobytes() for image in np.load(data.images_dir / f"{split}.npy")}


def with_orientation(image: Image.Image, orientation: int, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_images_are_kept_upright(tmp_path: Path, suffix: str) -> None:
    for orientation in range(10):
        file = tmp_path / f"{orientation}.{suffix}"
        with_orientation(random_image(1, size=(8, 6)), orientation, file)
        plain = tmp_path / f"plain-{orientation}.{suffix}"
        random_image(1, size=(8, 6)).save(plain)
        raw = Image.open(plain).convert("RGB")
        upright = (
            raw.transpose(Image.Transpose[TURNED[orientation]]) if orientation in TURNED else raw
        )
        assert np.array_equal(read_image(str(file), None), np.asarray(upright)), orientation


def test_turned_images_are_counted_and_named(photos: Path) -> None:
    for orientation in (1, 3, 6, 8):
        with_orientation(
            random_image(9, orientation),
            orientation,
            photos / f"train/cat/orientation{orientation}.png",
        )
    data = prepare_folder(photos)
    names = "train/cat/orientation3.png, train/cat/orientation6.png, train/cat/orientation8.png"
    assert data.notes == (
        f"3 of 14 training images were turned or mirrored as their EXIF orientation says: {names}",
    )
    assert np.asarray(random_image(9, 6).transpose(Image.Transpose.ROTATE_270)).tobytes() in kept(
        data
    )


def test_damaged_exif_data_is_a_note_and_its_pixels_are_kept(photos: Path) -> None:
    random_image(5).save(photos / "train/dog/odd.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    data = prepare_folder(photos)
    assert np.asarray(random_image(5)).tobytes() in kept(data)
    assert all("train/dog/odd.png" in note for note in data.notes)


def icon(shade: int) -> Image.Image:
    """A black shape on nothing, as icons are: all that is seen of it is its transparency."""
    icon = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    icon.paste((0, 0, 0, 255), (1, 1, 2 + shade, 7))
    return icon


def test_transparent_parts_become_white_and_are_counted(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for c, name in enumerate(("circle", "square")):
            (tmp_path / "icons" / split / name).mkdir(parents=True)
            for k in range(2):
                icon(2 * c + k + (split == "test")).save(
                    tmp_path / "icons" / split / name / f"{k}.png"
                )
    data = prepare_folder(tmp_path / "icons")
    assert len(kept(data)) == 4
    image = np.load(data.images_dir / "train.npy")[0]
    assert sorted(np.unique(image)) == [0, 255] and image[0, 0].tolist() == [255, 255, 255]
    assert data.notes[0].startswith(
        "4 of 4 training images have transparent parts, which became white: train/circle/0.png,"
        " train/circle/1.png, train/square/0"
    )
    half = Image.new("RGBA", (2, 2), (0, 100, 200, 128))
    half.save(tmp_path / "half.png")
    assert read_image(str(tmp_path / "half.png"), None)[0, 0] == pytest.approx(
        [127, 177, 227], abs=1
    )


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB", "PA"])
def test_every_sort_of_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.paste((90, 90, 90, 255), (0, 0, 2, 4))
    if mode in ("LA", "PA"):
        (clear.convert(mode) if mode == "LA" else clear.quantize().convert("PA")).save(
            tmp_path / "a.tiff" if mode == "PA" else tmp_path / "a.png"
        )
    elif mode == "P":
        clear.quantize().save(tmp_path / "a.png")
    else:
        clear.convert("RGB").convert(mode).save(
            tmp_path / "a.png", transparency=0 if mode == "L" else (0, 0, 0)
        )
    (file,) = tmp_path.glob("a.*")
    expected = np.full((4, 4, 3), 255)
    expected[:, :2] = 90
    remarks: list[tuple[str, str]] = []
    assert np.array_equal(
        read_image(str(file), None, lambda *said: remarks.append(said)), expected
    ), mode
    assert remarks == [("transparent", "")]


def test_images_all_equal_are_refused(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "blank", classes=("cat", "dog"))
    for file in root.rglob("*.png"):
        Image.new("RGB", (8, 8)).save(file)
    with pytest.raises(DataError, match=rf"{root}: all 10 training items are equal"):
        prepare_folder(root)
    path = write_features(tmp_path / "a.npz", x=np.ones((60, 4)))
    with pytest.raises(DataError, match=r"a.npz: all 48 training items are equal"):
        prepare(Features(path=str(path)))


def test_every_suffix_of_an_image_is_read_and_others_are_counted(photos: Path) -> None:
    for k, (suffix, form) in enumerate(
        {"jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "PNG": "PNG", "JPEG": "JPEG"}.items()
    ):
        random_image(9, k).save(photos / f"train/cat/more{k}.{suffix}", format=form)
    for name in ("a.heic", "b.HEIC", "notes.txt", "nothing"):
        (photos / "train/dog" / name).write_text("")
    config = Folder(path=str(photos))
    data = prepare(config)
    assert data.facts.train_items == contents(config).train_items == 15
    assert len(data.notes) == 1
    assert data.notes[0].startswith(
        "passed over 4 files in class folders (2 .heic, 1 .txt, 1 no suffix; read are .bmp .gif"
        " .jfif .jpe .jpeg .jpg"
    )
    assert data.notes[0].endswith(
        ": train/dog/a.heic, train/dog/b.HEIC, train/dog/notes.txt, train/dog/nothing"
    )


def test_what_lies_beside_and_what_is_hidden_is_counted_and_litter_is_not(photos: Path) -> None:
    (photos / "val/cat").mkdir(parents=True)
    random_image(3).save(photos / "train/stray.png")
    random_image(3).save(photos / "train/cat/.hidden.png")
    for litter in (
        "train/cat/.DS_Store",
        "train/._cat",
        "test/dog/._dog-0.png",
        "train/cat/Thumbs.db",
    ):
        (photos / litter).write_bytes(b"")
    assert prepare_folder(photos).notes == (
        "passed over 2 files and folders beside those that are read: train/stray.png, val",
        "passed over 1 hidden files and folders: train/cat/.hidden.png",
    )


def test_images_of_mini_imagenet_that_are_left_over_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("CLASSES", 9), ("TRAIN", 5), ("TEST", 1)):
        monkeypatch.setattr(f"orchestrator.data.sources.folders.MINI_{name}", size)
    for c in range(9):
        (tmp_path / f"n{c:03}").mkdir()
        for k in range(8 if c == 7 else 6):
            (tmp_path / f"n{c:03}" / f"{k:04}.jpg").touch()
    passed = PassedOver(tmp_path)
    mini_imagenet(tmp_path, passed)
    assert passed.lines() == (
        (
            "passed over 2 images beyond those that the set takes of each class: n007/0005.jpg,"
            " n007/0006.jpg"
        ),
    )


def test_files_of_several_frames_are_all_named_and_refused(photos: Path) -> None:
    frames = [random_image(k) for k in range(3)]
    for name in ("animated.png", "animated.webp", "stack.tif", "moving.gif"):
        frames[0].save(photos / "train/cat" / name, save_all=True, append_images=frames[1:])
    random_image(8).save(photos / "train/dog/single.gif")
    with pytest.raises(DataError) as raised:
        prepare_folder(photos)
    assert (
        "4 image files of the training set have several frames or pages (train/cat/animated.png has"
        " 3): " in str(raised.value)
    )
    assert (
        "train/cat/animated.png, train/cat/animated.webp, train/cat/moving.gif,"
        " train/cat/stack.tif. Which" in str(raised.value)
    )


def test_the_previews_in_a_cameras_file_are_no_frames(photos: Path) -> None:
    random_image(1).save(
        photos / "train/cat/camera.jpg",
        format="MPO",
        save_all=True,
        append_images=[random_image(2)],
    )
    assert prepare_folder(photos).facts.train_items == 11


def test_names_that_print_alike_are_told_apart(tmp_path: Path, photos: Path) -> None:
    composed, other = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    (photos / "train/cat").rename(photos / f"train/{composed}")
    (photos / "test/cat").rename(photos / f"test/{other}")
    said = r"the names 'caf\xe9' and 'cafe\u0301' differ in their Unicode form alone"
    for run in (prepare, contents):
        with pytest.raises(Exception, match="differ in their Unicode form alone") as raised:
            run(Folder(path=str(photos)))
        assert said in str(raised.value)
    (photos / f"test/{other}").rename(photos / f"test/{composed}")
    write_image_folder(tmp_path / "more", classes=(other,))
    (tmp_path / f"more/train/{other}").rename(photos / f"train/{other}")
    with pytest.raises(DataError, match="differ in their Unicode form alone"):
        prepare_folder(photos)


def test_a_picture_of_one_line_does_not_swell_when_it_is_resized(photos: Path) -> None:
    random_image(4, size=(60_000, 1)).save(photos / "train/cat/line.png")
    with pytest.raises(
        DataError,
        match=r"line.png: is 60000 x 1 pixels, too long and thin to resize its shorter side to 224",
    ):
        prepare_folder(photos, image_size=224)
    with pytest.raises(DataError, match=r"the cache has .* GB free"):
        prepare_folder(photos, image_size=10**12)


def test_a_picture_file_far_too_large_is_not_read(photos: Path) -> None:
    with (photos / "train/cat/cat-3.png").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"cat-3.png: has 1,099,511,627,776 bytes"):
        prepare_folder(photos)


def test_large_images_are_no_cause_for_a_warning_without_their_name(
    photos: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (10_000, 9_000)).save(photos / "train/cat/large.png")
    warnings.simplefilter("always")
    assert prepare_folder(photos, image_size=8).facts.train_items == 11
    assert not [warning for warning in recwarn if "Bomb" in str(warning.category)]


def test_a_librarys_warning_is_told_with_its_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    random_image(4, size=(7, 7)).save(photos / "test/dog/seven.bmp")
    monkeypatch.setattr("orchestrator.data.decoding._upright", _warning(7))
    data = prepare_folder(photos, image_size=8)
    assert data.notes == (
        "1 of 5 test images were read with a warning (odd\\x1b bytes): test/dog/seven.bmp",
    )
    assert not len(recwarn)


def _warning(side: int) -> object:
    from orchestrator.data.decoding import _upright

    def upright(image: Image.Image, remark: object) -> Image.Image:
        if image.size == (side, side):
            warnings.warn("odd\x1b bytes", UserWarning, stacklevel=1)
        return _upright(image, remark)  # type: ignore[arg-type]

    return upright


def test_processes_tell_what_one_process_tells(tmp_path: Path) -> None:
    files = []
    for k in range(9):
        files.append(str(tmp_path / f"{k}.png"))
        with_orientation(icon(k % 5), 3 if k % 2 else 1, Path(files[-1]))
    found = []
    for name, run in (
        ("one", lambda target: decode(files, target, None, lambda n: None)),
        ("three", lambda t: _decode_with(3, files, t, None, print)),
    ):
        create_array(tmp_path / f"{name}.npy", (9, 8, 8, 3), np.uint8)
        remarks = run(tmp_path / f"{name}.npy")
        found.append(
            (
                remarks.of("turned"),
                remarks.of("transparent"),
                remarks.of("frames"),
                remarks.of("warned"),
            )
        )
    assert found[0] == found[1]
    assert [row for row, _ in found[0][0]] == [1, 3, 5, 7] and len(found[0][1]) == 9


def test_copies_are_counted(photos: Path) -> None:
    copy = (photos / "train/cat/cat-0.png").read_bytes()
    (photos / "test/cat/cat-0.png").write_bytes(copy)
    (photos / "test/cat/again.png").write_bytes(copy)
    (photos / "train/dog/cat.png").write_bytes(copy)
    (photos / "train/dog/dog.png").write_bytes((photos / "train/dog/dog-0.png").read_bytes())
    assert prepare_folder(photos).notes == (
        (
            "2 of 12 training items are copies of other training items; 1 items are there under"
            " more than one class"
        ),
        "2 of 5 test items are training items too: test accuracy may say too much of new ones",
    )


def test_feature_rows_that_are_alike_where_they_are_sampled_are_not_taken_for_copies(
    tmp_path: Path,
) -> None:
    x = np.zeros((60, 1000))
    x[np.arange(60), np.arange(60)] = 1
    y = np.arange(60) % 3
    assert prepare(Features(path=str(write_features(tmp_path / "a.npz", x=x, y=y)))).notes == ()
    x[10] = x[20]
    found = prepare(
        Features(
            path=str(write_features(tmp_path / "b.npz", x=x, y=y, x_test=x[:7], y_test=y[:7])),
        )
    )
    assert [note.split(":")[0].split(";")[0] for note in found.notes] == [
        "1 of 60 training items are copies of other training items",
        "7 of 7 test items are training items too",
    ]


@pytest.mark.parametrize(("rare", "said"), [(11, False), (10, True)])
def test_classes_of_unlike_sizes_are_said_to_be_so(tmp_path: Path, rare: int, said: bool) -> None:
    y = np.repeat([0, 1], [30, rare])
    x = np.random.default_rng(2).normal(size=(y.size, 4))
    test = {"x_test": x[:2] + 1, "y_test": np.array([0, 1])}
    notes = prepare(Features(path=str(write_features(tmp_path / "a.npz", x=x, y=y, **test)))).notes
    found = [note for note in notes if "another mixture than test accuracy" in note]
    assert bool(found) == said
    if said:
        assert found[0].startswith("class 0 has 30 training items and class 1 10: validation:")


def test_classes_that_the_test_set_lacks_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = write_features(
        tmp_path / "a.npz",
        x_test=rng.normal(size=(4, 4)),
        y_test=np.array([1, 1, 1, 1]),
        class_names=np.array(["ant", "bee", "cow"]),
    )
    note = (
        "the test set has no item of 2 of 3 classes (ant, cow): test accuracy says nothing of them"
    )
    assert prepare(Features(path=str(path))).notes == (note,)


SPEC = """name: small
dataset: {name: folder, path: PATH, validation: {from: none}}
budget: {full_labels: 4}
base:
  method: {name: mean_teacher, epochs: 1, backbone: small_cnn, batch_size: 8}
  schedule: {initial_labels_per_class: 2, split: []}
seeds: [0]
"""


def test_notes_are_said_by_data_prepare_and_by_the_first_sweep(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "test/cat/cat-0.png").write_bytes((photos / "train/cat/cat-0.png").read_bytes())
    note = "folder: 1 of 4 test items are training items too"
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.replace("PATH", str(photos)))
    said = []
    for words in (
        ["sweep", str(spec), "--engine", "inline", "--out", str(tmp_path / "a")],
        ["sweep", str(spec), "--engine", "inline", "--out", str(tmp_path / "b")],
    ):
        assert cli.main(words) == 0
        said.append(capsys.readouterr().err.count(note))
    for words in (
        ["data", "prepare", "folder", "--path", str(photos)],
        ["data", "prepare", "folder", "--path", str(photos), "--json"],
    ):
        assert cli.main(words) == 0
        captured = capsys.readouterr()
        said.append(captured.err.count(note))
        assert ("1 of 4 test items" in captured.out) == ("--json" in words)
    assert said == [1, 0, 1, 1]


def test_what_a_mac_leaves_beside_each_file_is_no_image(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "photos", classes=("cat", "dog"))
    for folder in [*root.glob("*/*")]:
        (folder / "._0.png").write_bytes(b"\0\5\x16\7")
        (folder / ".DS_Store").write_bytes(b"\0")
    assert prepare_folder(root).notes == ()
    (root / "train/__MACOSX/cat").mkdir(parents=True)
    (root / "train/__MACOSX/cat/._0.png").write_bytes(b"\0\5\x16\7")
    with pytest.raises(DataError, match="__MACOSX: a class without images"):
        prepare_folder(root)
