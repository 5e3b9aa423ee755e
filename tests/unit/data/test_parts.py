"""Large arrays go through a store in parts: nothing is put at once that is larger, held in memory
or sent twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data import cache, delivery, parts
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.shelf import OWN, Shelf
from orchestrator.data.sources.features import Features
from orchestrator.storage import s3
from orchestrator.storage.opening import open_store
from orchestrator.storage.store import Store
from tests.helpers.dataset_files import write_features
from tests.helpers.s3_server import BUCKET
from tests.helpers.toy_stores import MemoryStore
from trainers.errors import DataError

PART = 1000


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, server_in_use: str, tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}" if request.param == "s3" else str(tmp_path / "store")


Make = Callable[[int], PreparedData]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes data of so many rows as the machine has it that decoded it; the cache is then that of
    another machine.
    """

    def made(rows: int) -> PreparedData:
        monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "one"))
        features = np.random.default_rng(rows).normal(size=(rows, 64)).astype(np.float32)
        file = write_features(tmp_path / f"{rows}.npz", x=features, y=np.arange(rows) % 3)
        data = prepare(Features(path=str(file)))
        monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
        return data

    return made


@pytest.fixture
def data(make: Make) -> PreparedData:
    return make(60)


def afar(data: PreparedData, tmp_path: Path) -> PreparedData:
    """What another machine is told: paths that mean nothing there."""
    return replace(data, images_dir=tmp_path / "nowhere" / data.images_dir.name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@dataclass
class Counted(MemoryStore):
    """Notes what is put."""

    put_sizes: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        self.put_sizes.append((name, len(data)))
        return super().put(name, data, replace=replace)


def part_names(store: Store, data: PreparedData) -> list[str]:
    return store.names(f"{OWN}/images/{data.images_dir.name}/parts")


@pytest.mark.parametrize("part_bytes", [1, 999, 1000, 1 << 20])
def test_what_is_fetched_is_what_was_put_in_parts_of_any_size(
    data: PreparedData, tmp_path: Path, part_bytes: int
) -> None:
    shelf = Shelf(MemoryStore(), OWN)
    delivery.put(shelf, data, "images", part_bytes=part_bytes)
    fetched = delivery.fetch(shelf, afar(data, tmp_path), "images")
    assert fetched.images_dir.is_relative_to(tmp_path / "other")
    assert contents(fetched.images_dir) == contents(data.images_dir)


def test_on_every_store_no_put_is_larger_than_a_part(
    data: PreparedData, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(place)
    monkeypatch.setattr(s3, "MOST_BYTES", 10_000)
    assert (data.images_dir / "train.npy").stat().st_size > s3.MOST_BYTES
    delivery.put(Shelf(store, OWN), data, "images", part_bytes=PART)
    held = part_names(store, data)
    assert len(held) > 10 and {len(store.get(name)) for name in held} >= {PART}
    for name in held:
        assert len(store.get(name)) <= PART
        assert hashlib.sha256(store.get(name)).hexdigest() == name.rpartition("/")[2]
    fetched = delivery.fetch(Shelf(store, OWN), afar(data, tmp_path), "images")
    assert contents(fetched.images_dir) == contents(data.images_dir)


def test_what_is_no_larger_than_a_part_lies_there_as_in_the_cache(data: PreparedData) -> None:
    store = MemoryStore()
    delivery.put(Shelf(store, OWN), data, "images")
    place = f"{OWN}/images/{data.images_dir.name}"
    assert {name.removeprefix(f"{place}/"): held for name, held in store.held.items()} == contents(
        data.images_dir
    )


def test_whole_arrays_of_an_earlier_version_are_read_however_large(
    data: PreparedData, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", PART)
    store = open_store(place)
    for path in data.images_dir.iterdir():
        store.put_file(f"{OWN}/images/{path.parent.name}/{path.name}", path)
    fetched = delivery.fetch(Shelf(store, OWN), afar(data, tmp_path), "images")
    assert contents(fetched.images_dir) == contents(data.images_dir)


DIES = """
import os, pickle, signal, sys
from orchestrator.data import delivery
from orchestrator.data.shelf import OWN, Shelf
from orchestrator.storage.opening import open_store

place, left = sys.argv[1], int(sys.argv[2])
data = pickle.load(sys.stdin.buffer)
store = open_store(place)
put = type(store).put

def dying(self, name, data, **more):
    global left
    if "/parts/" in name:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return put(self, name, data, **more)

type(store).put = dying
delivery.put(Shelf(store, OWN), data, "images", part_bytes=1000)
"""


def test_a_killed_put_shows_nothing_and_the_next_one_sends_the_rest(
    data: PreparedData, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", DIES, place, "7"], input=pickle.dumps(data), check=False
    )
    assert died.returncode == -signal.SIGKILL
    store, sent = open_store(place), list[str]()
    before = part_names(store, data)
    shelf, there = Shelf(store, OWN), afar(data, tmp_path)
    # Of those in flight at the kill some are not there.
    assert 7 - parts.AT_ONCE < len(before) <= 7
    assert not delivery.is_offered(shelf, there, "images")
    put = type(store).put

    def counted(self: Any, name: str, data: bytes, **more: Any) -> bool:
        sent.append(name)
        return bool(put(self, name, data, **more))

    monkeypatch.setattr(type(store), "put", counted)
    delivery.put(shelf, data, "images", part_bytes=PART)
    assert not set(sent) & set(before)
    assert sum("/parts/" in name for name in sent) == len(part_names(store, data)) - len(before)
    fetched = delivery.fetch(shelf, there, "images")
    assert contents(fetched.images_dir) == contents(data.images_dir)


@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "gone"])
def test_a_damaged_part_is_named_and_alone_is_put_again(
    data: PreparedData, tmp_path: Path, harm: str
) -> None:
    store = Counted()
    shelf, there = Shelf(store, OWN), afar(data, tmp_path)
    delivery.put(shelf, data, "images", part_bytes=PART)
    name = part_names(store, data)[3]
    held = store.held[name]
    match harm:
        case "flip":
            store.held[name] = held[:-1] + bytes([held[-1] ^ 1])
        case "cut":
            store.held[name] = held[:-1]
        case "longer":
            store.held[name] = held + b"x"
        case "gone":
            del store.held[name]
    with pytest.raises(DataError) as caught:
        delivery.fetch(shelf, there, "images")
    place = shelf.place("images", data.images_dir.name)
    assert f"{place}/meta.json" in str(caught.value)
    assert harm == "gone" or store.place(name) in str(caught.value)
    assert delivery.is_here(there, "images") is None
    assert not list((tmp_path / "other").rglob("*.npy")), "half of it is left"
    # As the message says.
    store.remove(name)
    store.remove(shelf.name("images", data.images_dir.name, "meta.json"))
    store.put_sizes.clear()
    delivery.put(shelf, data, "images", part_bytes=PART)
    assert [n for n, _ in store.put_sizes if "/parts/" in n] == [name]
    assert delivery.fetch(shelf, there, "images").fingerprint == data.fingerprint


def test_a_part_that_is_there_with_other_bytes_is_refused(data: PreparedData) -> None:
    class Blind(MemoryStore):
        """Others' parts are not in the list yet."""

        def names(self, folder: str = "") -> list[str]:
            return [] if folder.endswith("/parts") else super().names(folder)

    store = Blind()
    whole = (data.images_dir / "train.npy").read_bytes()
    digest = hashlib.sha256(whole[:PART]).hexdigest()
    name = f"{OWN}/images/{data.images_dir.name}/parts/{digest}"
    store.put(name, b"other")
    with pytest.raises(DataError, match=digest):
        delivery.put(Shelf(store, OWN), data, "images", part_bytes=PART)
    assert not delivery.is_offered(Shelf(store, OWN), data, "images")


@pytest.mark.parametrize("harm", ["digit", "short", "zero", "text", "leads out"])
def test_a_damaged_list_of_parts_is_refused(data: PreparedData, tmp_path: Path, harm: str) -> None:
    store = MemoryStore()
    shelf = Shelf(store, OWN)
    delivery.put(shelf, data, "images", part_bytes=PART)
    name = shelf.name("images", data.images_dir.name, "meta.json")
    meta = json.loads(store.held[name])
    match harm:
        case "digit":
            store.held[name] = store.held[name].replace(b'"bytes": 1000', b'"bytes": 2000')
        case "short":
            meta["parts"]["files"]["train.npy"].pop()
        case "zero":
            meta["parts"]["bytes"] = 0
        case "text":
            meta["parts"] = "none"
        case "leads out":
            meta["files"]["../../../x"] = meta["files"]["train.npy"]
            meta["parts"]["files"]["../../../x"] = meta["parts"]["files"]["train.npy"]
    if harm != "digit":
        store.held[name] = cache.encode_meta(meta)
    with pytest.raises(DataError, match="damaged"):
        delivery.fetch(shelf, afar(data, tmp_path), "images")
    assert not list(tmp_path.rglob("x"))


def test_two_versions_that_cut_it_otherwise_put_the_same_data(
    data: PreparedData, tmp_path: Path
) -> None:
    store = MemoryStore()
    shelf = Shelf(store, OWN)
    name = shelf.name("images", data.images_dir.name, "meta.json")
    delivery.put(shelf, data, "images", part_bytes=PART)
    first = store.held.pop(name)
    delivery.put(shelf, data, "images", part_bytes=PART + 1)
    for described in (first, store.held[name]):
        store.held[name] = described
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        fetched = delivery.fetch(shelf, afar(data, tmp_path), "images")
        assert contents(fetched.images_dir) == contents(data.images_dir)


class Disk(MemoryStore):
    """Files, and nothing of them in memory; pathlib would keep each of their names for ever."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = str(root)
        root.mkdir()

    def _at(self, name: str) -> str:
        return os.path.join(self._root, name.replace("/", "+"))  # noqa: PTH118

    def get(self, name: str, most: int | None = None) -> bytes:
        with open(self._at(name), "rb") as file:  # noqa: PTH123
            return file.read() if most is None else file.read(most)

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        with open(self._at(name), "wb") as file:  # noqa: PTH123
            file.write(data)
        return True

    def names(self, folder: str = "") -> list[str]:
        listed = [name.replace("+", "/") for name in os.listdir(self._root)]  # noqa: PTH208
        return sorted(name for name in listed if name.startswith(folder))


def test_memory_does_not_grow_with_the_data(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that Python and NumPy hold at most; what is mapped is not among them."""
    size = 16 << 10

    def peak(act: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            act()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Of checking, which has a limit of its own.
    monkeypatch.setattr(cache, "CHUNK_BYTES", size)
    peaks = []
    for rows in (10_000, 80_000):
        data = make(rows)
        shelf = Shelf(Disk(tmp_path / f"store{rows}"), OWN)
        assert (data.images_dir / "train.npy").stat().st_size > 100 * size
        put = peak(lambda d=data, s=shelf: delivery.put(s, d, "images", part_bytes=size))  # type: ignore[misc]
        there = afar(data, tmp_path)
        get = peak(lambda d=there, s=shelf: delivery.fetch(s, d, "images"))  # type: ignore[misc]
        peaks.append((put, get))
    (put, get), (larger_put, larger_get) = peaks
    held = 4 * parts.AT_ONCE * size
    # Its name and digest, here and as text, are all that grows with each part.
    each = (80_000 - 10_000) * 64 * 4 // size * 600
    assert larger_put < put + held + each and larger_get < get + held + each


def test_large_data_says_how_far_it_has_come_and_small_data_nothing(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    shelf = Shelf(MemoryStore(), OWN)
    delivery.put(shelf, data, "images", part_bytes=PART, say=lines.append)
    assert lines == []
    monkeypatch.setattr(parts, "LARGE_BYTES", 10 * PART)
    delivery.fetch(shelf, afar(data, tmp_path), "images", say=lines.append)
    assert len(lines) == 11 and all("fetched from memory://toy/data" in line for line in lines)
    lines.clear()
    delivery.put(Shelf(MemoryStore(), OWN), data, "images", part_bytes=PART, say=lines.append)
    assert len(lines) == 11 and all("put into memory://toy/data" in line for line in lines)
