"""What `doctor --cluster FILE` says of a cluster's file: what `ray up` would lack, and where what
runs is not what the file says.
"""

from __future__ import annotations

import json
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import cli
from orchestrator.commands import doctor_cluster, doctor_file
from orchestrator.commands.doctor_file import Declared
from orchestrator.commands.finding import Finding
from orchestrator.engines.ray import jobs, joining
from orchestrator.engines.ray.cluster_file import Written, read
from tests.unit.commands.test_doctor_cluster import HEAD, answer, first, node

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
    for name in ("RAY_ADDRESS", "ORCHESTRATE_STATE", Declared.VARIABLE):
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


def compared(declared: Declared, *alive: dict[str, Any]) -> list[Finding]:
    return list(declared.compare(f"{HEAD}:6379", alive))


def declared_by(*workers: str) -> Declared:
    return Declared(file=FILE, machines=[HEAD, *workers], state=None)


WORKERS = st.sets(st.integers(2, 9).map("10.0.0.{}".format))


@given(named=WORKERS, alive=WORKERS)
def test_it_fails_if_fewer_machines_are_alive_than_the_file_names(
    named: set[str], alive: set[str]
) -> None:
    [found] = compared(declared_by(*sorted(named)), node(HEAD), *map(node, alive))
    assert (found.state == "fail") == (len(alive) < len(named))
    assert (found.state == "ok") == (named <= alive) == (not found.fix)
    for missing in sorted(named - alive)[: doctor_file.SHOWN]:
        assert missing in found.found


def test_a_machine_that_is_missing_is_named_with_how_it_is_started() -> None:
    [found] = compared(declared_by("10.0.0.2", "10.0.0.3"), node("10.0.0.2"), node(HEAD))
    assert found.found == f"2 of 3 machines of {FILE} are there; 10.0.0.3 is not"
    for way in ("a minute", "address", "RAY_UP_enable_autoscaler_v2=0", f"--address={HEAD}:6379"):
        assert way in found.fix


def test_a_head_at_another_address_and_a_worker_by_its_name_are_there() -> None:
    declared = Declared(file=FILE, machines=["192.0.2.1", "localhost"], state=None)
    [found] = compared(declared, node(HEAD), node("127.0.0.1"))
    assert found.state == "ok"


@pytest.mark.parametrize(
    ("here", "state"),
    [
        ("s3://b/sweeps", "ok"),
        ("s3://b/sweeps/", "ok"),
        ("s3://b/old", "fail"),
        (None, "warn"),
    ],
)
def test_another_place_in_the_environment_of_the_head_is_named_with_that_of_the_file(
    here: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATE_STATE", raising=False)
    if here is not None:
        monkeypatch.setenv("ORCHESTRATE_STATE", here)
    for written in ("s3://b/sweeps/", "s3://b/sweeps"):
        [found] = compared(Declared(file=FILE, machines=[], state=written))
        assert found.state == state
    assert bool(found.fix) == (state != "ok")
    if state == "fail":
        assert "s3://b/old" in found.found and "s3://b/sweeps" in found.found


def test_the_line_that_is_given_corrects_the_place_and_leaves_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = home / ".bashrc"
    login.write_text(
        "export PATH=$HOME/venv/bin:$PATH ORCHESTRATE_STATE=/old RAY_AUTH_MODE=token\n"
    )
    monkeypatch.setenv("ORCHESTRATE_STATE", "/old")
    [found] = compared(Declared(file=FILE, machines=[], state="/srv/new"))
    command = found.fix.split("'")[1]
    subprocess.run(["bash", "-c", command], check=True)
    assert login.read_text() == (
        "export PATH=$HOME/venv/bin:$PATH ORCHESTRATE_STATE=/srv/new RAY_AUTH_MODE=token\n"
    )


def test_the_head_judges_by_the_file_of_the_machine_that_asks(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command on the one machine, by the shell of the head, to its verdict there."""
    (home / FILE).write_text(
        COMPLETE.replace("127.0.0.1", HEAD).replace("localhost", "10.0.0.2, 10.0.0.3")
    )
    (home / "tmp/ray").mkdir(parents=True)
    (home / "tmp/ray/cluster-mine.state").write_text(json.dumps({HEAD: {"state": "running"}}))
    submitted: list[str] = []
    head = SimpleNamespace(
        check_guarded=lambda: None,
        submit=lambda job, command, notes: submitted.append(command),
    )
    monkeypatch.setattr(jobs, "tunnel", lambda cluster: nullcontext("http://127.0.0.1:1"))
    monkeypatch.setattr(jobs, "Head", lambda cluster, address: head)
    ended = SimpleNamespace(driver_exit_code=2)
    monkeypatch.setattr(jobs, "follow", lambda *words: ended)
    assert cli.main(["doctor", "--cluster", FILE]) == 2
    [command] = submitted
    told = subprocess.run(
        ["bash", "-c", f"orchestrate() {{ echo ${Declared.VARIABLE}; echo $*; }}; {command}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert told[1] == "doctor --cluster --out /srv/sweeps"

    monkeypatch.setenv(Declared.VARIABLE, told[0])
    monkeypatch.setenv("ORCHESTRATE_STATE", "/srv/old")
    monkeypatch.setenv("RAY_ADDRESS", f"{HEAD}:6379")
    for name in ("check_address", "check_access"):
        monkeypatch.setattr(joining, name, lambda address: None)
    answers = [answer(HEAD), answer("10.0.0.2")]
    monkeypatch.setattr(doctor_cluster, "_ask", lambda address, out: (first(), answers))
    capsys.readouterr()
    machines, state = doctor(capsys, "--out", "/srv/sweeps")
    assert machines["found"] == f"2 of 3 machines of {FILE} are there; 10.0.0.3 is not"
    assert "/srv/old" in state["found"] and "/srv/sweeps" in state["found"]


def test_a_machine_of_the_cluster_is_judged_by_the_file_that_is_named_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / FILE).write_text(COMPLETE.replace("localhost", "10.0.0.3"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setenv("ORCHESTRATE_STATE", "/srv/sweeps")
    for name in ("check_address", "check_access"):
        monkeypatch.setattr(joining, name, lambda address: None)
    told = (first(node(HEAD)), [answer(HEAD)])
    monkeypatch.setattr(doctor_cluster, "_ask", lambda address, out: told)
    [found] = doctor(capsys, FILE)
    assert found["found"] == f"1 of 2 machines of {FILE} are there; 10.0.0.3 is not"
