"""Calls to a place that may be away for a while: each is tried again for minutes, and who waits is
told so.
"""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from orchestrator.storage.files import StorageError, StorageLost

VARIABLE: Final = "ORCHESTRATE_STORAGE_PATIENCE"
"""Seconds for which a call is tried again; DEFAULT_SECONDS where it is not set."""
DEFAULT_SECONDS: Final = 300.0
TELL_SECONDS: Final = 5.0
"""An outage that is shorter is not worth a line."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

Answer = TypeVar("Answer")


def patience() -> float:
    """Returns for how many seconds a call is tried again.

    Raises:
        StorageError: the variable is no number of seconds.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return DEFAULT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise StorageError(
            f"{VARIABLE} = {text!r:.80}: write a number of seconds, such as {DEFAULT_SECONDS:g}"
        )
    return seconds


class Outages:
    """Tries calls again while a place does not answer, and says on standard error when that has
    lasted and when it is over. Its threads share one instance.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = False

    def call(
        self,
        act: Callable[[], Answer],
        reason: Callable[[Exception], str | None],
        *,
        limit: float | None = None,
    ) -> Answer:
        """Returns what `act` returns, as soon as it does.

        Args:
            act: may be done twice: its answer can be lost after it was done.
            reason: says in a few words why the place did not answer; None for any other error,
                which is raised as it is.
            limit: seconds, where those of the environment will not do.

        Raises:
            StorageLost: it did not answer for too long.
        """
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                answer = act()
            except Exception as error:
                why = reason(error)
                if why is None:
                    self._is_back()
                    raise
                seconds = patience() if limit is None else limit
                left = began + seconds - time.monotonic()
                if left <= 0:
                    raise StorageLost(
                        f"{self._place}: did not answer for {_spoken(seconds)} ({why}). What was"
                        " recorded before is kept; once it answers again, give the same command:"
                        " it goes on from there."
                    ) from error
                self._is_away(why, seconds)
                # Spread out, so that many processes do not come back in one instant.
                time.sleep(min(left, pause * random.uniform(0.5, 1)))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._is_back()
                return answer

    def _is_away(self, why: str, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if self._told or now - self._since < TELL_SECONDS:
                return
            self._told = True
        _tell(
            f"storage at {self._place} does not answer ({why}); trying for up to {_spoken(seconds)}"
        )

    def _is_back(self) -> None:
        if self._since is None:
            return
        with self._lock:
            since, told = self._since, self._told
            self._since, self._told = None, False
        if told and since is not None:
            _tell(f"storage at {self._place} answers again, after {time.monotonic() - since:.0f} s")


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
