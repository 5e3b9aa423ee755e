"""Locks where there is neither a kernel that frees them nor a clock that all share: each hold is a
numbered term, put once, whose holder writes a beat.

Below `.locks/NAME/`: `000042` says who holds term 42, `000042.beat` changes while the holder
lives, and `000042.free` is there once the term has ended. A newcomer puts term 43 when 42 is free,
when its process is known to be dead, or when its beat stood still for long enough by the newcomer's
own clock. The times of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from orchestrator.storage.files import StorageError
from orchestrator.storage.locks import LockHeld, TakenOver

BEAT_SECONDS: Final = 10.0
"""Between two beats of a holder."""
STILL_SECONDS: Final = 60.0
"""A beat that stands still for so long is a dead holder's."""
LOOKS: Final = 10
"""Looks of a newcomer at the beat, for each time that it should have changed."""
TELL_SECONDS: Final = 3.0
"""A newcomer that looks for longer says what it waits for."""
RELEASE_SECONDS: Final = 10.0
"""For which an end of a term is tried to be put, where the place does not answer; without it the
next one waits until the beat has stood still.
"""

_KEY: Final = re.compile(r"([0-9]{6})(\.beat|\.free)?")


class Objects(Protocol):
    """What locks are made of: objects that are put once, and objects that are replaced."""

    @property
    def location(self) -> str: ...

    def put_object(self, key: str, data: bytes, *, limit: float | None = None) -> bool:
        """Returns whether this put made the object, or one of the same bytes was there."""
        ...

    def replace_object(self, key: str, data: bytes) -> None: ...

    def read_object(self, key: str) -> bytes | None: ...

    def keys(self, below: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class _Term:
    number: int
    is_free: bool


@dataclass(slots=True)
class _Watch:
    """What this process has seen of the beat of a term."""

    number: int
    beat: bytes | None
    looked: float
    still: float = 0.0
    """Seconds for which it was seen not to change. Those in which it could not be read do not
    count: then its holder could not write it either.
    """
    moved: bool = False


class Terms:
    """The locks of one place, as this process takes and sees them."""

    def __init__(
        self,
        objects: Objects,
        beat_seconds: float | None = None,
        still_seconds: float | None = None,
    ) -> None:
        self._objects = objects
        self._beat = BEAT_SECONDS if beat_seconds is None else beat_seconds
        self._still = STILL_SECONDS if still_seconds is None else still_seconds
        self._watches: dict[str, _Watch] = {}
        self._held: dict[str, int] = {}

    @contextmanager
    def hold(self, name: str, *, wait: bool) -> Iterator[None]:
        """Holds the lock for the length of the block.

        Raises:
            LockHeld: a living process has it and `wait` is False.
        """
        number, ended = self._take(name, wait), threading.Event()
        beating = threading.Thread(
            target=self._keep_beating, args=(name, number, ended), name=f"beat-{name}", daemon=True
        )
        beating.start()
        self._held[name] = number
        try:
            yield
        finally:
            ended.set()
            del self._held[name]
            with contextlib.suppress(StorageError):
                self._objects.put_object(_key(name, number, ".free"), b"", limit=RELEASE_SECONDS)

    def is_held(self, name: str) -> bool:
        """Returns whether a living process holds the lock; looks on for as long as that takes to
        know.
        """
        watching = _Watching(self._where(name))
        while True:
            term = self._newest(name)
            if term is None or term.is_free or self._is_dead(name, term):
                return False
            lives = self._lives(name, term)
            if lives is not None:
                return lives
            watching.tell(self._holder(name, term), self._still)
            time.sleep(self._beat / LOOKS)

    def check_held(self, name: str) -> None:
        """Raises TakenOver where this process took the lock and another has it by now."""
        number = self._held.get(name)
        if number is None:
            return
        after = self._objects.read_object(_key(name, number + 1))
        if after is not None:
            who = _read(after)
            raise TakenOver(
                f"{self._objects.location}: taken over by process {who.get('pid', '?')} on"
                f" {who.get('host', 'another machine')}, since {who.get('since', '?')}: it had not"
                f" heard of this one for {self._still:g} s. What was recorded is kept, and nothing"
                " was charged twice; the other one goes on with it."
            )

    def _take(self, name: str, wait: bool) -> int:
        watching = _Watching(self._where(name))
        while True:
            term = self._newest(name)
            lives = (
                False
                if term is None or term.is_free or self._is_dead(name, term)
                else self._lives(name, term)
            )
            if lives is False:
                number = 1 if term is None else term.number + 1
                if self._objects.put_object(_key(name, number), _describe()):
                    return number
                continue
            assert term is not None
            holder = self._holder(name, term)
            if lives and not wait:
                raise LockHeld(
                    self._where(name),
                    holder if {"pid", "host", "since"} <= holder.keys() else {},
                )
            if not wait:
                watching.tell(holder, self._still)
            time.sleep(self._beat / LOOKS)

    def _lives(self, name: str, term: _Term) -> bool | None:
        """Looks at the beat of a term. Returns whether its holder lives; None where that is not
        known yet.
        """
        beat = self._objects.read_object(_key(name, term.number, ".beat"))
        now, seen = time.monotonic(), self._watches.get(name)
        if seen is None or seen.number != term.number:
            # A term that began while this process looked on was put by a living one.
            self._watches[name] = _Watch(term.number, beat, now, moved=seen is not None)
        elif seen.beat != beat:
            seen.beat, seen.looked, seen.still, seen.moved = beat, now, 0.0, True
        else:
            # A gap between two looks is an outage, or this process was stopped.
            seen.still += min(now - seen.looked, 3 * self._beat / LOOKS)
            seen.looked = now
        seen = self._watches[name]
        if seen.still >= self._still:
            return False
        return True if seen.moved else None

    def _newest(self, name: str) -> _Term | None:
        below = _folder(name)
        ends = [
            found
            for key in self._objects.keys(below)
            if (found := _KEY.fullmatch(key, len(below))) is not None
        ]
        number = max((int(found[1]) for found in ends if found[2] is None), default=None)
        if number is None:
            return None
        return _Term(number, any(f[2] == ".free" and int(f[1]) == number for f in ends))

    def _holder(self, name: str, term: _Term) -> dict[str, Any]:
        return _read(self._objects.read_object(_key(name, term.number)) or b"")

    def _is_dead(self, name: str, term: _Term) -> bool:
        """Returns whether the holder is known to be dead: it ran on this machine and is gone."""
        holder = self._holder(name, term)
        here, pid = machine(), holder.get("pid")
        if here is None or holder.get("machine") != here or not isinstance(pid, int):
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            return False
        # Its number may be another's by now.
        return _started(pid) not in (None, holder.get("started"))

    def _keep_beating(self, name: str, number: int, ended: threading.Event) -> None:
        beats = 0
        while not ended.wait(self._beat):
            beats += 1
            # What cannot be put now can be at the next beat; what follows is the newcomer's doing.
            with contextlib.suppress(StorageError):
                self._objects.replace_object(_key(name, number, ".beat"), str(beats).encode())

    def _where(self, name: str) -> str:
        return f"{self._objects.location}/{name}"


class _Watching:
    """Says once what a newcomer waits for."""

    def __init__(self, where: str) -> None:
        self._where, self._began, self._told = where, time.monotonic(), False

    def tell(self, holder: dict[str, Any], still: float) -> None:
        if self._told or time.monotonic() - self._began < TELL_SECONDS:
            return
        self._told = True
        print(
            f"{self._where.rpartition('/')[0]}: was in use by process {holder.get('pid', '?')} on"
            f" {holder.get('host', '?')}; looking for up to {still:g} s whether it still lives",
            file=sys.stderr,
            flush=True,
        )


def _folder(name: str) -> str:
    return f".locks/{name}/"


def _key(name: str, number: int, end: str = "") -> str:
    return f"{_folder(name)}{number:06d}{end}"


def _describe() -> bytes:
    """Returns who takes a term. The token makes it unlike every other: a put whose reply was lost
    is known by its bytes.
    """
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine(),
        "started": _started(os.getpid()),
        "token": secrets.token_hex(8),
    }
    return json.dumps(who).encode()


def _read(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def machine() -> str | None:
    """Returns what tells this start of this machine, and its process numbers, from every other;
    None where the system does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Returns when a process of this machine began, in ticks since the machine did, or "gone" of
    one that is dead and not buried; None where the system does not say.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "gone" if state in "ZX" else rest[18]
    except (OSError, IndexError, ValueError):
        return None
