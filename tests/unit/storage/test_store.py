"""The laws of a store on those that keep them, and on some that break one each."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contracts.stores import Opens, StoreContract, _context, _start
from orchestrator.storage import opening
from orchestrator.storage.files import StorageError
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.store import Unreadable
from tests.helpers.toy_stores import MemoryStore, SqliteStore


def _tell_place(tell: Any) -> None:
    tell.send(os.environ.get("A_STORES_PLACE"))


def test_processes_of_the_contract_have_the_environment_of_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it was when the first of them was started."""
    for place in (None, "here", "there"):
        if place is not None:
            monkeypatch.setenv("A_STORES_PLACE", place)
        told, tell = _context().Pipe(duplex=False)
        process = _start(_tell_place, tell)
        assert told.recv() == place
        process.join()


@pytest.mark.slow
class TestFolderStore(StoreContract):
    @pytest.fixture
    def opens(self, tmp_path: Path) -> Opens:
        return lambda: open_store(tmp_path / "deep" / "sweep")


@pytest.mark.slow
class TestSqliteStore(StoreContract):
    writers = 8

    @pytest.fixture
    def opens(self, tmp_path: Path) -> Opens:
        return lambda: SqliteStore(f"sqlite://{tmp_path}/sweep.db")


class TestMemoryStore(StoreContract):
    processes = False

    @pytest.fixture
    def opens(self) -> Opens:
        store = MemoryStore()
        return lambda: store


class Loses(MemoryStore):
    """Forgets what it said it had."""

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        ours = super().put(name, data, replace=replace)
        self.held.pop(name)
        return ours


class LetsTwoWin(MemoryStore):
    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        super().put(name, data, replace=replace)
        return True


class Replaces(MemoryStore):
    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        return super().put(name, data, replace=True)


class ShowsHalves(FolderStore):
    """Writes in place, a piece at a time."""

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(data), 4096):
                file.write(data[start : start + 4096])
        return True


class Unlocked(MemoryStore):
    def is_held(self, name: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Loses, "test_what_is_put_is_seen_by_all"),
        (LetsTwoWin, "test_of_many_writers_one_wins_and_all_read_it"),
        (LetsTwoWin, "test_the_first_put_stands"),
        (Replaces, "test_many_facts_are_put_at_once_and_none_is_replaced"),
        (Unlocked, "test_a_lock_is_held_by_one"),
    ],
)
def test_the_contract_catches_a_store_that_breaks_a_law(
    broken: type[MemoryStore], law: str
) -> None:
    store = broken()
    with pytest.raises((AssertionError, FileNotFoundError)):
        getattr(TestMemoryStore(), law)(lambda: store)


@pytest.mark.slow
def test_the_contract_catches_a_store_that_shows_halves(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="half-written"):
        for attempt in range(20):
            TestFolderStore().test_a_killed_writer_leaves_whole_names_or_none(
                lambda attempt=attempt: ShowsHalves(tmp_path / str(attempt))
            )


def test_what_a_writer_left_aside_is_no_name(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/b", b"x")
    (tmp_path / "a" / ".aside-1-1-1").write_bytes(b"half")
    assert store.names() == ["a/b"]


def test_what_is_no_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(Unreadable, match="not a file"):
            FolderStore(tmp_path).get(name)


def test_a_folder_is_found_again_from_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    store = FolderStore("runs/x")
    store.put("a", b"x")
    sent = pickle.dumps(store)
    monkeypatch.chdir("/")
    assert pickle.loads(sent).get("a") == b"x"


def test_a_scheme_finds_the_store_of_an_installed_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = {
        "sqlite": "tests.helpers.toy_stores:SqliteStore",
        "broken": "tests.helpers.toy_stores:NoSuchClass",
        "path": "pathlib:Path",
    }
    offered = EntryPoints(EntryPoint(name, value, opening.GROUP) for name, value in points.items())
    monkeypatch.setattr(opening, "entry_points", lambda group: offered.select(group=group))
    assert isinstance(open_store(f"sqlite://{tmp_path}/x.db"), SqliteStore)
    assert isinstance(open_store(f"SQLite://{tmp_path}/x.db"), SqliteStore)
    with pytest.raises(StorageError, match="cannot be used"):
        open_store("broken://x")
    with pytest.raises(StorageError, match="no Store"):
        open_store("path://x")
    with pytest.raises(StorageError, match="is an address and not a folder"):
        open_store("gs://bucket/x")
