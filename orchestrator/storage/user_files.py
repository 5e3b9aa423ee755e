"""Paths that a user writes, and files opened only if they are files: a pipe would be waited for,
and a device never ends.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, Final

from trainers.errors import DataError

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[sS]3:")


def is_address(text: str) -> bool:
    """Returns whether a text is meant as an address, such as s3://bucket/key, and not as a path."""
    return _ADDRESS.match(text) is not None


def is_here(path: str) -> bool:
    """Returns whether anything lies at a path of this machine."""
    return Path(path).exists()


def expand(text: str, what: str) -> Path:
    """The absolute path that a user means by `text`: ~ and ~name are home folders.

    Args:
        what: the setting that holds it, for messages.

    Raises:
        DataError: there is no such user, this user has no home folder, or it can be no path.
    """
    if is_address(text):
        # What follows may hold a password.
        scheme = text.partition(":")[0]
        raise DataError(
            f"{what} = {scheme}:...: is an address; a folder or file of this machine is needed here"
            f"{'' if what != 'dataset.path' else ', or s3://bucket/key'}."
        )
    if "\0" in text:
        raise DataError(f"{what} = {text}: a path cannot hold a null character.")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        start = Path(text).parts[0]
        whose = (
            "this user has no home folder; set HOME, or write"
            if start == "~"
            else f"there is no user {start[1:]} with a home folder; write"
        )
        raise DataError(f"{what} = {text}: {whose} the whole path.") from None
    except FileNotFoundError:
        raise DataError(
            f"{what} = {text}: the folder that this command was started in is gone; write the whole"
            " path."
        ) from None


def cache_root() -> Path:
    """Where this machine keeps what can be made or fetched again, absolute: $ORCHESTRATE_CACHE,
    else the user's cache folder.

    Raises:
        DataError: none of the variables says where, and the user has no home folder; or ~name is
            nobody.
    """
    # Absolute: workers of a cluster have other working folders.
    for variable, below in (("ORCHESTRATE_CACHE", ""), ("XDG_CACHE_HOME", "orchestrate")):
        if chosen := os.environ.get(variable):
            return expand(chosen, variable) / below
    try:
        return Path.home() / ".cache" / "orchestrate"
    except RuntimeError:
        raise DataError(
            "there is no place for decoded data: this user has no home folder. Set"
            " ORCHESTRATE_CACHE (or HOME) to a folder you may write."
        ) from None


def check_regular(path: str | Path, mode: int) -> None:
    """Raises DataError unless `mode` (of os.stat) is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file.")


def open_regular(path: str | Path) -> BinaryIO:
    """The file, open for reading; links are followed.

    Raises:
        DataError: it is not a regular file; it is then not waited for.
        OSError: it cannot be opened.
    """
    # A million Path objects would be slow.
    check_regular(path, os.stat(path).st_mode)  # noqa: PTH116
    # Looked at again once it is open: it may have been exchanged.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | Path, most: int | None = None) -> bytes:
    """All of the file.

    Args:
        most: bytes it may have.

    Raises:
        DataError: it is not a regular file, or is larger.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise DataError(
                f"{path}: has {size:,} bytes, and what belongs there never has more than {most:,}."
            )
        return file.read()
