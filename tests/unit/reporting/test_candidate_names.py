"""One name for a candidate everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.engines.inline import label_of
from orchestrator.reporting import report, results, status
from orchestrator.reporting.candidate_names import CandidateNames
from orchestrator.sweeps.candidates import Candidate, load_candidates
from search_spaces.reading.config import ResourcesConfig
from tests.helpers.sweep_folder import ABLATIONS, Case, write_sweep


def searched() -> list[Case]:
    """Candidates of a search, one of them under two names of cases."""
    settings = {"query.strategy": "random"}
    return [
        replace(ABLATIONS[1], names=(), settings=settings),
        replace(ABLATIONS[2], names=("a", "b"), settings={}),
        replace(ABLATIONS[3], names=("a case",), settings=settings),
    ]


def test_a_running_trial_is_called_what_status_calls_it(tmp_path: Path) -> None:
    layout = write_sweep(tmp_path, searched(), (0, 1))
    candidates = load_candidates(layout)
    names = CandidateNames(candidates)
    running = [
        names(label_of(trial)).rpartition(" · ") for one in candidates for trial in one.trials
    ]
    sweep = results.load(layout)
    shown = status.as_dict(sweep, ResourcesConfig())
    assert [(name, seed) for name, _, seed in running] == [
        (trial["label"], f"seed {trial['seed']}") for trial in shown["trials"]
    ]
    labels = {row["label"] for row in report.build(sweep)["rows"]}
    assert {running[0][0], running[4][0]} <= labels


def test_names_follow_a_search_that_draws(tmp_path: Path) -> None:
    candidates = load_candidates(write_sweep(tmp_path, searched(), (0,)))
    drawn: list[Candidate] = []
    names = CandidateNames(drawn)
    first = label_of(candidates[0].trials[0])
    assert names(first) == first
    drawn += candidates
    assert names(first) == "#1 strategy random · seed 0"
    assert names("the cluster") == "the cluster"
