"""Which exit status an error ends a command with."""

from __future__ import annotations

import pickle

import pytest

from orchestrator.commands.faults import report_error
from orchestrator.engines.ray.cluster import ClusterError, ClusterFailed
from orchestrator.sweeps.stage_store import ClusterLost, SweepStopped
from trainers.errors import DataError, UserError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("spec.yaml: 3: no such key"), 2),
        (DataError("labels.npy: damaged"), 2),
        (ClusterError("Ray at x:1 refuses"), 2),
        (SweepStopped("the cluster did not grant them"), 2),
        (ValueError("a defect"), 2),
        (ClusterLost("raylet has died"), 5),
        (ClusterFailed("Ray at x:1: failed"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_ends_the_command_with_its_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_error(error, "orchestrate sweep x", debug=False) == status
    assert capsys.readouterr().err.startswith("orchestrate: ")
    # Whatever libraries make of a signal that asked for it, the end is an interruption.
    assert report_error(error, "orchestrate sweep x", debug=False, interrupted=True) == 130


def test_the_status_of_one_error_outlives_the_way_between_processes() -> None:
    error = SweepStopped("the bucket cannot be reached")
    error.exit_status = 5
    assert pickle.loads(pickle.dumps(error)).exit_status == 5
    assert SweepStopped("another").exit_status == 2
