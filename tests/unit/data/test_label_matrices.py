"""Feature files whose rows may have several labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from orchestrator.data.feature_files import read_feature_file
from orchestrator.data.prepare import prepare
from orchestrator.data.sources.features import Features
from orchestrator.labelling.hidden_labels import train_labels
from orchestrator.labelling.test_labels import read as read_test_labels
from tests.helpers.dataset_files import write_features
from trainers.errors import DataError

Y = np.random.default_rng(0).integers(0, 2, (60, 5)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_what_is_written_is_what_oracle_and_evaluator_read(
    tmp_path: Path, dtype: type[Any]
) -> None:
    y = Y.astype(dtype)
    x_test = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    path = write_features(tmp_path / "a.npz", y=y, x_test=x_test, y_test=y[:20], class_names=None)
    source = Features(path=str(path))
    held = source.contents()
    assert held.several_labels and held.num_classes == 5
    assert (held.train_items, held.test_items, held.smallest_class) == (60, 20, 12)
    data = prepare(source)
    assert np.array_equal(train_labels(data.labels_dir), Y)
    assert np.array_equal(read_test_labels(data.labels_dir), Y[:20])


def test_without_a_test_set_a_fifth_of_the_rows_is_held_out(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.npz", y=Y)
    data = prepare(Features(path=str(path)))
    train, test = train_labels(data.labels_dir), read_test_labels(data.labels_dir)
    assert (train.shape, test.shape) == ((48, 5), (12, 5))
    x = np.load(path)["x"]
    where = {row.tobytes(): number for number, row in enumerate(x)}
    for split, labels in (("train", train), ("test", test)):
        rows = [where[row.tobytes()] for row in np.load(data.images_dir / f"{split}.npy")]
        assert rows == sorted(rows)
        assert np.array_equal(labels, Y[rows])


def changed(row: int, column: int, value: int) -> Any:
    y = Y.astype(np.int64)
    y[row, column] = value
    return y


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": changed(7, 2, -1)}, "y[7, 2] is -1; expected 1 where the row has the category"),
        ({"y": changed(59, 4, 2)}, "y[59, 4] is 2; expected 1 where"),
        ({"y": Y.astype(float)}, "y holds float64 [60, 5]; a matrix of labels is of whole numbers"),
        ({"y": Y[:50]}, "x has 60 rows and y 50; each row needs its labels"),
        ({"y": Y * np.array([1, 1, 0, 1, 1], np.uint8)}, "no row of y has category 2 (2); leave"),
        ({"y": Y, "class_names": np.array(["a", "b"])}, "y has 5 columns, but class_names has 2"),
        (
            {"y": Y, "x_test": np.ones((3, 4)), "y_test": Y[:3, :4]},
            "y has 5 columns and y_test 4; both have a column",
        ),
        (
            {"y": Y, "x_test": np.ones((3, 4)), "y_test": np.arange(3)},
            "y_test has shape [3]; expected [N, L] as y has",
        ),
        (
            {"y": Y, "x_test": np.ones((3, 4)), "y_test": changed(1, 1, 3)[:3]},
            "y_test[1, 1] is 3; expected",
        ),
        ({"x": np.ones((4, 4)), "y": np.eye(4, dtype=int)}, "has 4 rows, too few to hold some out"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_features(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")):
        Features(path=str(path)).contents()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st_numpy.arrays(np.int8, st.tuples(st.integers(5, 9), st.integers(2, 4))))
def test_only_0_and_1_pass_and_a_row_may_have_none(tmp_path: Path, y: Any) -> None:
    path = write_features(tmp_path / "a.npz", x=np.ones((len(y), 2)), y=y)
    fits = bool(np.isin(y, (0, 1)).all() and y.any(axis=0).all())
    if fits:
        assert np.array_equal(read_feature_file(path).y, y)
        return
    with pytest.raises(DataError):
        read_feature_file(path)


def test_a_category_without_a_test_image_is_said_with_what_it_costs(tmp_path: Path) -> None:
    """It counts 0 in the mAP, and so does say something."""
    y_test = Y[:20].copy()
    y_test[:, 3] = 0
    x_test = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    path = write_features(tmp_path / "a.npz", y=Y, x_test=x_test, y_test=y_test, class_names=None)
    (note,) = [note for note in prepare(Features(path=str(path))).notes if "test set" in note]
    assert "1 of 5 categories (3): each counts 0 in the mAP" in note
    assert note.endswith("80.0 at most")
