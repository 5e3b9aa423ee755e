"""Whether the Ray at an address can be joined, and with the access token or without. Asked first:
Ray itself waits for minutes and then says little, or ends the process.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import psutil

ANSWER_SECONDS: Final = 10.0
"""How long a head may take to answer a connection."""
JOIN_SECONDS: Final = 45.0
"""How long a process may take to load Ray and to join; two seconds on an idle machine."""

_HTTP2_OPENING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 sends first (RFC 9113, 3.4): a fixed line and an empty SETTINGS frame."""
_SETTINGS_FRAME: Final = 4


def token_file() -> Path | None:
    """Returns where Ray keeps this user's access token; None for a user without a home (a
    container's bare user number, with HOME unset).
    """
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        return None


def own_token() -> str | None:
    """Returns the access token that this user would present to a Ray, from the places where Ray
    looks; None if there is none.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else token_file()
    try:
        return path.read_text(encoding="utf-8").strip() or None if path is not None else None
    except (OSError, ValueError):
        return None


def protect_token() -> None:
    """Makes the access token of this user readable by its owner alone, and makes one where there is
    none: Ray would write it readable by everyone.
    """
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = Path(named) if named else token_file()
    if os.environ.get("RAY_AUTH_TOKEN") or token is None:
        return
    if not named and not token.exists():
        token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of two processes that make one at once, both must present the one that stays; and mkstemp
        # makes files that nobody else may read.
        handle, aside = tempfile.mkstemp(dir=token.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            token.hardlink_to(aside)
        except FileExistsError:
            pass
        except OSError:
            # A file system without links.
            Path(aside).replace(token)
        finally:
            Path(aside).unlink(missing_ok=True)
    if token.is_file() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        token.chmod(0o600)


def check_address(address: str) -> str | None:
    """Returns why nothing that can be a Ray answers at `address` (host:port), with what to do; None
    if something does. Presents no token and starts no process.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        return (
            f"{address!r} is not a Ray address. Write host:port, such as 127.0.0.1:6379 (`ray start"
            " --head` prints it)"
        )
    try:
        server = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return (
            f"nothing answers there ({reason}). Start one: ray start --head --port={port}; unset"
            " RAY_ADDRESS or leave out --address to run on this machine"
        )
    with server:
        if _speaks_http2(server):
            return None
    return (
        "something listens there but does not answer as the head of a Ray does within"
        f" {ANSWER_SECONDS:g} s. Check the host and the port"
    )


def _speaks_http2(server: socket.socket) -> bool:
    """Returns whether the server opens an HTTP/2 connection, as that of a Ray's head does and most
    that listen by mistake do not.
    """
    frame = b""
    with suppress(OSError):
        server.sendall(_HTTP2_OPENING)
        while len(frame) < 9 and (more := server.recv(9 - len(frame))):
            frame += more
    # The head of a frame: three bytes of length, then its type.
    return len(frame) == 9 and frame[3] == _SETTINGS_FRAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of joining a Ray from another process."""

    refused: bool = False
    """The Ray wants a token, or another one."""
    problem: str | None = None
    """Why it was not joined, with what to do; None if it was."""
    dashboard: str = ""
    """Where its dashboard is, as host:port; empty if it has none."""


class OpenToAll(str):
    """The refusal of a Ray that asks for no access token."""

    problem: str
    how: str

    def __new__(cls, which: str, how: str) -> Self:
        """
        Args:
            which: the Ray, with its address.
            how: how to start it with a token.
        """
        problem = (
            f"{which} asks for no access token: whoever reaches its ports can run programs there"
        )
        refusal = super().__new__(
            cls, f"{problem}. Start it with one ({how}), or take it as it is: --insecure"
        )
        refusal.problem, refusal.how = problem, how
        return refusal


HOW_TO_GUARD: Final = (
    "ray stop; (umask 077; ray get-auth-token --generate >/dev/null); RAY_AUTH_MODE=token ray start"
    " --head"
)


def check_access(address: str, *, insecure: bool = False) -> str | None:
    """Returns why this process may not join the Ray at `address` or would not be let in, with what
    to do; None if it may and would.

    Args:
        insecure: also one that lets in everybody.

    If it wants a token and this user has it, this process will present it: RAY_AUTH_MODE is set,
    which Ray reads once, when it is imported. So check before. A token is shown only to a Ray that
    asks for one.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    token = own_token()
    where = f"cannot reach Ray at {address}:"
    attempt = attempt_join(address, mode="disabled")
    if attempt.problem is None and not insecure:
        # `ray start` listens on all interfaces, whichever address it is given.
        return OpenToAll(f"Ray at {address}", HOW_TO_GUARD)
    if address.startswith("ray://"):
        # Of a lack of the token its proxy says nothing; the next call does what can be done.
        return None
    if attempt.problem is None and mode == "token" and token is None:
        return (
            f"{where} it asks for no access token, but RAY_AUTH_MODE=token has this process present"
            " one, and there is none here. Unset it: unset RAY_AUTH_MODE"
        )
    if not attempt.refused:
        return attempt.problem
    if mode not in ("", "token"):
        return (
            f"{where} it asks for an access token, and RAY_AUTH_MODE forbids presenting one. Unset"
            " it: unset RAY_AUTH_MODE"
        )
    if token is None:
        return (
            f"{where} it asks for an access token, and there is none here. Copy ~/.ray/auth_token"
            " from its head node to the same place here, mode 600"
        )
    attempt = attempt_join(address, mode="token")
    if attempt.refused:
        return (
            f"{where} it refuses this user's access token. Copy ~/.ray/auth_token from its head"
            " node to the same place here, mode 600, and unset RAY_AUTH_TOKEN"
        )
    if attempt.problem is None and not insecure and is_open_to_others(attempt.dashboard):
        return OpenToAll(
            f"the dashboard of Ray at {address} ({attempt.dashboard})",
            f"{HOW_TO_GUARD} --dashboard-host=127.0.0.1",
        )
    if attempt.problem is None and mode != "token" and "ray" in sys.modules:
        return (
            f"{where} it asks for an access token, and this process imported Ray before that was"
            " known. Before you start Python: export RAY_AUTH_MODE=token"
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    return attempt.problem


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches the host."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def is_open_to_others(dashboard: str) -> bool:
    """Returns whether a dashboard (host:port; empty: none) answers other machines without a
    token.
    """
    host = dashboard.rpartition(":")[0]
    return bool(host) and not is_loopback(host) and http_status(dashboard) == 200


def http_status(dashboard: str) -> int | None:
    """Returns the HTTP status with which a dashboard (host:port) answers who shows no token; None
    if nothing answers.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{dashboard}/api/version", timeout=ANSWER_SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None


def attempt_join(address: str, *, mode: Literal["disabled", "token"]) -> Attempt:
    """Joins the Ray from a process that is gone when this returns."""
    command = [sys.executable, "-m", "orchestrator.engines.ray.try_join", address]
    # A head that refuses is asked again every second, 20 times; without this it is only slower.
    env = os.environ | {"RAY_AUTH_MODE": mode, "RAY_NUM_REDIS_GET_RETRIES": "3"}
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            printed, _ = child.communicate(timeout=JOIN_SECONDS)
        except subprocess.TimeoutExpired:
            text = f"a process that tried to join had no answer within {JOIN_SECONDS:g} s"
            return Attempt(problem=explain_text(text, "", address))
        finally:
            child.kill()
    try:
        answer = json.loads(printed)
    except ValueError:
        text = f"Ray ended a process that tried to join, with status {child.returncode}"
        return Attempt(problem=explain_text(text, "", address))
    if answer["joined"]:
        return Attempt(dashboard=answer["dashboard"])
    return Attempt(
        refused=answer["refused"], problem=explain_text(answer["text"], answer["cause"], address)
    )


def no_node_here() -> bool:
    """Returns whether no node of any Ray runs on this machine; a sweep's driver must run on a node
    of its cluster.
    """
    return not any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"]))


_VERSIONS: Final = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def explain(error: BaseException, address: str | None) -> str:
    """Returns what a failure of ray.init means, with what to do. `address` is None for a Ray of
    this process's own.
    """
    text = str(error).strip() or type(error).__name__
    return explain_text(text, str(error.__cause__ or ""), address)


def explain_text(text: str, cause: str, address: str | None) -> str:
    """Returns what `explain` does, of an error in another process: its text and its cause's."""
    first_line = text.splitlines()[0]
    if address is None and "timed out during startup" in text:
        return (
            "Ray did not start on this machine within the 30 s that it gives itself: the machine is"
            " very busy, or short of memory. Try again when others have finished, see what is"
            " missing: orchestrate doctor; or run without Ray: --engine inline"
        )
    if address is None:
        return (
            f"cannot start Ray on this machine ({first_line}). See what is missing: orchestrate"
            " doctor; or run without Ray: --engine inline"
        )
    versions = _VERSIONS.findall(text)
    if len(versions) == 2:
        (their_ray, their_python), (our_ray, our_python) = versions
        return (
            f"Ray at {address} is Ray {their_ray} on Python {their_python}, and this process is Ray"
            f" {our_ray} on Python {our_python}; both must be equal. Install the same on both (pip"
            f" install 'ray[default,tune,train]=={our_ray}'), or run on this machine: --local"
        )
    if "oken" in text + cause and "uthenti" in text + cause:
        return (
            f"Ray at {address} refuses this user's access token. Copy ~/.ray/auth_token from its"
            " head node to the same place here, mode 600"
        )
    return (
        f"cannot reach Ray at {address} ({first_line}). Is this machine one of its nodes (ray start"
        f" --address={address})? Or run on this machine: --local"
    )
