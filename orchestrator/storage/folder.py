"""A store that is a folder: each name a file, on any file system with hard links and advisory
locks.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from orchestrator.storage import locks
from orchestrator.storage.files import (
    ASIDE,
    StorageError,
    advice,
    commit_file,
    commit_new_files,
    commit_path,
    links_once,
    make_folder,
    remove_leftovers,
)
from orchestrator.storage.store import NoStore, Store, Unreadable, check_name, missing


class FolderStore(Store):
    """The files below one folder. Nothing is made before the first put or hold."""

    def __init__(self, location: str | Path) -> None:
        self._root = Path(location)
        self._links = False
        """Whether the file system is known to refuse a second link of one name."""

    def __reduce__(self) -> tuple[type[FolderStore], tuple[str]]:
        # A process that has another working directory must find the same folder.
        return type(self), (str(self._root.resolve()),)

    def __repr__(self) -> str:
        return f"FolderStore({str(self._root)!r})"

    @property
    def location(self) -> str:
        return str(self._root)

    def get(self, name: str, most: int | None = None) -> bytes:
        path = self._path(name)
        try:
            # One look: between two, another process may put the file. A pipe would be waited for.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(name, error) from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable(self.place(name), "it is not a file")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read() if most is None else file.read(most)
        except OSError as error:
            raise self._unreadable(name, error) from error
        finally:
            os.close(handle)

    def _unreadable(self, name: str, error: OSError) -> StorageError:
        if isinstance(error, NotADirectoryError) and not self._root.is_dir():
            return NoStore(f"{self._root}: is a file")
        return Unreadable(self.place(name), error.strerror or str(error))

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        path = self._path(name)
        if replace:
            return commit_file(path, data, replace=True)
        self._check_links()
        return commit_file(path, data, replace=False) or self.get(name) == data

    def put_new(self, files: Mapping[str, bytes]) -> None:
        folders: dict[Path, dict[str, bytes]] = defaultdict(dict)
        for name, data in files.items():
            path = self._path(name)
            folders[path.parent][path.name] = data
        if folders:
            self._check_links()
        for folder, group in folders.items():
            commit_new_files(folder, group)

    def put_file(self, name: str, path: Path) -> bool:
        mine = self._path(name)
        if path.resolve() == mine.resolve():
            return True
        self._check_links()
        return commit_path(mine, path) or self.get(name) == path.read_bytes()

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def names(self, folder: str = "") -> list[str]:
        top = self._path(folder) if folder else self._root
        try:
            if top.is_file():
                return [folder] if folder else []
            return sorted(self._walk(top, f"{folder}/" if folder else ""))
        except OSError as error:
            raise Unreadable(self.place(folder), error.strerror or str(error)) from error

    def _walk(self, folder: Path, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as scanned:
                entries = [entry for entry in scanned if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=True):
                yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name

    def folders(self, folder: str = "") -> list[str]:
        below = f"{folder}/" if folder else ""
        try:
            with os.scandir(self._path(folder) if folder else self._root) as found:
                return sorted(
                    f"{below}{entry.name}"
                    for entry in found
                    if not entry.name.startswith(".") and entry.is_dir()
                )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def is_empty(self) -> bool:
        try:
            with os.scandir(self._root) as scanned:
                return next(scanned, None) is None
        except FileNotFoundError:
            if self._root.is_symlink():
                raise NoStore(f"{self._root}: is a link to nothing") from None
            return True
        except NotADirectoryError:
            raise NoStore(f"{self._root}: is not a folder") from None
        except OSError as error:
            raise Unreadable(self.location, error.strerror or str(error)) from error

    def has_others(self, ours: Collection[str], lock: str) -> bool:
        """As Store.has_others; hidden files count too, and so do those of our names where no lock
        was ever held: they are somebody else's.
        """
        try:
            with os.scandir(self._root) as found:
                entries = list(found)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unreadable("", error) from error
        if any(
            entry.name not in ours and not entry.name.startswith(ASIDE) and not _is_bare(entry)
            for entry in entries
        ):
            return True
        return bool(entries) and not self.has(lock)

    def remove(self, name: str) -> None:
        path = self._path(name)
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be removed: {error.strerror or error}; {advice(error)} and run"
                " again."
            ) from error

    def local(self, name: str) -> Path:
        path = self._path(name)
        if path.is_file():
            return path
        if path.exists():
            raise Unreadable(self.place(name), "it is not a file")
        raise missing(self, name)

    def hold(self, name: str, *, wait: bool) -> AbstractContextManager[None]:
        return locks.hold(self._path(name), wait=wait)

    def is_held(self, name: str) -> bool:
        return locks.is_held(self._path(name))

    def work(self, folder: str) -> Path:
        return self._path(folder)

    def as_folder(self, name: str) -> Path | None:
        return self._path(name) if name else self._root

    def end_work(self, folder: str) -> None:
        """Removes nothing: what was made there is the record."""

    def check_writable(self) -> None:
        place = self._root.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise StorageError(
                f"{self._root}: cannot be written ({place} is not a folder that this user may write"
                " in). Choose another folder with --out."
            )

    def tidy(self) -> None:
        for folder, inner, files in os.walk(self._root):
            inner[:] = [name for name in inner if not name.startswith(".")]
            if any(name.startswith(ASIDE) for name in files):
                remove_leftovers(Path(folder))

    def place(self, name: str) -> str:
        return str(self._root / name)

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)

    def _check_links(self) -> None:
        """Makes the folder and sees that a link never replaces a file there; once."""
        if self._links:
            return
        try:
            make_folder(self._root)
            remove_leftovers(self._root)
            honest = links_once(self._root)
        except OSError as error:
            raise StorageError(
                f"{self._root}: cannot hold a ledger: {error.strerror or error}. It needs write"
                " permission and a file system with hard links (not FAT, exFAT or most FUSE"
                " mounts); choose another --out."
            ) from error
        if not honest:
            raise StorageError(
                f"{self._root}: its file system lets a link replace a file, so answers could be"
                " charged twice; choose another --out."
            )
        self._links = True


def _is_bare(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder without any entry."""
    if not entry.is_dir():
        return False
    with os.scandir(entry.path) as found:
        return next(found, None) is None
