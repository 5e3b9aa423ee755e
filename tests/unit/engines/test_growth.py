"""What an autoscaler may add counts as room for worker groups, up to resources.max_concurrent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orchestrator.engines.ray import autoscaler
from orchestrator.engines.ray.autoscaler import NODE_TYPES, Growth, NodeType, growth
from orchestrator.engines.ray.capacity import awaited, groups_that_fit
from orchestrator.engines.ray.cluster import Cluster, ClusterError
from search_spaces.reading.config import ResourcesConfig
from trainers.errors import UserError

GPU_NODES = NodeType(cpus=4, gpus=1, most=8)
HEAD_ALONE = Cluster(address="10.0.0.1:6379", nodes=1, cpus=0, gpus=0, sizes=((0, 0),), head=(0, 0))
GROWS = replace(HEAD_ALONE, growth=Growth(types=(GPU_NODES,), most=8))


def asks(**resources: float) -> ResourcesConfig:
    return ResourcesConfig(**({"gpus_per_worker": 1, "max_concurrent": 2} | resources))  # type: ignore[arg-type]


def test_a_head_alone_is_refused_where_nothing_can_be_added() -> None:
    with pytest.raises(ClusterError, match=f"run this on its head, or .*{NODE_TYPES}"):
        groups_that_fit(HEAD_ALONE, asks())


def test_nodes_to_come_are_room_and_max_concurrent_bounds_the_demand() -> None:
    assert groups_that_fit(GROWS, asks()) == 2
    assert groups_that_fit(GROWS, asks(max_concurrent=100)) == 8
    assert groups_that_fit(GROWS, asks(workers=3, max_concurrent=100)) == 2


def test_nodes_that_are_there_are_not_counted_twice() -> None:
    grown = replace(GROWS, nodes=9, cpus=32, gpus=8, sizes=((0, 0), *[(4, 1)] * 8))
    assert groups_that_fit(grown, asks(max_concurrent=100)) == 8
    assert awaited(grown, asks(max_concurrent=100), 8) is None


def test_what_no_node_type_holds_is_refused_at_once() -> None:
    for resources in (asks(gpus_per_worker=2), asks(cpus_per_worker=5), asks(workers=9)):
        with pytest.raises(ClusterError, match=r"the 8 worker node\(s\) that its autoscaler"):
            groups_that_fit(GROWS, resources)


def test_all_types_together_stay_below_the_clusters_own_bound() -> None:
    both = Growth(types=(GPU_NODES, NodeType(cpus=8, gpus=4, most=1)), most=2)
    assert groups_that_fit(replace(HEAD_ALONE, growth=both), asks(max_concurrent=100)) == 5


def test_the_wait_is_announced() -> None:
    assert awaited(GROWS, asks(start_timeout=900), 2) == (
        "waiting for 2 GPU workers that the cluster is to add, up to 900 s"
        " (resources.start_timeout)"
    )
    assert (awaited(GROWS, asks(gpus_per_worker=0), 1) or "").startswith(
        "waiting for 1 CPU worker "
    )


def test_the_settings_are_those_of_this_rays_own_autoscaler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []
    for port, count in ((6379, 3), (6380, 5)):
        path = tmp_path / f"{port}.yaml"
        path.write_text(
            json.dumps(
                {
                    "max_workers": 4,
                    "head_node_type": "head",
                    "available_node_types": {
                        "head": {"resources": {"CPU": 4}},
                        "gpu": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": count},
                    },
                }
            )
        )
        lines.append(
            ["monitor.py", f"--gcs-address=10.0.0.1:{port}", f"--autoscaling-config={path}"]
        )
    monkeypatch.delenv(NODE_TYPES, raising=False)
    monkeypatch.setattr(autoscaler, "_command_lines", lambda: iter(lines))
    head = NodeType(cpus=4, gpus=0, most=0)
    assert growth("10.0.0.1:6379") == Growth(types=(head, replace(GPU_NODES, most=3)), most=3)
    assert growth("10.0.0.1:6380").most == 4
    assert growth("10.0.0.1:6381") == Growth()


def test_machines_of_ones_own_hold_a_rank_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = {"machine": {"resources": {}, "max_workers": 2}}
    monkeypatch.setenv(NODE_TYPES, yaml.safe_dump(types))
    found = replace(HEAD_ALONE, growth=growth("10.0.0.1:6379"))
    assert groups_that_fit(found, asks(max_concurrent=100)) == 2


@pytest.mark.parametrize("said", ["8", "{gpu: 4}", "{gpu: {max_workers: many}}", "{gpu: ["])
def test_node_types_that_are_none_are_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_TYPES, said)
    with pytest.raises(UserError, match=f"{NODE_TYPES}=.*resources: .*max_workers"):
        growth("10.0.0.1:6379")
