"""Whether a sweep goes to the cluster of this folder's cluster.yaml or stays here is read from
files of this machine.
"""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.commands import remote
from orchestrator.commands.data_for_cluster import bring, checked, destination
from orchestrator.commands.submissions import Submitted, submitted
from orchestrator.engines.ray import jobs
from orchestrator.engines.ray.cluster import ClusterFailed
from orchestrator.engines.ray.cluster_file import LaunchedCluster, Unused, look
from tests.helpers.s3_server import BUCKET, Fault, Proxy, moto, objects, use
from tests.helpers.small_sweep import SPEC, write_data

LOCAL = """
cluster_name: mine
provider: {type: local, head_ip: 192.0.2.1, worker_ips: [192.0.2.2]}
auth: {ssh_user: me}
setup_commands: ["echo 'export ORCHESTRATE_STATE=/srv/sweeps' >> ~/.bashrc; sort <in >out"]
"""
AWS = """
cluster_name: mine
provider: {type: aws, region: us-west-2}
auth: {ssh_user: ubuntu}
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ray's folder, the cache and the working folder are the test's own."""
    folder = tmp_path / "tmp"
    (folder / "ray").mkdir(parents=True)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def note_local(temporary: Path, state: str = "running", head: str = "192.0.2.1") -> None:
    """Notes what `ray up` does of a cluster of one's own machines."""
    nodes = {head: {"tags": {"ray-node-type": "head"}, "state": state}}
    (temporary / "ray/cluster-mine.state").write_text(json.dumps(nodes))


def note_cloud(temporary: Path, name: str = "mine", region: str = "us-west-2") -> None:
    """Keeps what `ray up` does of a cluster in a cloud."""
    provider = {"type": "aws", "region": region, "cache_stopped_nodes": False}
    config = {"cluster_name": name, "provider": provider}
    (temporary / "ray-config-0123").write_text(json.dumps({"_version": 1, "config": config}))


def write(text: str, name: str = "cluster.yaml") -> Path:
    path = Path.cwd() / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [LOCAL, AWS])
def test_a_cluster_that_was_never_brought_up_is_one_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(text)
    assert remote.find(None) is None
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "cluster.yaml is not up (ray up cluster.yaml)" in said.err


def test_a_file_with_names_left_out_is_one_line_even_if_one_of_its_name_is_up(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_local(temporary)
    write(LOCAL.replace("192.0.2.2", "<address>"))
    assert remote.find(None) is None
    assert capsys.readouterr().err == (
        "on this machine: cluster.yaml has <address> left to be filled in\n"
    )


def test_the_files_that_ship_stay_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    for name in ("cluster.yaml", "cluster.local.yaml"):
        assert isinstance(look(root / name), Unused)


def test_a_comment_or_a_redirection_is_nothing_to_fill_in(temporary: Path) -> None:
    note_local(temporary)
    found = look(write(f"# <address>\n{LOCAL}"))
    assert isinstance(found, LaunchedCluster)
    assert (found.name, found.head, found.state) == ("mine", "192.0.2.1", "/srv/sweeps")


def test_a_cluster_counts_as_up_by_its_own_record_alone(temporary: Path) -> None:
    local, cloud = write(LOCAL), write(AWS, "cloud.yaml")
    note_local(temporary, state="terminated")
    assert isinstance(look(local), Unused)
    note_local(temporary, head="192.0.2.9")
    assert isinstance(look(local), Unused)
    (temporary / "ray/cluster-mine.state").write_text("{")
    assert isinstance(look(local), Unused)
    note_cloud(temporary, name="other")
    assert isinstance(look(cloud), Unused)
    note_cloud(temporary, region="eu-west-1")
    assert isinstance(look(cloud), Unused)
    note_cloud(temporary)
    assert isinstance(look(cloud), LaunchedCluster)


@pytest.mark.parametrize("text", ["[", "{}", "cluster_name: x\n", "provider: {type: aws}\n"])
def test_any_other_file_of_that_name_stops_no_sweep(text: str) -> None:
    write(text)
    assert remote.find(None) is None


def test_a_folder_without_a_file_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert remote.find(None) is None
    assert capsys.readouterr().err == ""


def test_a_ray_that_is_named_is_taken_instead(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_local(temporary)
    write(LOCAL)
    assert remote.find(None) is not None
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.7:6379")
    assert remote.find(None) is None


def test_of_two_clusters_that_are_up_one_must_be_named(temporary: Path) -> None:
    note_local(temporary)
    note_cloud(temporary)
    write(AWS)
    write(LOCAL, "cluster.local.yaml")
    with pytest.raises(remote.RemoteError, match=r"--cluster cluster\.local\.yaml"):
        remote.find(None)
    found = remote.find("cluster.local.yaml")
    assert found is not None and found.provider == "local"


def test_a_file_that_is_named_must_be_of_a_cluster_that_is_up() -> None:
    write(LOCAL)
    with pytest.raises(remote.RemoteError, match="is not up"):
        remote.find("cluster.yaml")
    with pytest.raises(remote.RemoteError, match="is not a file of"):
        remote.find("absent.yaml")


def launcher_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Plays the program `ray`."""
    program = tmp_path / "ray-played"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(jobs, "ray_command", lambda: str(program))


@pytest.mark.parametrize("script", ["echo 'ssh: no route to host' >&2; exit 1", "sleep 60"])
def test_a_cluster_that_cannot_be_reached_is_one_message_and_nothing_runs(
    script: str,
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    note_local(temporary)
    write(LOCAL)
    launcher_that(tmp_path, monkeypatch, script)
    monkeypatch.setattr(jobs, "TUNNEL_SECONDS", 1.0)
    assert cli.main(["sweep", "smoke.yaml"]) == 2
    first, message = capsys.readouterr().err.splitlines()
    assert first == (
        "on cluster mine (cluster.yaml: local, head 192.0.2.1), not on this machine (--local) ->"
        " /srv/sweeps/smoke"
    )
    reason = "ssh: no route to host" if "route" in script else "no answer"
    assert f"cannot be reached ({reason})" in message and "ray up cluster.yaml" in message
    assert not (tmp_path / "runs").exists()


def test_a_head_whose_jobs_ask_for_no_token_is_handed_nothing(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.command)
            version = {"version": "4", "ray_version": "2.60.0", "ray_commit": ""}
            body = json.dumps([] if self.path.startswith("/api/jobs") else version).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    note_local(temporary)
    write(LOCAL)
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(jobs, "tunnel", lambda cluster: nullcontext(address))
        submitted: list[str] = []
        monkeypatch.setattr(
            jobs.Head, "submit", lambda self, job, command, **_: submitted.append(command)
        )
        try:
            assert cli.main(["submit", "smoke.yaml"]) == 2
            assert set(asked) == {"GET"} and not submitted
            line = capsys.readouterr().err.splitlines()[-1]
            assert line.startswith(
                "orchestrate: cluster mine (cluster.yaml: local, head 192.0.2.1)"
            )
            assert "RAY_AUTH_MODE=token" in line and "--insecure" in line
            assert not list(Path.cwd().glob("cache/submitted/*"))
            # The head is told too, for it joins its own Ray.
            assert cli.main(["submit", "smoke.yaml", "--insecure"]) == 0
            assert "--insecure" in submitted[0]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def own(temporary: Path) -> None:
    """A cluster is up, and a spec is of data on this machine."""
    note_local(temporary)
    write(LOCAL)
    write_data(Path("features.npz"))
    write(SPEC, "own.yaml")


@pytest.mark.usefixtures("own")
def test_data_of_this_machine_goes_to_no_folder_and_the_ways_out_are_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for given in ([], ["--set", "dataset.path=features.npz"]):
        assert cli.main(["sweep", "own.yaml", *given]) == 2
        said = capsys.readouterr().err
        assert "dataset.path = features.npz is on this machine" in said
        assert "rsync-up cluster.yaml features.npz" in said and "--out s3://BUCKET/" in said


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("given", "brought"),
    [
        ([], True),
        (["dataset.path=features.npz"], True),
        (["dataset.path=~/there.npz"], False),
        (["dataset.path=/srv/there.npz"], False),
        (["dataset.path=s3://other/features.npz"], False),
    ],
)
def test_data_goes_to_the_bucket_of_the_sweep_if_it_is_here(
    given: list[str], brought: bool
) -> None:
    gathered, spec = checked("own.yaml", given)
    found = look(Path("cluster.yaml"))
    assert isinstance(found, LaunchedCluster)
    location = destination(found, "s3://mine/sweeps/small", gathered, spec)
    assert location == ("s3://mine/sweeps/_data" if brought else None)


@pytest.mark.usefixtures("own")
def test_data_that_is_nowhere_and_a_spec_that_is_none_are_named_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for given, said in (
        ("dataset.path=nothing.npz", "nothing.npz"),
        ("method.epoch=1", "method.epoch"),
        ("method.epochs=0", "method.epochs"),
    ):
        assert cli.main(["sweep", "own.yaml", "--set", given, "--out", "s3://mine/x"]) == 2
        told = capsys.readouterr().err
        assert said in told and "cannot be reached" not in told


@pytest.mark.usefixtures("own")
def test_what_was_brought_is_named_by_its_content_and_put_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look(Path("cluster.yaml"))
    assert isinstance(found, LaunchedCluster)
    given = ["dataset.path=features.npz", "method.epochs=2"]
    with moto() as endpoint, use(endpoint):
        gathered, spec = checked("own.yaml", given)
        location = destination(found, f"s3://{BUCKET}/sweeps/small", gathered, spec)
        assert location is not None and spec is not None
        first = bring(found, location, gathered, spec, given)
        before = objects(endpoint)
        shutil.copy("features.npz", "renamed.npz")
        again = ["method.epochs=2", "dataset.path=renamed.npz"]
        gathered, spec = checked("own.yaml", again)
        assert spec is not None and bring(found, location, gathered, spec, again) == first
        assert objects(endpoint) == before
        # It is all that another machine needs.
        words = [word for text in first for word in ("--set", text)]
        Path("features.npz").unlink()
        monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
        assert cli.main(["sweep", "own.yaml", "--engine", "inline", "--out", "o", *words]) == 0
        write_data(Path("features.npz"), mended=True)
        gathered, spec = checked("own.yaml", given)
        assert spec is not None and bring(found, location, gathered, spec, given) != first


@pytest.mark.usefixtures("own")
def test_a_bucket_that_may_not_be_written_is_named_with_the_command_to_use() -> None:
    found = look(Path("cluster.yaml"))
    assert isinstance(found, LaunchedCluster)
    with moto() as endpoint, use(endpoint), Proxy(endpoint) as proxy, use(proxy.endpoint):
        proxy.decide = lambda method, path, headers: Fault.REFUSED if method == "PUT" else None
        gathered, spec = checked("own.yaml", [])
        assert spec is not None
        with pytest.raises(remote.RemoteError) as refused:
            bring(found, f"s3://{BUCKET}/sweeps/_data", gathered, spec, [])
    said = str(refused.value)
    assert refused.value.exit_status == 2
    assert f"data prepare features --path features.npz --to s3://{BUCKET}/sweeps/_data" in said
    assert "rsync-up cluster.yaml features.npz" in said


@pytest.mark.parametrize("words", [["--local"], ["--engine", "inline"], ["--address", "x:1"]])
def test_what_keeps_a_sweep_here_and_what_hands_it_over_exclude_each_other(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", "smoke.yaml", *words, "--cluster", "cluster.yaml"]) == 2
    assert "--cluster is for a sweep on a cluster" in capsys.readouterr().err


def test_nothing_is_submitted_where_no_cluster_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    for text in (None, AWS.replace("us-west-2", "<region>")):
        if text is not None:
            write(text)
        assert cli.main(["submit", "smoke.yaml"]) == 2
        assert "no cluster of this folder is up" in capsys.readouterr().err


def test_a_head_of_another_version_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", "smoke.yaml", "--expect", "0.0.1+0"]) == 2
    said = capsys.readouterr().err
    assert "0.0.1+0" in said and remote.project_version() in said and "ray up" in said


def test_a_sweep_that_nobody_submitted_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("logs", "stop"):
        assert cli.main([verb, "nothing"]) == 2
        assert "nothing: no such sweep was submitted" in capsys.readouterr().err


def test_a_head_that_knows_nothing_of_the_job_any_more_is_another(temporary: Path) -> None:
    """The connection is whole again, and the wait for it over."""
    note_local(temporary)
    write(LOCAL)
    found = look(Path("cluster.yaml"))
    assert isinstance(found, LaunchedCluster)

    class Another:
        def log(self, job: str, seen: int, show: object) -> int:
            raise jobs.LogLost(seen, "404")

        def has_lost(self, job: str) -> bool:
            return True

    with pytest.raises(ClusterFailed, match="small-1 any more: it was brought up anew") as lost:
        jobs.follow(found, "small-1", Another(), print)  # type: ignore[arg-type]
    assert lost.value.exit_status == 5


def note_submitted(place: str = "s3://lab/sweeps/deep", name: str = "smoke") -> Submitted:
    """Notes that a sweep was handed to the cluster of this folder."""
    base = f"{name}-{place.rpartition('/')[2]}"
    note = Submitted(
        name=name,
        base=base,
        place=place,
        file=str(Path("cluster.yaml").absolute()),
        report=str(Path("runs", place.rpartition("/")[2], "report").absolute()),
    )
    note.write()
    return note


def test_a_sweep_is_meant_by_its_name_job_place_its_last_part_or_folder() -> None:
    deep, wide = note_submitted(), note_submitted("s3://lab/sweeps/wide")
    for word in ("deep", "smoke-deep", "s3://lab/sweeps/deep", "runs/deep"):
        assert submitted(word) == deep
    # Of several of one spec, that of its own place or job first, else the last one.
    assert submitted("wide") == submitted("smoke") == wide
    smoke = note_submitted("s3://lab/sweeps/smoke")
    note_submitted("s3://lab/sweeps/later")
    assert submitted("smoke") == smoke
    assert submitted("other") is None


@pytest.mark.parametrize("verb", ["resume", "retry", "extend"])
def test_a_sweep_of_a_cluster_is_not_gone_on_with_on_the_laptop_by_mistake(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    note_submitted()
    more = ["-n", "2"] if verb == "extend" else []
    assert cli.main([verb, "s3://lab/sweeps/deep", *more]) == 2
    said = capsys.readouterr().err
    assert f"ray exec cluster.yaml 'orchestrate {verb} s3://lab/sweeps/deep'" in said
    assert "--local" in said and said.count("\n") == 1


def test_a_sweep_of_a_cluster_that_is_down_is_not_begun_anew_here(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_local(temporary, state="terminated")
    write(LOCAL)
    note_submitted()
    assert cli.main(["sweep", "smoke.yaml"]) == 2
    said = capsys.readouterr().err
    assert "smoke was submitted to the cluster of cluster.yaml" in said and "--local" in said
    assert not Path("runs").exists()


def test_where_a_sweep_stands_is_said_without_its_cluster(
    temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(Path("features.npz"))
    write(SPEC, "own.yaml")
    with moto() as endpoint, use(endpoint):
        place = f"s3://{BUCKET}/sweeps/deep"
        assert cli.main(["sweep", "own.yaml", "--engine", "inline", "--out", place]) == 0
        # Two sweeps of one spec have two reports at home.
        assert Path("runs/deep/report/report.html").exists() and not Path("runs/small").exists()
        write(LOCAL)
        note_submitted(place, "small")
        capsys.readouterr()
        assert cli.main(["status", "small"]) == 0
        said = capsys.readouterr()
        assert f"its cluster is not up; from its records in {place}:" in said.err
        assert "two rounds" in said.out
        assert cli.main(["status", f"s3://{BUCKET}/new", "--job", "running"]) == 0
        assert "nothing is on record yet" in capsys.readouterr().err
