"""One reader of feature files: what `plan` accepts `data prepare` accepts, and nothing in a file
makes it evaluate, wait or fill the memory.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import cli
from orchestrator.data.feature_files import read_feature_file
from orchestrator.data.npz_files import row_blocks
from orchestrator.data.prepare import prepare
from orchestrator.data.sources.features import Features
from search_spaces.reading.config import Contents
from search_spaces.reading.datasets import contents
from search_spaces.reading.errors import SpecError
from tests.helpers.dataset_files import write_features
from trainers.errors import DataError

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


def refused(path: Path) -> str:
    """What both commands say of the file: the same."""
    config = Features(path=str(path))
    with pytest.raises(DataError) as said:
        prepare(config)
    with pytest.raises(SpecError) as planned:
        contents(config)
    assert planned.value.problem == str(said.value)
    assert str(said.value).startswith(f"{path}: ")
    return str(said.value).removeprefix(f"{path}: ")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, values: bytes = b"", version: int = 1) -> bytes:
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(text).to_bytes(2 if version == 1 else 4, "little")
        + text.encode("latin-1")
        + values
    )


def archive(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in ({"x": npy(X), "y": npy(Y)} | members).items():
            file.writestr(f"{name}.npy", content)
    return path


def test_a_none_in_place_of_a_test_set_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_test=None, y_test=None)  # type: ignore[arg-type]
    assert refused(tmp_path / "a.npz").startswith(
        "x_test cannot be read without pickle, which could run code. Store plain numbers or"
        " strings, or leave it out"
    )
    for words in (["plan"], ["sweep", "--engine", "inline", "--out", str(tmp_path / "run")]):
        assert (
            cli.main([*words, "features_example.yaml", "--set", f"dataset.path={tmp_path}/a.npz"])
            == 2
        )
        assert "x_test" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_bare_array_is_said_to_be_one(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", X)
    assert refused(tmp_path / "features.npy").startswith(
        "holds one bare array. Write it with numpy.savez. Expected numpy.savez(FILE, x="
    )


@pytest.mark.parametrize("name", ["x", "y", "x_test", "y_test", "class_names"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            header(
                "{'descr': "
                + "[" * 3000
                + "]" * 3000
                + ", 'fortran_order': False, 'shape': (60, 4)}"
            ),
            "holds records",
        ),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 4000 + ")}"),
            "has no header of numpy's",
        ),
        (
            header("{'descr': '<f4', 'fortran_order': " + "-" * 9000 + "1, 'shape': (60, 4)}"),
            "has no header of numpy's",
        ),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (60, 4), " + " " * 9000),
            "has no header of numpy's",
        ),
        (header("'''{'descr'"), "has no header of numpy's"),
        (
            header("{'descr': '<f4', 'shape': (60, 4)}", bytes(960)),
            "lacks descr, fortran_order or shape",
        ),
        (
            header("{'descr': 'f4,f4', 'fortran_order': False, 'shape': (60, 4)}"),
            "holds f4,f4; expected numbers",
        ),
        (
            header("{'descr': '<q17', 'fortran_order': False, 'shape': (60, 4)}"),
            "holds '<q17', which is no type of numpy's",
        ),
        (
            header("{'descr': 'O8', 'fortran_order': False, 'shape': (60,)}", bytes(480)),
            "cannot be read without pickle",
        ),
        (
            header(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999, 4)}",
                bytes(960),
            ),
            "takes 15,999,999,999,999,984 bytes, but 960 are stored",
        ),
        (
            header("{'descr': '<i8', 'fortran_order': False, 'shape': (60,)}", bytes(479)),
            "takes 480 bytes, but 479 are stored",
        ),
        (b"\x93NUMPY\x09\0\xff\xff", "has no header of numpy's"),
        (b"", "has no header of numpy's"),
        (pickle.dumps([1]), "has no header of numpy's"),
    ],
)
def test_a_hostile_header_is_refused_by_both(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    more = {"x_test": npy(X[:6]), "y_test": npy(Y[:6])}
    said = refused(archive(tmp_path / "a.npz", **more | {name: content}))
    assert said.startswith(f"{name} ") and says in said


def test_headers_of_other_writers_are_read(tmp_path: Path) -> None:
    x = header("{'shape': (60L, 4L), 'fortran_order': False, 'descr': '<f4'}  \n", X.tobytes())
    y = header(
        "{'descr': '>i2','fortran_order':False,'shape':(60,),}",
        Y.astype(">i2").tobytes(),
        version=2,
    )
    for compression in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    ):
        path = archive(tmp_path / "a.npz", compression, x=x, y=y)
        found = read_feature_file(path)
        assert found.y.tolist() == Y.tolist()
        assert np.array_equal(np.concatenate([rows for _, rows in row_blocks(path, "x")]), X)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_member_is_refused_however_it_is_compressed(
    tmp_path: Path, compression: int
) -> None:
    path = archive(tmp_path / "a.npz", compression)
    whole = prepare(Features(path=str(path))).fingerprint
    content = bytearray(path.read_bytes())
    start = content.index(b"y.npy") + 5
    for changed in range(start, start + 40):
        damaged = content.copy()
        damaged[changed] ^= 255
        path.write_bytes(damaged)
        config = Features(path=str(path))
        try:
            found = prepare(config), contents(config)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")
            with pytest.raises(SpecError):
                contents(config)
        else:  # a byte that says nothing of the content
            assert found[0].facts == found[1].facts("features") and found[0].fingerprint == whole


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(sign)
        content[place + offset] |= 1
    path.write_bytes(content)
    assert "encrypted" in refused(path)


def test_rows_that_swell_beyond_the_memory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    rows = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8 + 1
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({rows},)}}"
    path = archive(tmp_path / "a.npz", y=header(text, bytes(480)))
    content = bytearray(path.read_bytes())
    # The directory claims what the header claims; the values behind it would come from a bomb.
    entry = content.rindex(b"PK\x01\x02")
    size = int.from_bytes(content[entry + 24 : entry + 28], "little") - 480
    assert size + 8 * rows > 2**32, "the claim needs the 64-bit field"
    extra = (
        (1).to_bytes(2, "little")
        + (8).to_bytes(2, "little")
        + (size + 8 * rows).to_bytes(8, "little")
    )
    name_end = entry + 46 + 5
    content[entry + 24 : entry + 28] = b"\xff" * 4
    content[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    content[name_end:name_end] = extra
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = (
        int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
    ).to_bytes(4, "little")
    path.write_bytes(content)
    assert "more than this machine's memory" in refused(path)


def test_vectors_are_read_block_by_block_in_either_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.data.npz_files._BLOCK_BYTES", 100)
    stored = {}
    for name, x in (("c", X), ("f", np.asfortranarray(X)), ("big", X.astype(">f8"))):
        path = write_features(tmp_path / f"{name}.npz", x=x)
        data = prepare(Features(path=str(path)))
        stored[name] = [np.load(data.images_dir / f"{split}.npy") for split in ("train", "test")]
    assert all(
        np.array_equal(stored["c"][k], stored[name][k]) for name in ("f", "big") for k in (0, 1)
    )
    assert {row.tobytes() for split in stored["c"] for row in split} == {row.tobytes() for row in X}


def test_a_source_of_another_kind_is_not_read_as_feature_vectors(tmp_path: Path) -> None:
    class Graphs(Features):
        name = "graphs"

        def contents(self) -> Contents:
            return replace(super().contents(), kind="graphs")  # type: ignore[arg-type]

    source = Graphs(path=str(write_features(tmp_path / "a.npz")))
    with pytest.raises(SpecError, match="its items are 'graphs'; known are images, features"):
        contents(source)
    with pytest.raises(DataError, match="kind: features here, but graphs has graphs"):
        prepare(source)


@pytest.mark.parametrize(
    "changes",
    [
        {"x_test": X[:5], "y_test": Y[:4]},
        {"x_test": X[:5, :2], "y_test": Y[:5]},
        {"y": Y[:50]},
        {"class_names": np.array([1.5])},
    ],
)
def test_both_commands_say_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    refused(write_features(tmp_path / "a.npz", **changes))
