"""Damaged data files and a damaged cache are refused or read, and never break anything: bits
flipped, pieces cut out, doubled or exchanged.
"""

from __future__ import annotations

import json
import random
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.data.prepare import list_data, prepare
from orchestrator.data.sources.cifar import Batches
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder
from search_spaces.reading.datasets import contents
from search_spaces.reading.errors import SpecError
from tests.helpers.dataset_files import (
    SMALL_CIFAR,
    random_image,
    write_cifar,
    write_features,
    write_image_folder,
)
from trainers.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("one damaged file took a minute"))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with one to three things done to it."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        at, end = sorted(chance.randrange(len(found) + 1) for _ in range(2))
        # Most of a file is pixels: the ends and the beginning hold what can be misread.
        near = min(len(found), chance.choice((64, 256, 1024)))
        spot = (
            chance.choice((chance.randrange(near), len(found) - 1 - chance.randrange(near)))
            if near
            else 0
        )
        match chance.choice(("bit", "byte", "digit", "cut", "remove", "double")):
            case "bit" if found:
                found[spot] ^= 1 << chance.randrange(8)
            case "byte" if found:
                found[spot] = chance.choice((0, 255, 127, 128, chance.randrange(256)))
            case "digit" if found:
                found[spot : spot + 1] = chance.choice(
                    (b"9" * 12, b"-1", b"(", b"'", b"\xff\xff\xff\x7f")
                )
            case "cut":
                del found[at:]
            case "remove":
                del found[at : at + min(end - at, 64)]
            case "double":
                found[at:at] = found[at : at + min(end - at, 64)]
            case _:
                pass
    return bytes(found)


def try_all(victim: Path, seed: int, times: int, *tries: Callable[[], Any]) -> None:
    """Each of `tries` gives something or a user's error for every damaged version of `victim`."""
    content, refused = victim.read_bytes(), 0
    for number in range(times):
        changed = damaged(content, random.Random(f"{seed} {number}"))
        victim.write_bytes(changed)
        for attempt in tries:
            signal.alarm(60)
            try:
                attempt()
            except (DataError, SpecError) as error:
                refused += 1
                assert str(error).isprintable() and " object at 0x" not in str(error)
            except Exception as error:
                raise AssertionError(
                    f"{victim.name}, damage {seed} {number}: {changed[:400]!r}"
                ) from error
            signal.alarm(0)
    victim.write_bytes(content)
    assert refused, "the damage was meant to be damage"


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_feature_files(tmp_path: Path, compression: int) -> None:
    plain = write_features(
        tmp_path / "plain.npz",
        class_names=np.array(["a", "b", "ü"]),
        x_test=np.eye(4),
        y_test=np.array([0, 1, 2, 2]),
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    config = Features(path=str(path))
    try_all(path, compression, 150, lambda: prepare(config), lambda: contents(config))


@pytest.mark.parametrize("name", ["x", "y", "x_test", "class_names"])
def test_damaged_arrays_in_whole_archives(tmp_path: Path, name: str) -> None:
    """A checksum of the archive hides most damage from what reads the arrays: here the archive is
    whole.
    """
    plain = write_features(
        tmp_path / "plain.npz",
        class_names=np.array(["a", "b", "ü"]),
        x_test=np.eye(4),
        y_test=np.array([0, 1, 2, 2]),
    )
    with zipfile.ZipFile(plain) as source:
        members = {member: source.read(member) for member in source.namelist()}
    victim, path = tmp_path / "member", tmp_path / "a.npz"
    victim.write_bytes(members[f"{name}.npy"])
    config = Features(path=str(path))

    def attempt() -> None:
        with zipfile.ZipFile(path, "w") as target:
            for member, content in members.items():
                target.writestr(member, victim.read_bytes() if member == f"{name}.npy" else content)
        try:
            planned = contents(config).facts(config.name)
        except SpecError:
            planned = None
        try:
            prepared = prepare(config).facts
        except DataError as error:
            # The values of vectors are all that `plan` does not read.
            assert planned is None or "every feature must be a finite float32" in str(error)
            raise
        assert prepared == planned

    try_all(victim, 7, 150, attempt)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
def test_damaged_cifar_batches(tmp_path: Path, name: str, protocol: int) -> None:
    root = write_cifar(tmp_path / "cifar", protocol=protocol)
    (tmp_path / "out").mkdir()
    source = Batches(root, SMALL_CIFAR)
    try_all(
        root / SMALL_CIFAR.folder / name,
        protocol,
        150,
        lambda: source.load(tmp_path / "out", lambda done, total: None),
    )


@pytest.mark.parametrize("form", ["png", "jpg", "gif", "webp", "tiff", "bmp"])
def test_damaged_pictures(tmp_path: Path, form: str) -> None:
    root = write_image_folder(tmp_path / "photos", classes=("cat", "dog"), train=2, test=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    victim = root / f"train/cat/victim.{form}"
    random_image(9, 1).save(victim, **({"exif": exif} if form not in ("gif", "bmp") else {}))
    config = Folder(path=str(root))
    try_all(victim, 3, 60, lambda: prepare(config))


@pytest.mark.parametrize(
    "which",
    ["entry", "images/meta.json", "labels/meta.json", "images/train.npy", "labels/test.npy"],
)
def test_a_damaged_cache(tmp_path: Path, which: str) -> None:
    config = Features(path=str(write_features(tmp_path / "a.npz")))
    whole = prepare(config)
    place, _, name = which.partition("/")
    victim = (
        next((tmp_path / "cache/sources").glob("*.json"))
        if place == "entry"
        else (whole.images_dir if place == "images" else whole.labels_dir) / name
    )
    content = victim.read_bytes()
    for number in range(60):
        chance = random.Random(f"{which} {number}")
        changed = damaged(content, chance)
        if victim.suffix == ".json" and number % 2:
            # Whole JSON that says something else.
            words = json.loads(content)
            words[chance.choice(list(words))] = chance.choice(
                (None, [], {}, -1, 1e999, "x" * 99, [[]], True, "../../x")
            )
            changed = json.dumps(words).encode()
        victim.write_bytes(changed)
        signal.alarm(60)
        list_data()
        assert prepare(config, verify=True).fingerprint == whole.fingerprint, f"{which} {number}"
        signal.alarm(0)
