"""Requests to S3: the client of a process, what is tried again, and what to do about an answer that
cannot be used.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from orchestrator.storage.files import StorageError, advice
from orchestrator.storage.outages import Outages
from orchestrator.storage.store import check_name

THREADS: Final = 16
"""Requests at once, where many objects are put, read or removed."""

_ADDRESS: Final = re.compile(r"[sS]3://([^/]*)(?:/(.*))?", re.DOTALL)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")

Answer = TypeVar("Answer")


def parse(location: str) -> tuple[str, str]:
    """Returns the bucket and the prefix of the address of a store.

    Raises:
        StorageError: it is none. What stands in it is not repeated where it may be a password.
    """
    bucket, prefix = split(location)
    try:
        if prefix:
            check_name(prefix)
    except ValueError:
        raise StorageError(
            f"{location!r:.200}: {prefix!r:.120} cannot be a prefix: write parts of letters, digits"
            " and _.+=- joined by single slashes, such as s3://bucket/sweeps/mine"
        ) from None
    return bucket, prefix


def split(location: str) -> tuple[str, str]:
    """Returns the bucket of an address and what follows it: a key or prefix, which may hold any
    characters but `@` and `?`, without slashes around it.

    Raises:
        StorageError: as `parse`.
    """
    found = _ADDRESS.fullmatch(location)
    if found is None or "@" in location or "?" in location:
        _, at, rest = location.rpartition("@")
        shown = (f"...@{rest}" if at else rest).partition("?")[0]
        raise StorageError(
            f"{shown!r:.200}: is no place in S3. Write s3://bucket/prefix;"
            " credentials are found in the environment, in ~/.aws or in the machine's role"
        )
    if not _BUCKET.fullmatch(found[1]):
        raise StorageError(
            f"{location!r:.200}: {found[1]!r:.80} cannot be the name of a bucket; write"
            " s3://bucket/prefix"
        )
    return found[1], (found[2] or "").strip("/")


class Bucket:
    """A bucket, asked by one client in each process. Credentials, region and endpoint are found by
    boto3 on each machine anew, and are kept nowhere.
    """

    def __init__(self, name: str, location: str, rights: str) -> None:
        """
        Args:
            location: the address that errors name.
            rights: which rights are needed on what, in a sentence for who has not got them.
        """
        self._name = name
        self._location = location
        self._rights = rights
        self._outages = Outages(location)
        self._made: tuple[int, Any] | None = None
        self._making = threading.Lock()

    def call(
        self,
        key: str,
        act: Callable[[], Answer],
        *,
        action: str = "GetObject",
        limit: float | None = None,
    ) -> Answer:
        """Returns what `act` returns, tried again while the server is away; what it cannot answer
        is said with what to do.
        """
        try:
            return self._outages.call(act, away, limit=limit)
        except (StorageError, FileNotFoundError):
            raise
        except Exception as error:
            problem = self._problem(key, error, action)
            if problem is None:
                raise
            raise problem from None

    def _problem(self, key: str, error: Exception, action: str) -> StorageError | None:
        from botocore import exceptions

        where, code = self._location, code_of(error)
        if isinstance(error, exceptions.ClientError):
            if code == "NoSuchBucket":
                return StorageError(
                    f"{where}: there is no bucket {self._name!r} at {endpoint_of(self.client())}."
                    f" Make it (aws s3 mb s3://{self._name}), or correct its name."
                )
            if code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"):
                return StorageError(
                    f"{where}: the credentials have expired. Renew them (such as: aws sso login),"
                    " and give the same command again."
                )
            if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"):
                return StorageError(
                    f"{where}: the server does not accept these credentials ({code}). Correct the"
                    " access key and secret of the environment, of ~/.aws or of the machine's role;"
                    " what they belong to says: aws sts get-caller-identity"
                )
            if code == "RequestTimeTooSkewed":
                return StorageError(
                    f"{where}: this machine's clock is wrong by more than the server allows. Set it"
                    " (such as: timedatectl set-ntp true)."
                )
            if status_of(error) in (301, 307, 400) and (
                code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301", "307")
                or "Region" in code
                or "Location" in code
            ):
                region = error.response.get("Error", {}).get("Region") or error.response.get(
                    "ResponseMetadata", {}
                ).get("HTTPHeaders", {}).get("x-amz-bucket-region")
                return StorageError(
                    f"{where}: the bucket is in another region. Set it:"
                    f" export AWS_DEFAULT_REGION={region or 'REGION-OF-THE-BUCKET'}"
                )
            if code == "InvalidObjectState":
                return StorageError(
                    f"{where}: {key} is archived and cannot be read. Restore it (aws s3api"
                    " restore-object), or copy it to another storage class."
                )
            if status_of(error) == 403:
                return NotAllowed(
                    f"{where}: not allowed to do what s3:{action} permits (at"
                    f" {key or 'the whole prefix'}). {self._rights}; or other credentials are"
                    " meant."
                )
            return StorageError(
                f"{where}/{key}: the server refused {action} ({status_of(error)} {code})."
                " What was recorded before is kept; check the bucket's settings and run again."
            )
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return StorageError(
                f"{where}: no credentials on this machine. Set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the machine a role."
            )
        if isinstance(error, exceptions.NoRegionError):
            return StorageError(
                f"{where}: no region is set. Set it: export AWS_DEFAULT_REGION=us-east-1"
            )
        if isinstance(error, exceptions.BotoCoreError | ValueError):
            return StorageError(
                f"{where}: {_plain(error)}. Check the settings of AWS on this machine (the"
                " environment, ~/.aws/config), and run again."
            )
        if isinstance(error, OSError):
            return StorageError(
                f"{error.filename or where}: {error.strerror or error}; {advice(error)} and run"
                " again."
            )
        return None

    def client(self) -> Any:
        """Returns the client of this process: what was made before a fork is not used after it."""
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1]
        with self._making:
            made = self._made
            if made is None or made[0] != os.getpid():
                made = self._made = (os.getpid(), self._make_client())
        return made[1]

    def _make_client(self) -> Any:
        import boto3
        import botocore.config
        from botocore import exceptions

        settings: dict[str, Any] = {
            "connect_timeout": 10,
            "read_timeout": 60,
            "max_pool_connections": 2 * THREADS,
            # What is tried again, and for how long, is said in one place: outages.py.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            # Older servers know none of the checksums that are sent otherwise.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        try:
            with _boto3_lock:
                session = boto3.session.Session()
                client = session.client("s3", config=botocore.config.Config(**settings))
                if ".amazonaws.com" not in str(client.meta.endpoint_url):
                    # Few servers but Amazon's have a host for each bucket.
                    settings["s3"] = {"addressing_style": "path"}
                    client = session.client("s3", config=botocore.config.Config(**settings))
        except (exceptions.BotoCoreError, ValueError) as error:
            raise (
                self._problem("", error, "ListBucket") or StorageError(f"{self._location}: {error}")
            ) from None
        return client


class NotAllowed(StorageError):
    """The credentials lack a right."""


_boto3_lock: Final = threading.Lock()
"""Sessions of boto3 are not to be made by two threads at once."""


def endpoint_of(client: Any) -> str:
    """Returns the server's address without a name or password that may stand in it."""
    parts = urlsplit(str(client.meta.endpoint_url))
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def status_of(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None


def code_of(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code")) if isinstance(response, dict) else ""


_BUSY: Final = frozenset(
    {
        "SlowDown",
        "RequestTimeout",
        "RequestTimeoutException",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "RequestThrottled",
    }
)


def away(error: Exception) -> str | None:
    """Says in a few words why the server did not answer; None where it did, or never will."""
    import urllib3.exceptions
    from botocore import exceptions

    status, text = status_of(error), str(error)
    if status is not None:
        gone = status == 429 or (status >= 500 and status != 501) or code_of(error) in _BUSY
        return f"it answers {status} {code_of(error)}" if gone else None
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return None
    cause = str(getattr(error, "kwargs", {}).get("error", "")) + text
    for said in ("Connection refused", "Name or service not known", "No route to host"):
        if said in cause:
            return said.lower()
    if "name resolution" in cause or "Failed to resolve" in cause:
        return "its name is not found"
    if isinstance(error, exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError):
        return "no answer in time"
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.MetadataRetrievalError):
        return "the credentials of this machine cannot be had now"
    if isinstance(
        error,
        exceptions.HTTPClientError
        | exceptions.IncompleteReadError
        | urllib3.exceptions.HTTPError
        | ConnectionError,
    ):
        return "the connection broke"
    return None


def _plain(error: Exception) -> str:
    """Returns an error's text in one line, without a name or password in an address."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))[:300].rstrip(".")
