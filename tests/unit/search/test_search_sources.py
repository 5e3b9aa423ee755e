"""Where candidates come from: what a search may learn from, and how it goes on after a stop."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.tune.search import Searcher

from orchestrator.catalogue import load_spec
from orchestrator.engines.ray.candidate import METRIC
from orchestrator.engines.ray.searcher import SourceSearcher
from orchestrator.search import learned as sampling
from orchestrator.search.learned import OptunaSource
from orchestrator.search.source import ListSource
from orchestrator.sweeps import folder as sweeps
from orchestrator.sweeps import resolved
from orchestrator.sweeps.candidates import Candidate, load_candidates
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_records import from_object, put_stage
from search_spaces.reading.config import Spec, Trial
from search_spaces.reading.errors import SpecError
from search_spaces.reading.trials import make_trial
from tests.helpers.on_disk import disk

SPACE = ["search.num_candidates=24", "seeds=[0, 1]"]


def search(root: Path, *overrides: str) -> tuple[Spec, SweepLayout]:
    spec, layout = load_spec("stage_schedules.yaml", [*SPACE, *overrides]), SweepLayout.at(root)
    sweeps.create(spec, layout, data="d" * 64, engine="ray", device="cpu")
    return spec, layout


def good_at(candidate: Candidate) -> float:
    """A landscape with a clear optimum, in percent."""
    return (
        90
        - 20 * abs(math.log10(candidate.settings["method.consistency_weight"]) - 1.5)
        - 5 * abs(candidate.settings["schedule.stages"] - 3)
    )


def record(layout: SweepLayout, candidate: Candidate, value: float, noise: random.Random) -> None:
    """Every seed of the candidate has finished with this validation accuracy, and with whatever on
    the test images.
    """
    for trial in candidate.trials:
        files = layout.trial(trial.id)
        for stage in range(len(trial.schedule.quotas) + 1):
            row = {
                "trial": trial.id,
                "stage": stage,
                "key": f"{trial.id}-{stage}",
                "parent": f"{trial.id}-{stage - 1}" if stage else None,
                "bits": {"labels": 0.0, "questions": 0.0, "total": 0.0},
                "val_top1": value,
                "val_top1_best": value,
                "test_top1_last": noise.uniform(0, 100),
                "test_top1_at_best_val": noise.uniform(0, 100),
                "guess_accuracy": noise.uniform(0, 100),
            }
            put_stage(files, from_object(row))


def drive(
    source: OptunaSource,
    layout: SweepLayout,
    number: int,
    noise: int = 0,
    value: Callable[[Candidate], float] = good_at,
) -> list[Candidate]:
    """Runs `number` candidates of the source, two at a time."""
    rng, drawn, running = random.Random(noise), [], deque[Candidate]()
    while len(drawn) < number and (candidate := source.next()) is not None:
        drawn.append(candidate)
        running.append(candidate)
        if len(running) == 2:
            ended = running.popleft()
            record(layout, ended, value(ended), rng)
            source.tell(ended, value(ended))
    for ended in running:
        record(layout, ended, value(ended), rng)
        source.tell(ended, value(ended))
    return drawn


def ids(candidates: list[Candidate]) -> list[str]:
    return [candidate.id for candidate in candidates]


def test_nothing_of_the_test_set_changes_a_suggestion(tmp_path: Path) -> None:
    """Also not over a resume, where the search is told its own records."""
    drawn = []
    for noise in (1, 2):
        spec, layout = search(tmp_path / str(noise))
        first = drive(OptunaSource(spec, layout, []), layout, 14, noise)
        rest = drive(OptunaSource(spec, layout, load_candidates(layout)), layout, 99, noise)
        drawn.append(ids(first + rest))
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 24


def test_validation_accuracies_do_change_what_is_suggested(tmp_path: Path) -> None:
    """So that the law above can fail."""
    spec, layout = search(tmp_path / "good")
    good = drive(OptunaSource(spec, layout, []), layout, 24)
    spec, layout = search(tmp_path / "opposite")
    opposite = drive(
        OptunaSource(spec, layout, []), layout, 24, value=lambda candidate: 100 - good_at(candidate)
    )
    # The first eight are drawn at random.
    assert ids(good)[:8] == ids(opposite)[:8]
    assert ids(good)[8:] != ids(opposite)[8:]
    assert sum(map(good_at, good[8:])) > sum(map(good_at, opposite[8:]))


def test_a_search_is_a_function_of_its_seed(tmp_path: Path) -> None:
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        spec, layout = search(tmp_path / name, f"search.seed={seed}")
        runs.append(ids(drive(OptunaSource(spec, layout, []), layout, 12)))
    assert runs[0] == runs[1] != runs[2]


def test_candidates_are_on_record_before_they_run(tmp_path: Path) -> None:
    spec, layout = search(tmp_path / "s")
    source = OptunaSource(spec, layout, [])
    for number in range(1, 6):
        candidate = source.next()
        assert candidate is not None
        assert len(load_candidates(layout)) == number
        assert load_candidates(layout)[-1].id == candidate.id


def test_a_resumed_search_hands_out_the_unfinished_first_and_no_more_than_were_asked_for(
    tmp_path: Path,
) -> None:
    spec, layout = search(tmp_path / "s")
    drawn = drive(OptunaSource(spec, layout, []), layout, 10)
    for index in (3, 7):
        disk(layout.trial(drawn[index].trials[1].id)).stage(0).unlink()
    failed = layout.trial(drawn[5].trials[0].id)
    disk(failed).error.write_text(
        '{"stage": 1, "kind": "TrainingFailed", "message": "the loss is nan"}'
    )
    again = drive(OptunaSource(spec, layout, load_candidates(layout)), layout, 99)
    assert ids(again[:2]) == [drawn[3].id, drawn[7].id]
    assert drawn[5].id not in ids(again), "a failed candidate waits for `retry`"
    assert len(again) == 2 + 14
    assert len(load_candidates(layout)) == 24
    assert OptunaSource(spec, layout, load_candidates(layout)).next() is None


def test_a_resumed_search_knows_what_the_dead_one_learned(tmp_path: Path) -> None:
    """Told 16 values from the records, its suggestions are better than random ones over a few
    searches, and it is told each value once.
    """
    gain = 0.0
    for seed in range(3):
        spec, layout = search(tmp_path / str(seed), f"search.seed={seed}")
        drive(OptunaSource(spec, layout, []), layout, 16)
        source = OptunaSource(spec, layout, load_candidates(layout))
        assert sorted(trial.value for trial in source._study.trials) == sorted(
            map(good_at, source.candidates)
        )
        later = drive(source, layout, 8)
        gain += sum(map(good_at, later)) - sum(map(good_at, load_candidates(layout)[:8]))
    assert gain > 0


def test_the_sampler_knows_which_of_a_choice_of_numbers_are_near(tmp_path: Path) -> None:
    spec, layout = search(tmp_path / "s", "vary.method.nls={choice: [true, false]}")
    drive(OptunaSource(spec, layout, []), layout, 3)
    resumed = OptunaSource(spec, layout, load_candidates(layout))
    drive(resumed, layout, 2)
    for trial in resumed._study.trials:
        assert isinstance(
            trial.distributions["schedule.initial_labels_per_class"],
            optuna.distributions.IntDistribution,
        )
        assert isinstance(
            trial.distributions["method.nls"], optuna.distributions.CategoricalDistribution
        )


def test_extending_goes_on_where_the_search_stopped(tmp_path: Path) -> None:
    spec, layout = search(tmp_path / "s", "search.num_candidates=6")
    first = drive(OptunaSource(spec, layout, []), layout, 99)
    spec, candidates = sweeps.extend(
        layout, resolved.read(layout), spec, load_candidates(layout), 4
    )
    more = drive(OptunaSource(spec, layout, candidates), layout, 99)
    assert len(first) == 6
    assert len(more) == 4
    assert ids(load_candidates(layout)) == ids(first + more)
    assert len(set(ids(first + more))) == 10


def test_a_small_space_ends_when_it_is_exhausted(tmp_path: Path) -> None:
    text = Path("search_spaces/stage_schedules.yaml")
    text = Path(__file__).parents[3] / text
    head, _, _ = text.read_text().partition("vary:")
    small = tmp_path / "small.yaml"
    small.write_text(
        head
        + "vary:\n  schedule.initial_labels_per_class: {choice: [1, 2, 4]}\n  method.nls: {choice:"
        " [true, false]}\nseeds: [0]\nsearch: {algorithm: tpe, num_candidates: 50}\nresources:"
        " {workers: 1}\n"
    )
    spec, layout = load_spec(str(small)), SweepLayout.at(tmp_path / "s")
    sweeps.create(spec, layout, data="d" * 64, engine="ray", device="cpu")
    drawn = drive(OptunaSource(spec, layout, []), layout, 99, value=lambda candidate: 50.0)
    assert 3 <= len(drawn) <= 6
    assert len(set(ids(drawn))) == len(drawn)


def test_a_failed_candidate_teaches_nothing_and_stops_nothing(tmp_path: Path) -> None:
    spec, layout = search(tmp_path / "s")
    source = OptunaSource(spec, layout, [])
    while (candidate := source.next()) is not None:
        source.tell(candidate, None)
    assert len(source.candidates) == 24
    assert all(trial.value is None for trial in source._study.trials)


def test_a_suggestion_that_makes_no_valid_trial_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(spec: Spec, settings: Any, seed: int) -> Trial:
        if settings["schedule.stages"] == 3:
            raise SpecError("more questions than the pool can give")
        return make_trial(spec, settings, seed)

    monkeypatch.setattr(sampling, "make_trial", picky)
    spec, layout = search(tmp_path / "s")
    drawn = drive(OptunaSource(spec, layout, []), layout, 24)
    assert len(drawn) == 24
    assert {candidate.settings["schedule.stages"] for candidate in drawn} <= {1, 2, 4}


# ------------------------------------------------------------------ as Ray Tune sees it


class Told:
    def __init__(self, candidates: list[Candidate]) -> None:
        self.left, self.heard = deque(candidates), list[tuple[str, float | None]]()

    def next(self) -> Candidate | None:
        return self.left.popleft() if self.left else None

    def tell(self, candidate: Candidate, value: float | None) -> None:
        self.heard.append((candidate.id, value))


@pytest.mark.parametrize(
    ("result", "error", "heard"),
    [
        ({METRIC: 61.5}, False, 61.5),
        ({METRIC: float("nan")}, False, None),
        ({METRIC: 61.5}, True, None),
        (None, True, None),
        ({}, False, None),
    ],
)
def test_tune_passes_on_candidates_and_what_they_reached(
    tmp_path: Path, result: Any, error: bool, heard: float | None
) -> None:
    spec, layout = search(tmp_path / "s")
    [candidate] = drive(OptunaSource(spec, layout, []), layout, 1)
    source = Told([candidate])
    searcher = SourceSearcher(source)
    given = searcher.suggest("t1")
    assert isinstance(given, dict)
    assert given["candidate"] == candidate
    assert searcher.suggest("t2") == Searcher.FINISHED
    searcher.on_trial_complete("t1", result, error)
    assert source.heard == [(candidate.id, heard)]


def test_a_list_is_handed_out_in_order(tmp_path: Path) -> None:
    spec, layout = search(tmp_path / "s")
    drawn = drive(OptunaSource(spec, layout, []), layout, 3)
    listed = ListSource(deque(drawn))
    assert [listed.next() for _ in range(4)] == [*drawn, None]
