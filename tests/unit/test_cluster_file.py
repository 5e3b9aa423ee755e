"""The cluster file that ships is one that Ray takes, and opens nothing to the network."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"


def test_ray_accepts_the_cluster_file() -> None:
    from ray.autoscaler import sdk

    schema = resources.files("ray.autoscaler") / "ray-schema.json"
    config = sdk.fillout_defaults(yaml.safe_load(CLUSTER.read_text()))
    jsonschema.validate(config, json.loads(schema.read_text()))
    assert config["available_node_types"]["gpu_worker"]["resources"]["GPU"] == 1


def test_nothing_listens_for_the_world_and_tokens_are_on() -> None:
    config = yaml.safe_load(CLUSTER.read_text())
    starts = [
        line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in config[key]
        if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in CLUSTER.read_text()
    assert all(
        kind["node_config"]["IamInstanceProfile"]
        for kind in config["available_node_types"].values()
    )
    assert config["provider"]["security_group"]["IpPermissions"][0]["IpRanges"]
