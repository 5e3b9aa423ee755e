"""The files for clusters that ship are ones that Ray, KubeRay and SLURM take, and open nothing to
the network.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster.yaml"
LOCAL = ROOT / "cluster.local.yaml"
RAYJOB = ROOT / "deploy/rayjob.yaml"
SBATCH = ROOT / "deploy/slurm.sbatch"
CRD = ROOT / "tests/data/rayjob_crd.yaml"

TO_FILL_IN = re.compile(r"<[^<>\n]+>")


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def check_by_rays_schema(config: dict[str, Any]) -> None:
    schema = resources.files("ray.autoscaler") / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))


def test_ray_accepts_the_cluster_files() -> None:
    from ray.autoscaler import sdk

    for path in (CLUSTER, LOCAL):
        written = yaml.safe_load(path.read_text())
        check_by_rays_schema(written)
        config = sdk.fillout_defaults(written)
        check_by_rays_schema(config)
    config = yaml.safe_load(CLUSTER.read_text())
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["resources"]["GPU"] == 1 and gpu["min_workers"] == 0 < gpu["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_nothing_listens_for_the_world_and_tokens_are_on() -> None:
    for path in (CLUSTER, LOCAL):
        config = yaml.safe_load(path.read_text())
        starts = [
            line
            for key in ("head_start_ray_commands", "worker_start_ray_commands")
            for line in config[key]
            if "ray start" in line
        ]
        assert len(starts) == 2
        login = "\n".join(config["setup_commands"])
        for line in starts:
            assert "RAY_AUTH_MODE=token" in (login if ". ~/.bashrc;" in line else line)
        assert "--dashboard-host=127.0.0.1" in starts[0]
        assert "0.0.0.0" not in path.read_text()
        assert "~/.ray/auth_token" in config["file_mounts"]
        assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_every_aws_node_has_a_profile_and_a_security_group_of_the_users_own() -> None:
    for kind in yaml.safe_load(CLUSTER.read_text())["available_node_types"].values():
        assert kind["node_config"]["IamInstanceProfile"]["Name"]
        assert len(kind["node_config"]["SecurityGroupIds"]) == 1


BOOTSTRAP = """
import json, sys
import yaml
from ray.autoscaler import sdk
with open(sys.argv[1]) as file:
    print("\\n" + json.dumps(sdk.bootstrap_config(yaml.safe_load(file), no_config_cache=True)))
"""


@contextmanager
def mock_of_aws() -> Iterator[dict[str, str]]:
    """A server that answers as AWS does; the environment in which boto3 calls it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-west-2",
        }
    finally:
        server.stop()


@pytest.mark.slow
def test_rays_bootstrap_takes_the_filled_in_file_and_opens_ssh_to_one_address_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    with mock_of_aws() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ec2, iam = boto3.client("ec2"), boto3.client("iam")
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName="mine", Description="mine", VpcId=vpc)
        ssh = {
            "FromPort": 22,
            "ToPort": 22,
            "IpProtocol": "tcp",
            "IpRanges": [{"CidrIp": "203.0.113.7/32"}],
        }
        ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[ssh])
        for name in ("head", "workers"):
            iam.create_instance_profile(InstanceProfileName=name)
        names = {
            "bucket": "mine",
            "ami- of Ubuntu 24.04": "ami-12345678",
            "ami- of Ubuntu 24.04 with the NVIDIA driver": "ami-12345678",
            "profile of the head": "head",
            "profile of the workers": "workers",
            "sg- that admits ssh from your address alone": group["GroupId"],
        }

        def bootstrapped(text: str) -> dict[str, Any]:
            path = tmp_path / "cluster.yaml"
            path.write_text(text)
            ended = subprocess.run(
                [sys.executable, "-c", BOOTSTRAP, str(path)],
                capture_output=True,
                text=True,
                env={**os.environ, "HOME": str(tmp_path)},
            )
            assert ended.returncode == 0, ended.stderr + ended.stdout
            found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
            return found

        def open_to_all() -> set[str]:
            return {
                found["GroupName"]
                for found in ec2.describe_security_groups()["SecurityGroups"]
                for rule in found["IpPermissions"]
                if {"CidrIp": "0.0.0.0/0"} in rule["IpRanges"]
            }

        (tmp_path / ".ssh").mkdir()
        filled = TO_FILL_IN.sub(
            lambda found: names.get(found[0][1:-1], found[0]), CLUSTER.read_text()
        )
        config = bootstrapped(filled)
        kinds = config["available_node_types"]
        assert [kind["node_config"]["SecurityGroupIds"] for kind in kinds.values()] == [
            [group["GroupId"]]
        ] * 2
        assert [kind["node_config"]["IamInstanceProfile"] for kind in kinds.values()] == [
            {"Name": "head"},
            {"Name": "workers"},
        ]
        assert not open_to_all()
        # Why the group is asked for: left to itself, Ray opens ssh to everyone.
        bootstrapped(re.sub(r"\n *SecurityGroupIds:[^\n]*", "", filled))
        assert open_to_all()


def problems(manifest: Any) -> list[str]:
    """Returns what KubeRay's schema has against a manifest; keys that it does not know count."""
    crd = yaml.safe_load(CRD.read_text())["spec"]
    assert manifest["apiVersion"] == f"{crd['group']}/{crd['versions'][0]['name']}"
    assert manifest["kind"] == crd["names"]["kind"]
    schema = strict(crd["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]


def strict(schema: Any) -> Any:
    """Returns a schema of Kubernetes as JSON Schema that refuses unknown keys."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {
        key: {name: strict(part) for name, part in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
        if not key.startswith("x-")
    }
    if "properties" in schema and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made


def rayjob() -> Any:
    return yaml.safe_load(RAYJOB.read_text())


def test_kuberay_accepts_the_job() -> None:
    assert problems(rayjob()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimits"), 3),
        (("spec", "backoffLimit"), "three"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokn"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), "none"),
    ],
)
def test_a_job_that_kuberay_would_refuse_is_found(
    path: tuple[str | int, ...], value: object
) -> None:
    job = rayjob()
    place = job
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert len(problems(job)) == 1


def test_what_the_job_says_twice_is_the_same_and_versions_are_the_pinned_ones() -> None:
    cluster = rayjob()["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    [group] = cluster["workerGroupSpecs"]
    [head] = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    [worker] = group["template"]["spec"]["containers"]
    said = {entry["name"]: entry["value"] for entry in head["env"]}
    limits = worker["resources"]["limits"]
    assert yaml.safe_load(said["ORCHESTRATE_NODE_TYPES"]) == {
        group["groupName"]: {
            "resources": {"CPU": int(limits["cpu"]), "GPU": int(limits["nvidia.com/gpu"])},
            "max_workers": group["maxReplicas"],
        }
    }
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert head["image"] == worker["image"] == f"<registry>/orchestrate:{version[1]}"


TOOLS = """
scontrol() {{ case "$1" in
    show) [ "$2" = hostnames ] && echo node1 || echo "   NodeAddr=127.0.0.1 x" ;;
    requeue) echo "REQUEUED $2" ;;
esac; }}
scancel() {{ kill -INT "$(cat "$TMPDIR/step")"; }}
srun() {{ echo $BASHPID > "$TMPDIR/step"; {srun}; }}
"""


@pytest.mark.parametrize(
    ("status", "again"),
    [(0, False), (1, False), (2, False), (3, False), (4, False), (5, True), (130, True)],
)
def test_slurm_starts_again_what_the_same_command_can_mend(
    status: int, again: bool, tmp_path: Path
) -> None:
    ended = submitted(tmp_path, f'echo {status} > "$STATUS"')
    assert ("REQUEUED 7" in ended.stdout) == again
    assert ended.returncode == (0 if again else status)


def test_slurm_starts_again_a_job_whose_first_node_was_lost(tmp_path: Path) -> None:
    assert "REQUEUED 7" in submitted(tmp_path, "return 1").stdout


def test_slurm_stops_the_sweep_before_the_limit_and_starts_again(tmp_path: Path) -> None:
    # USR1 reaches the batch script, and INT the step.
    stopped = submitted(
        tmp_path,
        "trap 'echo stopped; exit 130' INT; kill -USR1 $$; for _ in {1..600}; do sleep 0.1; done",
    )
    assert "stopped" in stopped.stdout and "REQUEUED 7" in stopped.stdout


def submitted(tmp_path: Path, srun: str) -> subprocess.CompletedProcess[str]:
    """Runs the batch script with SLURM's commands played by shell functions."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("x")
    script = tmp_path / "job"
    script.write_text(TOOLS.format(srun=srun) + SBATCH.read_text())
    return subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "OUT": "s3://bucket/x",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_NNODES": "2",
        },
    )


def test_the_batch_script_gives_the_limits_signal_to_itself_and_never_by_term() -> None:
    text = SBATCH.read_text()
    assert "--signal=B:USR1@" in text and "--requeue" in text
    assert "trap stop USR1" in text and "TERM" not in re.sub("#.*", "", text)


def test_the_image_is_no_root_and_takes_the_pinned_packages() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11-slim$", text, re.MULTILINE)
    assert "--constraint constraints.txt" in text
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["ray"]
    copied = {
        word
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for word in line.split()[:-1]
        if not word.startswith("--")
    }
    assert copied and all((ROOT / name).exists() for name in copied)
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert kept == copied


def test_the_rights_in_the_guide_are_whole_and_name_no_bucket_but_the_users() -> None:
    policies = [
        json.loads(block)
        for block in re.findall(
            r"^```json\n(.+?)^```$",
            (ROOT / "docs/cluster.md").read_text(),
            re.MULTILINE | re.DOTALL,
        )
    ]
    bucket, start = policies
    for statement in bucket["Statement"]:
        assert statement["Resource"].startswith("arn:aws:s3:::<bucket>")
    for statement in (*bucket["Statement"], *start["Statement"]):
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        assert not any("*" in action for action in actions)
    region = yaml.safe_load(CLUSTER.read_text())["provider"]["region"]
    assert start["Statement"][0]["Condition"]["StringEquals"]["aws:RequestedRegion"] == region


@pytest.mark.parametrize("path", [CLUSTER, LOCAL])
def test_a_state_that_is_corrected_reaches_a_machine_that_was_set_up_before(
    path: Path, tmp_path: Path
) -> None:
    """What its ~/.bashrc has of its owner stays, even if that looks like our own."""
    own = "alias work='. ~/thesis/.venv/bin/activate'\nexport ORCHESTRATE_STATE_OF=mind\n"
    bashrc = tmp_path / ".bashrc"
    bashrc.write_text(own)
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for state in ("/srv/wrong", "s3://right/sweeps", "s3://right/sweeps"):
        asked = r"ORCHESTRATE_STATE=(<[^>]*>|s3://<[^>]*>/sweeps)"
        text = re.sub(asked, f"ORCHESTRATE_STATE={state}", path.read_text())
        setup = yaml.safe_load(text)["setup_commands"]
        (command,) = [line for line in setup if ".bashrc" in line]
        subprocess.run(["bash", "-c", command], env=env, check=True)
    said = subprocess.run(
        ["bash", "-c", ". ~/.bashrc; echo $ORCHESTRATE_STATE $RAY_AUTH_MODE $PATH"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.split()[:2] == ["s3://right/sweeps", "token"]
    assert said.stdout.split()[2].startswith(f"{tmp_path}/venv/bin:")
    assert bashrc.read_text().startswith(own) and bashrc.read_text().count("export PATH") == 1
