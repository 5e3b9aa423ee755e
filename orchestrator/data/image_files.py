"""What sources of image files have in common: what is said of the files, and whether they fit."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.data.image_folders import named
from orchestrator.storage.user_files import check_regular
from trainers.errors import DataError

if TYPE_CHECKING:
    from orchestrator.data.decoding import Remarks


def remarks_in_words(root: Path, split: str, files: list[str], remarks: Remarks) -> list[str]:
    """Returns a line for each sort of remark.

    Raises:
        DataError: images have several frames: which of them is meant cannot be told, and the first
            is often blank.
    """
    words = {"train": "training", "test": "test"}
    frames = {files[row]: detail for row, detail in remarks.of("frames")}
    if frames:
        first = min(frames)
        raise DataError(
            f"{root}: {len(frames)} image files of the {words[split]} set have several frames or"
            f" pages ({named([first], root)} has {frames[first]}): {named(frames, root)}. Which of"
            " them is meant cannot be told: write that one into a file of its own, or remove these"
            " files."
        )
    notes = []
    turned, clear, warned = (
        [files[row] for row, _ in remarks.of(sort)] for sort in ("turned", "transparent", "warned")
    )
    if turned:
        notes.append(
            f"{len(turned)} of {len(files)} {words[split]} images were turned or mirrored as their"
            f" EXIF orientation says: {named(turned, root)}"
        )
    if clear:
        notes.append(
            f"{len(clear)} of {len(files)} {words[split]} images have transparent parts, which"
            f" became white: {named(clear, root)}"
        )
    if warned:
        detail = min((files[row], text) for row, text in remarks.of("warned"))[1]
        notes.append(
            f"{len(warned)} of {len(files)} {words[split]} images were read with a warning"
            f" ({detail}): {named(warned, root)}"
        )
    return notes


def check_space(root: Path, folder: Path, images: int, shape: tuple[int, int, int]) -> None:
    """Checks that so many decoded images of one shape fit on the disk of a folder.

    Raises:
        DataError: they do not.
    """
    needed, free = images * math.prod(shape), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{root}: {images:,} images of {shape[1]} x {shape[0]} pixels take {needed / 1e9:.1f}"
            f" GB decoded; the cache has {free / 1e9:.1f} GB free. Reading image files during the"
            " training is not offered: set ORCHESTRATE_CACHE to a folder on a larger disk, or a"
            " smaller dataset.image_size."
        )


def stat_of(file: str) -> os.stat_result:
    """Returns the status of a file.

    Raises:
        DataError: it is none, or cannot be looked at.
    """
    try:
        status = os.stat(file)  # noqa: PTH116 (a million Path objects would be slow)
    except FileNotFoundError:
        link = Path(file).is_symlink()
        what = (
            "a link to a file that does not exist" if link else "vanished while the folder was read"
        )
        raise DataError(f"{file}: {what}.") from None
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}.") from None
    check_regular(file, status.st_mode)
    return status
