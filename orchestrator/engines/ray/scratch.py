"""A folder for what nobody reads again, gone with the block that it was made for; what killed
processes left of theirs is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from orchestrator.storage.locks import hold

PREFIX: Final = "orchestrate-tune-"
_LOCK: Final = "in-use"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Makes an empty folder in the system's temporary folder, under a lock that dies with this
    process.
    """
    temp = Path(tempfile.gettempdir())
    remove_left(temp)
    # It gets its name once it is locked: nobody may take it for a dead one's in between.
    made = Path(tempfile.mkdtemp(prefix=f".new-{PREFIX}", dir=temp))
    folder = made
    try:
        with hold(made / _LOCK, wait=False):
            folder = made.rename(temp / made.name.removeprefix(".new-"))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(temp: Path) -> None:
    """Removes such folders of processes that have died from `temp`. Those in use stay, and so does
    what is not known to be ours.
    """
    for folder in temp.glob(f"{PREFIX}*"):
        lock = folder / _LOCK
        if not folder.is_symlink() and _is_free(lock):
            shutil.rmtree(folder, ignore_errors=True)


def _is_free(lock: Path) -> bool:
    """Returns whether the lock file is there and nobody alive holds it; in doubt (another user's,
    too many open files) somebody does.
    """
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
