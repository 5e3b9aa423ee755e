"""Sweeps on three hosts without a disk in common, their state on a real S3 server, by the user's
sentence from a laptop that is none of them: machines lose power, the server is killed, two drivers
meet. Each ends equal to the sweep that nobody disturbed.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.cloud.conftest import PROGRAMS, Hosts, hosts, need
from tests.cloud.launched import (
    bring_up,
    filled_in,
    prepare_laptop,
    restore,
    write_pictures,
)
from tests.helpers import ceph
from tests.helpers.s3_server import BUCKET, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STATE = f"s3://{BUCKET}/sweeps"
SPEC = """\
extends: smoke.yaml
name: {name}
seeds: [0]
base: {{method: {{epochs: {epochs}}}}}
resources: {{checkpoint_seconds: 0, workers: {ranks}, max_concurrent: {groups}}}
"""
PHOTOS = """\
extends: images_example.yaml
name: own
dataset: {path: photos, image_size: 24, validation: {per_class: 5}}
budget: {full_labels: 30}
base: {method: {epochs: 5}}
seeds: [0]
"""
PATIENCE = 900.0


@dataclass
class Sweep:
    """`orchestrate sweep` as it runs on a host."""

    world: Hosts
    name: str
    process: subprocess.Popen[str]

    @property
    def place(self) -> str:
        return f"{STATE}/{self.name}"

    def said(self) -> str:
        return (self.world.home("laptop") / f"{self.name}.log").read_text()

    def until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert self.process.poll() is None, f"ended before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"{what}: not after {PATIENCE} s:\n{self.said()}"
            time.sleep(1)

    def ended(self) -> int:
        self.process.wait(PATIENCE)
        return int(re.findall(r"^status (\d+)$", self.said(), re.MULTILINE)[-1])


@dataclass
class Place:
    """The hosts, with their S3 server on the switch."""

    world: Hosts
    server: ceph.Ceph

    def sweep(self, name: str, words: str = "", *, ranks: int = 1, epochs: int = 150) -> Sweep:
        """Gives the user's sentence on the laptop, in the folder of the cluster's file."""
        home = self.world.home("laptop")
        (home / f"orchestrate/{name}.yaml").write_text(
            SPEC.format(name=name, epochs=epochs, ranks=ranks, groups=1 if ranks > 1 else 3)
        )
        (home / f"{name}.log").write_text("")
        return self.go_on(Sweep(self.world, name, subprocess.Popen(["true"], text=True)), words)

    def go_on(self, sweep: Sweep, words: str = "") -> Sweep:
        command = f"cd ~/orchestrate; orchestrate sweep {sweep.name}.yaml {words}"
        sweep.process = self.world.start(
            "laptop", f"({command}; echo status $?) >> ~/{sweep.name}.log 2>&1"
        )
        return sweep

    def until_in_mid_stage(self, sweep: Sweep, stages: int = 1) -> None:
        """Waits until so many stages have a checkpoint on the server."""
        sweep.until(
            f"{stages} stage(s) have a checkpoint",
            lambda: (
                len({name.split("/")[1] for name in self.names(sweep) if "/checkpoints/" in name})
                >= stages
            ),
        )

    def hosts_with_ranks(self) -> list[str]:
        return [
            host
            for host in ("host1", "host2", "host3")
            if "ray::Rank" in self.world.run(host, "ps -eo args")
        ]

    def names(self, sweep: Sweep) -> list[str]:
        """What the server has of a sweep."""
        code = "import sys; from orchestrator.storage.opening import open_store;"
        code += f"print(*open_store('{sweep.place}').names(), sep=chr(10))"
        return self.world.run("laptop", f'~/venv/bin/python -c "{code}"').split()

    def assert_equal(self, sweep: Sweep, on: str = "local") -> None:
        """The sweep is the same as on one machine, with no one to disturb it.

        Args:
            on: `local`, for a Ray of its own, or `inline`, for one process.
        """
        out = f"~/calm/{sweep.name}"
        how = "--engine inline" if on == "inline" else "--local"
        command = "OMP_NUM_THREADS=1 orchestrate sweep"
        self.world.run(
            "laptop",
            f"cd ~/orchestrate; {command} {sweep.name}.yaml {how} --out {out}"
            f" && cd ~/orchestrate && ~/venv/bin/python -m tests.helpers.same {out} {sweep.place}",
        )
        said = self.world.run("laptop", f"orchestrate ledger verify {sweep.place}")
        assert "whole" in said, said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    need(PROGRAMS)
    missing = ceph.missing_programs()
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: {ceph.INSTALL}")
    with hosts(3) as world:
        server = ceph.Ceph(
            tmp_path_factory.mktemp("ceph"), address="10.77.0.1", within=world.switch
        )
        try:
            server.start()
            # A CPU a host: two ranks of one group are on two hosts.
            prepare_laptop(world, filled_in(STATE, cpus=1), environment(server.endpoint))
            make = f"from tests.helpers.s3_server import make_bucket as m; m('{server.endpoint}')"
            world.run("laptop", f'cd ~/orchestrate; ~/venv/bin/python -c "{make}"')
            bring_up(world)
            yield Place(world, server)
        finally:
            server.kill()


@pytest.fixture(autouse=True)
def whole(place: Place) -> None:
    """Every test begins with three nodes."""
    restore(place.world, cpus=1)


@pytest.mark.lane
def test_the_users_sentence_with_photographs_that_are_on_the_laptop_alone(place: Place) -> None:
    """Left at Ctrl-C, come back to, its report brought home; equal to a sweep of one process."""
    home = place.world.home("laptop") / "orchestrate"
    write_pictures(home / "photos")
    (home / "own.yaml").write_text(PHOTOS)
    began = {host: place.world.received(host) for host in ("host1", "host2", "host3")}
    said = place.world.run(
        "laptop",
        "cd ~/orchestrate; orchestrate sweep own.yaml > ~/left 2>&1 & left=$!;"
        " until grep -q '^.1/[0-9]' ~/left; do kill -0 $left || break; sleep 0.2; done;"
        " kill -INT $left; wait $left; code=$?; cat ~/left; echo status $code",
    )
    print("$ orchestrate sweep own.yaml\n" + said)
    assert "on cluster orchestrate (cluster.local.yaml: local, head 10.77.0.11)" in said
    assert f"bringing photos to {STATE}/_data" in said
    assert "detached; the sweep goes on there" in said and "status 130" in said, said
    told = place.world.run("laptop", "orchestrate status own 2>&1")
    print("$ orchestrate status own\n" + told)
    assert re.search(r"own-\w+-1 on cluster .*: (running|succeeded)", told)
    said = place.world.run(
        "laptop", "cd ~/orchestrate; orchestrate sweep own.yaml 2>&1; echo status $?"
    )
    print("$ orchestrate sweep own.yaml\n" + said)
    assert "status 0" in said and "the report is here: " in said, said
    assert (home / "runs/own/report/report.html").stat().st_size > 1000
    for host, before in began.items():
        print(f"{host} received {(place.world.received(host) - before) / 2**20:.1f} MiB")
        # Neither the photographs nor their labels.
        assert "/photos" not in place.world.run(host, "find ~ /tmp -type d -name photos")
    for host in ("host2", "host3"):
        assert not place.world.run(host, "ls ~/.cache/orchestrate/labels 2> /dev/null; true")
    place.assert_equal(Sweep(place.world, "own", subprocess.Popen(["true"], text=True)), "inline")


@pytest.mark.lane
def test_the_host_of_one_rank_of_two_loses_power_in_mid_stage(place: Place) -> None:
    sweep = place.sweep("pair", ranks=2, epochs=30)
    place.until_in_mid_stage(sweep)
    ranks = place.hosts_with_ranks()
    assert len(ranks) == 2, ranks
    place.world.cut(ranks[-1])
    assert sweep.ended() == 0, sweep.said()
    assert f"{ranks[-1]} was lost" in sweep.said(), sweep.said()
    assert "failed" not in sweep.said()
    place.assert_equal(sweep)
    print(sweep.said())


def test_the_server_is_killed_a_driver_refused_and_a_worker_loses_power(place: Place) -> None:
    sweep = place.sweep("three")
    place.until_in_mid_stage(sweep)
    second = place.world.run("host2", f"orchestrate resume {sweep.place} 2>&1; echo status $?")
    assert "in use by" in second and "status 2" in second, second
    place.server.kill("rgw")
    # Long enough that the sweep meets it; how long does not matter.
    time.sleep(3)
    place.server.start()
    place.until_in_mid_stage(sweep)
    lost = place.hosts_with_ranks()[-1]
    assert lost != "host1", "the head is for the next test"
    place.world.cut(lost)
    assert sweep.ended() == 0, sweep.said()
    place.assert_equal(sweep)
    print(sweep.said())


def test_the_head_loses_power_and_the_same_command_goes_on_on_a_new_cluster(place: Place) -> None:
    sweep = place.sweep("head")
    place.until_in_mid_stage(sweep)
    place.world.cut("host1")
    restore(place.world, cpus=1)
    assert sweep.ended() == 5, sweep.said()
    assert place.go_on(sweep).ended() == 0, sweep.said()
    place.assert_equal(sweep)
    print(sweep.said())
