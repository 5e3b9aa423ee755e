"""A small sweep on a folder of images, for tests of where its data lies."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.helpers.dataset_files import write_image_folder
from tests.helpers.s3_server import BUCKET, client

SPEC = """\
name: photos
dataset: {name: folder, path: photos, validation: {from: split, per_class: 1}}
budget: {bits: 30}
base:
  method: {name: mean_teacher, consistency_weight: 1, epochs: 1, batch_size: 8}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
  query: {strategy: random}
cases:
  two rounds: {}
seeds: [0]
resources: {workers: 1, gpus_per_worker: 0, cpus_per_worker: 1, max_concurrent: 1}
"""


def write_photos(folder: Path) -> None:
    """Writes photos/, photos.tar and spec.yaml."""
    write_image_folder(folder / "photos", train=12, test=4)
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "photos", "photos")
    (folder / "spec.yaml").write_text(SPEC)


def put_photos(endpoint: str, folder: Path, prefix: str) -> None:
    """Puts the images below PREFIX/photos, and PREFIX/photos.tar."""
    s3 = client(endpoint)
    for path in (folder / "photos").rglob("*.png"):
        s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}")
    s3.upload_file(str(folder / "photos.tar"), BUCKET, f"{prefix}/photos.tar")
