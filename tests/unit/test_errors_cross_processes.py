"""Errors are raised in one process and read in another: they must arrive as what they are, with
their whole message.
"""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from pathlib import Path

import orchestrator
import search_spaces
import trainers
from orchestrator.engines.ray.broker import WorkerGroupBroken
from orchestrator.storage.locks import LockHeld
from orchestrator.storage.store import Unreadable
from orchestrator.sweeps.records import RecordsDamaged
from search_spaces.reading.errors import Place, SpecError
from trainers.errors import SettingsError, UserError
from trainers.stage import TrainingFailed

MESSAGE = "data/labels.npy: damaged; make it again"


def kinds(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


def all_errors() -> list[Exception]:
    for package in (orchestrator, search_spaces, trainers):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    place = Place(file="a.yaml", line=3, case="two stages")
    located = SpecError(
        "unknown key", key="method.nsl", value=True, place=place, hint='did you mean "nls"?'
    )
    made: dict[type[Exception], Exception] = {
        SpecError: located,
        LockHeld: LockHeld(Path("runs/a/driver.lock"), {}),
        Unreadable: Unreadable("runs/a/seal.json", "Input/output error"),
        SettingsError: SettingsError(
            "epochs", "batch_size", problem="too many", hint="write fewer"
        ),
        RecordsDamaged: RecordsDamaged("trials/a/stages/0003.json", "it is not an object"),
    }
    return [
        made.get(kind) or kind(MESSAGE)
        for kind in [*kinds(UserError), TrainingFailed, WorkerGroupBroken]
    ]


def test_an_error_survives_the_way_to_another_process() -> None:
    errors = all_errors()
    assert len(errors) >= 12
    for error in errors:
        arrived = pickle.loads(pickle.dumps(error))
        assert type(arrived) is type(error)
        assert str(arrived) == str(error)
        assert vars(arrived) == vars(error)
