"""Paths that a user writes, and what is found in place of a file."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator import cli
from orchestrator.commands import doctor
from orchestrator.data.prepare import list_data, prepare
from orchestrator.data.sources.cifar import Batches
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder
from orchestrator.storage.user_files import cache_root, expand, read_regular
from search_spaces.reading.datasets import contents
from search_spaces.reading.errors import SpecError
from tests.helpers.dataset_files import SMALL_CIFAR, write_cifar, write_features, write_image_folder
from trainers.errors import DataError, one_line


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A pipe that is waited for ends the test, not the patience."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waited for a pipe or a device"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an entry in the password file and without HOME, as a container has it."""

    def unknown(_: object) -> object:
        raise KeyError("no such user")

    for variable in ("HOME", "XDG_CACHE_HOME", "ORCHESTRATE_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("variable", ["ORCHESTRATE_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_is_where_a_shell_would_look_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ORCHESTRATE_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    below = "" if variable == "ORCHESTRATE_CACHE" else "orchestrate"
    for text, place in (
        ("~/cache", tmp_path / "home/cache"),
        ("cache", tmp_path / "cache"),
        ("/else/where", Path("/else/where")),
    ):
        monkeypatch.setenv(variable, text)
        assert cache_root() == place / below
    monkeypatch.setenv("ORCHESTRATE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_root() == tmp_path / "home/.cache/orchestrate"


def test_a_home_of_nobody_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", "~no_such_user/cache")
    with pytest.raises(
        DataError, match="ORCHESTRATE_CACHE = ~no_such_user/cache: there is no user no_such_user"
    ):
        cache_root()
    with pytest.raises(SpecError, match="there is no user no_such_user with a home folder"):
        contents(Features(path="~no_such_user/x.npz"))
    with pytest.raises(DataError, match=r"dataset\.path = ~no_such_user/photos"):
        prepare(Folder(path="~no_such_user/photos"))
    with pytest.raises(DataError, match="null character"):
        expand("a\0b", "dataset.path")


def test_a_sweep_on_the_home_of_nobody_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "sweep",
        "strategies_cifar100.yaml",
        "--engine",
        "inline",
        "--out",
        str(tmp_path / "run"),
        "--set",
        "dataset.path=~no_such_user/cifar",
    ]
    assert cli.main(words) == 2
    assert (
        "dataset.path = ~no_such_user/cifar: there is no user no_such_user"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_home_is_told_which_variable_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = str(tmp_path / "run")
    for words in (["data", "list"], ["sweep", "smoke.yaml", "--engine", "inline", "--out", spec]):
        assert cli.main(words) == 2
        assert "Set ORCHESTRATE_CACHE (or HOME)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    (found,) = doctor.cache()
    assert (found.state, found.fix) == ("fail", "export ORCHESTRATE_CACHE=/a/folder/you/may/write")
    assert [
        finding.found.partition(" for ")[2].split()[0] for finding in doctor.disk(tmp_path)
    ] == ["output", "Ray's"]


def test_what_a_terminal_would_obey_is_shown_as_an_escape(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_line("café \x1b[31m\n\u202e\ud800 犬") == "café \\x1b[31m\\n\\u202e\\ud800 犬"
    root = write_image_folder(tmp_path / "pho\x1b[31mtos", classes=("c\x1b[2Jat", "dog"))
    (root / "train/c\x1b[2Jat/no\x07tes.txt").write_text("")
    assert cli.main(["data", "prepare", "folder", "--path", str(root)]) == 0
    assert cli.main(["data", "list"]) == 0
    (root / "train/c\x1b[2Jat/bad.png").write_text("no image")
    assert cli.main(["data", "prepare", "folder", "--path", str(root)]) == 2
    said = "".join(capsys.readouterr())
    assert (
        "c\\x1b[2Jat/no\\x07tes.txt" in said
        and "c\\x1b[2Jat/bad.png: cannot be decoded" in said
        and "pho\\x1b[31mtos" in said
    )
    assert not set("\x1b\x07") & set(said)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("exchange", "what"), [(pipe, "a pipe"), (endless, "a device")])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, exchange: object, what: str) -> None:
    assert callable(exchange)
    features, photos, cifar = (
        write_features(tmp_path / "a.npz"),
        write_image_folder(tmp_path / "photos"),
        write_cifar(tmp_path / "cifar"),
    )
    batch, image = cifar / SMALL_CIFAR.folder / "data_batch_2", photos / "test/cat/cat-1.png"
    for place in (features, batch, image):
        exchange(place)
        with pytest.raises(DataError, match=f"{place.name}: is {what}, not a file"):
            read_regular(place)
    for config in (
        Features(path=str(features)),
        Folder(path=str(photos)),
    ):
        for refused, run in ((DataError, prepare), (SpecError, contents)):
            with pytest.raises(refused, match=f"is {what}, not a file"):
                run(config)
    with pytest.raises(DataError, match=f"data_batch_2: is {what}, not a file"):
        Batches(cifar, SMALL_CIFAR).signature()


@pytest.mark.parametrize("exchange", [pipe, endless])
def test_a_cache_with_a_pipe_in_it_is_made_anew(
    tmp_path: Path, cache: Path, exchange: object
) -> None:
    assert callable(exchange)
    config = Folder(path=str(write_image_folder(tmp_path / "photos")))
    data = prepare(config)
    before = np.load(data.images_dir / "train.npy")
    for place in (
        data.images_dir / "meta.json",
        data.images_dir / "train.npy",
        data.labels_dir / "meta.json",
        *(cache / "sources").glob("*.json"),
    ):
        exchange(place)
        assert len(list_data()) >= 1
        assert (np.load(prepare(config).images_dir / "train.npy") == before).all()
