"""The cache of decoded data: images in one place, their labels in another, each put there whole or
not at all.

<root>/images/<name>-<fp16>/       train.npy, test.npy, meta.json; all that a trainer opens; with
prior scores, train_scores.npy and test_scores.npy too
<root>/labels/<name>-<fp16>-<l8>/  train.npy, test.npy, meta.json; for the oracle and the evaluator
alone <root>/sources/<key>.json          which of them a folder, a file or a built-in set has
become, and its signature then <root>/building/                   what is being decoded now; a
killed process leaves its part here, the next one clears it
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from orchestrator.data.arrays import SPLITS, Array, write_array
from orchestrator.data.protocols import Loaded
from orchestrator.data.shelf import Shelf
from orchestrator.storage.files import commit_file
from orchestrator.storage.locks import LockHeld, hold
from orchestrator.storage.user_files import check_regular, read_regular
from search_spaces.reading.config import DataKind, DatasetFacts
from trainers.errors import DataError

FORMAT: Final = 2
"""Raise it when the same source would be decoded or described differently: every cache is then made
anew. 2: images upright and over white.
"""

FINGERPRINT_FORMAT: Final = 1
"""Apart from FORMAT: data that is decoded as before keeps its fingerprint, which names the results
that stand on it.
"""

CHUNK_BYTES: Final = 1 << 24

_ARRAY_FILES: Final = {f"{split}.npy" for split in SPLITS}
PRIOR_FILES: Final[Mapping[str, str]] = {split: f"{split}_scores.npy" for split in SPLITS}
"""Split -> the file of its prior scores, where the data has some (trainers.data.items)."""
_FILES: Final = (_ARRAY_FILES, _ARRAY_FILES | set(PRIOR_FILES.values()))
_LARGEST_META: Final = 1 << 26
_IMAGES_NAME: Final = r"[a-z0-9_]+-[0-9a-f]{16}"
_LABELS_NAME: Final = _IMAGES_NAME + "-[0-9a-f]{8}"

_DAMAGED: Final = (
    DataError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    MemoryError,
)
"""What reading a damaged file of the cache may raise, a pipe or a device in its place included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """A data set that is decoded and checked."""

    name: str
    images_dir: Path
    labels_dir: Path
    fingerprint: str
    """Hex SHA-256 of everything that a trainer can read of the data; the labels are not in it."""
    labelled_fingerprint: str
    """Hex SHA-256 of the data and of every label: what a sweep and its ledgers are tied to."""
    facts: DatasetFacts
    notes: tuple[str, ...] = ()
    """What the user should know of how the source was read: a line each."""
    shelf: Shelf | None = field(default=None, compare=False)
    """Where machines that lack the data find it, or ask for it to be put."""
    decoded_now: bool = field(default=False, compare=False)
    """Whether this call decoded it, so that the notes are said once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a source's decoded data lies: one file in `sources/`."""

    name: str
    path: str | None
    image_size: int | None
    signature: str
    images: str
    """Folder names below `images/` and `labels/`."""
    labels: str
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    """The source's settings beside `path` and `image_size`, as JSON values; in the file where there
    are some.
    """

    @property
    def key(self) -> str:
        """16 hex digits for one source; they name its entry, its lock and its part of
        `building/`.
        """
        said: list[Any] = [self.name, str(self.path), self.image_size]
        said += [self.settings] if self.settings else []
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def entries(root: Path) -> list[Entry]:
    """All sources that have been decoded here."""
    readable = (read_entry(root, path.stem) for path in sorted((root / "sources").glob("*.json")))
    return [entry for entry in readable if entry]


def read_entry(root: Path, key: str) -> Entry | None:
    """The entry, or None if there is none or it is damaged: the data is then decoded again."""
    try:
        values = json.loads(read_regular(root / "sources" / f"{key}.json", most=_LARGEST_META))
        entry = Entry(**values | {"notes": tuple(values["notes"])})
    except _DAMAGED:
        return None
    texts = (entry.name, entry.signature, entry.images, entry.labels, *entry.notes)
    plain = (
        all(isinstance(text, str) for text in texts)
        and isinstance(entry.path, str | None)
        and isinstance(entry.image_size, int | None)
        and isinstance(entry.settings, dict)
    )
    # The names become paths: nothing that is read here leads out of the cache.
    inside = (
        plain
        and re.fullmatch(_IMAGES_NAME, entry.images)
        and re.fullmatch(_LABELS_NAME, entry.labels)
    )
    return entry if inside and entry.key == key else None


def write_entry(root: Path, entry: Entry) -> None:
    said = asdict(entry)
    if not said["settings"]:
        del said["settings"]
    commit_file(
        root / "sources" / f"{entry.key}.json", json.dumps(said, indent=1).encode(), replace=True
    )


def open_cached(root: Path, entry: Entry, *, verify: bool) -> PreparedData | None:
    """Opens the data of an entry; returns it, or None if a file of it is missing, truncated, or
    (with `verify`) changed.
    """
    images, labels = root / "images" / entry.images, root / "labels" / entry.labels
    meta, labels_meta = intact(images, verify=verify), intact(labels, verify=verify)
    if meta is None or labels_meta is None:
        return None
    try:
        facts = _facts(meta)
        digests = {split: str(labels_meta["files"][f"{split}.npy"]["sha256"]) for split in SPLITS}
        names = _folder_names(facts.name, meta["fingerprint"], digests)
    except _DAMAGED:
        return None
    # Folders that were exchanged.
    if names != (entry.images, entry.labels) or facts.name != entry.name:
        return None
    return PreparedData(
        name=facts.name,
        images_dir=images,
        labels_dir=labels,
        fingerprint=meta["fingerprint"],
        labelled_fingerprint=labelled(meta["fingerprint"], digests),
        facts=facts,
        notes=entry.notes,
    )


def labelled(fingerprint: str, digests: Mapping[str, str]) -> str:
    """Returns the fingerprint of the data with its labels.

    Args:
        digests: split -> SHA-256 of its labels (`content_digest`).
    """
    said = [fingerprint, *(digests[split] for split in SPLITS)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _facts(meta: dict[str, Any]) -> DatasetFacts:
    """What meta.json says of the data; raises one of _DAMAGED where it says nothing of the kind."""
    if (
        not re.fullmatch("[0-9a-f]{64}", meta["fingerprint"])
        or meta["kind"] not in get_args(DataKind)
        or not isinstance(meta["name"], str)
    ):
        raise ValueError("no description of data")
    counts = [meta[key] for key in ("num_classes", "train_items", "test_items")]
    if any(type(count) is not int or count < 1 for count in counts):
        raise ValueError("no numbers of items")
    return DatasetFacts(
        name=meta["name"],
        num_classes=counts[0],
        train_items=counts[1],
        test_items=counts[2],
        kind=meta["kind"],
    )


def intact(folder: Path, *, verify: bool) -> dict[str, Any] | None:
    """meta.json of a cache folder whose files have the sizes (with `verify`: also the content)
    written there; else None.
    """
    try:
        meta: dict[str, Any] = json.loads(read_regular(folder / "meta.json", most=_LARGEST_META))
        if (
            meta["format"] != FORMAT
            or meta["files"].keys() not in _FILES
            or meta["checksum"] != _checksum(meta)
        ):
            return None
        for name, file in meta["files"].items():
            stat = (folder / name).stat()
            check_regular(folder / name, stat.st_mode)
            if stat.st_size != file["bytes"]:
                return None
            if (
                verify
                and content_digest(np.load(folder / name, mmap_mode="r", allow_pickle=False))
                != file["sha256"]
            ):
                return None
    except Exception:  # a damaged header can fail anywhere in numpy's parser
        return None
    return meta


def _checksum(meta: dict[str, Any]) -> str:
    """Hex SHA-256 of what meta.json says, so that no changed digit of it is believed."""
    return hashlib.sha256(
        json.dumps(
            {key: value for key, value in meta.items() if key != "checksum"}, sort_keys=True
        ).encode()
    ).hexdigest()


def content_digest(array: Array) -> str:
    """Hex SHA-256 of dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}:{array.shape}:".encode())
    for chunk in chunks(array):
        digest.update(np.ascontiguousarray(chunk).data)
    return digest.hexdigest()


def chunks(array: Array) -> Iterator[Array]:
    """The array in blocks of rows of about 16 MiB, so that a mapped file never has to fit in
    memory.
    """
    rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


@contextlib.contextmanager
def building(root: Path, key: str) -> Iterator[Path]:
    """Makes a folder to decode into and removes it afterwards; one process at a time per key, the
    others wait. Clears what killed processes left.
    """
    place = root / "building"
    place.mkdir(parents=True, exist_ok=True)
    with hold(place / f"{key}.lock", wait=True):
        for left in place.glob("*-*"):
            _clear(left, key)
        folder = Path(tempfile.mkdtemp(dir=place, prefix=f"{key}-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(left: Path, own_key: str) -> None:
    key = left.name.partition("-")[0]
    if key == own_key:
        shutil.rmtree(left, ignore_errors=True)
        return
    with contextlib.suppress(LockHeld), hold(left.parent / f"{key}.lock", wait=False):
        shutil.rmtree(left, ignore_errors=True)


def describe(folder: Path, name: str, loaded: Loaded) -> dict[str, Any]:
    """What meta.json says of freshly written arrays."""
    names = [f"{split}.npy" for split in SPLITS]
    # Last in the fingerprint, and in none of data without them.
    names += [name for name in PRIOR_FILES.values() if (folder / name).exists()]
    arrays = {name: np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in names}
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": content_digest(array)}
        for name, array in arrays.items()
    }
    rules: dict[str, Any] = {
        "format": FINGERPRINT_FORMAT,
        "kind": loaded.kind,
        "num_classes": len(loaded.class_names),
        "class_names": list(loaded.class_names),
        "augment": loaded.augment,
    }
    if loaded.crop is not None:
        rules["crop"] = loaded.crop
    # Statistics that follow from the arrays stay out of the fingerprint: their last bit may differ
    # between machines.
    fingerprint = hashlib.sha256(
        json.dumps(
            [
                rules,
                loaded.mean,
                loaded.std,
                *(file["sha256"] for file in files.values()),
            ]
        ).encode()
    )
    mean, std = (
        (loaded.mean, loaded.std) if loaded.mean and loaded.std else statistics(arrays["train.npy"])
    )
    return {
        "name": name,
        **rules,
        "format": FORMAT,
        "train_items": len(arrays["train.npy"]),
        "test_items": len(arrays["test.npy"]),
        "shape": list(arrays["train.npy"].shape[1:]),
        "mean": list(mean),
        "std": list(std),
        "fingerprint": fingerprint.hexdigest(),
        "files": files,
    }


def statistics(array: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel (images, on the 0..1 scale) or per feature; a
    deviation of 0 becomes 1, so that dividing by it is harmless.
    """
    if array.dtype == np.uint8:
        values = np.arange(256) / 255
        counts = np.zeros((array.shape[-1], 256), np.int64)
        for chunk in chunks(array):
            for channel in range(array.shape[-1]):
                counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
        mean = counts @ values / counts.sum(axis=1)
        variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)
    else:
        mean = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks(array)) / len(array)
        variance = sum(np.square(chunk - mean).sum(axis=0) for chunk in chunks(array)) / len(array)
    std = np.sqrt(variance)
    # A channel of one value has a deviation of rounding errors.
    return tuple(mean.tolist()), tuple(np.where(std > 1e-9 * np.abs(mean), std, 1.0).tolist())


def commit(root: Path, built: Path, name: str, loaded: Loaded) -> tuple[str, str]:
    """Moves `built/images` and the labels into place; returns their folder names. What is already
    there and intact stays.
    """
    meta = describe(built / "images", name, loaded)
    (built / "images" / "meta.json").write_bytes(encode_meta(meta))
    (built / "labels").mkdir()
    for split in SPLITS:
        write_array(built / "labels" / f"{split}.npy", loaded.labels[split])
    digests = {split: content_digest(loaded.labels[split]) for split in SPLITS}
    files = {
        f"{split}.npy": {
            "bytes": (built / "labels" / f"{split}.npy").stat().st_size,
            "sha256": digests[split],
        }
        for split in SPLITS
    }
    (built / "labels" / "meta.json").write_bytes(encode_meta({"format": FORMAT, "files": files}))
    images_name, labels_name = _folder_names(name, meta["fingerprint"], digests)
    move_into_place(built / "labels", root / "labels" / labels_name)
    move_into_place(built / "images", root / "images" / images_name)
    return images_name, labels_name


def _folder_names(name: str, fingerprint: str, label_digests: dict[str, str]) -> tuple[str, str]:
    """Names below `images/` and `labels/`. The same images with other labels (a mistake mended) are
    other labels beside the same images.
    """
    # Another package's name may be no name of a folder.
    images_name = f"{re.sub('[^a-z0-9_]', '_', name.lower())}-{fingerprint[:16]}"
    return (
        images_name,
        f"{images_name}-{hashlib.sha256(''.join(label_digests.values()).encode()).hexdigest()[:8]}",
    )


def encode_meta(meta: Mapping[str, Any]) -> bytes:
    """Returns what meta.json holds, with the checksum of all else in it."""
    said = dict(meta)
    return (json.dumps(said | {"checksum": _checksum(said)}, indent=1) + "\n").encode()


def parse_meta(data: bytes) -> dict[str, Any]:
    """Returns what the bytes of a meta.json say.

    Raises:
        ValueError: they are damaged.
    """
    meta = json.loads(data)
    if not isinstance(meta, dict) or meta.get("checksum") != _checksum(meta):
        raise ValueError("its content does not match its checksum")
    return meta


def move_into_place(folder: Path, target: Path) -> None:
    """Moves the folder to `target`, unless another process put an intact one there first."""
    for file in [*folder.iterdir(), folder]:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        if target.exists():
            there, here = intact(target, verify=True), intact(folder, verify=False)
            # The last bit of mean and deviation may differ between machines.
            if (
                there is not None
                and here is not None
                and all(there.get(key) == here.get(key) for key in ("fingerprint", "files"))
            ):
                return
            # Aside, not deleted in place: a reader sees the old folder, none, or the new one, and
            # maps that are open stay good.
            with contextlib.suppress(FileNotFoundError):
                target.rename(folder.parent / f"damaged-{folder.name}-{os.urandom(4).hex()}")
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return
