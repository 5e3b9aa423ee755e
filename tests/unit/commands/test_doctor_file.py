"""What `doctor --cluster FILE` says of a cluster's file before the cluster is up."""

from __future__ import annotations

import json
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli
from orchestrator.commands import doctor_file
from orchestrator.engines.ray.cluster_file import Written, read

FILE = "cluster.local.yaml"
COMPLETE = """cluster_name: mine
provider:
  type: local
  head_ip: 127.0.0.1
  worker_ips: [localhost]
auth:
  ssh_user: me
  ssh_private_key: ~/.ssh/key
setup_commands:
  - echo 'export ORCHESTRATE_STATE=/srv/sweeps' >> ~/.bashrc
"""
ROOT = Path(__file__).parents[3]


class Greeting(socketserver.BaseRequestHandler):
    text = b"welcome\r\nSSH-2.0-test\r\n"

    def handle(self) -> None:
        self.request.sendall(self.text)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with a key and a token, a file of a cluster beside them, and an ssh port that answers
    on this machine.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "tmp"))
    for name in ("RAY_ADDRESS", "ORCHESTRATE_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in (".ssh/key", ".ray/auth_token"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("secret")
        path.chmod(0o600)
    (tmp_path / FILE).write_text(COMPLETE)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting) as server:
        monkeypatch.setattr(doctor_file, "SSH_PORT", server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield tmp_path
        server.shutdown()
        thread.join()


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """What it finds amiss; its exit status fits that."""
    code = cli.main(["doctor", "--cluster", *words, "--json"])
    told = json.loads(capsys.readouterr().out)
    found: list[dict[str, Any]] = [row for row in told["checks"] if row["state"] == "fail"]
    assert code == (2 if found else 0) and told["ok"] == (not found)
    return found


def test_a_complete_file_lacks_only_the_cluster(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--cluster", FILE]) == 2
    *_, last, verdict = capsys.readouterr().out.splitlines()
    assert last.endswith(
        f"not up yet: RAY_UP_enable_autoscaler_v2=0 ray up -y --no-config-cache {FILE}"
    )
    assert verdict == "nothing is missing but the cluster, which is not up"
    assert {path.name for path in home.iterdir()} == {".ssh", ".ray", FILE}


def test_a_file_of_a_cloud_is_brought_up_with_what_is_known_of_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "cluster.yaml").write_text("cluster_name: mine\nprovider: {type: aws}\n")
    assert [row["found"] for row in doctor(capsys, "cluster.yaml")] == [
        "not up yet: ray up -y cluster.yaml"
    ]


@pytest.mark.parametrize(
    ("broken", "check", "says"),
    [
        ("sed -i s/127.0.0.1/'<address of the head>'/ FILE", "file", "line 4: <address of the hea"),
        ("sed -i s./srv/sweeps.'<folder>'. FILE", "file", "line 10: <folder>"),
        ("rm .ssh/key", "ssh key", "~/.ssh/key"),
        ("rm .ray/auth_token", "token", "no file"),
        (": > .ray/auth_token", "token", "nothing in"),
        ("chmod 640 .ray/auth_token", "token", "mode 640"),
        # Nothing listens at that address of the loopback interface.
        ("sed -i s/localhost/127.0.0.3/ FILE", "machine", "127.0.0.3: no ssh server"),
        ("sed -i s/localhost/'not a name'/ FILE", "machine", "not a name: no ssh server"),
    ],
)
def test_what_is_missing_before_ray_up_is_one_line_with_its_fix(
    home: Path, capsys: pytest.CaptureFixture[str], broken: str, check: str, says: str
) -> None:
    subprocess.run(["bash", "-ec", broken.replace("FILE", FILE)], check=True)
    found, up = doctor(capsys, FILE)
    assert (found["check"], up["check"]) == (check, "up")
    assert says in found["found"] and found["fix"]


def test_another_server_at_that_port_is_no_machine(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greeting, "text", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert [row["check"] for row in doctor(capsys, FILE)] == ["machine", "machine", "up"]


@pytest.mark.parametrize("name", ["cluster.yaml", FILE])
def test_what_is_left_to_be_filled_in_stands_on_the_line_that_is_named(name: str) -> None:
    written = read(ROOT / name)
    assert isinstance(written, Written) and written.to_fill_in
    lines = (ROOT / name).read_text().splitlines()
    for line, text in written.to_fill_in:
        assert text in lines[line - 1]
    outside = [line.partition(" #")[0] for line in lines if not line.startswith("#")]
    assert {text for _, text in written.to_fill_in} >= {
        f"<{part.partition('>')[0]}>" for line in outside for part in line.split("<")[1:]
    }


def test_a_line_within_a_block_is_named_by_its_own_number(tmp_path: Path) -> None:
    text = "cluster_name: x\nprovider: {type: aws}\nsetup_commands:\n  - |\n    a\n    b <c>\n"
    (tmp_path / FILE).write_text(text)
    written = read(tmp_path / FILE)
    assert isinstance(written, Written) and written.to_fill_in == ((6, "<c>"),)
