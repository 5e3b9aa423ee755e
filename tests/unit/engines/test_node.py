"""What a machine shows before it trains, and the checkpoints that outlive it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.data.delivery import put
from orchestrator.data.prepare import prepare
from orchestrator.data.shelf import OWN, Shelf
from orchestrator.data.sources.features import Features
from orchestrator.engines.ray.node import CheckpointCopies, StoreNotSeen, Token, data_of_pools
from orchestrator.storage.files import StorageError, StorageLost
from orchestrator.storage.folder import FolderStore
from orchestrator.sweeps.stage_store import StageStore
from search_spaces.reading.trials import make_trial
from tests.helpers.real_sweep import wait_until
from tests.helpers.small_sweep import SPEC, write_data
from tests.helpers.toy_stores import MemoryStore

KEY = "k" * 32


def test_a_machine_that_sees_the_store_is_believed(tmp_path: Path) -> None:
    token = Token.put(FolderStore(tmp_path))
    token.show(FolderStore(tmp_path), "gpu-2")
    token.check(FolderStore(tmp_path), "gpu-2")


def test_a_machine_without_the_folder_makes_none_and_is_named(tmp_path: Path) -> None:
    token = Token.put(FolderStore(tmp_path / "here"))
    with pytest.raises(StoreNotSeen, match=r"gpu-2: .*not there.*--out /shared.*--out s3://"):
        token.show(FolderStore(tmp_path / "there"), "gpu-2")
    assert not (tmp_path / "there").exists()


def test_a_folder_of_that_name_on_another_machine_is_no_proof(tmp_path: Path) -> None:
    here, there = FolderStore(tmp_path / "here"), FolderStore(tmp_path / "there")
    token = Token.put(here)
    there.put(f"{token.name}/token", b"old")
    with pytest.raises(StoreNotSeen, match="another sweep"):
        token.show(there, "gpu-2")
    # One that was copied with its word: what it writes is not seen.
    there.put(f"{token.name}/token", token.text.encode(), replace=True)
    token.show(there, "gpu-2")
    with pytest.raises(StoreNotSeen, match=r"gpu-2: .*writes there is not seen here"):
        token.check(here, "gpu-2")


def test_a_store_that_answers_nobody_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    class Away(FolderStore):
        def get(self, name: str, most: int | None = None) -> bytes:
            raise StorageLost("s3://away: does not answer")

    with pytest.raises(StorageLost, match="does not answer"):
        Token.put(FolderStore(tmp_path)).show(Away(tmp_path), "gpu-2")


class Request:
    """As much of a StageRequest as is looked at."""

    key = KEY

    def __init__(self, work_dir: Path, checkpoint_seconds: float = 600) -> None:
        self.work_dir, self.checkpoint_seconds = work_dir, checkpoint_seconds
        work_dir.mkdir(parents=True, exist_ok=True)

    def train(self, epoch: int) -> None:
        (self.work_dir / f"epoch-{epoch:05d}-a.ckpt").write_bytes(b"%d" % epoch)


class Machine(MemoryStore):
    """The same store as another machine sees it, with a folder of its own for work."""

    def __init__(self, store: MemoryStore, folder: Path) -> None:
        super().__init__()
        self.held, self.folder = store.held, folder

    def work(self, folder: str) -> Path:
        return self.folder / folder


def _copies(store: MemoryStore, folder: Path, seconds: float = 600) -> Any:
    stages = StageStore(Machine(store, folder))
    request: Any = Request(stages.work(KEY), seconds)
    return stages, request, CheckpointCopies(stages, request)


def _names(store: MemoryStore) -> list[str]:
    return [name.rpartition("/")[2] for name in store.names(f"stages/{KEY}/checkpoints")]


def test_a_checkpoint_outlives_its_machine(tmp_path: Path) -> None:
    store = MemoryStore()
    _, request, copies = _copies(store, tmp_path / "one")
    with pytest.raises(KeyboardInterrupt), copies.kept():
        request.train(3)
        raise KeyboardInterrupt
    stages, request, copies = _copies(store, tmp_path / "other")
    assert stages.epochs_done(KEY) == 3, "how far it is, is seen from everywhere"
    with copies.kept():
        assert (request.work_dir / "epoch-00003-a.ckpt").read_bytes() == b"3"


def test_checkpoints_are_put_while_it_trains_and_two_are_kept(tmp_path: Path) -> None:
    store = MemoryStore()
    _, request, copies = _copies(store, tmp_path / "one", seconds=0)
    with copies.kept():
        for epoch in range(1, 5):
            request.train(epoch)
            wait_until("it is put", lambda e=epoch: f"epoch-{e:05d}-a.ckpt" in _names(store))
    assert _names(store) == ["epoch-00003-a.ckpt", "epoch-00004-a.ckpt"]


def test_an_older_copy_takes_no_newer_checkpoint_back(tmp_path: Path) -> None:
    store = MemoryStore()
    stages, request, copies = _copies(store, tmp_path / "one")
    request.train(2)
    stages.put_checkpoint(KEY, request.work_dir / "epoch-00002-a.ckpt")
    request.train(7)
    (request.work_dir / "epoch-00002-a.ckpt").unlink()
    with copies.kept():
        assert [path.name for path in request.work_dir.iterdir()] == ["epoch-00007-a.ckpt"]


def test_a_store_that_fails_ends_no_training(tmp_path: Path) -> None:
    class Refused(Machine):
        tried = threading.Event()

        def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
            self.tried.set()
            raise StorageError("full")

    stages = StageStore(Refused(MemoryStore(), tmp_path))
    request: Any = Request(stages.work(KEY), 0)
    with CheckpointCopies(stages, request).kept():
        request.train(1)
        assert Refused.tried.wait(60)


def test_in_a_folder_nothing_is_copied(tmp_path: Path) -> None:
    stages = StageStore(FolderStore(tmp_path))
    request: Any = Request(stages.work(KEY), 0)
    with CheckpointCopies(stages, request).kept():
        request.train(1)
    assert stages.checkpoints(KEY) == [] and stages.epochs_done(KEY) == 1
    assert [path.name for path in request.work_dir.iterdir()] == ["epoch-00001-a.ckpt"]


def test_pools_have_the_features_on_their_machine_where_a_strategy_chooses_initial_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)
    spec = load_spec("spec.yaml", ["cases={}"])
    trials = {
        name: make_trial(spec, {"schedule.initial_choice": name}, 0)
        for name in ("uniform", "typiclust")
    }
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "one"))
    made = prepare(Features(path=str(tmp_path / "features.npz")))
    shelf = Shelf(FolderStore(tmp_path / "sweep"), OWN)
    # Told to another machine, whose cache is empty.
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
    data = replace(made, images_dir=tmp_path / "away" / made.images_dir.name, shelf=shelf)
    wanted: list[str] = []

    def want() -> None:
        wanted.append("images")
        put(shelf, made, "images")

    assert data_of_pools(data, [trials["uniform"]], want) == data and not wanted
    found = data_of_pools(data, trials.values(), want)
    assert wanted == ["images"] and found.labels_dir == data.labels_dir
    assert (tmp_path / "other") in found.images_dir.parents
    assert (found.images_dir / "train.npy").is_file()
