"""A search that learns from results, run without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.search.learned import OptunaSource
from orchestrator.search.values import value_of
from orchestrator.sweeps.candidates import Candidate, is_finished, load_candidates
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.dying import run_cli
from tests.helpers.small_sweep import SPEC, Run, write_data

SEARCH = (
    SPEC.partition("cases:")[0]
    + "vary:\n  method.learning_rate: {loguniform: [0.001, 0.3]}\nseeds: [0, 1]\n"
    "search: {algorithm: tpe, num_candidates: 4}\n"
)


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data(Path("features.npz"))
    path = Path("search.yaml")
    path.write_text(SEARCH)
    return path


def test_each_draw_knows_what_those_before_it_reached(
    run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, float | None]] = []
    drawn: list[int] = []
    tell, following = OptunaSource.tell, OptunaSource.next

    def noted(self: OptunaSource, candidate: Candidate, value: float | None) -> None:
        told.append((candidate.id, value))
        tell(self, candidate, value)

    def asked(self: OptunaSource) -> Candidate | None:
        drawn.append(len(told))
        return following(self)

    monkeypatch.setattr(OptunaSource, "tell", noted)
    monkeypatch.setattr(OptunaSource, "next", asked)
    code, _, said = run("sweep", spec, "--engine", "inline", "--out", "out")
    assert code == 0, said
    layout = SweepLayout.at("out")
    candidates = load_candidates(layout)
    assert told == [(candidate.id, value_of(layout, candidate)) for candidate in candidates]
    assert len(candidates) == 4
    assert None not in dict(told).values()
    assert drawn == [0, 1, 2, 3, 4]


def test_one_that_is_killed_again_and_again_keeps_its_candidates_and_ends(
    run: Run, spec: Path
) -> None:
    layout, drawn, deaths = SweepLayout.at("out"), list[str](), 0
    words = ["sweep", str(spec), "--engine", "inline", "--out", "out"]
    while run_cli(words, Path.cwd(), die_at=60 + 7 * deaths) == -9:
        deaths += 1
        assert deaths < 20, "no progress between deaths"
        now = [candidate.id for candidate in load_candidates(layout)]
        assert now[: len(drawn)] == drawn
        drawn = now
    assert deaths > 1
    assert Path("log").read_text().count("Traceback") == 0
    code, _, said = run("extend", "out", "-n", "1", "--engine", "inline")
    assert code == 0, said
    candidates = load_candidates(layout)
    assert [candidate.id for candidate in candidates][: len(drawn)] == drawn
    assert len({candidate.id for candidate in candidates}) == 5
    assert all(is_finished(layout, trial) for one in candidates for trial in one.trials)
