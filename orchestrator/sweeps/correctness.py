"""Which test images a finished stage guessed right: one bit an image, written once, and read by the
report alone.

The report pairs these bits image by image, because all seeds and rows share the test images (see
orchestrator.reporting.statistics). Neither a search nor `status` reads them, and they say nothing
of the classes.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt

from orchestrator.storage.store import Unreadable
from orchestrator.sweeps.layout import TrialLayout
from trainers.errors import UserError

Correct = npt.NDArray[np.bool_]
"""[T] True where the test image is guessed right, in the order of the images."""

_HEADER_BYTES = 4096
"""More than numpy writes before the numbers of a small array; a longer file is none of ours and is
not even parsed.
"""


class CorrectnessError(UserError):
    """A file of right and wrong guesses is not what its stage's record says."""


def pack(correct: Correct) -> bytes:
    """The bytes of the .npy file: uint8, eight images a byte, the first image in the highest
    bit.
    """
    stream = io.BytesIO()
    np.save(stream, np.packbits(correct), allow_pickle=False)
    return stream.getvalue()


def unpack(data: bytes, items: int) -> Correct:
    """[items] what `pack` packed.

    Raises:
        CorrectnessError: these are not the bytes of so many images.
    """
    size = -(-items // 8)
    if len(data) > size + _HEADER_BYTES:
        raise CorrectnessError(f"{len(data)} bytes are too many for {items} test images")
    try:
        packed = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        # Numpy meets damaged bytes with errors of many kinds, MemoryError and SyntaxError among
        # them.
        raise CorrectnessError(
            f"not a .npy file that can be read ({type(error).__name__})"
        ) from None
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.shape != (size,):
        form = (
            f"{packed.dtype} {list(packed.shape)}"
            if isinstance(packed, np.ndarray)
            else "several arrays"
        )
        raise CorrectnessError(f"expected uint8 [{size}] for {items} test images, found {form}")
    bits = np.unpackbits(packed)
    if bits[items:].any():
        raise CorrectnessError(f"says something of images after the last of {items}")
    return bits[:items].astype(np.bool_)


def to_hex(correct: Correct) -> str:
    """A few bits, such as those of the validation images, as the text that a record holds."""
    return np.packbits(correct).tobytes().hex()


def from_hex(text: str, items: int) -> Correct:
    """[items] what `to_hex` wrote.

    Raises:
        CorrectnessError: it is not the text of so many images.
    """
    try:
        packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    except ValueError:
        packed = np.empty(0, np.uint8)
    if packed.size != -(-items // 8):
        raise CorrectnessError(f"val_correct is not of {items} validation images")
    return np.unpackbits(packed)[:items].astype(np.bool_)


def of_trial(files: TrialLayout, stage: int, items: int, sha256: str | None) -> Correct | None:
    """[items] what `stage` of the trial guessed right; None where there is no such file or no
    record vouches for it (older sweeps have neither).

    Args:
        items: test images of the data set.
        sha256: of the file's bytes, from the stage's record.

    Raises:
        CorrectnessError: the file is not the one that was recorded, or cannot be read.
    """
    if sha256 is None:
        return None
    name = files.test_correct(stage)
    try:
        data = files.store.get(name, -(-items // 8) + _HEADER_BYTES + 1)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        raise CorrectnessError(
            f"{error.place}: cannot be read ({error.reason}). Restore it from a copy; or delete it,"
            " and the report gives this row the interval of its seeds alone."
        ) from None
    path = files.place(name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise CorrectnessError(
            f"{path}: is damaged: its SHA-256 is {digest[:12]}..., the record of stage {stage} says"
            f" {sha256[:12]}.... Restore it from a copy; or delete it, and the report gives this"
            " row the interval of its seeds alone."
        )
    try:
        return unpack(data, items)
    except CorrectnessError as error:
        raise CorrectnessError(
            f"{path}: {error}. Restore it from a copy; or delete it, and the report gives this row"
            " the interval of its seeds alone."
        ) from None
