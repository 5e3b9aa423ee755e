"""A Ray that cannot be started or reached is told in one message, soon; real sockets and real Rays,
each in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from orchestrator.engines.ray import joining, preflight
from tests.helpers.ports import free_port
from tests.helpers.ray_head import RAY, ray_head

PATIENCE = 90.0
"""Far longer than any of this takes, on a busy machine too, and shorter than Ray's own waits of two
to three minutes.
"""


def _visit(*address: str, wrap: tuple[str, ...] = (), **env: str) -> dict[str, Any]:
    """What a fresh process says that connects to the address, or starts a Ray of its own."""
    command = [*wrap, sys.executable, "-m", "orchestrator.engines.ray.round_trip", *address]
    ended = subprocess.run(
        command, env=_environment() | env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "Traceback" not in ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def _refused(*address: str, wrap: tuple[str, ...] = (), **env: str) -> str:
    told = _visit(*address, wrap=wrap, **env)
    assert set(told) == {"problem"}, told
    problem: str = told["problem"]
    assert "\n" not in problem
    return problem


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    said = _refused(f"127.0.0.1:{free_port()}")
    assert "Connection refused" in said
    assert "ray start --head" in said


@pytest.mark.parametrize(
    "address", ["nowhere", "http://127.0.0.1:8265", "127.0.0.1:", ":6379", "127.0.0.1:port"]
)
def test_what_is_no_address_is_said_to_be_none(address: str) -> None:
    said = joining.check_address(address)
    assert said is not None
    assert "is not a Ray address" in said


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no-such-host.invalid:6379"])
def test_an_address_that_cannot_exist_is_refused(address: str) -> None:
    assert "nothing answers there" in (joining.check_address(address) or "")


def test_a_socket_that_never_answers_is_left_after_a_bounded_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        said = joining.check_address(f"127.0.0.1:{silent.getsockname()[1]}")
        assert said is not None
        assert "does not answer as the head of a Ray does" in said
        assert time.monotonic() - began < 6 * joining.ANSWER_SECONDS


def test_another_kind_of_server_is_not_taken_for_a_ray() -> None:
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        assert "does not answer as the head" in (
            joining.check_address(f"127.0.0.1:{server.server_port}") or ""
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_of_http2_is_taken_for_what_may_be_a_ray() -> None:
    """One byte at a time: a frame need not arrive whole."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                for byte in (0, 0, 0, 4, 0, 0, 0, 0, 0):
                    connection.sendall(bytes([byte]))
                # Until the other side closes.
                while connection.recv(64):
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert joining.check_address(f"127.0.0.1:{server.getsockname()[1]}") is None
        thread.join()


def test_a_token_that_this_user_should_present_and_does_not_have_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a Ray that wants none."""
    monkeypatch.setattr(joining, "attempt_join", lambda address, mode: joining.Attempt())
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert joining.check_access("127.0.0.1:1", insecure=True) is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    said = joining.check_access("127.0.0.1:1", insecure=True)
    assert "unset RAY_AUTH_MODE" in (said or "")
    _leave_token(tmp_path, "secret")
    assert joining.check_access("127.0.0.1:1", insecure=True) is None


def test_a_process_that_loaded_ray_too_early_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray reads whether to present a token when it is imported."""

    def attempt(address: str, mode: str) -> joining.Attempt:
        return joining.Attempt() if mode == "token" else joining.Attempt(refused=True, problem="x")

    monkeypatch.setattr(joining, "attempt_join", attempt)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.setitem(sys.modules, "ray", None)
    said = joining.check_access("127.0.0.1:1")
    assert said is not None
    assert "export RAY_AUTH_MODE=token" in said
    assert "secret" not in said
    monkeypatch.delitem(sys.modules, "ray")
    assert joining.check_access("127.0.0.1:1") is None
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_process_that_tries_to_join_and_gets_no_answer_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.01)
    attempt = joining.attempt_join("127.0.0.1:1", mode="disabled")
    assert not attempt.refused
    assert "had no answer within 0.01 s" in (attempt.problem or "")
    assert not any("try_join" in " ".join(child.cmdline()) for child in psutil.Process().children())


def test_a_temporary_folder_that_ray_cannot_use_is_named() -> None:
    assert "/proc/nothing cannot be written" in _refused(RAY_TMPDIR="/proc/nothing")
    with tempfile.TemporaryDirectory() as folder:
        deep = Path(folder) / ("x" * 80)
        assert "too long a path" in _refused(RAY_TMPDIR=str(deep))


def test_asking_for_a_running_ray_where_there_is_none_says_how_to_start_one() -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert "ray start --head" in _refused("auto", RAY_TMPDIR=folder)


def _namespaces() -> bool:
    """Whether this user may have networks of its own."""
    return (
        shutil.which("unshare") is not None
        and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _namespaces(), reason="needs the right to make a network namespace")
def test_a_machine_that_cannot_reach_itself_is_told_so_before_ray_waits() -> None:
    said = _refused(wrap=("unshare", "-n"))
    assert "refuses connections to itself" in said
    assert "--engine inline" in said


@dataclass(frozen=True, slots=True)
class Head:
    """A Ray that `ray start` runs, with a home and a temporary folder of its own."""

    address: str
    home: str
    temp: str
    token: str
    proxy: int
    """Port of its proxy, for ray:// addresses."""


def _leave_token(home: Path, token: str) -> None:
    """Where a Ray of this user's own leaves it."""
    (home / ".ray").mkdir(exist_ok=True)
    (home / ".ray" / "auth_token").write_text(token)


@contextmanager
def _head(
    guard: Literal["told", "found", "none"] = "told",
    program: tuple[str, ...] = (str(RAY),),
) -> Iterator[Head]:
    """Starts a head and ends it.

    Args:
        guard: whether its token is given to it, or lies in its home, where it finds it, or it has
            none.
        program: what is run as `ray`.
    """
    # A short path: Ray's sockets lie deep below it.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        env = _environment() | {"HOME": folder}
        token = secrets.token_hex(16)
        if guard == "told":
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        elif guard == "found":
            _leave_token(Path(folder), token)
        words = ["--node-ip-address=127.0.0.1", "--num-cpus=1"]
        with ray_head(Path(folder), env, words, program=program) as head:
            yield Head(f"127.0.0.1:{head.port}", folder, str(head.temp), token, head.proxy)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Head]:
    with _head() as head:
        yield head


@pytest.mark.slow
class TestAGuardedHead:
    """A head that asks for a token."""

    def test_a_visitor_without_a_token_is_told_to_fetch_it(self, guarded: Head) -> None:
        with tempfile.TemporaryDirectory() as home:
            assert "there is none here" in _refused(guarded.address, HOME=home)

    def test_a_wrong_token_is_told_from_none(self, guarded: Head) -> None:
        said = _refused(guarded.address, HOME=guarded.home, RAY_AUTH_TOKEN="another-secret")
        assert "refuses this user's access token" in said
        assert "another-secret" not in said

    def test_a_visitor_that_was_told_not_to_present_a_token_is_told_so(self, guarded: Head) -> None:
        assert "unset RAY_AUTH_MODE" in _refused(
            guarded.address, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN=guarded.token
        )

    def test_the_right_token_is_found_and_presented(self, guarded: Head) -> None:
        # Ray itself presents a token unasked only to a Ray that it found by itself.
        (Path(guarded.home) / ".ray").mkdir(exist_ok=True)
        (Path(guarded.home) / ".ray" / "auth_token").write_text(guarded.token)
        told = _visit(guarded.address, HOME=guarded.home)
        assert "1 node(s), 1 CPUs" in told["where"]
        (Path(guarded.home) / ".ray" / "auth_token").unlink()

    def test_the_ray_that_ray_start_left_running_is_found(self, guarded: Head) -> None:
        told = _visit(
            "auto", HOME=guarded.home, RAY_TMPDIR=guarded.temp, RAY_AUTH_TOKEN=guarded.token
        )
        # Ray calls this machine by its outer address, whichever it was given.
        assert guarded.address.rpartition(":")[2] + ":" in told["where"]


def _orchestrate(*words: str, **env: str) -> tuple[int, str]:
    """What a command of a user with this environment ends with, and says."""
    command = [sys.executable, "-m", "orchestrator", *words]
    environment = (
        {name: value for name, value in _environment().items() if name != "HOME"}
        | {"OMP_NUM_THREADS": "1"}
        | env
    )
    ended = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * PATIENCE,
    )
    return ended.returncode, ended.stdout


@pytest.mark.slow
class TestASweepJoinsARayThatRayStartStarted:
    """The command itself: its modules are loaded in its own order, of which Ray's first import
    reads whether to present a token.
    """

    @pytest.mark.parametrize(
        ("guard", "has_token"), [("found", True), ("none", True), ("none", False)]
    )
    def test_and_doctor_says_so(
        self, guard: Literal["found", "none"], has_token: bool, tmp_path: Path
    ) -> None:
        """One that asks for no token only where that is said."""
        with _head(guard) as head, tempfile.TemporaryDirectory() as home:
            if has_token:
                _leave_token(Path(home), head.token)
            env = {
                "HOME": home,
                "RAY_TMPDIR": head.temp,
                "ORCHESTRATE_CACHE": str(tmp_path / "cache"),
            }
            code, said = _orchestrate("doctor", "--out", str(tmp_path), "--json", **env)
            [here] = [check for check in json.loads(said)["checks"] if check["check"] == "ray here"]
            assert here["state"] == ("ok" if guard == "found" else "fail"), here
            short = ["--set", "method.epochs=1", "--set", "seeds=[0]"]
            short += ["--insecure"] if guard == "none" else []
            code, said = _orchestrate(
                "sweep", "smoke.yaml", "--out", str(tmp_path / "found"), *short, **env
            )
            assert code == 0, said
            assert head.address.rpartition(":")[2] + ": 1 node(s)" in said
            code, said = _orchestrate(
                "sweep",
                "smoke.yaml",
                "--address",
                head.address,
                "--out",
                str(tmp_path / "named"),
                *short,
                **env,
            )
            assert code == 0, said

    def test_but_not_without_its_token(self, tmp_path: Path) -> None:
        with _head("found") as head, tempfile.TemporaryDirectory() as home:
            env = {
                "HOME": home,
                "RAY_TMPDIR": head.temp,
                "ORCHESTRATE_CACHE": str(tmp_path / "cache"),
            }
            code, said = _orchestrate(
                "sweep", "smoke.yaml", "--out", str(tmp_path / "found"), **env
            )
            assert code == 2, said
            assert "Copy ~/.ray/auth_token from its head node" in said
            assert "Traceback" not in said
            code, said = _orchestrate("doctor", "--out", str(tmp_path), "--json", **env)
            [here] = [check for check in json.loads(said)["checks"] if check["check"] == "ray here"]
            assert here["state"] == "fail", here


@pytest.fixture(scope="module")
def unguarded() -> Iterator[Head]:
    with _head("none") as head:
        yield head


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
class TestARayThatAsksForNoToken:
    """It would run anybody's programs: nobody joins it who was not told to, each time."""

    @pytest.mark.parametrize("how", ["found here", "named", "of the environment", "by its proxy"])
    def test_is_refused_in_one_line_and_nothing_is_made(
        self, how: str, unguarded: Head, tmp_path: Path
    ) -> None:
        port = unguarded.address.rpartition(":")[2]
        words, env = {
            "found here": ([], {"RAY_TMPDIR": unguarded.temp}),
            "named": (["--address", unguarded.address], {}),
            "of the environment": ([], {"RAY_ADDRESS": unguarded.address}),
            "by its proxy": (["--address", f"ray://127.0.0.1:{unguarded.proxy}"], {}),
        }[how]
        (home := tmp_path / "home").mkdir()
        env |= {"HOME": str(home), "ORCHESTRATE_CACHE": str(tmp_path / "cache")}
        code, said = _orchestrate(
            "sweep", "smoke.yaml", "--out", str(tmp_path / "out"), *words, **env
        )
        assert code == 2, said
        [line] = said.splitlines()
        assert (str(unguarded.proxy) if how == "by its proxy" else port) in line
        assert "asks for no access token" in line
        assert "RAY_AUTH_MODE=token ray start --head" in line and "--insecure" in line
        assert list(tmp_path.rglob("*")) == [home]

    def test_is_taken_for_once_and_goes_on_record_nowhere(
        self, unguarded: Head, tmp_path: Path
    ) -> None:
        (home := tmp_path / "home").mkdir()
        env = {"HOME": str(home), "ORCHESTRATE_CACHE": str(tmp_path / "cache")}
        out, where = str(tmp_path / "out"), ["--address", unguarded.address]
        # A limit of its own ends it before the end.
        words = ["sweep", "smoke.yaml", "--out", out, "--set", "resources.max_hours=1e-9"]
        assert _orchestrate(*words, *where, "--insecure", **env)[0] == 4
        kept = _files(tmp_path)
        for begun in (words, ["resume", out], ["retry", out]):
            code, said = _orchestrate(*begun, *where, **env)
            assert code == 2 and "--insecure" in said, said
            assert _files(tmp_path) == kept
        assert not [name for name, content in kept.items() if b"insecure" in content]
        code, said = _orchestrate("resume", out, *where, "--insecure", **env)
        assert code == 4, said


@pytest.mark.parametrize("mode", ["disabled", ""])
def test_a_ray_of_ones_own_without_a_token_is_refused(mode: str, tmp_path: Path) -> None:
    code, said = _orchestrate(
        *("sweep", "smoke.yaml", "--local", "--out", str(tmp_path / "out")),
        HOME=str(tmp_path),
        RAY_AUTH_MODE=mode,
        ORCHESTRATE_CACHE=str(tmp_path / "cache"),
    )
    assert code == 2, said
    assert said.count("\n") == 1 and "unset RAY_AUTH_MODE" in said and "--insecure" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_token_that_is_made_was_never_readable_by_others(tmp_path: Path) -> None:
    """Whoever reads it once has it: Ray itself makes it readable by everyone."""
    seen: set[int] = set()
    token, stop = tmp_path / ".ray" / "auth_token", threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            with suppress(FileNotFoundError):
                seen.add(token.stat().st_mode & 0o777)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    command = [sys.executable, "-m", "orchestrator.engines.ray.round_trip"]
    # Whether Ray comes up within the time that it gives itself is another matter.
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command,
            env=_environment() | {"HOME": str(tmp_path)},
            capture_output=True,
            timeout=PATIENCE,
        )
    stop.set()
    thread.join()
    assert seen == {0o600}
    assert len(token.read_text()) == 64 and list(token.parent.iterdir()) == [token]


def test_many_that_make_a_token_at_once_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    read: list[str | None] = []

    def make() -> None:
        joining.protect_token()
        read.append(joining.own_token())

    threads = [threading.Thread(target=make, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 8 and len(set(read)) == 1 and None not in read


def test_a_dashboard_that_answers_other_machines_without_a_token_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On an interface of this machine that others reach."""
    status = [200]

    class Dashboard(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    host = preflight.node_ip()
    if host == "127.0.0.1":
        pytest.skip("this machine has no network")
    server = HTTPServer((host, 0), Dashboard)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def attempt(address: str, mode: str) -> joining.Attempt:
        if mode == "disabled":
            return joining.Attempt(refused=True, problem="no token")
        return joining.Attempt(dashboard=f"{host}:{server.server_port}")

    monkeypatch.setattr(joining, "attempt_join", attempt)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    try:
        said = joining.check_access("127.0.0.1:1") or ""
        assert f"{host}:{server.server_port}" in said and "--dashboard-host=127.0.0.1" in said
        assert joining.check_access("127.0.0.1:1", insecure=True) is None
        status[0] = 401
        assert joining.check_access("127.0.0.1:1") is None
        status[0] = 200
        monkeypatch.setattr(joining, "is_loopback", lambda name: name == host)
        assert joining.check_access("127.0.0.1:1") is None
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "[::1]", "localhost"])
def test_what_only_this_machine_reaches(host: str) -> None:
    assert joining.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.2", "[fd00::2]", "head.example"])
def test_what_others_reach(host: str) -> None:
    assert not joining.is_loopback(host)


@pytest.mark.slow
def test_a_version_that_differs_is_named_on_both_sides() -> None:
    pretend = (
        "import sys, ray; from ray.scripts.scripts import main; ray.__version__ = '2.44.0';"
        " sys.exit(main())"
    )
    with (
        _head(program=(sys.executable, "-c", pretend)) as head,
        tempfile.TemporaryDirectory() as home,
    ):
        said = _refused(head.address, HOME=home, RAY_AUTH_TOKEN=head.token)
    assert f"is Ray 2.44.0 on Python {platform.python_version()}" in said
    assert f"Ray {metadata.version('ray')} on Python" in said


GROUPS = Path("/sys/fs/cgroup/memory")


def _group(name: str) -> Path | None:
    """A memory control group of 900 MiB (version 1); None where this user may not make one."""
    group = GROUPS / name
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(900 * 2**20))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        return None
    return group


def test_a_container_with_too_little_memory_is_told_so_whatever_the_machine_has() -> None:
    group = _group(f"orchestrate-test-{os.getpid()}")
    if group is None:
        pytest.skip("needs the right to make a memory control group")
    try:
        said = _refused(wrap=("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"))
    finally:
        group.rmdir()
    assert "GiB of memory are available" in said
    assert "--engine inline" in said
