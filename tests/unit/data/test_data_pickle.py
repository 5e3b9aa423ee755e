"""The reader of CIFAR's pickles: what is published is read, and what would run code, or anything
else, is refused.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data.sources.cifar import Batches
from orchestrator.data.sources.cifar_pickle import PickleRefused, read_pickle
from tests.helpers.dataset_files import SMALL_CIFAR, write_cifar
from trainers.errors import DataError


def text(value: bytes) -> bytes:
    """As Python 2 writes a short string."""
    return b"U" + bytes([len(value)]) + value


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def array(
    descr: bytes,
    shape: bytes,
    content: bytes,
    state: bytes = b"(K\x03U\x01|NNN" + number(-1) + number(-1) + b"K\x00tb",
    core: bytes = b"core",
) -> bytes:
    """An array as Python 2 and numpy wrote it; `state` completes its type."""
    made = (
        b"cnumpy."
        + core
        + b".multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + text(b"b")
        + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + text(descr) + b"K\x00K\x01\x87R" + state
    return (
        made
        + b"(K\x01"
        + shape
        + dtype
        + b"\x89T"
        + len(content).to_bytes(4, "little")
        + content
        + b"tb"
    )


def published(items: int, **changes: bytes) -> bytes:
    """A batch byte for byte as the published ones are laid out, memo included."""
    pixels = bytes(k % 251 for k in range(items * 3072))
    labels = b"]q\x05(" + b"".join(b"K" + bytes([k % 10]) for k in range(items)) + b"e"
    data = array(b"u1", number(items) + b"M\x00\x0c\x86", pixels)
    names = (
        b"]q\x16("
        + b"".join(
            text(b"image_%d.png" % k) + b"r" + (23 + k).to_bytes(4, "little") for k in range(items)
        )
        + b"e"
    )
    values = {"labels": labels, "data": data, "filenames": names} | changes
    return (
        b"\x80\x02}q\x01("
        + text(b"batch_label")
        + b"q\x02"
        + text(b"a batch")
        + b"".join(text(key.encode()) + value for key, value in values.items())
        + b"u."
    )


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_a_batch_as_published_is_read(core: bytes) -> None:
    found = read_pickle(
        published(20, data=array(b"u1", number(20) + b"M\x00\x0c\x86", bytes(61440), core=core))
    )
    assert found["data"].shape == (20, 3072) and found["data"].dtype == np.uint8
    found = read_pickle(published(20))
    assert found["data"].reshape(-1).tolist() == [k % 251 for k in range(61440)]
    assert found["labels"] == [k % 10 for k in range(20)]
    assert found["filenames"][3] == "image_3.png"
    # Python's own unpickler reads the same in it.
    theirs = pickle.loads(published(20).replace(b"numpy._core", b"numpy.core"), encoding="latin1")
    assert np.array_equal(theirs["data"], found["data"]) and theirs["labels"] == found["labels"]


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", ["uint8", ">i2", "<i8", "float32", "bool"])
def test_arrays_and_numbers_of_any_protocol_are_what_was_stored(protocol: int, dtype: str) -> None:
    stored = np.arange(12).reshape(3, 4).astype(dtype)
    value = {
        "c": stored,
        "f": np.asfortranarray(stored),
        "one": stored[1, 1],
        "rest": [1, 2.5, None, True, ("a", "é"), b"raw", -(2**40)],
    }
    found = read_pickle(pickle.dumps(value, protocol=protocol))
    assert (
        np.array_equal(found["c"], stored)
        and np.array_equal(found["f"], stored)
        and found["c"].dtype == stored.dtype
    )
    assert found["one"] == stored[1, 1] and found["rest"] == value["rest"]


def forged(address: int) -> bytes:
    """An array of objects whose type says that it holds none: its bytes become references to
    whatever lies at that address.
    """
    without_flags = b"(K\x03U\x01|NNN" + number(-1) + number(-1) + b"K\x00tb"
    return array(b"O8", b"K\x01\x85", address.to_bytes(8, "little"), without_flags)


def test_a_type_with_forged_flags_makes_no_object_at_an_address(tmp_path: Path) -> None:
    secret = ["an object of this process"]
    evil = b"\x80\x02}(" + text(b"data") + forged(id(secret)) + text(b"labels") + b"]u."
    # The numbers of references that an unpickler would have added.
    before = ctypes.c_ssize_t.from_address(id(secret)).value
    root = write_cifar(tmp_path / "cifar")
    (root / SMALL_CIFAR.folder / "test_batch").write_bytes(evil)
    (tmp_path / "out").mkdir()
    with pytest.raises(
        DataError,
        match=(
            r"test_batch: cannot be read \(it holds an array of 'O8', and a CIFAR batch holds"
            r" numbers only\)"
        ),
    ):
        Batches(root, SMALL_CIFAR).load(tmp_path / "out", lambda done, total: None)
    assert ctypes.c_ssize_t.from_address(id(secret)).value == before


@pytest.mark.parametrize(
    "descr",
    [
        b"O",
        b"O8",
        b"|O8",
        b"V8",
        b"S8",
        b"U2",
        b"M8",
        b"u1,O",
        b"(2,)u1",
        b"object",
        b"u3",
        b"",
        b"g",
    ],
)
def test_only_plain_numbers_are_types(descr: bytes) -> None:
    with pytest.raises(PickleRefused, match=r"holds an array of|is damaged"):
        read_pickle(b"\x80\x02" + array(descr, b"K\x01\x85", bytes(8)) + b".")


class Call:
    """Pickled as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(2, 6))
def test_no_function_is_called(tmp_path: Path, protocol: int) -> None:
    for value in (
        Call(os.mkdir, str(tmp_path / "made")),
        Call(eval, "1"),
        Call(getattr, "a", "upper"),
        Call(np.load, "x"),
        {1},
        object(),
        1j,
        pickle,
    ):
        try:
            content = pickle.dumps({"data": value}, protocol=protocol)
        except TypeError:  # a module cannot be pickled at all
            continue
        with pytest.raises(
            PickleRefused, match=r"which no CIFAR batch does|in a way that no CIFAR batch does"
        ):
            read_pickle(content)
    assert not (tmp_path / "made").exists()


NAME = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            NAME + b"cnumpy\ndtype\nK\x00\x85" + text(b"b") + b"\x87R.",
            "in a way that no CIFAR batch does",
        ),
        (NAME + b")R.", "in a way"),
        (b"cnumpy\ndtype\n)R.", "in a way"),
        (b"K\x01)R.", "calls int"),
        (b"cos\nsystem\n" + text(b"true") + b"\x85R.", "refers to os.system"),
        (b"cnumpy\nload\n.", "refers to numpy.load"),
        (b"c_codecs\nencode\n" + text(b"a") + text(b"rot13") + b"\x86R.", "in a way"),
        (b"}}b.", "gives dict a state"),
        (b"}K\x01K\x02s.", "sets items of dict, with keys"),
        (b"}(K\x01u.", "sets items of dict"),
        (b"K\x01K\x02a.", "appends to int"),
        (b"i__main__\nX\n.", "opcode INST"),
        (b"U\x01aQ.", "opcode BINPERSID"),
        (b"\x82\x01.", "opcode EXT1"),
        (b")\x81.", "opcode NEWOBJ"),
        (b"h\x05.", "is damaged: KeyError"),
        (b"u.", "no mark"),
        (b"(.", "stack is empty"),
        (b"a.", "stack is empty"),
        (b"U\xffabc", "is damaged: ValueError"),
        (b"", "is damaged: ValueError"),
        (b"K\x01", "is damaged: ValueError"),
        (array(b"u1", number(-4) + b"\x85", b"") + b".", "without bytes, shape or order"),
        (
            array(b"u1", b"K\x05\x85", b"1234") + b".",
            r"an array of 4 bytes where its shape \[5\] takes 5",
        ),
        (array(b"u1", b"(" + b"K\x01" * 30 + b"t", b"1") + b".", "without bytes, shape or order"),
        (NAME + b"cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R.", "an array without content"),
    ],
)
def test_what_no_batch_holds_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(PickleRefused, match=says):
        read_pickle(b"\x80\x02" + content)


def test_lists_that_hold_each_other_cost_no_more_than_their_bytes(tmp_path: Path) -> None:
    nested: list[Any] = [0] * 20
    for _ in range(30):
        nested = [nested] * 20
    round_about: list[Any] = []
    round_about.extend([round_about] * 20)
    root = write_cifar(tmp_path / "cifar")
    (tmp_path / "out").mkdir()
    batch = pickle.loads((root / SMALL_CIFAR.folder / "data_batch_1").read_bytes())
    for labels in (nested, round_about, [2**70] * 20, [1.5] * 20, ["1"] * 20):
        (root / SMALL_CIFAR.folder / "data_batch_1").write_bytes(
            pickle.dumps(batch | {"labels": labels}, protocol=2)
        )
        with pytest.raises(
            DataError, match=r"`labels` is not a list of 20 whole numbers|opcode LONG4"
        ):
            Batches(root, SMALL_CIFAR).load(tmp_path / "out", lambda done, total: None)


def test_a_file_far_larger_than_a_batch_is_not_read(tmp_path: Path) -> None:
    root = write_cifar(tmp_path / "cifar")
    with (root / SMALL_CIFAR.folder / "batches.meta").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        DataError,
        match=(
            r"batches\.meta: has 1,099,511,627,776 bytes, and what belongs there never has more"
            r" than"
        ),
    ):
        Batches(root, SMALL_CIFAR).load(tmp_path, lambda done, total: None)


def test_a_batch_of_full_size_takes_seconds_at_most() -> None:
    items = 10_000
    content = published(items)
    began = time.perf_counter()
    assert read_pickle(content)["data"].shape == (items, 3072)
    assert time.perf_counter() - began < 20
