"""One bit a test image: packed, read back, and refused where it is not what its record says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.sweeps.correctness import (
    CorrectnessError,
    from_hex,
    of_trial,
    pack,
    to_hex,
    unpack,
)
from tests.helpers.on_disk import trial_in

bits = st.lists(st.booleans(), min_size=1, max_size=70).map(
    lambda values: np.array(values, np.bool_)
)


def written(trial: Path, data: bytes, stage: int = 2) -> str:
    path = trial / "test_correct" / f"{stage:04d}.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@given(bits)
def test_what_is_packed_is_read_back(correct: np.ndarray) -> None:
    assert np.array_equal(unpack(pack(correct), len(correct)), correct)
    assert len(pack(correct)) == 128 + -(-len(correct) // 8)


@given(bits)
def test_what_a_record_holds_as_text_is_read_back_and_of_so_many_images_alone(
    correct: np.ndarray,
) -> None:
    assert np.array_equal(from_hex(to_hex(correct), len(correct)), correct)
    for text in (to_hex(correct) + "00", to_hex(correct)[2:], "zz"):
        with pytest.raises(CorrectnessError):
            from_hex(text, len(correct))


def test_the_file_lies_with_its_trial_under_its_stage(tmp_path: Path) -> None:
    correct = np.arange(20) % 3 == 0
    sha256 = written(tmp_path / "trials" / "a", pack(correct))
    assert (tmp_path / "trials" / "a" / "test_correct" / "0002.npy").is_file()
    found = of_trial(trial_in(tmp_path / "trials" / "a"), 2, 20, sha256)
    assert found is not None and np.array_equal(found, correct)


def test_without_a_file_or_a_record_of_it_there_is_nothing(tmp_path: Path) -> None:
    assert of_trial(trial_in(tmp_path / "trials" / "a"), 0, 20, "0" * 64) is None
    written(tmp_path / "trials" / "a", pack(np.ones(20, np.bool_)), stage=0)
    assert of_trial(trial_in(tmp_path / "trials" / "a"), 0, 20, None) is None


@settings(deadline=None)
@given(place=st.integers(0, 130), value=st.integers(1, 255))
def test_a_changed_byte_is_refused_with_the_files_name(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    trial = tmp_path_factory.mktemp("sweep") / "trials" / "a"
    data = bytearray(pack(np.arange(20) % 3 == 0))
    sha256 = hashlib.sha256(data).hexdigest()
    data[place] ^= value
    written(trial, bytes(data))
    with pytest.raises(CorrectnessError, match=r"test_correct/0002.npy: is damaged: its SHA-256"):
        of_trial(trial_in(trial), 2, 20, sha256)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, 130), st.integers(1, 255)).map(lambda change: changed(*change))
)
def test_whatever_the_bytes_are_there_are_bits_or_one_error(data: bytes) -> None:
    try:
        assert unpack(data, 20).shape == (20,)
    except CorrectnessError as error:
        assert str(error)


def changed(place: int, value: int) -> bytes:
    data = bytearray(pack(np.arange(20) % 3 == 0))
    data[place] ^= value
    return bytes(data)


@pytest.mark.parametrize("items", [4, 12, 25, 0])
def test_bits_of_other_images_are_refused(tmp_path: Path, items: int) -> None:
    sha256 = written(tmp_path / "trials" / "a", pack(np.ones(20, np.bool_)))
    with pytest.raises(CorrectnessError, match=r"0002.npy: .* Restore it from a copy"):
        of_trial(trial_in(tmp_path / "trials" / "a"), 2, items, sha256)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "a" / "test_correct" / "0002.npy"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CorrectnessError, match="is damaged"):
        of_trial(trial_in(tmp_path / "trials" / "a"), 2, 20, "0" * 64)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "a" / "test_correct" / "0002.npy"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(CorrectnessError, match="it is not a file"):
        of_trial(trial_in(tmp_path / "trials" / "a"), 2, 20, "0" * 64)
