"""cluster.local.yaml, filled in, on three hosts, from a laptop that is none of them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.cloud.conftest import PROGRAMS, Hosts, hosts, need
from tests.cloud.launched import bring_up, filled_in, prepare_laptop
from tests.helpers.same import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SPEC = "extends: smoke.yaml\nname: far\nseeds: [0]\nbase: {method: {epochs: 60}}\n"


def leave_and_come_back(world: Hosts, shared: Path) -> None:
    """The user's sentence on the laptop: left at Ctrl-C, come back to, equal to a sweep of one
    process, its report and its exit status at home.
    """
    home = world.home("laptop")
    (home / "orchestrate/base.yaml").write_text(SPEC)
    (home / "orchestrate/far.yaml").write_text("extends: base.yaml\n")
    said = world.run(
        "laptop",
        "cd ~/orchestrate; orchestrate sweep far.yaml > ~/left 2>&1 & left=$!;"
        " until grep -q '^.1/4' ~/left; do kill -0 $left || break; sleep 0.2; done;"
        " kill -INT $left; wait $left; code=$?; cat ~/left; echo status $code",
    )
    assert "on cluster orchestrate (cluster.local.yaml: local, head 10.77.0.11)" in said
    assert "detached; the sweep goes on there" in said and "status 130" in said, said
    # From another folder, by name.
    assert re.search(
        r"far-\w+-1 on cluster .*: (running|succeeded)",
        world.run("laptop", "orchestrate status far"),
    )
    said = world.run("laptop", "cd ~/orchestrate; orchestrate sweep far.yaml; echo status $?")
    assert "status 0" in said and "the report is here: " in said, said
    world.run("laptop", "cd ~/orchestrate; orchestrate sweep far.yaml --engine inline --out ~/one")
    alone = home / "one"
    assert_same(alone, shared / "far")
    for name in ("report.csv", "report-rows.csv"):
        brought = (home / "orchestrate/runs/far/report" / name).read_bytes()
        assert brought == (alone / "report" / name).read_bytes()
    # Statuses other than 0 come through, though Ray knows but "failed".
    for words, code, message in (
        ("--set method.learning_rate=900 --out /srv/shared/failing", 1, "trial(s) failed"),
        ("--set method.epochs=61", 2, "holds another sweep"),
    ):
        said = world.run(
            "laptop", f"cd ~/orchestrate; orchestrate sweep far.yaml {words}; echo status $?"
        )
        assert f"status {code}" in said and message in said, said
    # Handed over, stopped, and gone on with.
    longer = "far.yaml --set method.epochs=200 --set resources.checkpoint_seconds=0"
    there = f"{longer} --out /srv/shared/longer"
    said = world.run("laptop", f"cd ~/orchestrate; orchestrate submit {there} 2>&1")
    assert "goes on there" in said, said
    deadline = time.monotonic() + 600
    while not list(shared.glob("longer/stages/*/epoch-*.ckpt")):
        assert time.monotonic() < deadline, world.run("laptop", "orchestrate logs far")
        time.sleep(1)
    said = world.run("laptop", "orchestrate stop /srv/shared/longer 2>&1")
    assert "has stopped" in said, said
    said = world.run("laptop", "orchestrate logs /srv/shared/longer 2>&1; echo status $?")
    assert "interrupted" in said and "status 130" in said, said
    world.run("laptop", f"cd ~/orchestrate; orchestrate sweep {there}")
    world.run(
        "laptop", f"cd ~/orchestrate; orchestrate sweep {longer} --engine inline --out ~/whole"
    )
    assert_same(home / "whole", shared / "longer")


def assert_same(one: Path, other: Path) -> None:
    lines, same = compare(str(one), str(other))
    assert same, lines


def test_three_machines_come_up_from_a_laptop_and_go_down(tmp_path: Path) -> None:
    need(PROGRAMS)
    with hosts(3, share=tmp_path) as world:
        prepare_laptop(world, filled_in("/srv/shared"))
        bring_up(world)
        # From the network, only who has the token is let in, and the dashboard not at all.
        assert "refused" in world.run(
            "laptop", "bash -c 'exec 3<>/dev/tcp/10.77.0.11/8265' 2>&1 || true"
        )
        token = world.home("host2") / ".ray/auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        # The project's own command works on the head.
        said = world.run(
            "laptop",
            "cd ~/orchestrate; ray exec cluster.local.yaml"
            " 'cd ~/orchestrate && orchestrate plan ablations.yaml'",
        )
        assert "ablations: 280 trials" in said
        leave_and_come_back(world, tmp_path)
        world.run("laptop", "cd ~/orchestrate; ray down -y cluster.local.yaml")
        assert "gcs_server" not in world.run("host1", "ps -eo comm || true")
