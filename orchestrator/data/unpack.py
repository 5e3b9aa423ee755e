"""Unpacks a tar of other people's files, as it comes: nothing of it leads out of the folder, and
one that was cut short is refused.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, Final, Protocol

from trainers.errors import DataError

_PIECE: Final = 1 << 20
_END: Final = 1024
"""Bytes of zeros that end every whole archive."""


class Readable(Protocol):
    """Bytes that are read once, from the start to the end."""

    def read(self, size: int) -> bytes: ...


def unpack(stream: Readable, where: str, folder: Path) -> None:
    """Writes the files of a tar below an empty folder.

    Args:
        where: what the archive is called in messages.

    Raises:
        DataError: it is no tar, or was cut short; or a file in it leads out of the folder, or is
            anything but a file or a folder.
        OSError: a file cannot be written.
    """
    safe: Any = getattr(tarfile, "data_filter", None)
    if safe is None:
        raise DataError(
            f"{where}: this Python cannot read tars of others safely. Install 3.11.4 or later."
        )
    watched = _Watched(stream)
    try:
        with tarfile.open(fileobj=watched, mode="r|", bufsize=_PIECE) as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                _check(member, where)
                try:
                    archive.extract(member, folder, filter="data")
                except tarfile.FilterError as error:
                    raise DataError(
                        f"{where}: {member.name!r:.300} in it leads out of the folder ({error})."
                        " Nothing of it was kept; make the archive again with relative names."
                    ) from None
                # Kept otherwise, every one of them.
                archive.members = []
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        raise DataError(
            f"{where}: cannot be read as a tar ({error}): it is none, or was cut short or damaged"
            " on its way. Make it again (tar -cf), and put it there whole."
        ) from None
    while watched.read(_PIECE):
        pass
    if watched.last != bytes(_END):
        raise DataError(
            f"{where}: was cut short: a tar ends with {_END} bytes of zeros, and this one does not."
            " Put it there whole."
        )


def _check(member: tarfile.TarInfo, where: str) -> None:
    if not (member.isfile() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "a device or a pipe"
        raise DataError(
            f"{where}: {member.name!r:.300} in it is {kind}. Only files and folders are read; make"
            " the archive again without it (tar --dereference follows links)."
        )
    if member.issparse():
        raise DataError(
            f"{where}: {member.name!r:.300} in it is sparse, so that its size is not what it takes."
            " Make the archive again without --sparse."
        )


class _Watched:
    """A stream, and the last bytes that were read of it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.last = b""

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.last = (self.last + piece)[-_END:]
        return piece
