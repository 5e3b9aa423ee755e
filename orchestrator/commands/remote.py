"""Sweeps that run on the cluster of this folder's cluster.yaml while this machine looks on:
`sweep`, `logs`, `stop` and `status` from a machine that is no node of the cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from orchestrator.commands import console
from orchestrator.commands.data_for_cluster import bring, checked, destination
from orchestrator.commands.packing import files_of, folder_of, for_shell
from orchestrator.commands.submissions import RemoteError, Submitted, check_is_new, known
from orchestrator.engines.ray import jobs
from orchestrator.engines.ray.cluster import running_here
from orchestrator.engines.ray.cluster_file import FILES, LaunchedCluster, Unused, look
from orchestrator.storage.opening import open_store
from orchestrator.sweeps.folder import code_hash
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import ClusterLost
from trainers.errors import UserError

HOME: Final = "~/orchestrate"
"""Where cluster.yaml brings the project to; below it is what a head keeps on its own disk."""
WITH_REPORT: Final = (0, 1, 4)
"""Exit statuses of a sweep that has written its report."""
STOP_SECONDS: Final = 120.0


def find(
    named: str | None, folder: Path | None = None, *, before: Callable[[], str] | None = None
) -> LaunchedCluster | None:
    """Returns the cluster that a sweep of this folder runs on; None if it runs on this machine,
    after a line that says why a file of a cluster is not used.

    Args:
        named: the cluster's file, as given; None: those of the folder are looked at, unless a Ray
            is named or runs here.
        before: what comes before that line; returns the sweep's name.

    Raises:
        RemoteError: the file that was named is of no cluster that is up, the folder has two that
            are, or the sweep was submitted to one that is not up now.
    """
    if named is not None:
        found = look(Path(named).absolute())
        if not isinstance(found, LaunchedCluster):
            why = found.reason if found else "is not a file of Ray's cluster launcher"
            raise RemoteError(f"{named}: {why}, so nothing can run on it")
        return found
    if os.environ.get("RAY_ADDRESS"):
        return None
    looked = [found for name in FILES if (found := look((folder or Path.cwd()) / name))]
    clusters = [found for found in looked if isinstance(found, LaunchedCluster)]
    if not looked or running_here() is not None:
        return None
    if len(clusters) > 1:
        raise RemoteError(
            "two clusters of this folder are up; say on which to run: "
            + " or ".join(f"--cluster {found.file.name}" for found in clusters)
        )
    if clusters:
        return clusters[0]
    if before is not None:
        check_is_new(before(), [found.file for found in looked])
    unused = "; ".join(str(found) for found in looked if isinstance(found, Unused))
    print(console.escaped(f"on this machine: {unused}"), file=sys.stderr)
    return None


def project_version() -> str:
    """Returns the project's version here, with the start of its code's digest."""
    try:
        version = metadata.version("one-bit-orchestrator")
    except metadata.PackageNotFoundError:
        version = "not installed"
    return f"{version}+{code_hash()[:12]}"


def check_version(expected: str) -> None:
    """Raises RemoteError where this machine, a cluster's head, has another version than the one
    that submits a sweep to it.
    """
    if expected != project_version():
        raise RemoteError(
            f"the head has version {project_version()} of this project and the machine that"
            f" submitted the sweep {expected}. Bring its files here, which starts Ray anew: ray up"
            " -y cluster.yaml; then give the same command again"
        )


def sweep(
    cluster: LaunchedCluster,
    written: str,
    overrides: Sequence[str],
    options: Sequence[str],
    *,
    out: str | None,
    wait: bool,
    as_json: bool,
    insecure: bool = False,
) -> int:
    """Submits a sweep to the cluster, or comes back to it where it runs already; shows its progress
    to its end and brings the report home. Returns the sweep's exit status.

    Args:
        written: the spec, as given.
        options: of `sweep`, for the head.
        wait: for its end.
        insecure: also to a cluster that asks for no access token.
    """
    gathered, spec = checked(written, overrides)
    name, place = gathered.name, place_of(cluster, gathered.name, out)
    base = f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    files, location = files_of(gathered), destination(cluster, place, gathered, spec)
    note = Submitted(
        name=name,
        base=base,
        place=place,
        file=str(cluster.file),
        report=str(_home_of_report(place, cluster)),
    )
    _say(f"on {cluster}, not on this machine (--local) -> {place}")
    with jobs.tunnel(cluster) as address:
        head = jobs.Head(cluster, address)
        if not insecure:
            head.check_guarded()
        number, job = head.latest(base)
        there = overrides
        if location is not None and spec is not None:
            there = bring(cluster, location, gathered, spec, overrides)
        words = ["--expect", project_version(), "--out", place, *options]
        words += [word for text in there for word in ("--set", text)]
        command = f"orchestrate sweep {for_shell(next(iter(files)), *words)}"
        digest = hashlib.sha256(json.dumps([command, files]).encode()).hexdigest()
        if job is not None and not job.status.is_terminal():
            if (job.metadata or {}).get("spec") != digest:
                raise RemoteError(
                    f"{base}-{number} runs there with another spec, --set or version at the same"
                    f" place. End it: orchestrate stop {base}; or choose another --out"
                )
            _say(f"{base}-{number} runs there already; coming back to it")
        else:
            number += 1
            with folder_of(files) as folder:
                head.submit(
                    f"{base}-{number}",
                    f"COLUMNS={shutil.get_terminal_size((100, 24)).columns} {command}",
                    files=folder,
                    notes={"spec": digest},
                )
            _say(f"submitted as {base}-{number}")
        note.write()
        if not wait:
            _say(_come_back(note))
            return 0
        return _follow(note, cluster, f"{base}-{number}", head, as_json=as_json)


def logs(word: str, *, as_json: bool = False) -> int:
    """Shows the progress of a sweep that was submitted, to its end. Returns its exit status."""
    note = known(word)
    with _latest(note) as (cluster, head, job):
        return _follow(note, cluster, job.submission_id, head, as_json=as_json)


def stop(word: str) -> int:
    """Stops a sweep that was submitted, in good order. Returns the exit status."""
    note = known(word)
    with _latest(note) as (_, head, job):
        if job.status.is_terminal():
            _say(f"{job.submission_id} has ended already ({job.status.value.lower()})")
            return 0
        head.stop(job.submission_id)
        deadline = time.monotonic() + STOP_SECONDS
        while not head.info(job.submission_id).status.is_terminal():
            if time.monotonic() > deadline:
                raise RemoteError(
                    f"{job.submission_id} has not stopped after {STOP_SECONDS:g} s; look at it"
                    f" with: orchestrate logs {note.base}"
                )
            time.sleep(1)
        _say(f"{job.submission_id} has stopped; the same `sweep` command goes on with it")
    return 0


def status(note: Submitted, *, as_json: bool) -> int:
    """Prints where a submitted sweep stands, as its head sees it. Returns the exit status."""
    with _latest(note) as (cluster, head, job):
        _say(f"{job.submission_id} on {cluster}: {job.status.value.lower()}")
        asked = f"{note.base}-status-{time.time_ns()}"
        state = "ended" if job.status.is_terminal() else "running"
        words = [note.place, "--job", state, *(["--json"] if as_json else [])]
        columns = shutil.get_terminal_size((100, 24)).columns
        head.submit(asked, f"COLUMNS={columns} orchestrate status {for_shell(*words)}", notes={})
        info = jobs.follow(cluster, asked, head, _show(sys.stdout))
        return exit_status_of(info)


@contextmanager
def _latest(note: Submitted) -> Iterator[tuple[LaunchedCluster, jobs.Head, Any]]:
    cluster = note.cluster()
    with jobs.tunnel(cluster) as address:
        head = jobs.Head(cluster, address)
        _, job = head.latest(note.base)
        if job is None:
            raise RemoteError(
                f"{cluster} knows nothing of {note.base}: it is another cluster than the one that"
                " it was submitted to. The same `sweep` command goes on with it if its records are"
                " still there"
            )
        yield cluster, head, job


def _follow(
    note: Submitted, cluster: LaunchedCluster, job: str, head: jobs.Head, *, as_json: bool
) -> int:
    try:
        info = jobs.follow(cluster, job, head, _show(sys.stderr if as_json else sys.stdout))
    except KeyboardInterrupt:
        _say(f"detached; {_come_back(note)}")
        return 130
    code = exit_status_of(info)
    if code in WITH_REPORT:
        page = _bring_report(note, cluster)
        if page is not None:
            _say(f"the report is here: {page / 'report.html'}")
            if as_json:
                sys.stdout.write((page / "report.json").read_text(encoding="utf-8"))
    return code


def exit_status_of(info: Any) -> int:
    """Returns the status with which the command on the head ended."""
    code = info.driver_exit_code
    if code is not None and code >= 0:
        return int(code)
    if info.status.value == "STOPPED":
        _say("it was stopped there; the same command goes on with it")
        return 130
    reason = " ".join((info.message or "").split())[:300]
    _say(f"it did not end by itself ({reason}); the same command goes on with it")
    return ClusterLost.exit_status


def _come_back(note: Submitted) -> str:
    return (
        "the sweep goes on there. Come back to it with the same command, or: orchestrate logs"
        f" {note.base}; end it: orchestrate stop {note.base}"
    )


def _bring_report(note: Submitted, cluster: LaunchedCluster) -> Path | None:
    """Copies the report to this machine and returns its folder; None, after a message, where it
    could not be copied.
    """
    folder = Path(note.report)
    folder.mkdir(parents=True, exist_ok=True)
    if "://" in note.place:
        try:
            layout = SweepLayout(open_store(note.place))
            for name in layout.store.names(layout.report):
                (folder / Path(name).name).write_bytes(layout.store.get(name))
        except UserError as error:
            _not_here(note, str(error))
            return None
        return folder
    done = subprocess.run(
        [
            jobs.ray_command(),
            "rsync-down",
            str(cluster.file),
            f"{note.place}/report/",
            f"{folder}/",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not (folder / "report.json").is_file():
        said = " ".join((done.stderr or done.stdout).split())
        _not_here(note, said[-300:])
        return None
    return folder


def _not_here(note: Submitted, reason: str) -> None:
    _say(f"the report could not be brought here ({reason}); it is in {note.place}/report")


def _home_of_report(place: str, cluster: LaunchedCluster) -> Path:
    # As the place: two sweeps of one spec do not replace each other's.
    name = place.rstrip("/").rpartition("/")[2]
    own = Path("runs", name).absolute()
    # A sweep of that name that was run on this machine keeps its own.
    layout = SweepLayout(open_store(own))
    taken = layout.store.has(layout.resolved)
    return own.with_name(f"{name}-on-{cluster.name}" if taken else name) / "report"


def place_of(cluster: LaunchedCluster, name: str, out: str | None) -> str:
    """Returns where the sweep is kept, as the head sees it."""
    if out is None:
        return f"{cluster.state.rstrip('/')}/{name}" if cluster.state else f"{HOME}/runs/{name}"
    return out if "://" in out or out.startswith(("/", "~")) else f"{HOME}/{out}"


def _show(stream: Any) -> Any:
    def show(text: str) -> None:
        stream.write(console.escaped(text))
        stream.flush()

    return show


def _say(text: str) -> None:
    print(console.escaped(text), file=sys.stderr, flush=True)
