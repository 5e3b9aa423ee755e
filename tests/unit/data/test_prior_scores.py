"""Prior scores of a features file: delivered beside its rows, each to its own, or refused in one
line with nothing kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from orchestrator.data import delivery
from orchestrator.data.prepare import prepare
from orchestrator.data.protocols import Loaded, Progress
from orchestrator.data.shelf import shelf_at
from orchestrator.data.sources.features import Features
from orchestrator.labelling.keyed import keyed_uniform
from search_spaces.reading.config import Contents
from tests.helpers.dataset_files import write_features
from tests.toys.blobs import Blobs
from trainers.data.items import open_data
from trainers.errors import DataError

LOGITS = np.round(8 * keyed_uniform("logits", np.arange(180)) - 4, 3).reshape(60, 3)
LOGITS = LOGITS.astype(np.float32)
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def of_file(path: Path) -> Any:
    return open_data(prepare(Features(path=str(path))).images_dir)


def test_the_scores_of_each_row_go_where_the_row_goes(tmp_path: Path) -> None:
    data = of_file(write_features(tmp_path / "a.npz", scores=LOGITS))
    source = np.load(tmp_path / "a.npz")
    scores_of = {row.tobytes(): scores for row, scores in zip(source["x"], LOGITS, strict=True)}
    assert (len(data.train), len(data.test)) == (48, 12)
    for rows, scores in ((data.train, data.train_scores), (data.test, data.test_scores)):
        assert scores.dtype == np.float32
        assert np.array_equal(scores, np.stack([scores_of[row.tobytes()] for row in rows]))


@pytest.mark.parametrize("as_type", [np.float64, np.float32, np.float16])
def test_probabilities_are_kept_as_logits_of_themselves(tmp_path: Path, as_type: Any) -> None:
    test = {"x_test": np.ones((2, 4)), "y_test": np.array([0, 2]), "scores_test": SHARES[:2]}
    shares = SHARES.astype(as_type)
    data = of_file(write_features(tmp_path / "a.npz", scores=shares, **test))
    kept = np.exp(data.train_scores.astype(np.float64))
    assert np.allclose(kept, shares.astype(np.float64), rtol=1e-6)
    assert np.allclose(np.exp(data.test_scores), SHARES[:2], rtol=1e-6)


def test_a_probability_of_zero_is_a_very_low_logit(tmp_path: Path) -> None:
    sure = np.eye(3)[np.arange(60) % 3]
    data = of_file(write_features(tmp_path / "a.npz", scores=sure))
    assert np.isfinite(data.train_scores).all()
    assert data.train_scores.min() < -80 and data.train_scores.max() == 0


def test_logits_stay_as_they_are_even_where_none_is_negative(tmp_path: Path) -> None:
    cosines = (np.abs(LOGITS) / 100).astype(np.float32)
    data = of_file(write_features(tmp_path / "a.npz", scores=cosines))
    assert np.isin(data.train_scores, cosines).all()


def test_other_scores_are_other_data_and_none_is_the_data_as_ever(tmp_path: Path) -> None:
    """The fingerprint without scores is a pin: results on users' disks are tied to it."""
    path, found = tmp_path / "a.npz", []
    for scores in (None, LOGITS, LOGITS + np.eye(60, 3, dtype=np.float32)):
        found.append(prepare(Features(path=str(write_features(path, scores=scores)))).fingerprint)
    assert len(set(found)) == 3
    fixed = np.arange(60 * 4, dtype=np.float32).reshape(60, 4) % 7
    write_features(path, x=fixed)
    assert prepare(Features(path=str(path))).fingerprint == (
        "7842edfc3efef7d6f3994da761a20265e5740c1f633b55a806860ba70bd85191"
    )


def test_what_an_earlier_version_decoded_without_scores_is_decoded_again(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.npz", scores=LOGITS)
    prepare(Features(path=str(path)))
    for entry in (tmp_path / "cache" / "sources").glob("*.json"):
        said = json.loads(entry.read_text())
        entry.write_text(json.dumps(said | {"signature": said["signature"].split(" scores")[0]}))
    assert prepare(Features(path=str(path))).decoded_now
    assert not prepare(Features(path=str(path))).decoded_now


def test_another_machine_is_brought_the_scores_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(Features(path=str(write_features(tmp_path / "a.npz", scores=LOGITS))))
    (tmp_path / "shelf").mkdir()
    shelf = shelf_at(str(tmp_path / "shelf"))
    delivery.put(shelf, data, "images", part_bytes=100)
    first = open_data(data.images_dir)
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
    data.images_dir.rename(tmp_path / "gone")
    there = open_data(delivery.fetch(shelf, data, "images").images_dir)
    assert there.folder != first.folder
    assert np.array_equal(there.train_scores, first.train_scores)
    assert np.array_equal(there.test_scores, first.test_scores)


def changed(index: Any, value: float) -> Any:
    array = LOGITS.copy()
    array[index] = value
    return array


TEST = {"x_test": np.ones((2, 4)), "y_test": np.array([2, 0])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"scores": LOGITS[:50]},
            "scores has shape [50, 3]; expected [60, 3], a row for each of x",
        ),
        ({"scores": LOGITS[:, :2]}, "scores has shape [60, 2]; expected [60, 3]"),
        ({"scores": LOGITS[:, 0]}, "scores has shape [60]; expected [N, C]"),
        ({"scores": LOGITS.astype(complex)}, "scores holds complex128; expected numbers"),
        ({"scores": LOGITS.astype(object)}, "scores cannot be read without pickle"),
        ({"scores": changed((7, 1), np.nan)}, "scores[7, 1] is nan; every score must be a finite"),
        ({"scores": changed((59, 2), -np.inf)}, "scores[59, 2] is -inf"),
        ({"scores_test": LOGITS[:2]}, "has scores_test and no x_test. Give both, or neither."),
        ({"scores": LOGITS, **TEST}, "has scores but no scores_test; guesses by prior scores need"),
        ({"scores_test": LOGITS[:2], **TEST}, "has scores_test but no scores; guesses by prior"),
        (
            {"scores": LOGITS, "scores_test": LOGITS[:3], **TEST},
            "scores_test has shape [3, 3]; expected [2, 3], a row for each of x_test",
        ),
        (
            {"scores": SHARES, "scores_test": LOGITS[:2], **TEST},
            "scores are probabilities (from 0, each row summing to 1), and scores_test are no",
        ),
        (
            {"scores": LOGITS, "scores_test": np.array([[1, 2, np.nan]] * 2), **TEST},
            "scores_test[0, 2] is nan",
        ),
    ],
)
def test_wrong_scores_are_refused_in_one_line_and_nothing_is_kept(
    tmp_path: Path, _cache: Path, arrays: dict[str, Any], message: str
) -> None:
    path = write_features(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")) as caught:
        prepare(Features(path=str(path)))
    assert "\n" not in str(caught.value)
    assert not [file for file in _cache.rglob("*") if file.is_file() and file.suffix != ".lock"]


@dataclass(frozen=True, kw_only=True)
class Blurred(Blobs):
    """Blobs with prior scores, which may be wrong in some way."""

    name: ClassVar[str] = "blurred"
    fault: str = ""

    def contents(self) -> Contents:
        found = super().contents()
        return Contents(**{**_fields(found), "prior": self.fault != "unsaid"})

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        loaded = super().load(folder, on_progress)
        for split, labels in loaded.labels.items():
            scores = np.zeros((len(labels), len(loaded.class_names)), np.float32)
            if self.fault == "narrow":
                scores = scores[:, 1:]
            if self.fault == "nan":
                scores[0, 0] = np.nan
            if self.fault not in ("missing", f"no {split}"):
                np.save(folder / f"{split}_scores.npy", scores)
        return loaded


def _fields(found: Contents) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Contents.__dataclass_fields__}


def test_a_source_of_another_package_may_deliver_scores() -> None:
    data = open_data(prepare(Blurred()).images_dir)
    assert data.train_scores is not None and data.test_scores is not None
    assert data.train_scores.shape == (len(data.train), data.num_classes)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unsaid", "says that it has no prior scores and wrote some"),
        ("missing", "says that it has prior scores and wrote none"),
        ("no test", "it differs in train_scores.npy"),
        ("narrow", "train_scores.npy is float32"),
        ("nan", "train_scores.npy holds a number that is none"),
    ],
)
def test_a_source_that_delivers_other_scores_than_it_says_is_at_fault(
    fault: str, message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        prepare(Blurred(fault=fault))
