"""The tool by which tests of clusters tell that two sweeps came to the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import cli
from tests.helpers.s3_server import BUCKET, moto, use
from tests.helpers.same import main
from tests.helpers.small_sweep import SPEC, write_data


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sweep in `one`, run again in `two` and in a bucket."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch, moto() as endpoint, use(endpoint):
        patch.chdir(folder)
        write_data(folder / "features.npz")
        (folder / "spec.yaml").write_text(SPEC)
        for place in ("one", "two", f"s3://{BUCKET}/three"):
            assert cli.main(["sweep", "spec.yaml", "--engine", "inline", "--out", place]) == 0
        yield folder


@pytest.mark.parametrize("other", ["two", f"s3://{BUCKET}/three"])
def test_a_sweep_that_was_run_again_is_the_same_wherever_it_is_kept(
    swept: Path, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["one", other]) == 0
    said = capsys.readouterr().out
    assert said.count(" same: ") == 2 and "DIFFERENT" not in said


@pytest.mark.parametrize("part", ["ledger/0001.parquet", "ledger", "stages/0001.json", "stages"])
def test_whatever_is_missing_makes_a_difference(swept: Path, tmp_path: Path, part: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(swept / "one", copy)
    assert main(["one", str(copy)]) == 0
    (gone,) = [
        path for path in copy.glob(f"trials/*/{part}") if path.parent.exists() and path.exists()
    ][:1]
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    assert main(["one", str(copy)]) == main([str(copy), "one"]) == 1


def test_two_places_with_nothing_in_them_are_not_the_same(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "no trial in" in capsys.readouterr().out
    # Trials that were begun and have nothing on record are nothing either.
    for name in ("a", "b"):
        shutil.copytree(swept / "one", tmp_path / name, dirs_exist_ok=True)
        for stages in (tmp_path / name).glob("trials/*/stages"):
            shutil.rmtree(stages)
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 1
