"""What a sweep is told when Ray would end its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import driver as run
from orchestrator.catalogue import load_spec
from orchestrator.engines.ray import capacity, cluster
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import SweepStopped


@pytest.mark.parametrize("begun", [False, True])
def test_an_exit_that_ray_asks_for_becomes_a_message_with_the_way_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Ray ends a process that has lost its node by SystemExit(1), and 1 says that trials failed."""

    @contextmanager
    def connect(**_: Any) -> Iterator[None]:
        yield None

    monkeypatch.setattr(cluster, "connect", connect)
    monkeypatch.setattr(capacity, "groups_that_fit", lambda *_: 1)
    layout = SweepLayout.at(tmp_path)
    if begun:
        layout.store.put(layout.resolved, b"")
    with (
        pytest.raises(SweepStopped) as refused,
        run._cluster(load_spec("smoke.yaml"), run.Engine(), layout, cluster.Found(None)),
    ):
        raise SystemExit(1)
    assert (f"orchestrate resume {tmp_path}" in str(refused.value)) == begun
    assert ("same command again" in str(refused.value)) != begun
