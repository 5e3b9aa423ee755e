"""Where a sweep keeps everything that it records: named byte strings behind one class, whatever
holds them.

A name is a relative POSIX path such as `trials/3f/stages/0001.json`. Nothing else of the program
knows whether a name is a file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from orchestrator.storage.files import StorageError
from orchestrator.storage.locks import LockHeld

_PART: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.+=@-]{0,199}")
"""One part of a name. A leading dot marks what a store keeps for itself, such as files being
written.
"""


class Unreadable(StorageError):
    """Something stands under a name, and it cannot be read. `reason` says why, in a few words."""

    def __init__(self, place: str, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"{place}: cannot be read: {reason}")

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        # Exceptions are otherwise pickled by their message alone.
        return Unreadable, (self.place, self.reason)


class NoStore(StorageError):
    """What lies at a store's location is something else, such as a file where a folder must be."""


class Store(ABC):
    """One sweep's records. Any number of processes, on any number of machines, may use the same
    store at once.

    There are two kinds of names.

    - Facts are put once and never change: candidates, segments of ledgers, records of stages,
      arrays and models. Whoever computes a fact puts it; of several writers the first wins, and the
      others read back what it put. A writer needs no lock for that.
    - What follows from facts, or is written by the holder of the driver's lock alone, may be
      replaced: resolved.yaml, the manifest, the seal, the report, the reason why a trial failed.

    A reader may assume: a name is there whole or not at all, also after the death of its writer and
    after a power cut; once `put` has returned, every other process sees the name; a fact that was
    read once reads the same for ever. It may not assume that it sees a replaced name's newest bytes
    at once, nor that names appear in the order in which different processes put them.

    A store of another package subclasses this, is made from its location alone
    (`MyStore("scheme://...")`), can be pickled, and is offered by an entry point of the group
    `orchestrate.stores` under its URL scheme. StoreContract says what it must keep.

    Every method raises StorageError where the place cannot be reached or written, with one message
    that says what to do. A store that cannot keep "the first put wins" must refuse the first put
    rather than let answers be charged twice.
    """

    @property
    @abstractmethod
    def location(self) -> str:
        """Folder or URL, from which the same store can be opened again. No password stands in it:
        it is shown.
        """

    @abstractmethod
    def get(self, name: str, most: int | None = None) -> bytes:
        """Returns the bytes under `name`, or the first `most` of them.

        Raises:
            FileNotFoundError: nothing was put there.
            Unreadable: something is there that cannot be read.
            NoStore: something else lies at the store's location.
        """

    @abstractmethod
    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Puts `data` under `name`, whole and durably. Returns whether the name now holds `data`.

        With replace=False the first put stands: a later one of other bytes changes nothing and
        returns False, and one of the same bytes returns True, so that a write whose reply was lost
        may be repeated.
        """

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Returns the full names of everything below `folder` ("": of everything), at any depth,
        sorted. Nothing half-written.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a name, or everything below it; no error where there is nothing. For the holder
        of the driver's lock, and for who trains a stage: its checkpoints.
        """

    @abstractmethod
    def local(self, name: str) -> Path:
        """Returns a file of this machine with the bytes under `name`: the file itself, or a copy.
        It is to be read only. A stage's files are compared with their SHA-256 when they are read
        (trainers.artefacts.StageFile), so a store need not check a copy that it made before.

        Raises:
            FileNotFoundError, Unreadable: as `get`.
        """

    @abstractmethod
    def hold(self, name: str, *, wait: bool) -> AbstractContextManager[None]:
        """Holds the lock of that name for the length of a block. It is free again once its holder
        is dead, however it died.

        A lock spares work that would be done twice. Nothing that is recorded may depend on it:
        facts are put once with or without.

        Raises:
            LockHeld: another process has it and `wait` is False.
        """

    def put_new(self, files: Mapping[str, bytes]) -> None:
        """Puts many facts, each only where its name is free; all are durable once this returns.
        Which bytes won, `get` says.
        """
        for name, data in files.items():
            self.put(name, data)

    def put_file(self, name: str, path: Path) -> bool:
        """Puts the bytes of a file of this machine as a fact, as `put` does. The file stays; it may
        lie there already.
        """
        return self.put(name, path.read_bytes())

    def has(self, name: str) -> bool:
        """Returns whether something was put under just this name."""
        return name in self.names(name)

    def folders(self, folder: str = "") -> list[str]:
        """Returns the full names of the folders directly below `folder`, sorted: how names that
        have another part after it begin.
        """
        start = len(folder) + 1 if folder else 0
        return sorted(
            {name[: name.index("/", start)] for name in self.names(folder) if "/" in name[start:]}
        )

    def is_empty(self) -> bool:
        """Returns whether nothing at all is there, of this program or any other.

        Raises:
            NoStore: something else lies at the location.
        """
        return not self.names()

    def has_others(self, ours: Collection[str], lock: str) -> bool:
        """Returns whether anything is there but the names `ours` and what is below them. `lock` is
        held by a process before it puts the first of them.
        """
        return any(
            name not in ours and not name.startswith(tuple(f"{mine}/" for mine in ours))
            for name in self.names()
        )

    def is_held(self, name: str) -> bool:
        """Returns whether a living process holds that lock."""
        try:
            with self.hold(name, wait=False):
                return False
        except LockHeld:
            return True

    def check_held(self, name: str) -> None:
        """Raises TakenOver where this process took that lock and another has it by now. Never where
        a lock is lost by death alone.
        """
        return

    def view(self) -> Store:
        """Returns what is there now for one who reads much of it: names that appear later may be
        missing in it.
        """
        return self

    def fetch(self, choose: Callable[[list[str]], Iterable[str]]) -> None:
        """Reads at once, where that is faster than one by one, those of all names that `choose`
        picks, which will be asked for soon.
        """
        return

    def work(self, folder: str) -> Path:
        """Returns a folder of this machine to make files in that `put_file` then puts below
        `folder`, and to find them again after a death: checkpoints stay there. It is not made here,
        and what is in it is no record.
        """
        check_name(folder)
        mine = hashlib.sha256(self.location.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / "orchestrate-work" / mine / folder

    def as_folder(self, name: str) -> Path | None:
        """Returns the folder of a file system that holds what is below `name`; None where none
        does, so that people need a copy to open it.
        """
        return None

    def end_work(self, folder: str) -> None:
        """Removes the folder of this machine that `work` gave, once everything in it that is to be
        kept has been put.
        """
        shutil.rmtree(self.work(folder), ignore_errors=True)

    def check_writable(self) -> None:
        """Raises StorageError where nothing could be put. Changes nothing; a first, cheap look
        before work that takes minutes.
        """
        return

    def tidy(self) -> None:
        """Removes what writers that died have left half-written. For the holder of the driver's
        lock.
        """
        return

    def place(self, name: str) -> str:
        """Returns where a name is kept, for messages."""
        return f"{self.location}/{name}" if name else self.location


def check_name(name: str) -> str:
    """Returns a name that may come from a file or from another process, once it is known to stay
    inside the store.

    Raises:
        ValueError: it is absolute, leads upwards, is hidden, or has characters that a file system
            or URL might read otherwise.
    """
    if (
        not isinstance(name, str)
        or not name
        or not all(_PART.fullmatch(part) for part in name.split("/"))
    ):
        raise ValueError(
            f"{name!r:.120} is no name in a store: write parts of letters, digits and _.+=@- joined"
            " by single slashes"
        )
    return name


def missing(store: Store, name: str) -> FileNotFoundError:
    """Returns the error of `get` and `local` for a name that was never put."""
    return FileNotFoundError(2, "No such file or directory", store.place(name))
