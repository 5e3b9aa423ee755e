"""Trials that wait for people: labels and answers come in parts, processes are killed, and in the
end everything is as if all had been there from the start.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import orchestrator as oc
from orchestrator import cli
from orchestrator.data.prepare import prepare
from orchestrator.data.sources.digits import Digits
from orchestrator.labelling.fold import fold
from orchestrator.labelling.hidden_labels import train_labels
from orchestrator.labelling.ledger import Ledger
from orchestrator.storage.segments import open_segments
from tests.helpers.sweeps import ONE_TRIAL_SPEC, outcome_of
from tests.toys.families import Families
from tests.toys.inbox import Inbox

RUN = """
import sys
from tests.helpers.dying import arm
import orchestrator as oc
from tests.toys.inbox import Inbox
out, die_at = sys.argv[1], int(sys.argv[2])
if die_at:
    arm(die_at, torn=die_at % 2 == 0)
oc.resume(out, plugins=[Inbox], progress=False)
"""


def spec_for_people(inbox: Path) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    spec["dataset"]["validation"] = {"from": "initial_labels", "per_class": 1}
    spec["base"]["schedule"]["initial_choice"] = "uniform"
    spec["base"]["oracle"] = Inbox(folder=str(inbox))
    return spec


def truth() -> list[int]:
    found: list[int] = train_labels(prepare(Digits()).labels_dir).tolist()
    return found


def people(inbox: Path, ledger: Path, labels: list[int]) -> int:
    """Answers every other thing that is open in the ledger, at least one; returns how many."""
    held = {"labels.json": {}, "answers.json": {}}  # type: dict[str, dict[str, Any]]
    for name in held:
        if (inbox / name).exists():
            held[name] = json.loads((inbox / name).read_text())
    segments = Ledger(open_segments(ledger)).read()
    planned = [int(i) for s in segments if s.kind == "label_plan" for i in s.columns["id"]]
    wanted = [image for image in planned if str(image) not in held["labels.json"]]
    for image in wanted[::2]:
        held["labels.json"][str(image)] = labels[image]
    told = len(wanted[::2])
    state = fold(None, segments)
    if state is not None and state.rounds and not state.rounds[-1].over:
        one = state.rounds[-1]
        for at in np.flatnonzero(one.answers < -1)[::2]:
            image, guess = int(one.ids[at]), int(one.guesses[at])
            answers = held["answers.json"].setdefault(str(image), {})
            answers[str(guess)] = int(labels[image] == guess)
            told += 1
    for name, content in held.items():
        (inbox / name).write_text(json.dumps(content))
    return told


def test_people_who_answer_in_parts_and_processes_that_die_change_nothing(tmp_path: Path) -> None:
    inbox, root, labels = tmp_path / "inbox", tmp_path / "out", truth()
    inbox.mkdir()
    sweep = oc.sweep(spec_for_people(inbox), out=root, progress=False)
    assert sweep.counts()["finished"] == 0
    [trial] = (root / "trials").iterdir()
    kinds = [s.kind for s in Ledger(open_segments(trial / "ledger")).read()]
    assert kinds == ["label_plan"]
    deaths = 0
    # Each process dies a few durable writes further than the one before, until none is left.
    for die_at in itertools.chain((1, 2, 4, 7, 11), itertools.repeat(0)):
        people(inbox, trial / "ledger", labels)
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(root), str(die_at)],
            capture_output=True,
            text=True,
            timeout=240,
        )
        deaths += done.returncode == -signal.SIGKILL
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if oc.load(root, plugins=[Inbox]).counts()["finished"]:
            break
    assert deaths >= 3
    everything = tmp_path / "all"
    everything.mkdir()
    (everything / "labels.json").write_text(json.dumps(dict(enumerate(labels))))
    (everything / "answers.json").write_text(
        json.dumps({i: {c: int(c == label) for c in range(10)} for i, label in enumerate(labels)})
    )
    at_once = oc.sweep(spec_for_people(everything), out=tmp_path / "at-once", progress=False)
    assert at_once.counts()["finished"] == 1
    [waited], [prompt] = (outcome_of(path).values() for path in (root, at_once.location))
    assert waited["guesses"] == prompt["guesses"]
    whole = [
        fold(None, Ledger(open_segments(next((path / "trials").iterdir()) / "ledger")).read())
        for path in (root, Path(at_once.location))
    ]
    assert whole[0] is not None and whole[1] is not None
    assert whole[0].facts.positives.ids.tolist() == whole[1].facts.positives.ids.tolist()
    assert whole[0].counts() == whole[1].counts()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schedule.initial_choice": "random"}, "does not know which images are of which class"),
        ({"dataset": {"validation": {"from": "split"}}}, "as a validation split needs it to"),
    ],
)
def test_what_people_cannot_do_is_refused_before_anything_runs(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    spec = spec_for_people(tmp_path)
    if "dataset" in changed:
        spec["dataset"]["validation"] = changed["dataset"]["validation"]
    else:
        spec["base"]["schedule"]["initial_choice"] = changed["schedule.initial_choice"]
    with pytest.raises(Exception, match=said):
        oc.plan(spec)


def test_a_question_about_two_classes_is_asked_recorded_and_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    spec["base"]["task"] = Families()
    sweep = oc.sweep(spec, out=tmp_path / "out", progress=False)
    assert sweep.counts()["finished"] == 1
    [trial] = (tmp_path / "out" / "trials").iterdir()
    segments = Ledger(open_segments(trial / "ledger")).read()
    state = fold(None, segments, Families())
    assert state is not None
    first, second = state.rounds
    assert set(first.sets.sizes.tolist()) == {2}
    assert set(second.sets.sizes.tolist()) <= {1, 2}
    labels = np.array(truth())
    for one in state.rounds:
        held = [
            int(labels[image] in one.sets.take(np.array([at])).classes)
            for at, image in enumerate(one.ids)
        ]
        assert one.answers.tolist() == held
    known = state.facts
    assert np.array_equal(labels[known.positives.ids], known.positives.classes)
    assert not np.any(labels[known.negatives.ids] == known.negatives.classes)
    # A yes to a pair of ten classes rules eight of them out, for one bit.
    yes = first.ids[first.answers == 1]
    per_image = np.bincount(known.negatives.ids, minlength=labels.size)
    assert np.all(per_image[yes] >= 8)
    # The command cannot read what it has no task for, and says which it is.
    assert cli.main(["ledger", "replay", str(trial)]) == 2
    assert "families" in capsys.readouterr().err
