"""The version, and words that a shell completes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.commands.shell import SHELLS, version


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_version_needs_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"orchestrate {version()}\n"
    assert version()[0].isdigit()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    script = printed(capsys, "--print-completion", shell)
    for word in ("orchestrate", "sweep", "verify", "engine"):
        assert word in script


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("orchestrate st", {"status", "stop"}),
        ("orchestrate sweep --eng", {"--engine"}),
        ("orchestrate sweep --engine in", {"inline"}),
        ("orchestrate sweep my_sp", {"my_spec.yaml"}),
        ("orchestrate status my_f", {"my_folder"}),
    ],
)
def test_bash_completes_what_was_begun(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, typed: str, offered: set[str]
) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(printed(capsys, "--print-completion", "bash"))
    (tmp_path / "my_spec.yaml").touch()
    (tmp_path / "my_folder").mkdir()
    words = typed.split()
    asked = (
        f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1};"
        f" _shtab_orchestrate orchestrate {words[-1]} {words[-2]};"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered
