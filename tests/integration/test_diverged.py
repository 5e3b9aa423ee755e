"""A trial that diverged: trying again does not help, and what does is said as a command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.helpers.small_sweep import SPEC, Run, write_data


def test_what_is_printed_is_the_command_that_helps(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(Path("my features.npz"))
    Path("wild.yaml").write_text(
        SPEC.replace("features.npz", "my features.npz").replace(
            "epochs: 1", "epochs: 3, learning_rate: 1000"
        )
    )
    begun = ["--engine", "inline", "--set", "method.consistency_weight=2"]
    code, _, said = run("sweep", "wild.yaml", *begun, "--out", "runs/wild")
    assert code == 1
    assert "2 trial(s) diverged" in said
    assert "orchestrate retry" not in said
    kinds = {json.loads(path.read_text())["kind"] for path in Path("runs").rglob("error.json")}
    assert kinds == {"Diverged"}
    code, _, said = run("retry", "runs/wild")
    assert code == 1
    assert "2 of them diverged" in said
    (command,) = [line for line in said.splitlines() if "Other settings are another" in line]
    words = shlex.split(command.partition("orchestrate ")[2])
    assert "method.consistency_weight=2" in words
    words[words.index("KEY=VALUE")] = "method.learning_rate=0.01"
    code, _, said = run(*words, "--engine", "inline")
    assert code == 0, said
    assert Path("runs/wild-again/report/report.html").exists()
