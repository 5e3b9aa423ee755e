"""A rank's errors name its machine, what is the machine's is blamed on no trial, and a rank that is
asked to end saves first.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.engines.progress import Progress
from orchestrator.engines.ray.broker import Preempted
from orchestrator.engines.ray.hosts import Asked, MachineFault, named
from orchestrator.storage.files import StorageError
from orchestrator.sweeps.stage_store import SweepStopped
from trainers.artefacts import StageDamaged
from trainers.errors import DataError
from trainers.stage import Interrupted, TrainingFailed

HOST = socket.gethostname()


@pytest.mark.parametrize(
    "error",
    [
        DataError("/cache/images: cannot be read"),
        StorageError("/shared/x: cannot be read"),
        StageDamaged("/shared/stages/k/model: is not what was committed"),
        OSError(errno.ENOSPC, "No space left on device", "/cache/images"),
    ],
)
def test_data_and_storage_are_the_machines(error: Exception) -> None:
    with pytest.raises(MachineFault) as raised, named():
        raise error
    assert str(raised.value).startswith(f"{HOST}: /")
    assert isinstance(pickle.loads(pickle.dumps(raised.value)), SweepStopped)
    assert raised.value.exit_status == 2


def test_a_status_of_its_own_stays_with_an_error() -> None:
    lost = StorageError("s3://b: does not answer")
    lost.exit_status = 5
    with pytest.raises(MachineFault) as raised, named():
        raise lost
    assert pickle.loads(pickle.dumps(raised.value)).exit_status == 5


@pytest.mark.parametrize("error", [TrainingFailed("the loss is nan"), ValueError("a defect")])
def test_what_is_the_trials_names_the_machine(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, named():
        raise error
    assert pickle.loads(pickle.dumps(raised.value)).__notes__ == [f"on {HOST}"]


@pytest.mark.parametrize(
    "error", [ConnectionError("reset by peer"), Interrupted("saved"), SweepStopped("stopped")]
)
def test_what_says_that_another_rank_is_gone_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, named():
        raise error
    assert raised.value is error


def test_the_names_of_lost_machines_outlive_the_way_between_processes() -> None:
    assert pickle.loads(pickle.dumps(Preempted("gone", ("gpu-2",)))).hosts == ("gpu-2",)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (1, "gpu-2 was lost; its stage goes on from its last checkpoint"),
        (2, "gpu-2 was lost; its 2 stages go on from their last checkpoints"),
    ],
)
def test_a_lost_machine_is_said_in_our_words(
    stages: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(3) as progress:
        progress.host_lost("gpu-2", stages)
    assert said in capsys.readouterr().err


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """What a process that has no Asked would have died of."""
    signals: list[int] = []

    def note(number: int, frame: Any) -> None:
        signals.append(number)

    before = signal.signal(signal.SIGTERM, note)
    yield signals
    signal.signal(signal.SIGTERM, before)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_training_that_is_asked_to_end_sees_it_and_lives(ended: list[int]) -> None:
    listener = Asked(grace_seconds=3600)
    listener.listen()
    with listener.training() as asked:
        assert not asked()
        ask()
        assert asked() and not ended
        ask()
        assert ended == [signal.SIGTERM]


def test_a_stage_that_was_on_its_way_when_its_rank_was_asked_to_end_saves_too(
    ended: list[int],
) -> None:
    """Ray says which method a process is in before the method runs."""
    listener = Asked(grace_seconds=3600)
    listener.listen()
    ask()
    with listener.training() as asked:
        assert asked()
        # As at the end of the grace.
        listener._end_if_idle()
        assert not ended


def test_a_rank_that_has_nothing_to_save_ends(ended: list[int]) -> None:
    listener = Asked(grace_seconds=0)
    listener.listen()
    ask()
    deadline = time.monotonic() + 60
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == [signal.SIGTERM]
