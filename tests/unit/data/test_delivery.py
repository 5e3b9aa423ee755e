"""Data goes from one machine to another by way of the store: whole, checked, images apart from
labels.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.data import delivery
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.shelf import OWN, Shelf
from orchestrator.data.sources.features import Features
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.store import Store
from tests.helpers.dataset_files import write_features
from tests.helpers.toy_stores import MemoryStore
from trainers.errors import DataError

Parts = list[delivery.Part]
PARTS: Parts = ["images", "labels"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreparedData:
    """As the machine has it that decoded it; the cache is then that of another machine, where its
    folders are not to be seen.
    """
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "one"))
    made = prepare(Features(path=str(write_features(tmp_path / "a.npz"))))
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
    return made


def _afar(data: PreparedData, tmp_path: Path) -> PreparedData:
    """What another machine is told: paths that mean nothing there."""
    return replace(
        data,
        images_dir=tmp_path / "nowhere" / data.images_dir.name,
        labels_dir=tmp_path / "nowhere" / data.labels_dir.name,
    )


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "sweep") if request.param == "folder" else MemoryStore()


def _folder(data: PreparedData, part: delivery.Part) -> Path:
    return data.images_dir if part == "images" else data.labels_dir


@pytest.mark.parametrize("part", PARTS)
def test_what_is_fetched_is_what_was_put(
    data: PreparedData, store: Store, tmp_path: Path, part: delivery.Part
) -> None:
    afar = _afar(data, tmp_path)
    assert delivery.is_here(afar, part) is None and not delivery.is_offered(
        Shelf(store, OWN), afar, part
    )
    delivery.put(Shelf(store, OWN), data, part)
    assert delivery.is_offered(Shelf(store, OWN), afar, part)
    got = _folder(delivery.fetch(Shelf(store, OWN), afar, part), part)
    assert got.is_relative_to(tmp_path / "other")
    for split in ("train", "test"):
        mine, theirs = (np.load(f / f"{split}.npy") for f in (_folder(data, part), got))
        np.testing.assert_array_equal(mine, theirs)
    # Once it is here the store is not asked again.
    store.remove(OWN)
    assert _folder(delivery.fetch(Shelf(store, OWN), afar, part), part) == got


def test_labels_do_not_travel_with_images(data: PreparedData, store: Store, tmp_path: Path) -> None:
    delivery.put(Shelf(store, OWN), data, "images")
    delivery.fetch(Shelf(store, OWN), _afar(data, tmp_path), "images")
    assert not (tmp_path / "other" / "labels").exists()
    assert not store.names(f"{OWN}/labels")


def test_machines_that_share_a_cache_fetch_nothing(data: PreparedData, store: Store) -> None:
    assert delivery.fetch(Shelf(store, OWN), data, "images") == data
    assert not store.names()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "description"])
def test_damage_on_the_way_is_found(
    data: PreparedData, tmp_path: Path, part: delivery.Part, harm: str
) -> None:
    store = MemoryStore()
    delivery.put(Shelf(store, OWN), data, part)
    name = f"{OWN}/{part}/{_folder(data, part).name}/train.npy"
    held = store.held[name]
    match harm:
        case "flip":
            store.held[name] = held[:-1] + bytes([held[-1] ^ 1])
        case "cut":
            store.held[name] = held[:-1]
        case "gone":
            del store.held[name]
        case "description":
            store.held[name.replace("train.npy", "meta.json")] = b"{}"
    with pytest.raises(DataError, match="memory://toy/data/"):
        delivery.fetch(Shelf(store, OWN), _afar(data, tmp_path), part)
    assert delivery.is_here(_afar(data, tmp_path), part) is None


def test_other_labels_of_the_same_images_are_other_data(
    data: PreparedData, store: Store, tmp_path: Path
) -> None:
    delivery.put(Shelf(store, OWN), data, "labels")
    other = replace(data, labels_dir=data.labels_dir.with_name(f"{data.images_dir.name}-00000000"))
    assert not delivery.is_offered(Shelf(store, OWN), _afar(other, tmp_path), "labels")


def test_many_processes_of_a_machine_fetch_at_once(
    data: PreparedData, store: Store, tmp_path: Path
) -> None:
    delivery.put(Shelf(store, OWN), data, "images")
    got: list[Path] = []

    def fetch() -> None:
        got.append(delivery.fetch(Shelf(store, OWN), _afar(data, tmp_path), "images").images_dir)

    threads = [threading.Thread(target=fetch, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8 and len(set(got)) == 1


def test_data_that_is_gone_is_not_put_half(data: PreparedData, store: Store) -> None:
    (data.images_dir / "test.npy").unlink()
    with pytest.raises(DataError, match="gone or damaged"):
        delivery.put(Shelf(store, OWN), data, "images")
    assert not store.names()
