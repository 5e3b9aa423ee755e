"""Feature files: rows keep their order and their class, and what is wrong with a file is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.sources.features import Features
from tests.helpers.dataset_files import write_features
from trainers.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


def prepare_features(path: Path) -> PreparedData:
    return prepare(Features(path=str(path)))


def rows(data: PreparedData, split: str) -> tuple[np.ndarray, np.ndarray]:
    return np.load(data.images_dir / f"{split}.npy"), np.load(data.labels_dir / f"{split}.npy")


def test_a_fifth_of_every_class_is_the_test_set_and_no_row_is_lost(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.npz")
    data = prepare_features(path)
    (x, y), (x_test, y_test) = rows(data, "train"), rows(data, "test")
    assert (
        data.facts.kind,
        data.facts.num_classes,
        data.facts.train_items,
        data.facts.test_items,
    ) == ("features", 3, 48, 12)
    assert np.bincount(y_test).tolist() == [4, 4, 4]
    source = np.load(path)
    here = {
        (row.tobytes(), int(c))
        for row, c in [*zip(x, y, strict=True), *zip(x_test, y_test, strict=True)]
    }
    assert here == {
        (row.tobytes(), int(c)) for row, c in zip(source["x"], source["y"], strict=True)
    }


def test_a_given_test_set_leaves_rows_numbered_as_in_the_file(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float16)
    path = write_features(
        tmp_path / "a.npz",
        x=x,
        x_test=np.ones((2, 4)),
        y_test=np.array([2, 0]),
        class_names=np.array(["a", "b", "ü"]),
    )
    data = prepare_features(path)
    (found, y), (x_test, y_test) = rows(data, "train"), rows(data, "test")
    assert found.dtype == np.float32
    assert np.array_equal(found, x.astype(np.float32))
    assert y.tolist() == [k % 3 for k in range(60)]
    assert (x_test.tolist(), y_test.tolist()) == ([[1.0] * 4] * 2, [2, 0])


X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3


def changed(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": None},
            "has no array x. Expected numpy.savez(FILE, x=features [N, D], y=classes [N])",
        ),
        ({"y": None}, "has no array y."),
        (
            {"x": changed(X, (17, 2), np.nan)},
            "x[17, 2] is nan; every feature must be a finite float32",
        ),
        ({"x": changed(X, (59, 0), np.inf)}, "x[59, 0] is inf"),
        (
            {"x": changed(X.astype(np.float64), (4, 1), 1e300)},
            "x[4, 1] is 1e+300; every feature must be a finite float32",
        ),
        ({"x": X.astype(object)}, "x cannot be read without pickle, which could run code"),
        ({"x": X.astype(complex)}, "x holds complex128; expected numbers"),
        ({"x": X.reshape(60, 2, 2)}, "x has shape [60, 2, 2]; expected [N, D]"),
        ({"x": X[:0], "y": Y[:0]}, "x has shape [0, 4]; expected [N, D]"),
        ({"x": X[:50]}, "x has 50 rows and y 60; each row needs exactly one class"),
        ({"y": Y.astype(float)}, "y holds float64; expected whole class numbers 0..C-1"),
        ({"y": np.array(["a", "b", "c"] * 20)}, "y holds <U1; expected whole class numbers"),
        ({"y": np.array(["a", "b", "c"] * 20, dtype=object)}, "y cannot be read without pickle"),
        ({"y": Y[:, None]}, "y has shape [60, 1]; expected [N]"),
        ({"y": changed(Y, 9, -1)}, "y[9] is -1; expected class numbers 0..C-1"),
        ({"y": changed(Y, 9, 2**40)}, f"y[9] is {2**40}; expected class numbers"),
        (
            {"y": changed(Y, 9, 10**9)},
            "y[9] is 1000000000, but 60 rows cannot hold so many classes",
        ),
        (
            {"y": Y + 1},
            (
                "no row of y has class 0 (0); each of the 4 classes 0..3 needs some. If your"
                " classes start at 1, subtract 1."
            ),
        ),
        ({"y": changed(Y, 9, 4)}, "no row of y has class 3 (3)"),
        ({"y": Y * 0}, "y has one class only"),
        (
            {"y": changed(Y, 9, 3)},
            "class 3 (3) has 1 of 60 rows, too few to hold some out as test set",
        ),
        ({"class_names": np.array(["a", "b"])}, "y[2] is 2, but class_names has 2 entries"),
        ({"class_names": np.array(["a", "b", "c", "d"])}, "no row of y has class 3 (d)"),
        ({"class_names": np.array([1, 2, 3])}, "class_names holds int64; expected strings"),
        ({"x_test": X}, "x_test and y_test belong together"),
        ({"y_test": Y}, "x_test and y_test belong together"),
        ({"x_test": X[:5], "y_test": Y[:4]}, "x_test has 5 rows and y_test 4"),
        ({"x_test": X[:, :3], "y_test": Y}, "x has 4 features a row and x_test 3"),
        (
            {"x_test": X[:5], "y_test": changed(Y[:5], 3, 3)},
            "y_test[3] is 3, but the classes are 0..2",
        ),
        ({"x_test": changed(X[:5], (1, 1), np.nan), "y_test": Y[:5]}, "x_test[1, 1] is nan"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_features(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")):
        prepare_features(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.npz")
    content = path.read_bytes()
    np.save(tmp_path / "bare.npy", X)
    contents = [
        b"",
        b"hello",
        content[: len(content) // 2],
        content[:-30],
        (tmp_path / "bare.npy").read_bytes(),
        content[:200] + bytes([content[200] ^ 255]) + content[201:],
    ]
    for wrong in contents:
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=re.escape(f"{path}: ")):
            prepare_features(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=re.escape(f"{path}: ")):
        prepare_features(path)


@pytest.mark.parametrize("content", [b"hello", b"", b"\x80\x04N.", b"PK"])
def test_a_file_of_another_kind_is_not_advised_to_be_loaded_unsafely(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "x.npz"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz: (not a readable .npz file|damaged)") as raised:
        prepare(Features(path=str(file)))
    assert "pickle" not in str(raised.value) and "unsafe" not in str(raised.value)
