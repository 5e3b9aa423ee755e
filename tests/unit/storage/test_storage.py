from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage import files
from orchestrator.storage.files import StorageError, commit_file
from orchestrator.storage.segments import Segments, open_segments
from tests.helpers.pool_world import MemorySegments

Opens = Callable[[], Segments]


class SegmentsContract:
    """Laws of every store of segments. A subclass gives the fixture `opens`: each call opens the
    same, at first empty, place anew.
    """

    def test_a_new_place_is_empty(self, opens: Opens) -> None:
        assert opens().names() == []
        with pytest.raises(FileNotFoundError):
            opens().get("0000.parquet")

    def test_what_is_put_is_seen_by_all(self, opens: Opens) -> None:
        assert opens().put_if_absent("0001.parquet", b"one")
        assert opens().put_if_absent("0000.parquet", b"\x00" * 1_000_000)
        assert opens().names() == ["0000.parquet", "0001.parquet"]
        assert opens().get("0001.parquet") == b"one"
        assert opens().get("0000.parquet") == b"\x00" * 1_000_000

    def test_the_first_put_stands(self, opens: Opens) -> None:
        store = opens()
        assert store.put_if_absent("0000.parquet", b"first")
        assert not store.put_if_absent("0000.parquet", b"other")
        assert not opens().put_if_absent("0000.parquet", b"other")
        assert opens().get("0000.parquet") == b"first"

    def test_equal_bytes_are_success(self, opens: Opens) -> None:
        assert opens().put_if_absent("0000.parquet", b"same")
        assert opens().put_if_absent("0000.parquet", b"same")

    def test_of_many_at_once_one_wins_and_all_read_it(self, opens: Opens) -> None:
        stores = [opens() for _ in range(6)]
        for store in stores:
            store.put_if_absent("warm", b"")
        start = threading.Barrier(len(stores))

        def put(mine: int) -> tuple[bool, bytes]:
            start.wait()
            won = stores[mine].put_if_absent("0000.parquet", b"%d" % mine)
            return won, stores[mine].get("0000.parquet")

        with ThreadPoolExecutor(len(stores)) as threads:
            results = list(threads.map(put, range(len(stores))))
        assert len({seen for _, seen in results}) == 1
        winners = [mine for mine, (won, _) in enumerate(results) if won]
        assert [b"%d" % mine for mine in winners] == [results[0][1]]


class TestFolderSegments(SegmentsContract):
    @pytest.fixture
    def opens(self, tmp_path: Path) -> Opens:
        return lambda: open_segments(tmp_path / "deep" / "ledger")


class TestMemorySegments(SegmentsContract):
    """The fake that other tests use keeps the same laws."""

    @pytest.fixture
    def opens(self) -> Opens:
        store = MemorySegments()
        return lambda: store


class ReplacingSegments(MemorySegments):
    def put_if_absent(self, name: str, data: bytes) -> bool:
        self.held[name] = data
        return True


def test_the_contract_catches_a_store_that_replaces() -> None:
    store = ReplacingSegments()
    with pytest.raises(AssertionError):
        SegmentsContract().test_the_first_put_stands(lambda: store)


def test_a_folder_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StorageError, match=r"hard links.*choose another --out"):
        open_segments(tmp_path).put_if_absent("0000.parquet", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_links_replace_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_link", lambda aside, path: True)
    with pytest.raises(StorageError, match="charged twice"):
        open_segments(tmp_path).put_if_absent("0000.parquet", b"x")


def test_an_unwritable_place_is_said_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot hold a ledger"):
        open_segments(tmp_path / "file" / "ledger").put_if_absent("0000.parquet", b"x")


def test_a_full_disk_leaves_nothing_half_visible(tmp_path: Path) -> None:
    store = open_segments(tmp_path)
    assert store.put_if_absent("0000.parquet", b"kept")
    limits, handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"0001\.parquet: cannot be written: File too large"):
            store.put_if_absent("0001.parquet", b"x" * 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["0000.parquet"]
    assert store.get("0000.parquet") == b"kept"
    assert store.put_if_absent("0001.parquet", b"x" * 50_000)


def test_leftovers_of_dead_writers_are_unseen_and_go_when_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".aside-1-a", tmp_path / ".aside-2-b"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    store = open_segments(tmp_path)
    assert store.names() == []
    store.put_if_absent("0000.parquet", b"x")
    assert not old.exists()
    assert young.exists()


def test_commit_file_replaces_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "record.json"
    assert commit_file(path, b"1", replace=False)
    assert not commit_file(path, b"2", replace=False)
    assert path.read_bytes() == b"1"
    assert commit_file(path, b"3", replace=True)
    assert path.read_bytes() == b"3"
    assert [entry.name for entry in path.parent.iterdir()] == ["record.json"]


def test_many_files_are_put_at_once_and_none_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    files.commit_file(folder / "b", b"first", replace=False)
    files.commit_new_files(folder, {name: name.encode() for name in ("a", "b", "c")})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a": b"a",
        "b": b"first",
        "c": b"c",
    }


def test_many_files_that_cannot_be_put_leave_none_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "sync", full)
    with pytest.raises(StorageError, match="make room"):
        files.commit_new_files(tmp_path, {"a": b"a", "b": b"b"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EIO, "check the disk"),
        (errno.EROFS, "make the place writable"),
        (errno.EMFILE, "fix this"),
    ],
)
def test_what_to_do_about_a_failed_write_depends_on_why_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError) as refused:
        files.commit_file(tmp_path / "a", b"a", replace=True)
    assert said in str(refused.value) and str(tmp_path / "a") in str(refused.value)
    assert ("make room" in str(refused.value)) == (number == errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []
