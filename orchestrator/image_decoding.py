"""Decodes image files into one array, on all cores.

Many files are decoded by processes of this module (python -m orchestrator.image_decoding), each writing its rows into the mapped array: threads
gain little on small images, where Python's own work dominates. The processes speak through one pipe, so that they end when the one that started
them is gone, however it died.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from trainers.errors import DataError

Image = npt.NDArray[np.uint8]

REPORT_EVERY: Final = 128
FILES_PER_PROCESS: Final = 2000
"""Starting a process costs about as long as decoding some hundreds of small images."""


@dataclass(frozen=True, slots=True)
class Crop:
    """The shorter side is resized to `resize` pixels (bilinear with antialiasing, as torchvision's Resize), then the centre square of `size` is kept."""

    resize: int
    size: int


def image_shape(file: str, crop: Crop | None) -> tuple[int, int, int]:
    """(H, W, 3) that `read_image` gives for the file."""
    if crop:
        return crop.size, crop.size, 3
    height, width, channels = read_image(file, None).shape
    return height, width, channels


def read_image(file: str, crop: Crop | None) -> Image:
    """The image as uint8 RGB [H, W, 3]; greyscale and palettes become RGB.

    Raises:
        DataError: if it cannot be decoded whole, or has 16 or more bits a channel.
    """
    from PIL import Image as Pillow

    try:
        # In one read: Pillow would read a small JPEG in dozens of pieces.
        with Pillow.open(io.BytesIO(Path(file).read_bytes())) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file}: has more than 8 bits a channel (mode {image.mode}), which would be cut off. Convert it to 8 bits.")
            colour = image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their format's parser does
        raise DataError(f"{file}: cannot be decoded as an image ({error}). Replace it, or remove it from the data set.") from None
    if crop and colour.size != (crop.size, crop.size):
        width, height = colour.size
        shorter = min(width, height)
        width, height = crop.resize * width // shorter, crop.resize * height // shorter
        left, top = round((width - crop.size) / 2), round((height - crop.size) / 2)
        colour = colour.resize((width, height), Pillow.Resampling.BILINEAR).crop((left, top, left + crop.size, top + crop.size))
    return np.asarray(colour)


def decode(files: Sequence[str], target: Path, crop: Crop | None, on_done: Callable[[int], None]) -> None:
    """Row i of the .npy array at `target`, uint8 [N, H, W, 3], holds image i.

    Args:
        on_done: called with the number of images decoded since the last call.

    Raises:
        DataError: names an image that cannot be decoded, or whose size differs from the array's.
    """
    cores = len(os.sched_getaffinity(0))
    processes = min(cores, len(files) // FILES_PER_PROCESS)
    if processes < 2:
        _decode_rows(files, range(len(files)), target, crop, on_done)
    else:
        _decode_in_processes(files, target, crop, on_done, processes)


def _decode_rows(files: Sequence[str], rows: Sequence[int], target: Path, crop: Crop | None, on_done: Callable[[int], None]) -> None:
    out = np.lib.format.open_memmap(target, mode="r+")
    reported = 0
    for done, (row, file) in enumerate(zip(rows, files, strict=True), 1):
        image = read_image(file, crop)
        if image.shape != out.shape[1:]:
            raise DataError(
                f"{file}: is {image.shape[1]} x {image.shape[0]} pixels, but the first image is {out.shape[2]} x {out.shape[1]}. "
                "Set dataset.image_size: N to have all resized to N x N."
            )
        out[row] = image
        if done % REPORT_EVERY == 0 or done == len(files):
            on_done(done - reported)
            reported = done


def _decode_in_processes(files: Sequence[str], target: Path, crop: Crop | None, on_done: Callable[[int], None], count: int) -> None:
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])}
    workers = []
    try:
        for k in range(count):
            workers.append(
                subprocess.Popen([sys.executable, "-m", "orchestrator.image_decoding"], stdin=subprocess.PIPE, stdout=writing, env=environment, text=True)
            )
            job = {"files": files[k::count], "rows": [k, len(files), count], "target": str(target), "crop": crop and [crop.resize, crop.size]}
            _send(workers[-1], job)
        os.close(writing)
        writing = -1
        with os.fdopen(reading, encoding="utf-8") as reports:
            reading = -1
            _follow(reports, on_done)
        for worker in workers:
            if worker.wait() != 0:
                raise DataError(f"{target}: a process that decodes images ended with status {worker.returncode} (-9: killed, perhaps for memory). Try again.")
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
        for worker in workers:
            worker.kill()
            worker.wait()


def _send(worker: subprocess.Popen[str], job: dict[str, Any]) -> None:
    assert worker.stdin
    try:
        with worker.stdin:
            worker.stdin.write(json.dumps(job))
    except BrokenPipeError:
        pass  # it died: its status is read at the end


def _follow(reports: IO[str], on_done: Callable[[int], None]) -> None:
    for line in reports:
        report = json.loads(line)
        if "problem" in report:
            raise DataError(report["problem"])
        on_done(report["done"])


def _report(report: dict[str, Any]) -> None:
    # One write of less than PIPE_BUF bytes is never mixed with another process's.
    os.write(sys.stdout.fileno(), (json.dumps(report) + "\n").encode())


def main() -> int:
    """Decodes the job on standard input; 0 if all of it was done or the problem was reported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the starter ends its processes itself
    try:
        job = json.load(sys.stdin)
        _decode_rows(job["files"], range(*job["rows"]), Path(job["target"]), job["crop"] and Crop(*job["crop"]), lambda done: _report({"done": done}))
    except DataError as error:
        _report({"problem": str(error)[:600]})
    except (BrokenPipeError, json.JSONDecodeError):  # the starter is gone
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
