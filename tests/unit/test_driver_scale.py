"""What the driver does for a candidate does not depend on how many there are. Counted in
operations, not in seconds: every call of a function of ours, and every candidate looked at.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from orchestrator import driver
from orchestrator.catalogue import load_spec
from orchestrator.engines.ray.restarts import Restarts
from orchestrator.storage.folder import FolderStore
from orchestrator.sweeps import folder as sweeps
from orchestrator.sweeps import records
from orchestrator.sweeps.candidates import Candidate, group_candidates
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading import trials
from tests.helpers.fake_engine import FakeEngine, in_place, spec_text
from tests.helpers.sweep_folder import ABLATIONS, trial_of

NUMBERS = (12, 48, 84)
"""N, 4N and 7N: from each to the next as many candidates more. Above the eight that the search
draws blindly.
"""

ROOT = Path(driver.__file__).parents[1]
OURS = tuple(f"{ROOT / name}/" for name in ("orchestrator", "search_spaces"))

FEW_CALLS = 0.002
"""Share by which the calls for the same number of candidates may differ: how many steps it takes to
draw a split depends on its numbers.
"""


def code_of(function: Callable[..., Any]) -> CodeType:
    assert isinstance(function, FunctionType)
    return function.__code__


OPERATIONS: dict[CodeType, str] = {
    code_of(FolderStore.get): "reads",
    code_of(FolderStore.put): "writes",
    code_of(FolderStore.put_new): "writes of many",
    code_of(FolderStore.has): "looks",
    code_of(FolderStore.names): "listings",
    code_of(FolderStore.folders): "listings",
    code_of(records.parse_object): "records parsed",
    code_of(trials.trial_from_mapping): "trials parsed",
    code_of(trials.make_trial): "trials made",
    code_of(trials.stage_prefixes): "prefixes",
}


class Watched(list[Candidate]):
    """Candidates that count how many of them are looked at."""

    looked = 0

    def __iter__(self) -> Iterator[Candidate]:
        for candidate in super().__iter__():
            self.looked += 1
            yield candidate

    def __getitem__(self, key: Any) -> Any:
        chosen = super().__getitem__(key)
        self.looked += len(chosen) if isinstance(key, slice) else 1
        return chosen


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the operations of this thread while the block runs."""
    counts: Counter[str] = Counter()

    def count(frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS):
            counts["calls"] += 1
            if code in OPERATIONS:
                counts[OPERATIONS[code]] += 1
        elif event == "return" and OPERATIONS.get(code) == "listings":
            counts["names listed"] += len(result or ())

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(before)


def operations(
    folder: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, number: int
) -> tuple[Counter[str], Counter[str]]:
    """Returns what a sweep of so many candidates takes until its driver dies in the middle, and
    what the next driver takes for the rest.
    """
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec_text(algorithm, number, seeds=2))
    spec = load_spec(str(folder / "spec.yaml"))
    engine, quiet = driver.Engine(name="ray"), driver.Listener(show=False)
    lists: list[Watched] = []

    def watched(candidates: list[Candidate]) -> Watched:
        lists.append(Watched(candidates))
        return lists[-1]

    create, open_sweep = sweeps.create, sweeps.open_sweep

    def opened(*args: Any) -> Any:
        spec, candidates, begun = open_sweep(*args)
        return spec, watched(candidates), begun

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "create", lambda *a, **k: watched(create(*a, **k)))
        patch.setattr(sweeps, "open_sweep", opened)
        both = []
        for run, dies in (
            (lambda: driver.start(spec, engine, out=folder / "s", listener=quiet), number // 2),
            (lambda: driver.resume(folder / "s", engine, listener=quiet), None),
        ):
            lists.clear()
            # The candidates of a shorter search are the first of a longer one.
            trials._planned.cache_clear()
            with in_place(FakeEngine(width=4, die_after=dies)), counted() as counts:
                try:
                    run()
                except KeyboardInterrupt:
                    assert dies is not None
            counts["candidates looked at"] = sum(each.looked for each in lists)
            both.append(counts)
    assert len(list((folder / "s" / "candidates").iterdir())) == number
    return both[0], both[1]


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_candidate_costs_the_driver_the_same_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    runs = [
        operations(tmp_path / str(number), monkeypatch, algorithm, number) for number in NUMBERS
    ]
    for which, (few, some, many) in zip(("begun", "resumed"), zip(*runs, strict=True), strict=True):
        assert few["reads"] > 0 < few["prefixes"], "nothing was counted"
        for name in many:
            first, second = some[name] - few[name], many[name] - some[name]
            slack = FEW_CALLS * first if name == "calls" else 0
            assert abs(second - first) <= slack, (
                f"{which}, {name}: {first} for {NUMBERS[1] - NUMBERS[0]} candidates more, then"
                f" {second} for as many again"
            )


@dataclass
class TuneTrial:
    """As much of one of Tune's trials as is looked at."""

    trial_id: str
    config: dict[str, Any]
    looked: int = 0
    num_failures = 0
    max_failures = 0

    @property
    def status(self) -> str:
        self.looked += 1
        return "PENDING"


def test_candidates_that_have_ended_are_looked_at_no_more(tmp_path: Path) -> None:
    restarts = Restarts(SweepLayout.at(tmp_path), 3)
    [candidate] = group_candidates([trial_of(ABLATIONS[0], 0)])
    every = [TuneTrial(str(number), {"candidate": candidate}) for number in range(9)]
    for trial in every:
        restarts.on_trial_start(1, every, trial)
    for trial in every[1:5]:
        restarts.on_trial_complete(1, every, trial)
    for trial in every[5:]:
        restarts.on_trial_error(1, every, trial)
    restarts._looked = -1e9
    restarts.on_step_begin(1, every)
    assert [trial.looked for trial in every] == [1, 0, 0, 0, 0, 0, 0, 0, 0]
