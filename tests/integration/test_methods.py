"""Methods of every kind are swept from end to end: from fresh weights at every stage, one training
that is asked at some of its epochs, and students of the stage before.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import api as oc
from orchestrator import trial as loop
from tests.helpers.sweeps import ONE_TRIAL_SPEC, outcome_of
from tests.toys.continuous import Continuous
from tests.toys.k_centre import KCentre
from tests.toys.softmax import Softmax
from tests.toys.student import Student
from trainers.head.settings import Head

METHODS = (
    Softmax(epochs=30, rate=0.3),
    Continuous(epochs=60, rate=0.3),
    Student(epochs=30, rate=0.3, sure=0.8),
    Head(),
)


def spec(method: Any, **base: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    return {**found, "base": {**found["base"], "method": method, **base}}


def files_of(root: Path) -> dict[str, dict[str, str]]:
    """Key -> role -> SHA-256 of every file of the trained stages."""
    found = {}
    for path in root.glob("stages/*/record.json"):
        files = json.loads(path.read_text())["files"]
        found[path.parent.name] = {role: entry["sha256"] for role, entry in files.items()}
    return found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("query", ["hard", KCentre(limit=20)])
def test_a_method_is_swept_with_any_query(method: Any, query: Any, tmp_path: Path) -> None:
    made = oc.sweep(spec(method, query={"strategy": query}), out=tmp_path / "out", progress=False)
    frame = made.frame()
    assert frame["stage"].tolist() == [0, 1, 2]
    assert frame["backbone"].unique().tolist() == ["linear"]
    assert (frame["validation"] > 40).all() and (frame["test"] > 40).all()
    special = {"continuous": [30, 15, 15], "head": [1, 1, 1]}
    epochs = special.get(method.name, [30, 30, 30])
    assert frame["epochs"].tolist() == epochs


def test_a_training_killed_at_each_question_is_the_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    described = spec(Continuous(epochs=12), query={"strategy": "hard"})
    whole = oc.sweep(described, out=tmp_path / "whole", progress=False)
    asked: list[int] = []

    def asks_and_dies(trial: Any, number: int, *rest: Any) -> Any:
        found = ask(trial, number, *rest)
        if number not in asked:
            asked.append(number)
            raise Killed
        return found

    ask = loop._ask
    monkeypatch.setattr(loop, "_ask", asks_and_dies)
    for _ in range(2):
        with pytest.raises(Killed):
            oc.sweep(described, out=tmp_path / "killed", progress=False)
    killed = oc.sweep(described, out=tmp_path / "killed", progress=False)
    assert asked == [1, 2]
    assert outcome_of(Path(killed.location)) == outcome_of(Path(whole.location))
    assert files_of(Path(killed.location)) == files_of(Path(whole.location))
    assert all("state" in files for files in files_of(Path(whole.location)).values())


def test_a_setting_of_a_method_touches_no_other_method(tmp_path: Path) -> None:
    def keys(name: str, softmax: Softmax) -> dict[str, Any]:
        cases = {"theirs": {"method": softmax}, "ours": {}}
        ours = {"name": "mean_teacher", "epochs": 1, "batch_size": 128}
        made = oc.sweep(
            {**spec(ours), "cases": cases, "baseline": "ours"},
            out=tmp_path / name,
            progress=False,
        )
        root = Path(made.location)
        trials = {}
        for folder in sorted(root.glob("trials/*")):
            records = [json.loads(p.read_text()) for p in sorted(folder.glob("stages/*.json"))]
            trials[folder.name] = [record["key"] for record in records]
        return trials

    some, others = keys("a", Softmax(epochs=2)), keys("b", replace(Softmax(epochs=2), rate=0.5))
    shared = set(some) & set(others)
    assert len(some) == len(others) == 2 and len(shared) == 1
    assert {trial: some[trial] for trial in shared} == {trial: others[trial] for trial in shared}
    (mine,), (theirs,) = (set(found) - shared for found in (some, others))
    assert not set(some[mine]) & set(others[theirs])


def test_what_stages_share_is_foretold_from_their_plans(tmp_path: Path) -> None:
    """Students too, whose second stages read the first one that both trials share."""
    cases = {"one": {}, "another oracle": {"query.strategy": "random"}}
    for method, distinct in ((Softmax(epochs=2), 5), (Student(epochs=2), 5)):
        described = {**spec(method, query={"strategy": "hard"}), "cases": cases}
        assert oc.plan(described)["stage_trainings"]["distinct"] == distinct
        made = oc.sweep(described, out=tmp_path / method.name, progress=False)
        assert len(files_of(Path(made.location))) == distinct
