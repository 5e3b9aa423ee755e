"""Sweeps on machines that have no raw data: it was prepared elsewhere and lies in a store, which
the sweeps of one prefix share.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.data.shelf import VARIABLE
from orchestrator.storage.s3 import S3Store
from tests.helpers.photos import write_photos
from tests.helpers.s3_server import BUCKET, KEY, SECRET, objects, use
from tests.helpers.small_sweep import Run
from tests.helpers.sweeps import outcome_of

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of the machine that has the data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path)
    with use(server):
        yield tmp_path


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}"


def sweep(run: Run, out: str, *words: str) -> str:
    code, said, err = run("sweep", "spec.yaml", "--engine", "inline", "--out", out, *words)
    assert code == 0, err
    return said + err


def leave(world: Path) -> None:
    """From now on this is another machine."""
    shutil.rmtree(world / "cache")
    (world / "photos").rename(world / "away")


def recorded(out: str) -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load(S3Store(out).get("resolved.yaml"))["data"]
    return found


def put(run: Run, place: str) -> str:
    code, said, err = run("data", "prepare", "folder", "--path", "photos", "--to", place)
    assert code == 0, err
    return said.strip().rpartition("dataset.path=")[2]


def test_a_sweep_runs_whole_where_only_prepared_data_is(
    world: Path, run: Run, prefix: str, server: str
) -> None:
    sweep(run, "home")
    path = put(run, f"{prefix}/_data")
    leave(world)
    before = set(objects(server))
    said = sweep(run, f"{prefix}/one", "--set", f"dataset.path={path}")
    said += sweep(run, f"{prefix}/two", "--set", f"dataset.path={path}")
    assert outcome_of(f"{prefix}/one") == outcome_of(f"{prefix}/two") == outcome_of("home")
    assert recorded(f"{prefix}/one")["path"] == path
    # Neither has a copy of its own, and what is shared is as it was.
    assert not [key for key in set(objects(server)) - before if key.endswith("train.npy")]
    written = [file.read_bytes() for file in world.rglob("*") if file.is_file()]
    for secret in (KEY, SECRET):
        assert secret not in said
        assert not [
            data for data in (*written, *objects(server).values()) if secret.encode() in data
        ]


def test_a_sweep_goes_on_elsewhere_from_where_its_records_say_that_the_data_is(
    world: Path, run: Run, prefix: str
) -> None:
    sweep(run, "home")
    out = f"{prefix}/mine"
    words = ("sweep", "spec.yaml", "--engine", "inline", "--out", out)
    code, _, err = run(*words, "--set", "resources.max_hours=1e-9")
    assert code == 4, err
    where = recorded(out)["prepared"]
    assert where.startswith(f"{prefix}/_data/sets/folder-")
    assert not S3Store(f"{prefix}/_data").names(), "no machine has asked for it"
    leave(world)
    resume = ("resume", out, "--set", "resources.max_hours=null")
    code, _, err = run(*resume)
    (line,) = err.strip().splitlines()
    assert code == 2 and f"{where}: no prepared data is there" in line and "--to" in line
    assert str(world / "photos") in line
    # As that line says, from the machine that has it.
    (world / "away").rename(world / "photos")
    assert put(run, f"{prefix}/_data") == where
    leave(world)
    code, _, err = run(*resume)
    assert code == 0, err
    assert outcome_of(out) == outcome_of("home")


def test_a_place_that_the_environment_names_holds_over_the_rule_and_is_recorded(
    world: Path, run: Run, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"{prefix}/ours")
    sweep(run, f"{prefix}/mine")
    monkeypatch.delenv(VARIABLE)
    assert recorded(f"{prefix}/mine")["prepared"].startswith(f"{prefix}/ours/sets/")
    path = put(run, f"{prefix}/ours")
    leave(world)
    code, _, err = run("resume", f"{prefix}/mine")
    assert code == 0, err
    assert recorded(f"{prefix}/mine")["path"] == path


def test_a_copy_of_a_sweep_finds_its_data_or_says_where_it_was(
    world: Path, run: Run, prefix: str
) -> None:
    sweep(run, f"{prefix}/mine")
    store, copy = S3Store(f"{prefix}/mine"), S3Store(f"{prefix}-copy/mine")
    for name in store.names():
        copy.put(name, store.get(name))
    code, _, err = run("resume", copy.location)
    assert code == 0, err
    leave(world)
    code, _, err = run("resume", copy.location)
    assert code == 2 and f"{prefix}/_data/sets/" in err and len(err.strip().splitlines()) == 1
    code, _, err = run("report", copy.location)
    assert code == 0, err
