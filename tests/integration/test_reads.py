"""How often a command reads and checks what a sweep has on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.storage.folder import FolderStore
from search_spaces.reading import assemble, trials
from tests.helpers.sweeps import written

SPEC = """\
name: reads
dataset: {{name: digits, validation: {{from: split, per_class: 5}}}}
budget: {{full_labels: 60, mode: exact}}
base:
  method: {{name: mean_teacher, epochs: 1, batch_size: 256}}
  schedule: {{initial_labels_per_class: 6, split: []}}
vary:
  method.consistency_weight: {{choice: {weights}}}
seeds: {seeds}
"""


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, str], int]:
    """Returns how many sets of settings a verb checks, on a finished sweep of so many candidates
    and seeds.
    """
    monkeypatch.chdir(tmp_path)
    count = [0]
    plain = assemble.build_config

    def counted(*args: object) -> object:
        count[0] += 1
        return plain(*args)  # type: ignore[arg-type]

    def run(candidates: int, seeds: int, verb: str) -> int:
        folder = tmp_path / f"{candidates}-{seeds}"
        if not folder.exists():
            written(
                folder,
                SPEC.format(weights=[1.0 + n for n in range(candidates)], seeds=list(range(seeds))),
            )
            assert (
                cli.main(
                    [
                        "sweep",
                        str(folder / "spec.yaml"),
                        "--engine",
                        "inline",
                        "--out",
                        str(folder / "out"),
                    ]
                )
                == 0
            )
        with monkeypatch.context() as patch:
            patch.setattr(trials, "build_config", counted)
            count[0] = 0
            assert cli.main([*verb.split(), str(folder / "out")]) == 0
        return count[0]

    return run


@pytest.mark.parametrize(
    ("verb", "most"), [("report", 1), ("status", 1), ("resume --engine inline", 2)]
)
def test_a_command_checks_the_settings_of_a_candidate_a_fixed_number_of_times_whatever_its_seeds(
    checks: Callable[[int, int, str], int], verb: str, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """`resume` checks the candidates of the spec once and those on record once."""
    two, four, seeds = checks(2, 1, verb), checks(4, 1, verb), checks(2, 3, verb)
    assert four - two == 2 * most
    assert seeds == two


COUNTED = ("get", "put", "put_new", "put_file", "names", "folders", "has", "local", "remove")


@pytest.mark.parametrize(
    ("verb", "most"), [("report", 9), ("status", 9), ("resume --engine inline", 32)]
)
def test_a_command_asks_the_store_a_fixed_number_of_times_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, most: int
) -> None:
    """Of a finished sweep of one stage a trial: a hundred times the trials, a hundred times the
    calls, and not one more for each.
    """
    monkeypatch.chdir(tmp_path)
    count = [0]

    def counted(name: str) -> Callable[..., object]:
        plain = getattr(FolderStore, name)

        def method(*args: object, **kwargs: object) -> object:
            count[0] += 1
            return plain(*args, **kwargs)

        return method

    calls = []
    for candidates in (2, 4, 8):
        spec = SPEC.format(weights=[1.0 + n for n in range(candidates)], seeds=[0])
        folder = written(tmp_path / str(candidates), spec)
        words = ["sweep", str(folder / "spec.yaml"), "--engine", "inline", "--out"]
        assert cli.main([*words, str(folder / "out")]) == 0
        with monkeypatch.context() as patch:
            for name in COUNTED:
                patch.setattr(FolderStore, name, counted(name))
            count[0] = 0
            assert cli.main([*verb.split(), str(folder / "out")]) == 0
        calls.append(count[0])
    assert calls[2] - calls[1] == 2 * (calls[1] - calls[0])
    assert calls[1] - calls[0] <= 2 * most
