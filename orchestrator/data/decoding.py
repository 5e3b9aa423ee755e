"""Decodes image files into one array, on all cores.

Many files are decoded by a pool of processes, each writing its rows into the mapped array: threads
gain little on small images, where Python's own work dominates.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from orchestrator.machine import usable_cpus
from orchestrator.storage.user_files import read_regular
from trainers.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL import Image as PillowImages

# Pillow logs what it then raises or warns of; without a handler Python would print that, without
# the file's name.
logging.getLogger("PIL").addHandler(logging.NullHandler())

Image = npt.NDArray[np.uint8]

CHUNK: Final = 64
"""Images that a process decodes before it reports: after an interruption all end what they have
begun.
"""
FILES_PER_PROCESS: Final = 2000
"""Starting a process costs about as long as decoding some hundreds of small images."""

Sort = Literal["turned", "transparent", "frames", "warned"]

Remark = tuple[Sort, int, str]
"""(sort, number of the image, detail)"""

_ORIENTATION: Final = 0x0112
"""EXIF's tag; 1 is upright, 2 to 8 are mirrored or turned."""

_LONGEST_DETAIL: Final = 120

_LARGEST_FILE: Final = 1 << 30
_MOST_PIXELS: Final = 1 << 28
"""More than Pillow decodes: a picture of one line of pixels must not swell beyond it when its
shorter side is resized.
"""


@dataclass(slots=True)
class Remarks:
    """What was not plain about images: sort -> [(number of the image, detail)]."""

    by_sort: dict[Sort, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, sort: Sort, row: int, detail: str = "") -> None:
        self.by_sort.setdefault(sort, []).append((row, detail))

    def of(self, sort: Sort) -> list[tuple[int, str]]:
        """In the order of the images, whoever decoded them."""
        return sorted(self.by_sort.get(sort, []))


@dataclass(frozen=True, slots=True)
class Crop:
    """The shorter side is resized to `resize` pixels (bilinear with antialiasing, as torchvision's
    Resize), then the centre square of `size` is kept.
    """

    resize: int
    size: int
    whole: bool = False
    """Instead both sides are resized to `size`: nothing is cut off, and shapes are stretched."""


def image_shape(file: str, crop: Crop | None) -> tuple[int, int, int]:
    """(H, W, 3) that `read_image` gives for the file."""
    if crop:
        return crop.size, crop.size, 3
    height, width, channels = read_image(file, None).shape
    return height, width, channels


def read_image(
    file: str, crop: Crop | None, remark: Callable[[Sort, str], None] = lambda sort, detail: None
) -> Image:
    """Reads the image as uint8 RGB [H, W, 3]: upright as its EXIF orientation says, transparent
    parts over white, greyscale and palettes as RGB.

    Args:
        remark: told (sort, detail) of what is not plain about it. Of several frames it gives the
            first, for the caller to refuse.

    Raises:
        DataError: if it cannot be decoded whole, or has 16 or more bits a channel.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        # In one read: Pillow would read a small JPEG in dozens of pieces.
        content = read_regular(file, most=_LARGEST_FILE)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror or error}). Replace it, or remove it from the"
            " data set."
        ) from None
    # A library's warning does not say which file it is of.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Large is no fault; what could fill the memory is an error of Pillow's, not a warning.
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        try:
            with Pillow.open(io.BytesIO(content)) as image:
                if image.mode.startswith(("I", "F")):
                    raise DataError(
                        f"{file}: has more than 8 bits a channel (mode {image.mode}), which would"
                        " be cut off. Convert it to 8 bits."
                    )
                # A multi-picture JPEG of a camera is the photo; what follows it are previews.
                if image.format != "MPO" and getattr(image, "is_animated", False):
                    remark("frames", str(getattr(image, "n_frames", 2)))
                colour = _rgb(_upright(image, remark), remark)
        except DataError:
            raise
        except UnidentifiedImageError:
            raise DataError(
                f"{file}: cannot be decoded as an image (it is none that Pillow knows). Replace it,"
                " or remove it from the data set."
            ) from None
        except Exception as error:  # Pillow's readers raise whatever their format's parser does
            raise DataError(
                f"{file}: cannot be decoded as an image ({error or type(error).__name__}). Replace"
                " it, or remove it from the data set."
            ) from None
    if caught:
        remark("warned", one_line(str(caught[0].message))[:_LONGEST_DETAIL])
    if not min(colour.size):
        raise DataError(
            f"{file}: is an image without pixels. Replace it, or remove it from the data set."
        )
    if crop and colour.size != (crop.size, crop.size):
        if crop.whole:
            square = (crop.size, crop.size)
            return np.asarray(colour.resize(square, Pillow.Resampling.BILINEAR))
        width, height = colour.size
        shorter = min(width, height)
        if (crop.resize / shorter) ** 2 * width * height > _MOST_PIXELS:
            raise DataError(
                f"{file}: is {width} x {height} pixels, too long and thin to resize its shorter"
                f" side to {crop.resize}. Remove it from the data set."
            )
        width, height = crop.resize * width // shorter, crop.resize * height // shorter
        left, top = round((width - crop.size) / 2), round((height - crop.size) / 2)
        colour = colour.resize((width, height), Pillow.Resampling.BILINEAR).crop(
            (left, top, left + crop.size, top + crop.size)
        )
    return np.asarray(colour)


def _upright(image: PillowImages.Image, remark: Callable[[Sort, str], None]) -> PillowImages.Image:
    """The whole image, turned as a viewer shows it."""
    from PIL import ImageOps

    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (
        Exception
    ) as error:  # damaged EXIF data can fail anywhere in Pillow's parser, and its pixels are whole
        remark("warned", one_line(f"EXIF data cannot be read: {error}")[:_LONGEST_DETAIL])
        return image
    if orientation not in range(2, 9):
        return image
    remark("turned", "")
    return ImageOps.exif_transpose(image)


def _rgb(image: PillowImages.Image, remark: Callable[[Sort, str], None]) -> PillowImages.Image:
    """As RGB; what can be seen through is laid over white."""
    from PIL import Image as Pillow

    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    lowest, _ = clear.getchannel("A").getextrema()
    if lowest == 255:
        return clear.convert("RGB")
    remark("transparent", "")
    return Pillow.alpha_composite(Pillow.new("RGBA", clear.size, "white"), clear).convert("RGB")


def decode(
    files: Sequence[str], target: Path, crop: Crop | None, on_done: Callable[[int], None]
) -> Remarks:
    """Writes image i into row i of the .npy array at `target`, uint8 [N, H, W, 3]. Returns what was
    not plain about the images.

    Args:
        on_done: called with the number of images decoded since the last call.

    Raises:
        DataError: names the first image that cannot be decoded, or whose size differs from the
            array's; or a process of the pool was killed.
    """
    processes = min(usable_cpus(), len(files) // FILES_PER_PROCESS)
    return _decode_with(max(1, processes), files, target, crop, on_done)


def _decode_with(
    processes: int,
    files: Sequence[str],
    target: Path,
    crop: Crop | None,
    on_done: Callable[[int], None],
) -> Remarks:
    remarks = Remarks()
    chunks = [range(start, min(start + CHUNK, len(files))) for start in range(0, len(files), CHUNK)]
    decode_chunk = partial(_decode_chunk, target, crop)
    contents = [files[rows.start : rows.stop] for rows in chunks]
    with _mapper(processes) as each:
        for rows, noted in zip(chunks, each(decode_chunk, chunks, contents), strict=True):
            for remark in noted:
                remarks.add(*remark)
            on_done(len(rows))
    return remarks


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterable[list[Remark]]]]:
    """Gives `map` of this process, or of a pool of processes that is gone when the block is left,
    however it is left.
    """
    if processes == 1:
        yield map
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _follow_parent)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise DataError(
            "a process that decodes images was killed, perhaps for lack of memory. Free some and"
            " try again."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Makes a process of the pool end when the one that started it is gone, however it died, and
    leaves Ctrl-C to that one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(
    target: Path, crop: Crop | None, rows: range, files: Sequence[str]
) -> list[Remark]:
    """Decodes the files into these rows of the array. Returns what was not plain about them."""
    out = np.lib.format.open_memmap(target, mode="r+")
    noted: list[Remark] = []
    for row, file in zip(rows, files, strict=True):

        def note(sort: Sort, detail: str, row: int = row) -> None:
            noted.append((sort, row, detail))

        image = read_image(file, crop, note)
        if image.shape != out.shape[1:]:
            raise DataError(
                f"{file}: is {image.shape[1]} x {image.shape[0]} pixels, but the first image is"
                f" {out.shape[2]} x {out.shape[1]}. Set dataset.image_size: N to have all resized"
                " to N x N."
            )
        out[row] = image
    return noted
