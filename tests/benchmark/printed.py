"""What every benchmark prints beside its numbers: the machine, and the spread of what was
measured.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch


def hardware(device: str = "cpu") -> str:
    """One line: CPU, cores, load, torch and its threads, and the GPU where one is used."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model
    )
    parts = [
        model,
        f"{os.cpu_count()} cores",
        f"load {os.getloadavg()[0]:.1f}",
        f"torch {torch.__version__}",
        f"{torch.get_num_threads()} thread(s)",
    ]
    if device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join(parts)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Median with the smallest and the largest: `1.250 (1.100-1.300)`."""
    median, low, high = (
        format(value, form) for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low}-{high})"
