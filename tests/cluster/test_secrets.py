"""Credentials are found by each machine for itself and stand nowhere else: planted on a laptop and
on the head that it submits to, they are in no file, object, message or record of a sweep, nor in
what Ray keeps.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.helpers import house
from tests.helpers.ray_head import ray_head
from tests.helpers.real_sweep import PATIENCE
from tests.helpers.s3_server import BUCKET, environment, moto, objects
from tests.helpers.sweeps import TINY_SPEC

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BIN = Path(sys.executable).parent
TOKEN = "0planted0token0of0the0cluster0" * 2
NEVER_SENT = "planted-in-a-file-beside-the-spec"
LAPTOP = """
import sys
from contextlib import nullcontext
from orchestrator import cli
from orchestrator.engines.ray import jobs
# Where ssh would lead.
jobs.tunnel = lambda cluster: nullcontext(sys.argv[1])
sys.exit(cli.main(sys.argv[2:]))
"""
STATE = """
import sys
from ray.job_submission import JobSubmissionClient
from ray.util import state
told = [str(job) for job in JobSubmissionClient(sys.argv[1]).list_jobs()]
for kind in ("actors", "tasks", "workers", "jobs", "nodes", "runtime_envs", "placement_groups"):
    found = getattr(state, f"list_{kind}")(
        address=sys.argv[1], detail=True, limit=9999, raise_on_missing_output=False, timeout=120
    )
    told += [repr(row) for row in found]
print(*told, sep="\\n")
"""
CLUSTER = f"""
cluster_name: mine
provider: {{type: local, head_ip: 192.0.2.1, worker_ips: []}}
auth: {{ssh_user: me}}
setup_commands: ["export ORCHESTRATE_STATE=s3://{BUCKET}/kept"]
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A home folder with secrets in it, and an environment that has others."""

    home: Path
    env: dict[str, str]
    secrets: tuple[str, ...]
    """But for the token, which both have."""


def machine(folder: Path, name: str, endpoint: str) -> Machine:
    home = folder / name
    password, file_key = f"planted-password-{name}", f"planted/file+key/{name}"
    key, secret = f"PLANTEDKEY{name.upper()}", f"planted+secret/of/{name}"
    session = f"planted/session+token/of/{name}"
    for path, text in {
        ".ray/auth_token": TOKEN,
        ".aws/credentials": f"[other]\naws_access_key_id=X\naws_secret_access_key={file_key}\n",
    }.items():
        (home / path).parent.mkdir(parents=True)
        (home / path).touch(mode=0o600)
        (home / path).write_text(text)
    where = urlsplit(endpoint)
    env = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("RAY_", "TUNE_", "AWS_"))
    }
    env |= environment(f"{where.scheme}://planted-user:{password}@{where.netloc}")
    env |= {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": session,
        "HOME": str(home),
        "ORCHESTRATE_CACHE": str(home / "cache"),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(house.ROOT),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return Machine(home, env, (password, file_key, key, secret, session))


@contextmanager
def head(on: Machine, temp: Path) -> Iterator[str]:
    """A head with a dashboard on loopback; yields the address of that."""
    env = on.env | {"RAY_AUTH_MODE": "token", "TMPDIR": str(temp)}
    with ray_head(temp, env, ["--num-cpus=2"], dashboard=True, cwd=on.home) as started:
        yield f"http://127.0.0.1:{started.dashboard}"


def pieces(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, and what is packed into it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield str(path), content
            if zipfile.is_zipfile(io.BytesIO(content)):
                with zipfile.ZipFile(io.BytesIO(content)) as packed:
                    for name in packed.namelist():
                        yield f"{path}:{name}", packed.read(name)


def write_project(home: Path) -> Path:
    """Returns a folder with a spec of two files, a cluster that is up, and something of no
    concern to it.
    """
    (home / "tmp" / "ray").mkdir(parents=True)
    noted = {"192.0.2.1": {"tags": {}, "state": "running"}}
    (home / "tmp/ray/cluster-mine.state").write_text(json.dumps(noted))
    project = home / "project"
    project.mkdir()
    (project / "cluster.yaml").write_text(CLUSTER)
    (project / "base.yaml").write_text(TINY_SPEC)
    (project / "tiny.yaml").write_text("extends: base.yaml\nseeds: [0]\n")
    (project / ".env").write_text(NEVER_SENT)
    return project


@dataclass(slots=True)
class Laptop:
    """Commands of a user there."""

    machine: Machine
    project: Path
    said: dict[str, str]
    """What each command printed."""

    def run(self, address: str, *words: str, env: Mapping[str, str] | None = None) -> int:
        """Returns the exit status of a command with a way to the dashboard at `address`."""
        done = self._python(LAPTOP, address, *words, env=env or {})
        self.said[" ".join(words)] = done.stdout
        return done.returncode

    def ask_ray(self, address: str) -> None:
        """Notes what Ray tells of itself: jobs, runtime environments, actors."""
        done = self._python(STATE, address, env={"RAY_AUTH_MODE": "token"})
        assert done.returncode == 0, done.stdout
        assert "ResourceTrainable" in done.stdout and "working_dir" in done.stdout
        self.said["Ray's state"] = done.stdout

    def _python(
        self, code: str, *words: str, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words],
            env={**self.machine.env, "RAY_TMPDIR": str(self.machine.home / "tmp"), **env},
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=4 * PATIENCE,
        )


def test_planted_secrets_are_found_nowhere(temp: Path, tmp_path: Path) -> None:
    with moto() as endpoint:
        there, here = (machine(tmp_path, name, endpoint) for name in ("head", "laptop"))
        laptop = Laptop(here, write_project(here.home), {})
        with head(there, temp) as address:
            for words in (
                *(["submit", "tiny.yaml"], ["logs", "tiny"], ["sweep", "tiny.yaml"]),
                *(["status", "tiny"], ["doctor", "--cluster"]),
            ):
                assert laptop.run(address, *words) == 0, laptop.said
            laptop.ask_ray(address)
        found = list(objects(endpoint).items())
    # Of a server that is gone its address is said, and no password.
    gone = {"ORCHESTRATE_STORAGE_PATIENCE": "0.5"}
    words = ["resume", f"s3://{BUCKET}/kept/tiny", "--engine", "inline"]
    assert laptop.run("", *words, env=gone) == 5, laptop.said
    found += [(what, text.encode()) for what, text in laptop.said.items()]
    planted = [home / path for home in (there.home, here.home) for path in (".ray", ".aws")]
    found += [
        (name, content)
        for folder in (temp, tmp_path)
        for name, content in pieces(folder)
        if not any(Path(name).is_relative_to(original) for original in planted)
    ]
    # What is looked through is what is meant.
    for part in ("/logs/job-driver-", "working_dir_files", "manifest.json", "report.html", "gcs"):
        assert any(part in name for name, _ in found), part
    wanted = {TOKEN, NEVER_SENT, *there.secrets, *here.secrets}
    wanted |= {quote(secret, safe="") for secret in wanted}
    leaks = {
        (name, secret) for name, content in found for secret in wanted if secret.encode() in content
    }
    # The spec's own neighbour lies where it was put.
    assert leaks == {(str(laptop.project / ".env"), NEVER_SENT)}
