"""S3 servers for tests: moto as a process of its own, and a proxy before any server that is away,
loses replies or lies when it is told to, and counts.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers.ports import free_port

BUCKET = "sweeps"
KEY, SECRET = "PLANTEDKEYID00000001", "planted+secret/0123456789abcdefghijklmno"
"""Credentials that must be found nowhere afterwards."""


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def moto() -> Iterator[str]:
    """Yields the endpoint of a real S3 server process on loopback, with one bucket."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.1)
        make_bucket(url)
        yield url
    finally:
        server.kill()
        server.wait()


def client(endpoint: str) -> Any:
    """A client apart from the environment."""
    import boto3
    import botocore.config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=botocore.config.Config(s3={"addressing_style": "path"}),
    )


def make_bucket(endpoint: str) -> None:
    client(endpoint).create_bucket(Bucket=BUCKET)


@contextmanager
def use(endpoint: str) -> Iterator[None]:
    """The environment points boto3 to the endpoint, in this process and in its children."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(endpoint).items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        yield


def objects(endpoint: str) -> dict[str, bytes]:
    """Everything in the bucket, hidden objects too."""
    s3, found = client(endpoint), {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", ()):
            found[item["Key"]] = s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
    return found


class Fault:
    """What the proxy does to one request instead of passing it on and its answer back."""

    CLOSE = "close"
    """The connection ends without a word."""
    BUSY = "busy"
    """503 SlowDown."""
    DONE_AND_CLOSE = "done and close"
    """The server does it, and the connection ends before the answer."""
    REFUSED = "refused"
    """403."""


Decide = Callable[[str, str, dict[str, str]], str | None]
"""Takes method, path and headers of a request, which it may change; returns a Fault or None."""


class Proxy:
    """Stands between a client and a server."""

    def __init__(self, target: str) -> None:
        self.decide: Decide = lambda method, path, headers: None
        self.counts: Counter[str] = Counter()
        self.seen: list[tuple[str, str]] = []
        self.bytes: Counter[str] = Counter()
        """Of bodies, `up` to the server and `down` from it."""
        proxy, where = self, urlsplit(target)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: Any) -> None:
                return

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("expect", "connection")
                }
                with proxy.lock:
                    proxy.counts[self.command] += 1
                    proxy.seen.append((self.command, self.path))
                    fault = proxy.decide(self.command, self.path, headers)
                if fault == Fault.CLOSE:
                    self.close_connection = True
                    return
                if fault == Fault.BUSY:
                    self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
                    return
                if fault == Fault.REFUSED:
                    self._answer(403, [], b"<Error><Code>AccessDenied</Code></Error>")
                    return
                assert where.hostname is not None
                server = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
                try:
                    server.request(self.command, self.path, body or None, headers)
                    answer = server.getresponse()
                    data = answer.read()
                    with proxy.lock:
                        proxy.bytes["up"] += len(body)
                        proxy.bytes["down"] += len(data)
                except OSError:
                    self.close_connection = True
                    return
                finally:
                    server.close()
                if fault == Fault.DONE_AND_CLOSE:
                    self.close_connection = True
                    return
                self._answer(answer.status, answer.getheaders(), data)

            def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = {n.lower(): v for n, v in headers}.get("content-length")
                is_head = self.command == "HEAD" and length is not None
                self.send_header("Content-Length", str(length) if is_head else str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                return

        self.lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Counts from now on."""
        with self.lock:
            self.counts.clear()
            self.seen.clear()
            self.bytes.clear()
