"""What follows from what the machines of a cluster answer: each line that fails has its fix."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import cli
from orchestrator.commands import doctor, doctor_cluster
from orchestrator.commands.finding import Finding, NodeFinding

HEAD, WORKER = "10.0.0.1", "10.0.0.2"


def node(address: str, **changed: Any) -> dict[str, Any]:
    head = address == HEAD
    found = {"id": f"id-{address}", "host": f"host-{address}", "address": address, "alive": True}
    return {**found, "cpus": 4.0, "gpus": 0.0, "head": head, **changed}


def answer(address: str) -> dict[str, Any]:
    facts = {
        "versions": {"Python": "3.11.7", "Ray": "2.60.0", "torch": "2.11.0", "numpy": "2.1.0"},
        "project": {"version": "0.2.0+abc"},
        "gpus": {"names": []},
        "token": {"place": "/home/u/.ray/auth_token", "mode": 0o600, "variable": False},
        "cache": {"place": "/home/u/.cache", "free": 2**36},
        "dashboard": 401 if address == HEAD else None,
    }
    return {"id": f"id-{address}", "ahead": [-0.01, 0.01], "facts": facts, "store": None}


def first(*nodes: dict[str, Any], **changed: Any) -> dict[str, Any]:
    there = list(nodes) or [node(WORKER), node(HEAD)]
    return {"nodes": there, "dashboard": "127.0.0.1:8265", "store": None, **changed}


def judged(told: dict[str, Any], *answers: dict[str, Any]) -> list[Finding]:
    found = list(doctor_cluster.judge("10.0.0.1:6379", "s3://b/x", told, answers))
    assert all(finding.fix for finding in found if finding.state != "ok"), found
    assert all(isinstance(finding, NodeFinding) for finding in found)
    assert all(doctor._line(finding).plain for finding in found)
    return found


def bad(found: list[Finding]) -> set[tuple[str, str, str]]:
    return {
        (finding.node, finding.check, finding.state)
        for finding in found
        if isinstance(finding, NodeFinding) and finding.state != "ok"
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The answer of a worker that differs at one place."""
    found = answer(WORKER)
    *parents, last = path.split(".")
    inner = found
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return found


def test_a_whole_cluster_has_a_line_per_machine_and_check_and_no_failure() -> None:
    found = judged(first(), answer(HEAD), answer(WORKER))
    assert bad(found) == set()
    per_machine = [
        finding.check for finding in found if isinstance(finding, NodeFinding) and finding.node
    ]
    assert per_machine == 2 * ["node", "versions", "gpu", "store", "clock", "token", "cache"]


@pytest.mark.parametrize(
    ("path", "value", "check", "state"),
    [
        ("facts.project", {"version": "0.2.0+abd"}, "project", "fail"),
        ("facts.project", {"problem": "No module named 'orchestrator'"}, "project", "fail"),
        ("facts.versions.Python", "3.12.1", "python", "fail"),
        ("facts.versions.Ray", "2.59.0", "ray", "fail"),
        ("facts.versions.torch", "2.12.0+cu128", "torch", "fail"),
        ("facts.versions.torch", None, "torch", "fail"),
        ("facts.versions.numpy", "1.26.0", "numpy", "fail"),
        ("facts.gpus", {"names": ["A10G"]}, "gpu", "warn"),
        ("facts.gpus", {"problem": "libcuda.so: cannot open"}, "gpu", "fail"),
        ("facts.token.mode", 0o644, "token", "fail"),
        ("facts.token.mode", 0o640, "token", "fail"),
        ("facts.cache", {"place": "/c", "free": 2**20}, "cache", "fail"),
        ("facts.cache", {"place": "/c", "free": 2**30}, "cache", "warn"),
        ("facts.cache", {"problem": "no home folder"}, "cache", "fail"),
        ("store", "10.0.0.2: it is not there. All machines must: ...", "store", "fail"),
        ("ahead", [61.0, 62.0], "clock", "warn"),
        ("ahead", [-950.0, -940.0], "clock", "fail"),
    ],
)
def test_what_one_machine_lacks_is_one_line_of_that_machine(
    path: str, value: Any, check: str, state: str
) -> None:
    found = judged(first(), answer(HEAD), changed(path, value))
    assert bad(found) == {(WORKER, check, state)}


def test_a_version_that_differs_is_named_with_both_values() -> None:
    found = judged(first(), answer(HEAD), changed("facts.versions.numpy", "1.26.0"))
    [line] = [finding for finding in found if finding.state == "fail"]
    assert line.found == f"numpy 1.26.0, and 2.1.0 on the head {HEAD}"
    assert line.fix == "there: pip install 'numpy==2.1.0'"


def test_another_build_of_the_same_version_is_the_same() -> None:
    assert not bad(judged(first(), answer(HEAD), changed("facts.versions.torch", "2.11.0+cu128")))


def test_gpus_that_ray_counts_and_torch_does_not_see_fail() -> None:
    told = first(node(WORKER, gpus=2.0), node(HEAD))
    seen = changed("facts.gpus", {"names": ["A10G"]})
    assert bad(judged(told, answer(HEAD), seen)) == {(WORKER, "gpu", "fail")}


@pytest.mark.parametrize("silent", [None, {"silent": True}, {"problem": "the actor died"}])
def test_a_machine_without_an_answer_is_one_line(silent: dict[str, Any] | None) -> None:
    answers = [answer(HEAD), *([{"id": f"id-{WORKER}", **silent}] if silent else [])]
    assert bad(judged(first(), *answers)) == {(WORKER, "answer", "fail")}


def test_a_machine_that_fell_silent_over_the_store_does_not_see_it() -> None:
    found = answer(WORKER)
    del found["store"]
    found["silent"] = True
    assert bad(judged(first(), answer(HEAD), found)) == {(WORKER, "store", "fail")}


def test_a_store_that_cannot_be_opened_is_said_once() -> None:
    told = first(store="s3://b: there is no bucket 'b'. Make it (aws s3 mb s3://b)")
    found = doctor_cluster.judge("10.0.0.1:6379", "s3://b", told, [answer(HEAD)])
    [line] = [line for line in found if line.check == "store" and line.state == "fail"]
    assert line.found == told["store"] and not line.fix


def test_a_head_that_is_silent_leaves_the_others_judged() -> None:
    assert bad(judged(first(), answer(WORKER))) == {(HEAD, "answer", "fail")}


def test_machines_that_are_gone_are_named_unless_they_came_back() -> None:
    gone, back = node("10.0.0.3", alive=False), node(WORKER, alive=False, id="old")
    told = first(node(WORKER), node(HEAD), gone, back)
    found = judged(told, answer(HEAD), answer(WORKER))
    assert bad(found) == {("", "nodes", "warn")}
    [line] = [finding for finding in found if finding.state == "warn"]
    assert line.found == "gone: 10.0.0.3"


@pytest.mark.parametrize(
    ("dashboard", "status", "state"),
    [
        ("", None, "ok"),
        ("127.0.0.1:8265", 401, "ok"),
        ("127.0.0.1:8265", 200, "fail"),
        ("192.0.2.2:8265", 401, "warn"),
        ("192.0.2.2:8265", 200, "fail"),
    ],
)
def test_a_dashboard_is_judged_by_who_reaches_it_and_what_it_asks(
    dashboard: str, status: int | None, state: str
) -> None:
    [finding] = doctor_cluster._dashboard(dashboard, status)
    assert finding.state == state and bool(finding.fix) == (state != "ok")


# Most of what counts lies near the two limits.
OFF = st.one_of(
    st.floats(-1e4, 1e4),
    *(
        st.floats(sign * limit - 12, sign * limit + 12)
        for limit in (doctor_cluster.CLOCK_WARN_SECONDS, doctor_cluster.CLOCK_FAIL_SECONDS)
        for sign in (-1, 1)
    ),
)


@given(off=OFF, slack=st.floats(0, 5), mine=st.floats(-1e4, 1e4), at=st.floats(0, 1))
def test_a_clock_is_blamed_for_what_it_is_off_by_at_least(
    off: float, slack: float, mine: float, at: float
) -> None:
    """Whatever the clock of who asks says, and whenever within a call the machine looked."""
    head = [mine - slack * at, mine + slack * (1 - at)]
    node_ = [off + mine - slack * (1 - at), off + mine + slack * at]
    state = doctor_cluster.clock(node_, head).state
    surely, maybe = abs(off) - 2 * slack - 1e-6, abs(off) + 1e-6
    if surely > doctor_cluster.CLOCK_FAIL_SECONDS:
        assert state == "fail"
    if maybe < doctor_cluster.CLOCK_FAIL_SECONDS:
        assert state != "fail"
    if maybe < doctor_cluster.CLOCK_WARN_SECONDS:
        assert state == "ok"
    if surely > doctor_cluster.CLOCK_WARN_SECONDS:
        assert state != "ok"


def test_a_cluster_that_asks_for_no_token_fails_and_the_rest_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusal = doctor_cluster.joining.OpenToAll("Ray at x:1", "start it so")
    monkeypatch.setattr(doctor_cluster.joining, "check_address", lambda address: None)
    monkeypatch.setattr(doctor_cluster.joining, "check_access", lambda address: refusal)
    told = (first(), [answer(HEAD), answer(WORKER)])
    monkeypatch.setattr(doctor_cluster, "_ask", lambda address, out: copy.deepcopy(told))
    found = list(doctor_cluster.check("x:1", "s3://b/x"))
    assert bad(found) == {("", "access", "fail")}
    assert found[0].found.startswith("Ray at x:1 asks for no access token")
    assert found[0].fix == "start it so"


def test_a_cluster_that_cannot_be_joined_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert cli.main(["doctor", "--cluster"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "127.0.0.1:1" in said.err


def test_where_there_is_no_cluster_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--cluster"]) == 2
    assert "no cluster of this folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
