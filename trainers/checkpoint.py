"""Files of a stage in training. Checkpoints are written aside, synced and renamed into place: a
reader sees a whole file or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

_NAME: Final = re.compile(r"epoch-(\d{5})-.*\.ckpt")
KEPT: Final = 2
"""Epoch checkpoints that an attempt leaves: the newest, and one before it for the case that the
newest turns out damaged.
"""


def commit(path: Path, content: bytes) -> None:
    """Writes the content to the file, so that it outlives a power cut and nobody can see a part of
    it.
    """
    aside = path.with_name(path.name + ".tmp")
    _write(aside, content)
    try:
        aside.replace(path)
    except OSError:
        _remove(aside)
        raise
    _sync_folder(path.parent)


def write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """The files of these names hold their contents and outlive a power cut. For names that nobody
    reads before a record names them: they are not put aside first.
    """
    try:
        for name, content in contents.items():
            _write(folder / name, content)
    except OSError:
        for name in contents:
            _remove(folder / name)
        raise
    _sync_folder(folder)


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # On a full disk a part that stays would keep it full.
        _remove(path)
        # A write that fails names no file.
        error.filename = error.filename or str(path)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """The state as torch.save writes it; torch.load(weights_only=True) reads it back."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def from_bytes(content: bytes, device: torch.device) -> dict[str, Any]:
    """The state, its tensors on the device.

    Raises:
        ValueError: the bytes are no such state.
    """
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # Bytes that are no such file can make torch's unpickler raise anything.
        raise ValueError(str(error).split("\n")[0]) from None
    if not isinstance(state, dict):
        raise ValueError("not a mapping")
    return state


def save_epoch(work_dir: Path, attempt: str, epochs: int, state: Mapping[str, Any]) -> None:
    """Writes the state after this many epochs, and removes this attempt's older checkpoints but the
    newest `KEPT - 1`.
    """
    content = to_bytes(state)
    # A zip reader that skips checksums would load flipped bits: the digest goes first. The file may
    # vanish before its renaming when another attempt has just finished the stage; then nobody needs
    # it.
    with contextlib.suppress(FileNotFoundError):
        commit(
            work_dir / f"epoch-{epochs:05d}-{attempt}.ckpt",
            hashlib.sha256(content).digest() + content,
        )
    mine = sorted(
        path for path in work_dir.glob(f"epoch-*-{attempt}.ckpt") if _NAME.fullmatch(path.name)
    )
    for path in mine[:-KEPT]:
        path.unlink(missing_ok=True)


def newest_epoch(work_dir: Path, key: object) -> bytes | None:
    """Bytes of the newest undamaged state with this `key`, of any attempt; None if there is
    none.
    """
    epochs = sorted(
        (int(match[1]), path)
        for path in work_dir.glob("epoch-*.ckpt")
        if (match := _NAME.fullmatch(path.name))
    )
    for _, path in reversed(epochs):
        with contextlib.suppress(OSError, ValueError):
            content = path.read_bytes()
            if (
                hashlib.sha256(content[32:]).digest() == content[:32]
                and from_bytes(content[32:], torch.device("cpu")).get("key") == key
            ):
                return content[32:]
    return None


def remove_epochs(work_dir: Path) -> None:
    """Removes the epoch checkpoints of all attempts."""
    for path in work_dir.glob("epoch-*"):
        path.unlink(missing_ok=True)
