"""Files of a stage are read whole and as they were committed, each when it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainers.artefacts import StageDamaged, StageFile, StageFiles, sha256_of

ARRAYS = {
    "guess": np.arange(5, dtype=np.int32),
    "embedding": np.ones((5, 3), np.float32),
    "val_guess_last": np.empty(0, np.int32),
}


def file(path: Path) -> StageFile:
    return StageFile(path, sha256_of(path))


def apart(folder: Path) -> StageFiles:
    for name, array in ARRAYS.items():
        np.save(folder / f"{name}.npy", array)
    return StageFiles({f"scores/{name}": file(folder / f"{name}.npy") for name in ARRAYS})


def together(folder: Path) -> StageFiles:
    """As stages of earlier sweeps are."""
    np.savez(folder / "scores-a.npz", **ARRAYS)  # type: ignore[arg-type]
    return StageFiles({"scores": file(folder / "scores-a.npz")})


def both(folder: Path) -> StageFiles:
    """An earlier stage to which an array was added since."""
    np.savez(folder / "scores-a.npz", **{k: v for k, v in ARRAYS.items() if k != "embedding"})  # type: ignore[arg-type]
    np.save(folder / "e.npy", ARRAYS["embedding"])
    return StageFiles(
        {"scores": file(folder / "scores-a.npz"), "scores/embedding": file(folder / "e.npy")}
    )


@pytest.mark.parametrize("made", [apart, together, both])
def test_score_arrays_are_found_by_name_in_one_file_or_in_many(
    made: object, tmp_path: Path
) -> None:
    scores = made(tmp_path).scores()  # type: ignore[operator]
    assert "embedding" in scores and "margin" not in scores
    for name, array in ARRAYS.items():
        assert np.array_equal(scores[name], array) and scores[name].dtype == array.dtype
    assert set(scores) == set(ARRAYS) and len(scores) == len(ARRAYS)
    with pytest.raises(KeyError):
        scores["margin"]


def test_an_array_is_read_and_checked_only_when_it_is_asked_for(tmp_path: Path) -> None:
    files = apart(tmp_path)
    (tmp_path / "embedding.npy").write_bytes(b"other bytes")
    scores = files.scores()
    assert np.array_equal(scores["guess"], ARRAYS["guess"])
    with pytest.raises(StageDamaged, match=rf"embedding\.npy: .*Remove the folder {tmp_path} to"):
        scores["embedding"]


def test_a_file_that_no_one_asks_for_is_not_even_looked_up(tmp_path: Path) -> None:
    """It may be large, and on another machine."""

    class Kept(dict[str, StageFile]):
        def __getitem__(self, role: str) -> StageFile:
            asked.append(role)
            return super().__getitem__(role)

    asked: list[str] = []
    scores = StageFiles(Kept(apart(tmp_path).files)).scores()
    assert "embedding" in scores and len(scores) == len(ARRAYS)
    assert np.array_equal(scores["guess"], ARRAYS["guess"])
    assert asked == ["scores/guess"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"other bytes")])
def test_a_file_that_is_not_what_was_committed_is_refused(damage: object, tmp_path: Path) -> None:
    path = tmp_path / "model-a.pt"
    path.write_bytes(b"weights")
    files = StageFiles({"model": file(path)})
    assert files.read("model") == b"weights"
    damage(path)  # type: ignore[operator]
    with pytest.raises(StageDamaged, match=r"model-a\.pt: missing or damaged"):
        files.read("model")


def test_a_file_that_the_stage_never_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageDamaged, match=r"holds no file 'state' of its stage"):
        together(tmp_path).read("state")
