"""deploy/slurm.sbatch on a real SLURM."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cloud.conftest import HERE, PROGRAMS, Ended, Hosts, hosts, need, ship
from tests.helpers.same import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SLURM = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
STARTS = 3
"""Ray gives its daemons 15 s to start, which a crowded machine may not."""
SMALL = "--set seeds=[0] --set method.epochs=2"
ABORTED = ("has died", "Failed to start Ray", "Timed out waiting for file")
"""What a job's log says where Ray itself gave up its start."""


@contextmanager
def slurm(nodes: int, share: Path | None = None) -> Iterator[Hosts]:
    """Hosts with the project and SLURM."""
    need(PROGRAMS | SLURM)
    with hosts(nodes, share=share) as world:
        for number in range(1, nodes + 1):
            host = f"host{number}"
            ship(world.home(host) / "orchestrate")
            world.run(host, "bash ~/orchestrate/tests/cloud/setup_host.sh")
            world.run(host, "echo 'export PATH=$HOME/venv/bin:$PATH' >> ~/.bashrc")
        subprocess.run([str(HERE / "slurm.sh"), "start", str(world.folder), str(nodes)], check=True)
        yield world


def until(what: str, true: Callable[[], bool], world: Hosts) -> None:
    deadline = time.monotonic() + 900
    while not true():
        if time.monotonic() > deadline:
            raise Ended(
                f"{what}: not after 900 s\n{world.run('host1', 'cat job.log; squeue; sinfo')}"
            )
        time.sleep(1)


def submit(world: Hosts, out: str, sets: str) -> str:
    """Runs the job to its end. Returns its log; Ended if the job failed."""
    try:
        world.run(
            "host1",
            f"cd ~/orchestrate; SPEC=smoke.yaml OUT={out} SETS='{sets}' timeout 900 sbatch --wait"
            " --nodes=1 --cpus-per-task=2 --time=15 --output=/root/job.log deploy/slurm.sbatch",
            patience=1000,
        )
    except Ended as error:
        raise Ended(f"{error}\n{world.run('host1', 'cat job.log; squeue; sinfo')}") from None
    return world.run("host1", "cat job.log")


def test_a_sweep_runs_as_a_job_and_a_bad_one_is_not_queued_again() -> None:
    with slurm(1) as world:
        home = world.home("host1")
        for attempt in range(STARTS):
            try:
                log = submit(world, "/root/out", SMALL)
                break
            except Ended as error:
                _skip_or_raise(error, attempt)
        print(log)
        world.run("host1", "orchestrate ledger verify out")
        assert not world.run("host1", "squeue --noheader").strip()
        assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
        with pytest.raises(Ended, match="ended with 2") as bad:
            submit(world, "/root/bad", "--set method.epoch=2")
        assert "queued again" not in str(bad.value)


def _skip_or_raise(error: Ended, attempt: int) -> None:
    if not any(text in str(error) for text in ABORTED):
        raise error
    if attempt == STARTS - 1:
        pytest.skip(f"Ray's own start failed {STARTS} times: {str(error)[-2000:]}")


def test_a_job_on_two_nodes_is_queued_again_when_its_time_is_up_and_goes_on(tmp_path: Path) -> None:
    """Two nodes with one rank each; the signal comes when a stage is in the middle."""
    with slurm(2, share=tmp_path) as world:
        # A compute node's home is the login node's.
        (world.home("host2") / ".ray").mkdir()
        (world.home("host1") / ".ray").mkdir()
        for host in ("host1", "host2"):
            (world.home(host) / ".ray/auth_token").write_text("0123456789abcdef" * 4)
            (world.home(host) / ".ray/auth_token").chmod(0o600)
        sets = "--set seeds=[0] --set method.epochs=60 --set resources.checkpoint_seconds=0"
        sets += " --set resources.workers=2 --set resources.max_concurrent=1"
        for attempt in range(STARTS):
            try:
                _requeue(world, tmp_path, f"out{attempt}", sets)
                break
            except Ended as error:
                _skip_or_raise(error, attempt)
        out = f"out{attempt}"
        world.run(
            "host1",
            f"OMP_NUM_THREADS=1 orchestrate sweep smoke.yaml --local --out /srv/shared/calm {sets}",
        )
        lines, same = compare(str(tmp_path / "calm"), str(tmp_path / out))
        assert same, lines
        print(*lines, sep="\n")


def _requeue(world: Hosts, share: Path, out: str, sets: str) -> None:
    said = world.run(
        "host1",
        f"cd ~/orchestrate; rm -f /root/job.log; SPEC=smoke.yaml OUT=/srv/shared/{out}"
        f" SETS='{sets}' sbatch --nodes=2 --cpus-per-task=1 --time=60 --output=/root/job.log"
        " deploy/slurm.sbatch",
    )
    job = re.findall(r"\d+", said)[-1]
    home = world.home("host1")

    def ended() -> bool:
        state = world.run("host1", f"scontrol show job {job}")
        return bool(re.search("JobState=(COMPLETED|FAILED|CANCELLED)", state))

    def in_mid_stage() -> bool:
        log = (home / "job.log").read_text() if (home / "job.log").exists() else ""
        if any(text in log for text in ABORTED) or ended():
            raise Ended(f"ended early: {log}")
        return bool(list(share.glob(f"{out}/stages/*/epoch-*.ckpt")))

    try:
        until("a stage has a checkpoint", in_mid_stage, world)
        assert "ray::Rank" in world.run("host2", "ps -eo args")
        assert "ray::Rank" in world.run("host1", "ps -eo args")
        world.run("host1", f"scancel --signal=USR1 --batch {job}")
        until("the job has ended", ended, world)
        log = world.run("host1", "cat job.log")
        print(log)
        assert "time is nearly up: the job is queued again and goes on" in log, log
        state = world.run("host1", f"scontrol show job {job}")
        assert "JobState=COMPLETED" in state and "Restarts=1" in state, f"{state}\n{log}"
    finally:
        world.run("host1", f"scancel {job}; true")
