"""What `doctor --cluster` says: of every machine of a running cluster, what a sweep needs of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.commands.doctor_file import Declared
from orchestrator.commands.doctor_ray import end_tree
from orchestrator.commands.finding import Finding, NodeFinding, State
from orchestrator.engines.ray import joining
from orchestrator.engines.ray import preflight as ray_setup
from orchestrator.engines.ray.cluster import ClusterError, running_here
from orchestrator.engines.ray.preflight import GIB
from orchestrator.storage.opening import open_store

ANSWER_SECONDS: Final = 120.0
"""How long a machine may take to answer; loading torch is most of it."""
FEW_BYTES: Final = 2 * GIB
CLOCK_WARN_SECONDS: Final = 60.0
CLOCK_FAIL_SECONDS: Final = 900.0
"""S3 refuses what is signed with a clock that is further off."""


Answers = Mapping[str, Any]


def running() -> str | None:
    """Returns the address of the Ray that this machine is a node of, as RAY_ADDRESS says it or `ray
    start` has noted it; None if it is of none.
    """
    named = os.environ.get("RAY_ADDRESS")
    return named if named not in (None, "", "auto", "local") else running_here()


def check(address: str, out: str, declared: Declared | None = None) -> Iterator[Finding]:
    """Yields every finding about the cluster at `address`. Leaves no file and no process behind.

    Args:
        out: where sweeps are kept.
        declared: what the cluster's file says of it, if one is known.

    Raises:
        ClusterError: it cannot be joined.
    """
    problem = joining.check_address(address)
    refusal = problem or joining.check_access(address)
    if refusal is not None and not isinstance(refusal, joining.OpenToAll):
        where = f"cannot reach Ray at {address}: " if problem else ""
        raise ClusterError(f"{where}{refusal}")
    # Whether it is joined nevertheless is no question: nothing of a sweep is run on it.
    yield _guard(address, refusal)
    first, answers = _ask(address, out)
    if first is None:
        yield NodeFinding(
            check="nodes",
            state="fail",
            found=f"Ray at {address} did not say within {2 * ANSWER_SECONDS:g} s which it has",
            fix="ray status; then ray stop and ray start on its machines",
        )
        return
    yield from judge(address, out, first, answers, declared)


def _guard(address: str, refusal: joining.OpenToAll | None) -> Finding:
    if refusal is not None:
        return NodeFinding(check="access", state="fail", found=refusal.problem, fix=refusal.how)
    found = f"Ray at {address} asks for the access token"
    return NodeFinding(check="access", state="ok", found=found)


def _ask(address: str, out: str) -> tuple[Answers | None, list[Answers]]:
    """Returns what Ray says of the cluster, None if it says nothing, and what its machines answer.
    Waits for a bounded time.
    """
    command = [sys.executable, "-m", "orchestrator.engines.ray.inspect_cluster"]
    lines: list[str] = []
    with (
        _left_as_it_was(out),
        subprocess.Popen(
            [*command, address, out, str(ANSWER_SECONDS)],
            env=os.environ | {"RAY_NUM_REDIS_GET_RETRIES": "3"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as child,
    ):
        # Its own limit ends it, unless Ray keeps it.
        timer = threading.Timer(2 * ANSWER_SECONDS, end_tree, [child.pid])
        timer.start()
        try:
            assert child.stdout is not None
            lines += child.stdout
        finally:
            timer.cancel()
            end_tree(child.pid)
    said = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
    return (said[0], said[1:]) if said else (None, [])


@contextlib.contextmanager
def _left_as_it_was(out: str) -> Iterator[None]:
    """Removes the folders that a look at the store makes and that were not there."""
    folder = open_store(out).as_folder("")
    made = []
    if folder is not None:
        around = [folder.absolute() / "nodes", folder.absolute(), *folder.absolute().parents]
        made = [place for place in around if not place.exists()]
    try:
        yield
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


def judge(
    address: str,
    out: str,
    first: Answers,
    answers: Sequence[Answers],
    declared: Declared | None = None,
) -> Iterator[Finding]:
    """Yields what follows from what Ray says of the cluster and what its machines answer."""
    by_id = {answer["id"]: answer for answer in answers}
    alive = sorted(
        (node for node in first["nodes"] if node["alive"]), key=lambda node: not node["head"]
    )
    head = by_id.get(alive[0]["id"], {}) if alive else {}
    yield from _nodes(address, first["nodes"], alive)
    if declared is not None:
        yield from declared.compare(address, alive)
    yield from _dashboard(first["dashboard"], (head.get("facts") or {}).get("dashboard"))
    if first["store"] is not None:
        # It holds the way out.
        yield NodeFinding(check="store", state="fail", found=first["store"])
    for node in alive:
        answer = by_id.get(node["id"], {"silent": True})
        for finding in _machine(address, out, node, answer, head, alive[0]):
            yield NodeFinding(
                node=node["address"],
                check=finding.check,
                state=finding.state,
                found=finding.found,
                fix=finding.fix,
            )


def _nodes(address: str, nodes: Sequence[Answers], alive: Sequence[Answers]) -> Iterator[Finding]:
    there = {node["address"] for node in alive}
    yield NodeFinding(check="nodes", state="ok", found=f"{len(alive)} alive")
    gone = sorted({node["address"] for node in nodes} - there)
    if gone:
        shown = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        yield NodeFinding(
            check="nodes",
            state="warn",
            found=f"gone: {shown}",
            fix=f"if one is to be back, on it: ray stop; ray start --address={address}",
        )


def _dashboard(dashboard: str, status: int | None) -> Iterator[Finding]:
    host = dashboard.rpartition(":")[0]
    if not dashboard:
        yield NodeFinding(check="dashboard", state="ok", found="none runs")
        return
    status = joining.http_status(dashboard) if status is None else status
    inside = joining.is_loopback(host)
    reach = "is reached from the head alone" if inside else "is reached from other machines"
    asks = {None: "was not asked", 401: "asks for the token", 403: "asks for the token"}.get(
        status, "asks for no token"
    )
    state: State = "fail" if asks == "asks for no token" else "ok" if inside else "warn"
    fix = "on the head: ray start --head --dashboard-host=127.0.0.1, with RAY_AUTH_MODE=token"
    yield NodeFinding(
        check="dashboard",
        state=state,
        found=f"{dashboard} {reach} and {asks}",
        fix="" if state == "ok" else fix,
    )


def _machine(
    address: str, out: str, node: Answers, answer: Answers, head: Answers, first: Answers
) -> Iterator[Finding]:
    """Yields the findings about one machine that is alive."""
    again = f"on it: ray stop; ray start --address={address}"
    if "facts" not in answer:
        problem = answer.get("problem")
        why = f"cannot run anything ({problem})" if problem else "did not answer"
        yield Finding(
            check="answer",
            state="fail",
            found=f"{why} within {ANSWER_SECONDS:g} s; what it lacks is not known",
            fix=f"ray status; {again}",
        )
        return
    facts = answer["facts"]
    role = "the head" if node["head"] else node["host"]
    found = f"alive: {role}, {node['cpus']:g} CPUs, {node['gpus']:g} GPUs"
    yield Finding(check="node", state="ok", found=found)
    yield from versions(facts, head.get("facts") or facts, first["address"])
    yield from _gpus(node["gpus"], facts["gpus"])
    if "store" in answer:
        yield _store(out, answer["store"])
    elif answer.get("silent"):
        yield _store(out, f"no answer within {ANSWER_SECONDS:g} s whether it sees {out}")
    yield clock(answer["ahead"], head.get("ahead") or answer["ahead"])
    yield _token(facts["token"])
    yield _cache(facts["cache"])


def versions(facts: Answers, head: Answers, where: str) -> Iterator[Finding]:
    """Yields a line for each version that is not that of the head; one line if there is none.

    Args:
        where: address of the head.
    """
    mine, theirs = facts["project"], head["project"]
    if "problem" in mine:
        yield Finding(
            check="project",
            state="fail",
            found=f"cannot be loaded ({mine['problem']})",
            fix="bring its files there and install them: ray up -y cluster.yaml, or make env",
        )
    elif mine != theirs:
        known = theirs.get("version", "none that can be loaded")
        yield Finding(
            check="project",
            state="fail",
            found=f"{mine['version']}, and {known} on the head {where}",
            fix="bring the same files to both: ray up -y cluster.yaml, or git checkout",
        )
    for name, version in facts["versions"].items():
        wanted = head["versions"].get(name)
        if _release(version) != _release(wanted):
            package = "ray[default,tune,train]" if name == "Ray" else name
            fix = f"there: pip install '{package}=={_release(wanted)}'"
            if name == "Python":
                fix = f"make the environment anew with Python {wanted}"
            yield Finding(
                check=name.lower(),
                state="fail",
                found=f"{name} {version or 'is missing'}, and {wanted} on the head {where}",
                fix=fix,
            )
    shown = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    yield Finding(
        check="versions", state="ok", found=f"project {mine.get('version', 'none')}, {shown}"
    )


def _release(version: str | None) -> str | None:
    # "+cpu" and the like name a build of the same version.
    return version.partition("+")[0] if version else version


def _gpus(believed: float, seen: Answers) -> Iterator[Finding]:
    if "problem" in seen:
        yield Finding(
            check="gpu",
            state="fail",
            found=f"torch cannot be loaded ({seen['problem']})",
            fix="there: pip install --force-reinstall torch torchvision",
        )
        return
    names, short = seen["names"], believed > len(seen["names"])
    found = f"torch sees {len(names)}, Ray counts {believed:g}"
    found += f": {', '.join(sorted(set(names)))}" if names else ""
    fix = f"nvidia-smi, and a torch that fits its driver; or ray start --num-gpus={len(names)}"
    state: State = "fail" if short else "ok" if believed == len(names) else "warn"
    yield Finding(check="gpu", state=state, found=found, fix="" if state == "ok" else fix)


def _store(out: str, problem: str | None) -> Finding:
    if problem is None:
        return Finding(check="store", state="ok", found=f"reads and writes {out}")
    return Finding(
        check="store",
        state="fail",
        # The rest of the sentence is the way out.
        found=problem.partition(". All machines must")[0],
        fix="--out /shared/DIR or --out s3://BUCKET/DIR, which all machines see and may write",
    )


def clock(ahead: Sequence[float], head: Sequence[float]) -> Finding:
    """Returns how far a machine's clock is from the head's: it is ahead by something between two
    numbers of seconds, as the head's is, of the clock of who asked.
    """
    low, high = ahead[0] - head[1], ahead[1] - head[0]
    if ahead is head:
        low = high = 0.0
    # What it is off by at least.
    off = max(low, -high, 0.0)
    state: State = (
        "fail" if off > CLOCK_FAIL_SECONDS else "warn" if off > CLOCK_WARN_SECONDS else "ok"
    )
    far = f"{off:.0f} s {'ahead of' if low > 0 else 'behind'} the head's"
    return Finding(
        check="clock",
        state=state,
        found=f"within {max(high, -low):.1f} s of the head's" if state == "ok" else far,
        fix="" if state == "ok" else "there: timedatectl set-ntp true",
    )


def _token(token: Answers) -> Finding:
    mode, place = token["mode"], token["place"]
    if mode is not None and mode & 0o077:
        return Finding(
            check="token",
            state="fail",
            found=f"others may read {place} (mode {mode:o})",
            fix=f"there: chmod 600 {place}",
        )
    found = f"{place}: mode {mode:o}" if mode is not None else f"no file at {place}"
    found += "; the environment of its Ray has one" if token["variable"] else ""
    return Finding(check="token", state="ok", found=found)


def _cache(cache: Answers) -> Finding:
    fix = "there, before ray start: export ORCHESTRATE_CACHE=/a/larger/disk/orchestrate"
    if "problem" in cache:
        return Finding(check="cache", state="fail", found=cache["problem"], fix=fix)
    free = cache["free"]
    state: State = (
        "fail" if free < ray_setup.LEAST_TEMP_SPACE else "warn" if free < FEW_BYTES else "ok"
    )
    found = f"{free / GIB:.1f} GiB free for {cache['place']}"
    return Finding(check="cache", state=state, found=found, fix="" if state == "ok" else fix)


def place(out: str | None) -> str:
    """Returns where sweeps are kept, unless it is said: absolute, as other machines look for it."""
    chosen = out or os.environ.get("ORCHESTRATE_STATE") or "runs"
    return chosen if "://" in chosen else str(Path(chosen).expanduser().absolute())
