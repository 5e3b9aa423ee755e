"""What others have put into a bucket, read as it is: its listing, and its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.storage.s3_client import (
    THREADS,
    Bucket,
    code_of,
    endpoint_of,
    split,
    status_of,
)
from trainers.errors import DataError

PIECE: Final = 1 << 20
"""Bytes that are read at once."""
_AT_ONCE: Final = 4096
"""Requests that are queued: a listing may hold a million."""


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object as a listing says it is."""

    key: str
    size: int
    tag: str
    """Its ETag, which is another one when the object is."""


class S3Objects:
    """An object, or those below a prefix. Nothing is put, and no right to put is needed."""

    def __init__(self, address: str) -> None:
        """
        Raises:
            StorageError: it is no address in S3.
        """
        self._bucket, self.key = split(address)
        self.address = f"s3://{self._bucket}/{self.key}".rstrip("/")
        self._server = Bucket(
            self._bucket,
            self.address,
            "Data is read with s3:ListBucket on the bucket and s3:GetObject on"
            f" {self.address} and {self.address}/*",
        )

    @property
    def endpoint(self) -> str:
        """The server's address, without a name or password."""
        return endpoint_of(self._server.client())

    def itself(self) -> S3Object | None:
        """Returns the object of just this key; None where there is none.

        Raises:
            StorageError: the server cannot be asked.
        """
        if not self.key:
            return None

        def head() -> S3Object | None:
            try:
                found = self._server.client().head_object(Bucket=self._bucket, Key=self.key)
            except Exception as error:
                if status_of(error) == 404:
                    return None
                raise
            return S3Object(self.key, int(found["ContentLength"]), str(found["ETag"]))

        return self._server.call(self.key, head, action="GetObject")

    def below(self) -> list[S3Object]:
        """Returns the objects whose keys begin with this one and a slash, sorted by key, without
        the empty ones that stand for a folder.

        Raises:
            StorageError: the server cannot be asked.
        """
        found: list[S3Object] = []
        asked: dict[str, Any] = {
            "Bucket": self._bucket,
            "Prefix": f"{self.key}/" if self.key else "",
        }
        while True:
            page = self._server.call(
                "", lambda: self._server.client().list_objects_v2(**asked), action="ListBucket"
            )
            found += [
                S3Object(item["Key"], int(item["Size"]), str(item["ETag"]))
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")
            ]
            if not page.get("IsTruncated"):
                return sorted(found, key=lambda item: item.key)
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def open(self, item: S3Object) -> Body:
        """Returns the bytes of an object, to be read from the start to the end."""
        return Body(self._server, self._bucket, item)

    def save(self, files: Sequence[tuple[S3Object, Path]]) -> None:
        """Writes objects into files, whose folders are there, many at once.

        Raises:
            DataError: an object is not what was listed.
            StorageError: it cannot be read.
            OSError: it cannot be written.
        """

        def write(file: tuple[S3Object, Path]) -> None:
            item, path = file
            body = self.open(item)
            with path.open("xb") as target:
                while piece := body.read(PIECE):
                    target.write(piece)

        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, len(files), _AT_ONCE):
                for _ in threads.map(write, files[start : start + _AT_ONCE]):
                    pass


class Body:
    """The bytes of an object as it was listed. What was read is not read again after an outage."""

    def __init__(self, server: Bucket, bucket: str, item: S3Object) -> None:
        self._server = server
        self._bucket = bucket
        self._item = item
        self._stream: Any = None
        self.offset = 0
        """How many bytes have been read."""

    def read(self, size: int) -> bytes:
        """Returns the next bytes, at most so many; none at the end.

        Raises:
            DataError: the object is gone, or is another one by now.
            StorageError: it cannot be read.
        """
        if self.offset >= self._item.size:
            return b""
        piece = self._server.call(self._item.key, lambda: self._next(size), action="GetObject")
        self.offset += len(piece)
        return piece

    def _next(self, size: int) -> bytes:
        stream = self._stream = self._stream or self._from_here()
        try:
            piece: bytes = stream.read(min(size, self._item.size - self.offset))
        except BaseException:
            self._stream = None
            raise
        if not piece:
            self._stream = None
            raise ConnectionError("it ended before the end of the object")
        return piece

    def _from_here(self) -> Any:
        rest = {"Range": f"bytes={self.offset}-"} if self.offset else {}
        try:
            answer = self._server.client().get_object(
                Bucket=self._bucket, Key=self._item.key, **rest
            )
        except Exception as error:
            if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
                raise self._changed("was listed and is gone") from None
            raise
        if str(answer["ETag"]) != self._item.tag:
            raise self._changed("is not the object that was listed")
        return answer["Body"]

    def _changed(self, what: str) -> DataError:
        return DataError(
            f"s3://{self._bucket}/{self._item.key}: {what}: something writes there. Wait until"
            " nothing does, and give the same command again."
        )
