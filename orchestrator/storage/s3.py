"""Segments as objects of an S3 bucket, put with `If-None-Match: *`."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions

from orchestrator.storage.files import ASIDE, StorageError

_CONFLICT_TRIES: Final = 8


class S3Segments:
    """Segments under `s3://bucket/prefix`. Credentials, region and endpoint come from the usual AWS
    chain.
    """

    def __init__(self, url: str, client: Any = None) -> None:
        """`client`: a boto3 S3 client, where the one of the environment will not do."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise StorageError(f"{url}: not an S3 place; write s3://bucket/prefix")
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._probed = False
        config = botocore.config.Config(
            connect_timeout=10, read_timeout=60, retries={"max_attempts": 5, "mode": "standard"}
        )
        try:
            self._client = client if client is not None else boto3.client("s3", config=config)
        except botocore.exceptions.BotoCoreError as error:
            raise StorageError(f"{url}: {error}") from error

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def put_if_absent(self, name: str, data: bytes) -> bool:
        if not self._probed:
            self._probe()
        # A 412 may also answer our own write, sent twice after a lost reply: then the bytes are
        # ours.
        return self._put_new(self._key(name), data) or self.get(name) == data

    def get(self, name: str) -> bytes:
        try:
            data: bytes = self._client.get_object(Bucket=self._bucket, Key=self._key(name))[
                "Body"
            ].read()
        except botocore.exceptions.ClientError as error:
            if _code(error) in ("NoSuchKey", "404"):
                raise FileNotFoundError(f"{self.location}/{name}") from error
            raise self._failed(name, error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise self._failed(name, error) from error
        return data

    def names(self) -> list[str]:
        prefix = self._key("")
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, Delimiter="/"
            )
            names = [
                item["Key"].removeprefix(prefix)
                for page in pages
                for item in page.get("Contents", ())
            ]
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise self._failed("", error) from error
        return sorted(name for name in names if name and not name.startswith("."))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _put_new(self, key: str, data: bytes) -> bool:
        """Puts `key` if it is absent. True: it was absent and is `data` now. False: it was there
        (412). A 409 means that another write is under way: try again.
        """
        for attempt in range(_CONFLICT_TRIES):
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*")
            except botocore.exceptions.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 412:
                    return False
                if status == 501:
                    raise self._refused() from error
                if status != 409:
                    raise self._failed(key, error) from error
                time.sleep(0.05 * 2**attempt)
            except botocore.exceptions.BotoCoreError as error:
                raise self._failed(key, error) from error
            else:
                return True
        raise StorageError(
            f"s3://{self._bucket}/{key}: other writes to it did not end after {_CONFLICT_TRIES}"
            " tries; run again."
        )

    def _probe(self) -> None:
        key = self._key(f"{ASIDE}probe-{secrets.token_hex(6)}")
        self._put_new(key, b"first")
        refused = not self._put_new(key, b"second")
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key)
        except botocore.exceptions.ClientError as error:
            # Deleting needs a permission that a ledger does not; the probe's name hides it.
            if _code(error) != "AccessDenied":
                raise self._failed(key, error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise self._failed(key, error) from error
        if not refused:
            raise self._refused()
        self._probed = True

    def _refused(self) -> StorageError:
        return StorageError(
            f"{self.location}: this server ignores If-None-Match on put, so answers could be"
            " charged twice; use Amazon S3, another server with conditional writes, or a folder."
        )

    def _failed(self, name: str, error: Exception) -> StorageError:
        return StorageError(
            f"{self.location}/{name}: {error}. What was recorded before is intact; check bucket,"
            " credentials and endpoint, and run again."
        )


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))
