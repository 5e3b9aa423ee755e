"""deploy/slurm.sbatch on a real SLURM."""

from __future__ import annotations

import subprocess

import pytest

from tests.cloud.conftest import HERE, PROGRAMS, Ended, Hosts, hosts, need, ship

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SLURM = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
STARTS = 3
"""Ray gives its daemons 15 s to start, which a crowded machine may not."""
SMALL = "--set seeds=[0] --set method.epochs=2"


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
    need(PROGRAMS | SLURM)
    with hosts(1) as world:
        home = world.home("host1")
        ship(home / "orchestrate")
        world.run("host1", "bash ~/orchestrate/tests/cloud/setup_host.sh")
        world.run("host1", "echo 'export PATH=$HOME/venv/bin:$PATH' >> ~/.bashrc")
        subprocess.run([str(HERE / "slurm.sh"), "start", str(world.folder), "1"], check=True)
        for attempt in range(STARTS):
            try:
                log = submit(world, "/root/out", SMALL)
                break
            except Ended as error:
                if "has died" not in str(error) and "Failed to start Ray" not in str(error):
                    raise
                if attempt == STARTS - 1:
                    pytest.skip(f"Ray's own start failed {STARTS} times: {str(error)[-2000:]}")
        print(log)
        world.run("host1", "orchestrate ledger verify out")
        assert not world.run("host1", "squeue --noheader").strip()
        assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
        with pytest.raises(Ended, match="ended with 2") as bad:
            submit(world, "/root/bad", "--set method.epoch=2")
        assert "queued again" not in str(bad.value)
