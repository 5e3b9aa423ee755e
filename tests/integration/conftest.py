"""A finished small sweep, and commands run on copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.dying import run_cli
from tests.helpers.small_sweep import SPEC, Run, write_data


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the spec and a finished sweep `out`."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "features.npz")
    (folder / "spec.yaml").write_text(SPEC)
    assert run_cli(["sweep", "spec.yaml", "--engine", "inline", "--out", "out"], folder) == 0, (
        folder / "log"
    ).read_text()
    return folder


@pytest.fixture
def sweep(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepLayout:
    """A copy of the finished sweep, in the working folder; its data is where it was."""
    shutil.copytree(whole / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    return SweepLayout.at("out")
