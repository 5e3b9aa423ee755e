"""A store below a prefix of an S3 bucket, of Amazon or of any server that keeps `If-None-Match` on
put.

Each name is one object. Only what every such server has is used: a put, a put of what is absent,
get, head, list and delete; no renaming, no appending, no times of the server, no If-Match, and no
put in parts, on which some servers drop the condition without a word.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, Final

from orchestrator.storage.files import StorageError, advice
from orchestrator.storage.s3_client import (
    THREADS,
    Bucket,
    NotAllowed,
    away,
    code_of,
    endpoint_of,
    parse,
    status_of,
)
from orchestrator.storage.store import Store, Unreadable, check_name, missing
from orchestrator.storage.terms import Terms
from orchestrator.storage.user_files import cache_root

MOST_BYTES: Final = 5 << 30
"""Of one put, by the rules of S3."""
_PIECE: Final = 1 << 20
_CONFLICT_TRIES: Final = 8

_honest: set[tuple[str, str]] = set()
"""Bucket and endpoint of those that this process has seen to refuse a second put."""


class S3Store(Store):
    """The objects below `s3://bucket/prefix`. Credentials, region and endpoint are found by boto3
    on each machine anew, and are kept nowhere.
    """

    def __init__(
        self,
        location: str,
        *,
        beat_seconds: float | None = None,
        still_seconds: float | None = None,
    ) -> None:
        """The times are those of its locks (orchestrator.storage.terms)."""
        self._bucket, self._prefix = parse(location)
        self._terms = Terms(self, beat_seconds, still_seconds)
        self._server = Bucket(
            self._bucket,
            self.location,
            "A sweep needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and"
            f" s3:DeleteObject on {self.location}/*",
        )

    def __reduce__(self) -> tuple[type[S3Store], tuple[str]]:
        return type(self), (self.location,)

    def __repr__(self) -> str:
        return f"S3Store({self.location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Store) and other.location == self.location

    def __hash__(self) -> int:
        return hash(self.location)

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, name: str, most: int | None = None) -> bytes:
        # No range of a file is empty.
        data = self.read_object(check_name(name), most if most is None else max(most, 1))
        if data is None:
            raise missing(self, name)
        return data[:most]

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        key = check_name(name)
        self._check_size(name, len(data))
        if replace:
            self.replace_object(key, data)
            return True
        return self.put_object(key, data)

    def put_new(self, files: Mapping[str, bytes]) -> None:
        _in_threads(lambda file: self.put(*file), files.items())

    def put_file(self, name: str, path: Path) -> bool:
        key = check_name(name)
        self._check_size(name, path.stat().st_size)
        self._probe()
        tag = self._put_absent(key, lambda: path.open("rb"))
        if tag is not None:
            self._prime(name, path, tag)
            return True
        return self._equals(key, path)

    def names(self, folder: str = "") -> list[str]:
        below = f"{check_name(folder)}/" if folder else ""
        return sorted(key for key in self.keys(below) if _is_shown(key))

    def folders(self, folder: str = "") -> list[str]:
        below = f"{check_name(folder)}/" if folder else ""
        found = (
            str(item["Prefix"])
            for page in self._pages(below, Delimiter="/")
            for item in page.get("CommonPrefixes", ())
        )
        names = (self._name(key).rstrip("/") for key in found)
        return sorted(name for name in names if _is_shown(name))

    def has(self, name: str) -> bool:
        return self._head(check_name(name)) is not None

    def is_empty(self) -> bool:
        return not any(page.get("Contents") for page in self._pages("", most=1))

    def remove(self, name: str) -> None:
        keys = self.keys(f"{check_name(name)}/")
        _in_threads(self._delete, [name, *keys])

    def local(self, name: str) -> Path:
        found = self._head(check_name(name))
        if found is None:
            raise missing(self, name)
        path = self._cached(name, found["ETag"])
        try:
            if path.stat().st_size == found["ContentLength"]:
                return path
        except OSError:
            pass
        return self._server.call(name, lambda: self._fetch(name))

    def hold(self, name: str, *, wait: bool) -> AbstractContextManager[None]:
        return self._terms.hold(check_name(name), wait=wait)

    def is_held(self, name: str) -> bool:
        return self._terms.is_held(check_name(name))

    def check_held(self, name: str) -> None:
        self._terms.check_held(name)

    def check_writable(self) -> None:
        self.is_empty()
        self._probe()

    def view(self) -> Store:
        return _View(self)

    # What locks are made of. A key may have hidden parts, which no name has.

    def put_object(self, key: str, data: bytes, *, limit: float | None = None) -> bool:
        """Puts what is absent. Returns whether the object holds `data` now."""
        self._probe()
        # That something is there already may be the answer to our own put, which was done and whose
        # first answer was lost: then the bytes are ours.
        return (
            self._put_absent(key, lambda: data, limit) is not None or self.read_object(key) == data
        )

    def replace_object(self, key: str, data: bytes) -> None:
        self._server.call(
            key,
            lambda: self._server.client().put_object(**self._at(key), Body=data),
            action="PutObject",
        )

    def read_object(self, key: str, most: int | None = None) -> bytes | None:
        part = {} if most is None else {"Range": f"bytes=0-{most - 1}"}

        def read() -> bytes | None:
            try:
                data: bytes = (
                    self._server.client().get_object(**self._at(key), **part)["Body"].read()
                )
            except Exception as error:
                if status_of(error) == 416:
                    return b""
                if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
                    return None
                raise
            return data

        return self._server.call(key, read, action="GetObject")

    def keys(self, below: str) -> list[str]:
        """Returns what there is below, hidden names too."""
        return [
            self._name(item["Key"])
            for page in self._pages(below)
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")
        ]

    # Requests.

    def _pages(self, below: str, *, most: int | None = None, **more: str) -> Iterator[Any]:
        prefix = self._full(below)
        if not below and self._prefix:
            prefix = f"{self._prefix}/"
        asked: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, **more}
        asked |= {} if most is None else {"MaxKeys": most}
        while True:
            # Each page for itself, so that what is tried again is one request.
            page = self._server.call(
                below, lambda: self._server.client().list_objects_v2(**asked), action="ListBucket"
            )
            yield page
            if most is not None or not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _head(self, key: str) -> Any:
        def head() -> Any:
            try:
                return self._server.client().head_object(**self._at(key))
            except Exception as error:
                if status_of(error) == 404:
                    return None
                raise

        return self._server.call(key, head, action="GetObject")

    def _put_absent(
        self, key: str, body: Callable[[], bytes | IO[bytes]], limit: float | None = None
    ) -> str | None:
        """Puts what is absent, in one request. Returns its ETag; None where something was there."""

        def put() -> str | None:
            for attempt in range(_CONFLICT_TRIES):
                data = body()
                try:
                    answer = self._server.client().put_object(
                        **self._at(key), Body=data, IfNoneMatch="*"
                    )
                    return str(answer["ETag"])
                except Exception as error:
                    status = status_of(error)
                    if status == 412:
                        return None
                    if status == 501:
                        raise self._refused() from error
                    # Another put of it is under way.
                    if status != 409 or attempt == _CONFLICT_TRIES - 1:
                        raise
                    time.sleep(0.05 * 2**attempt)
                finally:
                    if not isinstance(data, bytes):
                        data.close()
            raise AssertionError("the last try returns or raises")

        return self._server.call(key, put, action="PutObject", limit=limit)

    def _delete(self, key: str) -> None:
        self._server.call(
            key, lambda: self._server.client().delete_object(**self._at(key)), action="DeleteObject"
        )

    def _fetch(self, name: str) -> Path:
        """Returns a copy of the object in this machine's cache, made now."""
        try:
            answer = self._server.client().get_object(**self._at(name))
        except Exception as error:
            if status_of(error) == 404:
                raise missing(self, name) from None
            raise
        path, size = self._cached(name, answer["ETag"]), 0

        def pieces() -> Iterator[bytes]:
            nonlocal size
            while piece := answer["Body"].read(_PIECE):
                size += len(piece)
                yield piece

        _write_cache(path, pieces())
        if size != answer["ContentLength"]:
            path.unlink(missing_ok=True)
            raise Unreadable(self.place(name), "less of it arrived than there is; try again")
        return path

    def _prime(self, name: str, path: Path, tag: str) -> None:
        """Keeps a copy of what this machine has put, so that it need not be fetched."""
        target = self._cached(name, tag)
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            # A second name of the file where that can be: decoded data may fill half a disk.
            os.link(path, target)
            return

        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece

        _write_cache(target, pieces())

    def _cached(self, name: str, tag: str) -> Path:
        """Returns where this machine keeps a copy; what is replaced has another tag, and another
        place.
        """
        server = endpoint_of(self._server.client())
        mine = hashlib.sha256(f"{server} {self.location}".encode()).hexdigest()
        which = hashlib.sha256(f"{name} {_tag(tag)}".encode()).hexdigest()[:32]
        return cache_root() / "store" / mine[:16] / f"{which}-{name.rpartition('/')[2]}"

    def _equals(self, key: str, path: Path) -> bool:
        def compare() -> bool:
            body = self._server.client().get_object(**self._at(key))["Body"]
            with path.open("rb") as file:
                while True:
                    mine = file.read(_PIECE)
                    if mine != body.read(_PIECE):
                        return False
                    if not mine:
                        return True

        found = self._head(key)
        if found is None or found["ContentLength"] != path.stat().st_size:
            return False
        return self._server.call(key, compare, action="GetObject")

    def _probe(self) -> None:
        """Sees once in each process that the server refuses a second put of one name."""
        mine = (self._bucket, endpoint_of(self._server.client()))
        if mine in _honest:
            return
        key = f".probe-{secrets.token_hex(8)}"
        self._put_absent(key, lambda: b"first")
        second = self._put_absent(key, lambda: b"second")
        try:
            self._delete(key)
        except StorageError as error:
            # A sweep runs without the right to delete; the object's name hides it.
            if not isinstance(error, NotAllowed):
                raise
        if second is not None:
            raise self._refused()
        _honest.add(mine)

    def _refused(self) -> StorageError:
        return StorageError(
            f"{self.location}: this server ignores If-None-Match on put, so answers could be"
            " charged twice. Use Amazon S3, another server with conditional writes, or a folder."
        )

    def _check_size(self, name: str, size: int) -> None:
        if size > MOST_BYTES:
            raise StorageError(
                f"{self.place(name)}: has {size / (1 << 30):.1f} GiB, and one put to S3 takes at"
                f" most {MOST_BYTES >> 30} GiB. Use a smaller backbone, or a folder for --out."
            )

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._full(key)}

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _name(self, key: str) -> str:
        return key[len(self._prefix) + 1 :] if self._prefix else key


class _View(Store):
    """A store as it was when its names were listed: one list, and what is read is read once."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._names = store.names()
        self._known = frozenset(self._names)
        self._read: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[type[S3Store], tuple[str]]:
        return S3Store, (self.location,)

    @property
    def location(self) -> str:
        return self._store.location

    def get(self, name: str, most: int | None = None) -> bytes:
        if check_name(name) not in self._known:
            raise missing(self, name)
        if name not in self._read:
            return self._store.get(name, most)
        return self._read[name][:most]

    def put(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        raise AssertionError("a view is read")

    def remove(self, name: str) -> None:
        raise AssertionError("a view is read")

    def names(self, folder: str = "") -> list[str]:
        if not folder:
            return list(self._names)
        # They are sorted, and "0" follows "/": who asks for each trial's reads no other's.
        first = bisect_left(self._names, f"{check_name(folder)}/")
        return self._names[first : bisect_left(self._names, f"{folder}0", first)]

    def has(self, name: str) -> bool:
        return check_name(name) in self._known

    def local(self, name: str) -> Path:
        return self._store.local(name)

    def hold(self, name: str, *, wait: bool) -> AbstractContextManager[None]:
        return self._store.hold(name, wait=wait)

    def is_held(self, name: str) -> bool:
        return self._store.is_held(name)

    def view(self) -> Store:
        return self

    def fetch(self, choose: Callable[[list[str]], Iterable[str]]) -> None:
        wanted = [name for name in choose(self._names) if name not in self._read]

        def read(name: str) -> None:
            try:
                self._read[name] = self._store.get(name)
            except FileNotFoundError:
                # Removed since: whoever asks for it is told so.
                return

        _in_threads(read, wanted)


def _in_threads(act: Callable[[Any], Any], items: Iterable[Any]) -> None:
    listed = list(items)
    if len(listed) < 2:
        for item in listed:
            act(item)
        return
    with ThreadPoolExecutor(min(THREADS, len(listed))) as threads:
        for _ in threads.map(act, listed):
            pass


def _is_shown(name: str) -> bool:
    return not any(part.startswith(".") for part in name.split("/"))


def _write_cache(path: Path, pieces: Iterator[bytes]) -> None:
    """Writes a file whole; what is cached may be lost in a power cut."""
    aside: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".aside-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
        Path(aside).replace(path)
        aside = None
    except OSError as error:
        if away(error) is not None:
            raise
        raise StorageError(
            f"{path}: a copy of what is kept in S3 cannot be written: {error.strerror or error};"
            f" {advice(error)}, or set ORCHESTRATE_CACHE to a larger disk."
        ) from error
    finally:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)


def _tag(tag: str) -> str:
    return tag.strip('"')
