"""A cluster that `ray up cluster.local.yaml` brings up on hosts, from a laptop that is none of
them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cloud.conftest import ROOT, Ended, Hosts, ship

STARTS = 3
"""Ray gives its daemons 15 s to start, which a crowded machine may not; tests begin once they run.
"""
NOTICED = "RAY_health_check_period_ms=3000 RAY_health_check_failure_threshold=5"
"""A lost machine is noticed in a quarter of a minute and not in two: the tests wait less."""
UP = "RAY_UP_enable_autoscaler_v2=0 ray up -y --no-config-cache cluster.local.yaml"
PIP = r"python3 -m venv .*--editable ~/orchestrate"


def filled_in(state: str, *, cpus: int | None = None) -> str:
    """What a user makes of the file; the packages come without a registry.

    Args:
        state: below what sweeps are kept.
        cpus: of each host, as Ray is told; None: what the host says.
    """
    text = (ROOT / "cluster.local.yaml").read_text()
    for given, value in {
        "<address of the head>": "10.77.0.11",
        "[<address>, <address>]": "[10.77.0.12, 10.77.0.13]",
        "<user>": "root",
        "<folder that all machines see, or s3://bucket/sweeps>": state,
    }.items():
        assert text.count(given) == 1
        text = text.replace(given, value)
    assert not re.search(r"^[^#\n]*<", text, re.MULTILINE), "nothing else is asked for"
    text, installs = re.subn(PIP, "bash ~/orchestrate/tests/cloud/setup_host.sh", text)
    assert installs == 1
    if cpus is not None:
        text, starts = re.subn(r"; ray start ", f"; {NOTICED} ray start --num-cpus={cpus} ", text)
        assert starts == 2
    return text


def prepare_laptop(world: Hosts, cluster: str, variables: Mapping[str, str] | None = None) -> None:
    """A laptop has the project, its environment, a token and the cluster's file. These variables
    are exported on it and on every host, as one does for an S3 server of one's own.
    """
    laptop = world.home("laptop")
    ship(laptop / "orchestrate")
    (laptop / "orchestrate/cluster.local.yaml").write_text(cluster)
    (laptop / ".ray").mkdir()
    (laptop / ".ray/auth_token").write_text("0123456789abcdef" * 4)
    (laptop / ".ray/auth_token").chmod(0o600)
    for host in world.names():
        with (world.home(host) / ".bashrc").open("a") as rc:
            for name, value in (variables or {}).items():
                rc.write(f"export {name}='{value}'\n")
    world.run("laptop", "bash ~/orchestrate/tests/cloud/setup_host.sh")
    world.run("laptop", "echo 'export PATH=$HOME/venv/bin:$PATH' >> ~/.bashrc")


def active(world: Hosts) -> int:
    """How many nodes Ray has."""
    said = world.run(
        "laptop",
        "cd ~/orchestrate; ray exec cluster.local.yaml"
        " 'RAY_AUTH_MODE=token ray list nodes --filter state=ALIVE --format json'",
    )
    return said.count('"state": "ALIVE"')


def bring_up(world: Hosts) -> None:
    """Three nodes run; skips where Ray gave up its own start each time."""
    for _ in range(STARTS):
        try:
            said = world.run("laptop", f"cd ~/orchestrate; {UP}")
        except Ended as error:
            said = str(error) + world.run("host1", "tail -n 5 /tmp/ray/session_latest/logs/gcs*")
            continue
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                if active(world) == 3:
                    return
            except Ended as error:
                said = str(error)
            time.sleep(5)
        world.run("laptop", "cd ~/orchestrate; ray down -y cluster.local.yaml")
    pytest.skip(f"Ray's own start failed {STARTS} times: {said[-2000:]}")


def write_pictures(folder: Path) -> None:
    """Three classes of JPEGs, told apart by their colour, as a folder for train/ and test/."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, images in (("train", 60), ("test", 10)):
        for label, name in enumerate(("ant", "bee", "cat")):
            (folder / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = rng.integers(0, 160, (24, 24, 3))
                pixels[..., label] += 40
                Image.fromarray(pixels.astype(np.uint8)).save(
                    folder / split / name / f"{number:03d}.jpg"
                )


def restore(world: Hosts, cpus: int) -> None:
    """Three nodes run again, hosts that were cut too; where the head was lost, a new cluster."""
    off = [name for name in world.names() if not world.is_on(name)]
    for name in off:
        world.power(name)
    if "host1" in off:
        bring_up(world)
        return
    start = f"RAY_AUTH_MODE=token ray start --num-cpus={cpus} --address=10.77.0.11:6379"
    for _ in range(STARTS):
        for name in ("host2", "host3"):
            if "raylet" not in world.run(name, "ps -eo comm"):
                print(world.run(name, f"ray stop > /dev/null; {start} 2>&1; true"))
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            if active(world) == 3:
                return
            time.sleep(5)
    pytest.skip(f"Ray's own start failed {STARTS} times")
