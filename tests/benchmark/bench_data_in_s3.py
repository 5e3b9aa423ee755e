"""Bytes, requests and seconds of bringing 600 small JPEGs from S3: below a prefix, and in one tar.

    python -m tests.benchmark.bench_data_in_s3

moto answers from a process of its own on this machine, so that seconds are those of the requests'
work and of no network.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.data.download import look
from orchestrator.data.locate import Located
from orchestrator.data.sources.folders import Folder
from tests.helpers.s3_server import BUCKET, Proxy, client, moto, use

IMAGES, SIDE, REPEATS = 600, 96, 5


def write(folder: Path) -> int:
    """Writes the images, 10 classes; returns their bytes."""
    rng, size = np.random.default_rng(0), 0
    for k in range(IMAGES):
        split = "test" if k // 10 % 6 == 0 else "train"
        path = folder / split / f"class {k % 10}" / f"{k:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE)).save(path, quality=90)
        size += path.stat().st_size
    return size


def main() -> None:
    with tempfile.TemporaryDirectory() as temp, moto() as endpoint, use(endpoint):
        folder = Path(temp, "photos")
        size, s3 = write(folder), client(endpoint)
        for path in folder.rglob("*.jpg"):
            key = f"prefix/{path.relative_to(folder).as_posix()}"
            s3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            archive.add(folder, "photos")
        s3.put_object(Bucket=BUCKET, Key="photos.tar", Body=held.getvalue())
        print(f"{IMAGES} images, {size / 1e6:.2f} MB; the tar {len(held.getvalue()) / 1e6:.2f} MB")
        os.environ["ORCHESTRATE_CACHE"] = str(Path(temp, "cache"))
        for name in ("prefix", "photos.tar"):
            seconds = []
            for _ in range(REPEATS):
                shutil.rmtree(Path(temp, "cache"), ignore_errors=True)
                began = time.perf_counter()
                bring(name)
                seconds.append(time.perf_counter() - began)
            with Proxy(endpoint) as proxy, use(proxy.endpoint):
                bring(name)
                asked = dict(proxy.counts)
            moved = sum(item.size for item in look(f"s3://{BUCKET}/{name}", form="folder").items)
            print(
                f"{name}: {moved / 1e6:.2f} MB in {sum(asked.values())} requests ({asked});"
                f" {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f},"
                f" n = {REPEATS})",
                file=sys.stdout,
            )


def bring(name: str) -> None:
    address = f"s3://{BUCKET}/{name}"
    assert Located(Folder(path=address), look(address, form="folder")).contents().num_classes == 10


if __name__ == "__main__":
    main()
