"""Parties that choose a batch in turns, each turn in a forked process of its own: CPU seconds, peak
memory, and how many of the images are the same.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmark.printed import spread

Array = npt.NDArray[Any]
Choice = Callable[[], Array]
"""Returns the batch that is chosen: places in the pool."""

LEAST_SECONDS = 0.05
"""A turn repeats what takes less."""


def measured(choice: Choice) -> tuple[float, float, Array]:
    """Returns the CPU seconds and the MiB of a choice in a forked process, and the batch."""
    # What was freed before is given back: a turn that takes it again would seem to take none.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_turn, args=(choice, theirs))
    process.start()
    theirs.close()
    try:
        found: tuple[float, float, Array] = ours.recv()
    finally:
        process.join()
    return found


def _turn(choice: Choice, to: Connection) -> None:
    page = resource.getpagesize()
    held = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * page
    start, calls = time.process_time(), 0
    while not calls or time.process_time() - start < LEAST_SECONDS:
        batch = choice()
        calls += 1
    seconds = (time.process_time() - start) / calls
    # Of a forked process the peak starts at what it holds.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    to.send((seconds, max(0, peak - held) / 2**20, np.asarray(batch)))


def compare(
    title: str,
    parties: Mapping[str, Choice | str],
    repeats: int,
    distance: Callable[[Array], float] | None = None,
) -> None:
    """Prints a line a party; a text in place of a choice says why there is none."""
    print(title, flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in parties}
    peaks: dict[str, list[float]] = {name: [] for name in parties}
    batches: dict[str, Array] = {}
    for _ in range(repeats):
        for name, choice in parties.items():
            if not isinstance(choice, str):
                took, peak, batches[name] = measured(choice)
                seconds[name].append(took)
                peaks[name].append(peak)
    first, *_ = parties
    for name, choice in parties.items():
        if isinstance(choice, str):
            print(f"  {name:33} {choice}", flush=True)
            continue
        ratio = [a / b for a, b in zip(seconds[name], seconds[first], strict=True)]
        same = np.intersect1d(batches[name], batches[first]).size
        far = f", {distance(batches[name]):.4f} to the nearest" if distance else ""
        print(
            f"  {name:33} {spread([1000 * s for s in seconds[name]], '.4g')} ms,"
            f" {spread(peaks[name], '.0f')} MiB, {spread(ratio, '.3g')} times the first,"
            f" {same} of {batches[name].size} the same{far}",
            flush=True,
        )
