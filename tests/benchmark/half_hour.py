"""A sweep on a machine that is lent for minutes at a time: data and earlier results go there as
files, results come back as files, and the next loan goes on.

    python -m tests.benchmark.half_hour tiny100.yaml --archive tiny100-32.tar.gz --results earlier
    --out back --seconds 540 [--set seeds=[0]]

The archive is unpacked, what earlier loans brought back is laid in place, and the sweep runs
(engine inline, one process, no Ray) until it ends or the seconds are over. Then ledgers, stage
records, guesses and scores are packed into `--out`, in parts of at most 15 MiB; name that folder as
`--results` the next time, with the same words otherwise. Weights stay behind: stages that start
from scratch need none, so that the next loan goes on at the boundary of a stage. While the machine
lives, `--work` holds everything, epoch checkpoints too.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

PART_BYTES = 15 << 20
LEFT_BEHIND = (".pt", ".ckpt", ".lock", ".html")
"""Weights, checkpoints, and what a sweep makes anew."""


def unpack(archive: Path, work: Path) -> Path:
    """The data folder: what the archive's one top folder is called, below work/data; unpacked
    once.
    """
    with tarfile.open(archive) as packed:
        first = next(iter(packed)).name.split("/")[0]
        done = work / "data" / f".{archive.name}"
        if not done.exists():
            packed.extractall(work / "data", filter="data")
            done.touch()
    return work / "data" / first


def restore(results: Path, sweep: Path) -> None:
    """Lays in place what earlier loans brought back, unless the sweep is still here."""
    parts = sorted(results.glob("sweep-*.part")) if results.is_dir() else []
    if sweep.exists() or not parts:
        return
    whole = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(fileobj=whole) as packed:
        packed.extractall(sweep.parent, filter="data")


def pack(sweep: Path, out: Path) -> int:
    """Writes the parts; returns their number."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as packed:
        packed.add(
            sweep,
            sweep.name,
            filter=lambda member: None if member.name.endswith(LEFT_BEHIND) else member,
        )
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob("sweep-*.part"):
        left.unlink()
    content = whole.getvalue()
    starts = range(0, len(content), PART_BYTES)
    for number, start in enumerate(starts):
        (out / f"sweep-{number:02}.part").write_bytes(content[start : start + PART_BYTES])
    return len(starts)


def stages(sweep: Path) -> int:
    """Stages trained."""
    return sum(1 for _ in sweep.glob("stages/*/record.json"))


def run(arguments: list[str], work: Path, seconds: float) -> int:
    """The exit status of the command, which Ctrl-C reaches when the seconds are over."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONUNBUFFERED": "1",
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments], env=environment, cwd=work
    )
    try:
        return started.wait(max(seconds, 1))
    except subprocess.TimeoutExpired:
        started.send_signal(signal.SIGINT)
    try:
        # One that is only starting, or ending, has no handler of its own: it is stopped too.
        ended = started.wait(60)
        return 130 if ended == -signal.SIGINT else ended
    except subprocess.TimeoutExpired:
        started.kill()
        return started.wait()


def main() -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec")
    parser.add_argument(
        "--archive",
        type=Path,
        required=True,
        help=".tar.gz with one folder that holds train/ and val/",
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="where the parts of earlier loans are"
    )
    parser.add_argument("--out", type=Path, required=True, help="where this loan's parts go")
    parser.add_argument("--work", type=Path, default=Path("/tmp/half-hour"))
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ["ORCHESTRATE_CACHE"] = str(args.work.absolute() / "cache")
    work = args.work.absolute()
    data, sweep = unpack(args.archive, work), work / "sweep"
    restore(args.results, sweep)
    before = stages(sweep)
    # Named from the working folder, the data is at the same place on every machine: a sweep with
    # the same words is resumed, one with others refused.
    settings = [
        word
        for text in [f"dataset.path={data.relative_to(work)}", *args.set]
        for word in ("--set", text)
    ]
    spec = str(Path(args.spec).absolute()) if Path(args.spec).exists() else args.spec
    status = run(
        ["sweep", spec, "--engine", "inline", "--out", "sweep", *settings],
        work,
        args.seconds - (time.monotonic() - began),
    )
    if status in (0, 1, 130) and sweep.exists():
        print(
            f"exit {status}; {stages(sweep) - before} stage(s) trained, {pack(sweep, args.out)}"
            f" part(s) in {args.out}",
            flush=True,
        )
    if status == 130 and stages(sweep) == before:
        print(
            "No stage was trained to its end, so the next loan begins where this one did: give more"
            " --seconds, or fewer method.epochs.",
            flush=True,
        )
    return 0 if status == 130 else status


if __name__ == "__main__":
    sys.exit(main())
