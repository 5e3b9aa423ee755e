"""The verb `doctor`: what is missing on this machine, each with the command that fixes it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from orchestrator.commands import doctor_cluster, doctor_file, doctor_ray, doctor_versions
from orchestrator.commands.console import escaped
from orchestrator.commands.doctor_file import Declared
from orchestrator.commands.finding import Finding, NodeFinding, State
from orchestrator.data import prepare as datasets
from orchestrator.engines.ray import preflight as ray_setup
from orchestrator.engines.ray.cluster_file import Written, read
from orchestrator.engines.ray.preflight import GIB
from orchestrator.machine import usable_cpus
from orchestrator.storage.files import StorageError
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.user_files import cache_root
from trainers.errors import DataError, UserError, one_line

FEW_BYTES: Final = 2 * GIB
"""Free space below which a folder is worth a warning."""

_COLOURS: Final[dict[State, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(*, out: str | Path, with_ray: bool, as_json: bool) -> int:
    """Prints a line per check as it is done; returns 0 if none failed, else 2."""
    return _show(check(out, with_ray=with_ray), as_json=as_json)


def of_cluster(*, file: str, out: str | None, as_json: bool) -> int:
    """Prints what every machine of a cluster has and lacks; returns 0 if no check failed, else 2.

    Args:
        file: of the cluster, which is looked at from its head, or as it is written if the cluster
            is not up; empty: the cluster that this machine is a node of, else that of this folder's
            cluster.yaml or cluster.local.yaml.
    """
    address = doctor_cluster.running()
    if address is not None and not file:
        found = doctor_cluster.check(address, doctor_cluster.place(out), Declared.told())
        return _show(found, as_json=as_json)
    written = read(Path(file).absolute()) if file else None
    if isinstance(written, Written):
        declared = Declared.by(written)
        if address is not None and declared.includes_this_machine():
            place = doctor_cluster.place(out or written.state)
            return _show(doctor_cluster.check(address, place, declared), as_json=as_json)
        if written.to_fill_in or not written.is_up():
            return _show(doctor_file.check(written), as_json=as_json)
    from orchestrator.commands import doctor_on_head, remote

    cluster = remote.find(file or None)
    if cluster is None:
        raise UserError(
            "--cluster: this machine is no node of a running cluster, and no cluster of this folder"
            " was brought up from here (docs/cluster.md). What a file lacks before `ray up`:"
            " orchestrate doctor --cluster FILE"
        )
    return doctor_on_head.doctor(cluster, out=out, as_json=as_json)


def _show(found: Iterator[Finding], *, as_json: bool) -> int:
    console, findings = Console(), []
    for finding in found:
        findings.append(finding)
        if not as_json:
            console.print(_line(finding), soft_wrap=True)
    failed = sum(finding.state == "fail" for finding in findings)
    if as_json:
        json.dump(
            {"ok": not failed, "checks": [asdict(finding) for finding in findings]},
            sys.stdout,
            indent=1,
        )
        sys.stdout.write("\n")
    else:
        console.print(_verdict(findings))
    return 2 if failed else 0


def _verdict(findings: Sequence[Finding]) -> str:
    failed = [finding.check for finding in findings if finding.state == "fail"]
    others = len(failed) - failed.count(doctor_file.NOT_UP)
    if len(failed) == others:
        return f"{others} check(s) failed" if others else "nothing is missing"
    if others:
        return f"{others} check(s) failed, and the cluster is not up"
    return "nothing is missing but the cluster, which is not up"


def _line(finding: Finding) -> Text:
    # Names of folders and packages are others' text.
    check = f"{finding.check:14}"
    if isinstance(finding, NodeFinding):
        check = f"{finding.node or 'cluster':15} {finding.check:9}"
    line = Text.assemble(
        (f"{finding.state:5}", _COLOURS[finding.state]), f"{check} {escaped(finding.found)}"
    )
    if finding.fix:
        line.append(f"\n{'':5}{'':{len(check)}} fix: {escaped(finding.fix)}")
    return line


def check(out: str | Path, *, with_ray: bool = True) -> Iterator[Finding]:
    """Yields every finding about this machine, the slow ones last. Leaves no file and no process
    behind.
    """
    machine = ray_setup.look()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", doctor_versions.python),
        ("packages", doctor_versions.packages),
        ("cores", cores),
        ("memory", lambda: doctor_ray.memory(machine)),
        ("disk", lambda: disk(out)),
        ("shared memory", lambda: doctor_ray.shared_memory(machine)),
        ("output", lambda: output(out)),
        ("cache", cache),
        ("data", data),
        ("network", lambda: doctor_ray.network(machine)),
        ("token", doctor_ray.token),
        ("gpu", gpu),
        ("ray here", lambda: doctor_ray.ray_here(with_ray=with_ray)),
    ]
    if with_ray:
        checks.append(("ray", lambda: doctor_ray.ray_starts(machine)))
    for name, run in checks:
        try:
            yield from run()
        except UserError as error:
            yield Finding(
                check=name,
                state="fail",
                found=str(error),
                fix="what it says; then: orchestrate doctor",
            )
        except Exception as error:
            # A check that cannot be made is itself a finding, and no reason to keep the others
            # back.
            yield Finding(
                check=name,
                state="warn",
                found=f"could not be looked at ({type(error).__name__}: {error})",
            )


def cores() -> Iterator[Finding]:
    usable, present = usable_cpus(), os.cpu_count() or 1
    yield Finding(
        check="cores",
        state="ok",
        found=f"{usable} usable" + (f" of {present}" if present != usable else ""),
    )


def _existing(folder: Path) -> Path:
    """The folder, or what is nearest above it and exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def disk(out: str | Path) -> Iterator[Finding]:
    places: list[tuple[str, Path, str]] = []
    folder = open_store(out).as_folder("")
    if folder is not None:
        places.append(("output", folder, "orchestrate sweep SPEC --out /a/larger/disk/NAME"))
    # That it is nowhere is said of the cache.
    with contextlib.suppress(DataError):
        places.append(
            ("cache", cache_root(), "export ORCHESTRATE_CACHE=/a/larger/disk/orchestrate")
        )
    places.append(("Ray's temp", ray_setup.temp_folder(), "export RAY_TMPDIR=/a/larger/disk"))
    for name, folder, fix in places:
        free = shutil.disk_usage(_existing(folder)).free
        state: State = (
            "fail" if free < ray_setup.LEAST_TEMP_SPACE else "warn" if free < FEW_BYTES else "ok"
        )
        yield Finding(
            check="disk",
            state=state,
            found=f"{free / GIB:.1f} GiB free for {name} ({folder})",
            fix="" if state == "ok" else fix,
        )


def output(out: str | Path) -> Iterator[Finding]:
    """Checks whether ledgers can be kept where sweeps are written: files that are linked only if
    absent, and durable. Of an address, whether it can be written.
    """
    store = open_store(out)
    root = store.as_folder("")
    if root is None:
        store.check_writable()
        yield Finding(check="output", state="ok", found=f"{store.location}: can be written")
        return
    place = _existing(root)
    fix = "orchestrate sweep SPEC --out DIR, with DIR on a local disk or NFS that you may write"
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".orchestrate-doctor-") as folder:
            began = time.monotonic()
            FolderStore(Path(folder) / "ledger").put("0000", b"0")
            seconds = time.monotonic() - began
    except StorageError as error:
        # The folder of the probe is gone; what matters is the file system it was on.
        yield Finding(
            check="output",
            state="fail",
            found=f"{place}: {str(error).partition(': ')[2]}",
            fix=fix,
        )
    except OSError as error:
        yield Finding(
            check="output",
            state="fail",
            found=f"{place}: cannot be written ({error.strerror or error})",
            fix=fix,
        )
    else:
        yield Finding(
            check="output",
            state="ok",
            found=(
                f"{out}: hard links and fsync work on {place} ({1000 * seconds:.0f} ms a segment)"
            ),
        )


def cache() -> Iterator[Finding]:
    fix = "export ORCHESTRATE_CACHE=/a/folder/you/may/write"
    try:
        root = cache_root()
    except DataError as error:
        yield Finding(check="cache", state="fail", found=str(error), fix=fix)
        return
    place = _existing(root)
    problem = ray_setup.unwritable(place) if place.is_dir() else f"{place} is a file"
    state: State = "fail" if problem else "ok"
    message = f"{root}: cannot be written ({problem})" if problem else f"{root}: can be written"
    yield Finding(check="cache", state=state, found=message, fix=fix if problem else "")


def data() -> Iterator[Finding]:
    absent = []
    for row in datasets.list_data():
        name = one_line(f"{row.name} ({row.path})") if row.path else row.name
        if row.state == "prepared":
            message = (
                f"{name}: prepared, {row.train_items} training and {row.test_items} test items of"
                f" {row.num_classes} classes"
            )
            yield Finding(check="data", state="ok", found=message)
        elif row.state == "not prepared":
            yield Finding(
                check="data",
                state="warn",
                found=f"{name}: not prepared; its first sweep will",
                fix=row.note,
            )
        else:
            absent.append(row.name)
    if absent:
        yield Finding(
            check="data",
            state="ok",
            found=(
                f"not on this machine: {', '.join(absent)} (how each is laid out: orchestrate data"
                " list)"
            ),
        )


def gpu() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(
            check="gpu",
            state="fail",
            found=f"torch cannot be loaded ({error})",
            fix=f"{sys.executable} -m pip install --force-reinstall torch torchvision",
        )
        return
    driver = _driver()
    if torch.cuda.is_available():
        devices = [
            torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())
        ]
        names = ", ".join(
            f"{device.name} with {device.total_memory / GIB:.0f} GiB" for device in devices
        )
        yield Finding(
            check="gpu",
            state="ok",
            found=(
                f"{names}; driver {driver or 'unknown'}, torch {torch.__version__} built for CUDA"
                f" {torch.version.cuda}"
            ),
        )
    elif driver:
        message = (
            f"an NVIDIA driver ({driver}) is here, but torch {torch.__version__} (CUDA"
            f" {torch.version.cuda or 'none'}) sees no GPU; stages train on the CPU"
        )
        yield Finding(
            check="gpu",
            state="warn",
            found=message,
            fix=(
                "nvidia-smi; then a torch built for this driver (pytorch.org/get-started), and"
                " unset CUDA_VISIBLE_DEVICES"
            ),
        )
    else:
        yield Finding(
            check="gpu",
            state="ok",
            found=f"none; stages train on the CPU (torch {torch.__version__})",
        )


def _driver() -> str | None:
    """Version of the NVIDIA kernel driver; None without one."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
