"""The cache of decoded data: whole or not there, labels apart, made once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data import cache as data_cache
from orchestrator.data import prepare as datasets
from orchestrator.data.arrays import held_out_rows
from orchestrator.data.cache import statistics
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.protocols import Source
from orchestrator.data.sources.cifar import Cifar10, Cifar100
from orchestrator.data.sources.digits import Digits, DigitsFeatures
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder, MiniImagenet
from tests.helpers.dataset_files import write_features, write_image_folder
from trainers.errors import DataError

DIGITS = Digits()

PREPARE = """
import sys
from orchestrator.data.prepare import prepare
from orchestrator.data.sources.digits import Digits
from orchestrator.data.sources.folders import Folder
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ORCHESTRATE_DATA", raising=False)
    return tmp_path / "cache"


def folder_config(tmp_path: Path) -> Folder:
    return Folder(path=str(write_image_folder(tmp_path / "photos")))


def arrays(data: PreparedData) -> dict[str, np.ndarray]:
    return {
        f"{kind}/{split}": np.load(folder / f"{split}.npy")
        for kind, folder in (("images", data.images_dir), ("labels", data.labels_dir))
        for split in ("train", "test")
    }


def decoded_files(cache: Path) -> list[str]:
    return sorted(
        str(path.relative_to(cache))
        for place in ("images", "labels")
        for path in (cache / place).rglob("*")
    )


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREPARE + code, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_digits_are_scikit_learns_digits_split_once_and_for_all() -> None:
    from sklearn.datasets import load_digits

    data = prepare(DIGITS)
    found = arrays(data)
    assert {name: array.shape for name, array in found.items()} == {
        "images/train": (1200, 8, 8, 1),
        "images/test": (597, 8, 8, 1),
        "labels/train": (1200,),
        "labels/test": (597,),
    }
    assert found["images/train"].dtype == np.uint8
    assert found["labels/train"].dtype == np.int32
    pairs = {
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    here = {
        (image.tobytes(), int(label))
        for split in ("train", "test")
        for image, label in zip(found[f"images/{split}"], found[f"labels/{split}"], strict=True)
    }
    assert here == pairs
    # Every sweep and every report stands on this split: it must not move.
    assert data.fingerprint == "15cf60c0153b493fbeb118ab54e7206972079675eeb1a3b00736d06b632d679b"


def test_digits_as_features_are_the_pixels_of_the_same_digits_row_by_row() -> None:
    images, vectors = (arrays(prepare(source)) for source in (DIGITS, DigitsFeatures()))
    for split in ("train", "test"):
        sixteenths = vectors[f"images/{split}"] * 16
        assert sixteenths.dtype == np.float32 and set(np.unique(sixteenths)) == set(range(17))
        pixels = np.rint(sixteenths.astype(np.float64) * 255 / 16).reshape(-1, 8, 8, 1)
        assert np.array_equal(pixels, images[f"images/{split}"])
        assert np.array_equal(vectors[f"labels/{split}"], images[f"labels/{split}"])


def test_meta_says_what_the_arrays_are() -> None:
    data = prepare(DIGITS)
    meta = json.loads((data.images_dir / "meta.json").read_text())
    train = np.load(data.images_dir / "train.npy") / 255
    assert (
        meta["kind"],
        meta["num_classes"],
        meta["train_items"],
        meta["test_items"],
        meta["shape"],
    ) == ("images", 10, 1200, 597, [8, 8, 1])
    assert meta["mean"] == pytest.approx([train.mean()])
    assert meta["std"] == pytest.approx([train.std()])
    assert meta["augment"] == {"shift": 1, "flip": False}
    assert meta["class_names"] == list("0123456789")
    assert meta["fingerprint"] == data.fingerprint


def test_a_trainers_folder_holds_no_label_and_no_file_name(tmp_path: Path) -> None:
    data = prepare(folder_config(tmp_path))
    assert {path.name for path in data.images_dir.iterdir()} == {
        "train.npy",
        "test.npy",
        "meta.json",
    }
    assert "dog-1" not in (data.images_dir / "meta.json").read_text()
    assert data.images_dir.resolve() not in [
        data.labels_dir.resolve(),
        *data.labels_dir.resolve().parents,
    ]
    labels = np.load(data.labels_dir / "train.npy")
    assert (np.diff(labels) < 0).any(), (
        "in the order of folders an image's number would tell its class"
    )


def test_other_labels_leave_the_trainers_folder_as_it_is(tmp_path: Path) -> None:
    config = Features(
        path=str(write_features(tmp_path / "a.npz", x_test=np.ones((3, 4)), y_test=np.arange(3))),
    )
    before = prepare(config)
    content = {path.name: path.read_bytes() for path in before.images_dir.iterdir()}
    write_features(
        tmp_path / "a.npz",
        y=np.arange(60)[::-1] % 3,
        x_test=np.ones((3, 4)),
        y_test=np.arange(3)[::-1],
    )
    after = prepare(config)
    assert after.fingerprint == before.fingerprint
    assert {path.name: path.read_bytes() for path in after.images_dir.iterdir()} == content
    assert np.load(after.labels_dir / "train.npy").tolist() == (np.arange(60)[::-1] % 3).tolist()
    assert np.load(before.labels_dir / "train.npy").tolist() == (np.arange(60) % 3).tolist(), (
        "a running sweep keeps the labels it began with"
    )


def test_prepared_digits_are_found_without_heavy_imports() -> None:
    prepare(DIGITS)
    done = run_python(
        "prepare(Digits()); print(sorted({'sklearn', 'torch', 'torchvision',"
        " 'PIL', 'ray', 'pandas'} & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_prepared_set_is_not_decoded_again_until_its_source_changes(tmp_path: Path) -> None:
    config, calls = folder_config(tmp_path), []
    first = prepare(config, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (21, 21)
    calls.clear()
    assert prepare(config, on_progress=lambda done, total: calls.append((done, total))) == first
    assert not calls
    (tmp_path / "photos/train/cat/cat-0.png").unlink()
    assert (
        prepare(
            config, on_progress=lambda done, total: calls.append((done, total))
        ).facts.train_items
        == 14
    )
    assert calls


@pytest.mark.parametrize(
    "file",
    [
        "images/train.npy",
        "images/test.npy",
        "images/meta.json",
        "labels/train.npy",
        "labels/test.npy",
        "labels/meta.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, file: str, damage: str) -> None:
    config = folder_config(tmp_path)
    data = prepare(config)
    before = arrays(data)
    kind, name = file.split("/")
    path = (data.images_dir if kind == "images" else data.labels_dir) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1] if name != "meta.json" else content[: len(content) // 2])
    else:
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    again = prepare(config, verify=damage == "changed")
    after = arrays(again)
    assert all((before[key] == after[key]).all() for key in before)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "instant", ["while decoding", "before the labels", "before the images", "before the entry"]
)
def test_a_killed_prepare_leaves_nothing_half_visible_and_the_next_one_finishes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, instant: str
) -> None:
    config = folder_config(tmp_path)
    code = {
        "while decoding": (
            "prepare(config, on_progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))"
        ),
        "before the labels": (
            "cache.move_into_place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "prepare(config)"
        ),
        "before the images": (
            "put = cache.move_into_place\n"
            "cache.move_into_place = lambda built, target: put(built, target) if built.name"
            " == 'labels' else os.kill(os.getpid(), signal.SIGKILL)\nprepare(config)"
        ),
        "before the entry": (
            "cache.commit_file = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL);"
            " prepare(config)"
        ),
    }[instant]
    killed = run_python(
        "import os, signal\nfrom orchestrator.data import cache\nconfig ="
        f" Folder(path=sys.argv[1])\n{code}",
        str(config.path),
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen = {
        place: (
            [
                path
                for path in (cache / place).iterdir()
                if data_cache.intact(path, verify=True) is None
            ]
            if (cache / place).exists()
            else []
        )
        for place in ("images", "labels")
    }
    assert seen == {"images": [], "labels": []}
    assert any((cache / "building").glob("*-*")), (
        "the killed process was meant to leave its part behind"
    )
    data = prepare(config)
    assert data.facts.train_items == 15
    assert not list((cache / "building").glob("*-*"))
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
    undisturbed = prepare(config)
    assert undisturbed.fingerprint == data.fingerprint
    assert {key: array.tolist() for key, array in arrays(data).items()} == {
        key: array.tolist() for key, array in arrays(undisturbed).items()
    }


def test_prepares_at_the_same_time_end_with_the_same_data_decoded_once(tmp_path: Path) -> None:
    config = folder_config(tmp_path)
    code = (
        "calls = []; d = prepare(Folder(path=sys.argv[1]), on_progress=lambda"
        " *a: calls.append(a))\nprint(d.images_dir, d.labels_dir, bool(calls))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE + code, str(config.path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    lines = [process.communicate(timeout=100)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    data = prepare(config)
    assert {tuple(line[:2]) for line in lines} == {(str(data.images_dir), str(data.labels_dir))}
    assert sorted(line[2] for line in lines) == ["False", "False", "True"]


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, cache: Path) -> None:
    config = folder_config(tmp_path)
    with pytest.raises(DataError, match="changed while they were read"):
        prepare(
            config,
            on_progress=lambda done, total: os.utime(
                tmp_path / "photos/train/cat/cat-0.png", (1, 1)
            ),
        )
    assert decoded_files(cache) == []


def test_failed_data_leaves_no_part_in_the_cache(tmp_path: Path, cache: Path) -> None:
    config = folder_config(tmp_path)
    (tmp_path / "photos/test/emu/emu-1.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        prepare(config)
    assert decoded_files(cache) == []
    assert not list((cache / "building").glob("*-*"))


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=rf"{tmp_path}/file.*set ORCHESTRATE_CACHE"):
        prepare(DIGITS)


def test_a_full_disk_is_told_before_it_kills_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder_config(tmp_path)

    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="no space left"):
        prepare(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Cifar10(),
            "cifar10: nothing says where the data is.*ORCHESTRATE_DATA",
        ),
        (
            MiniImagenet(path="/nowhere/at/all"),
            "/nowhere/at/all: no such folder",
        ),
        (Features(path="/nowhere.npz"), "/nowhere.npz: no such file"),
    ],
)
def test_missing_data_is_named(config: Source, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(config)


def test_built_in_sets_are_looked_for_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"{tmp_path}/cifar100: no such folder"):
        prepare(Cifar100())


def test_the_list_tells_what_is_prepared_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder_config(tmp_path)
    prepare(config)
    monkeypatch.setenv("ORCHESTRATE_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    rows = {(row.name, row.path): row for row in datasets.list_data()}
    assert rows["digits", None].state == "not prepared"
    assert rows["cifar10", str(tmp_path / "cifar10")].state == "not prepared"
    assert rows["cifar100", str(tmp_path / "cifar100")].state == "not found"
    prepared = rows["folder", str(config.path)]
    assert (prepared.state, prepared.train_items) == ("prepared", 15)
    assert prepared.bytes > 21 * 8 * 8 * 3


@given(st.lists(st.integers(0, 4), min_size=5, max_size=200), st.data())
def test_held_out_rows_are_exactly_as_many_as_asked_and_fair_to_every_class(
    labels: list[int], data: st.DataObject
) -> None:
    classes = np.array(labels)
    count = data.draw(st.integers(0, len(labels)))
    rows = held_out_rows(classes, count)
    assert len(set(rows.tolist())) == len(rows) == count
    assert (np.diff(rows) > 0).all()
    for c in set(labels):
        share = (classes == c).sum() * count / len(labels)
        assert abs((classes[rows] == c).sum() - share) < 1


def test_statistics_are_those_of_numpy_and_never_divide_by_zero() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    images[..., 2] = 7
    mean, std = statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)).tolist())
    assert std == pytest.approx([*(images / 255).std(axis=(0, 1, 2)).tolist()[:2], 1.0])
    features = rng.normal(1000, 0.1, (100, 3)).astype(np.float32)
    features[:, 2] = 0.1
    mean, std = statistics(features)
    assert mean == pytest.approx(features.mean(axis=0, dtype=np.float64).tolist())
    assert std == pytest.approx([*features.std(axis=0, dtype=np.float64).tolist()[:2], 1.0])


def test_images_of_one_colour_have_a_deviation_of_one_whatever_the_colour() -> None:
    assert {statistics(np.full((3, 1, 1, 1), colour, np.uint8))[1] for colour in range(256)} == {
        (1.0,)
    }
