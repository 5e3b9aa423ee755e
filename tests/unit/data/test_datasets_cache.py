"""What is written of the cache's data is believed only if it is whole, and a built-in set only at
its published size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data import cache as data_cache
from orchestrator.data.image_folders import train_and_test
from orchestrator.data.prepare import PreparedData, list_data, prepare
from orchestrator.data.sources.digits import Digits
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder, ImageFolders, MiniImagenet
from search_spaces.reading.config import Contents
from tests.helpers.dataset_files import random_image, write_features, write_image_folder
from trainers.data.items import holds_images, open_data
from trainers.errors import DataError
from trainers.networks.names import BACKBONES
from trainers.networks.precision import precision_used


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ORCHESTRATE_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def config(tmp_path: Path) -> Features:
    return Features(path=str(write_features(tmp_path / "a.npz")))


def written(path: Path) -> Any:
    return json.loads(path.read_text())


DAMAGE: dict[str, Callable[[str], str]] = {
    "nested": lambda text: "[" * 100_000 + "]" * 100_000,
    "a list": lambda text: "[1]",
    "text": lambda text: '"text"',
    "null": lambda text: "null",
    "no text": lambda text: "\ud800",
    "infinite": lambda text: (
        text.replace(": 1,", ": 1e999,")
        .replace(": 2,", ": 1e999,")
        .replace("48", "1e999")
        .replace("null", "1e999")
    ),
    "another digit": lambda text: (
        text.replace("48", "47").replace("null", "7").replace("320", "321")
    ),
    "lists for texts": lambda text: json.dumps(
        {key: [value] for key, value in json.loads(text).items()}
    ),
    "numbers for texts": lambda text: json.dumps(dict.fromkeys(json.loads(text), 5)),
    "a key more": lambda text: json.dumps(json.loads(text) | {"more": 1}),
    "no keys": lambda text: "{}",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("victim", ["entry", "images", "labels"])
def test_damaged_words_about_the_data_are_no_cache(
    cache: Path, config: Features, victim: str, damage: str
) -> None:
    data = prepare(config)
    place = {"images": data.images_dir / "meta.json", "labels": data.labels_dir / "meta.json"}.get(
        victim
    ) or next((cache / "sources").glob("*.json"))
    before = place.read_bytes()
    place.write_bytes(DAMAGE[damage](before.decode()).encode("utf-8", "surrogatepass"))
    assert place.read_bytes() != before
    assert {row.state for row in list_data() if row.name == "features"} <= {"not prepared"}
    assert prepare(config) == data
    assert place.read_bytes() == before


@pytest.mark.parametrize("key", ["images", "labels"])
def test_an_entry_leads_nowhere_else(
    tmp_path: Path, cache: Path, config: Features, key: str
) -> None:
    data = prepare(config)
    (entry,) = (cache / "sources").glob("*.json")
    before = written(entry)
    shutil.copytree(getattr(data, f"{key}_dir"), tmp_path / "evil")
    for name in (
        "../../evil",
        str(tmp_path / "evil"),
        "..",
        "",
        ".",
        "features-" + "0" * 16 + "/../../../evil",
    ):
        entry.write_text(json.dumps(before | {key: name}))
        assert data_cache.entries(cache) == []
        found = prepare(config)
        assert (found.images_dir, found.labels_dir) == (data.images_dir, data.labels_dir)


def test_folders_that_were_exchanged_are_noticed(
    tmp_path: Path, cache: Path, config: Features
) -> None:
    data = prepare(config)
    x = np.random.default_rng(1).normal(size=(60, 4))
    mended = Features(path=str(write_features(tmp_path / "b.npz", x=x, y=np.arange(60) % 4)))
    other = prepare(mended)
    train = {
        place: (place / "train.npy").read_bytes() for place in (data.images_dir, data.labels_dir)
    }
    for kind in ("images_dir", "labels_dir"):
        one, two, aside = getattr(data, kind), getattr(other, kind), tmp_path / "aside"
        assert one != two
        one.rename(aside)
        two.rename(one)
        aside.rename(two)
        assert prepare(config) == data and prepare(mended) == other
        assert {
            place: (place / "train.npy").read_bytes()
            for place in (data.images_dir, data.labels_dir)
        } == train


def test_a_cache_of_an_older_format_is_made_anew_and_the_same_data_keep_their_fingerprint(
    tmp_path: Path, cache: Path
) -> None:
    root = write_image_folder(tmp_path / "photos")
    config = Folder(path=str(root))
    data = prepare(config)
    meta, (entry,) = written(data.images_dir / "meta.json"), (cache / "sources").glob("*.json")
    # As the first format had it: no checksum, no notes, and images that were decoded otherwise.
    del meta["checksum"]
    (data.images_dir / "meta.json").write_text(json.dumps(meta | {"format": 1}))
    old = written(entry)
    del old["notes"]
    entry.write_text(json.dumps(old))
    calls: list[int] = []
    again = prepare(config, on_progress=lambda done, total: calls.append(done))
    assert calls and again == data
    assert written(data.images_dir / "meta.json")["format"] == data_cache.FORMAT == 2


def test_notes_are_kept_with_the_entry_and_not_beside_the_images(
    tmp_path: Path, cache: Path
) -> None:
    root = write_image_folder(tmp_path / "photos")
    random_image(9, 9).save(root / "train/stray.png")
    config = Folder(path=str(root))
    first, second = prepare(config), prepare(config)
    assert first.notes == second.notes and first.notes[0].endswith("stray.png")
    assert (first.decoded_now, second.decoded_now) == (True, False)
    assert "stray" not in (first.images_dir / "meta.json").read_text()


def short(digits: PreparedData, drop: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.load(digits.labels_dir / "train.npy")
    keep = np.arange(len(labels)) != drop
    return np.load(digits.images_dir / "train.npy")[keep], labels[keep]


@pytest.mark.usefixtures("cache")
def test_a_built_in_set_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = short(prepare(Digits()), drop=5)
    load = Digits.load

    def loses_one(self: Digits, folder: Path, on_progress: Any) -> Any:
        loaded = load(self, folder, on_progress)
        np.save(folder / "train.npy", images)
        return type(loaded)(
            kind="images",
            labels=loaded.labels | {"train": labels},
            class_names=loaded.class_names,
            augment=loaded.augment,
        )

    monkeypatch.setattr(Digits, "load", loses_one)
    monkeypatch.setattr(Digits, "signature", lambda self: "another")
    with pytest.raises(DataError, match="digits: training items: 1199 here, but digits has 1200"):
        prepare(Digits())


def test_a_built_in_set_with_a_smaller_class_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_image_folder(tmp_path / "mini")
    small = Contents(kind="images", num_classes=3, train_items=15, test_items=6, smallest_class=6)
    monkeypatch.setattr(MiniImagenet, "holds", small)
    monkeypatch.setattr("orchestrator.data.sources.folders.mini_imagenet", train_and_test)
    with pytest.raises(
        DataError,
        match=(
            r"class 0 \(cat\) has 5 training items, but no class of mini_imagenet has fewer than 6"
        ),
    ):
        prepare(MiniImagenet(path=str(root), image_size=8))


def test_a_third_kind_of_data_is_refused_wherever_it_is_looked_at(
    tmp_path: Path, cache: Path, config: Features
) -> None:
    assert set(BACKBONES) == {"images", "features"}
    assert [holds_images(kind) for kind in ("images", "features")] == [True, False]
    for look in (holds_images, lambda kind: precision_used("bf16", "cpu", kind)):
        with pytest.raises(DataError, match='kind: \'graphs\'; expected "images" or "features"'):
            look("graphs")
    data = prepare(config)
    place = data.images_dir / "meta.json"
    meta = written(place) | {"kind": "graphs"}
    place.write_text(json.dumps(meta | {"checksum": data_cache._checksum(meta)}))
    with pytest.raises(DataError, match="kind: 'graphs'"):
        open_data(data.images_dir)
    (entry,) = data_cache.entries(cache)
    assert data_cache.open_cached(cache, entry, verify=False) is None


def test_a_folder_of_images_that_cannot_be_entered_is_named_and_not_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_image_folder(tmp_path / "photos")

    def refuse(self: ImageFolders) -> str:
        raise PermissionError(13, "Permission denied", str(root / "train"))

    monkeypatch.setattr(ImageFolders, "signature", refuse)
    with pytest.raises(
        DataError, match=rf"{root}/train: cannot be read \(Permission denied\)"
    ) as raised:
        prepare(Folder(path=str(root)))
    assert "ORCHESTRATE_CACHE" not in str(raised.value)
