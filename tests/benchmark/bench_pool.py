"""Time and memory of one 977,000-question round over a pool of ImageNet's size. Run by hand:
`python -m tests.benchmark.bench_pool`.
"""

from __future__ import annotations

import platform
import resource
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orchestrator.labelling.choose import choose
from orchestrator.labelling.ledger import Ledger
from orchestrator.labelling.oracles.simulated import LabelsOracle
from orchestrator.labelling.pool import Pool, PoolTerms
from orchestrator.labelling.queries.chance import Random
from orchestrator.labelling.queries.confidence import Easy
from orchestrator.labelling.tasks.multiclass import MultiClass
from orchestrator.storage.segments import open_segments
from search_spaces.reading.config import ValidationConfig

T = TypeVar("T")

IMAGES, CLASSES, QUESTIONS, INITIAL = 1_281_167, 1_000, 977_000, 30


def main(repeats: int = 5) -> None:
    rng = np.random.default_rng(0)
    of = PoolTerms(
        trial="benchmark",
        seed=0,
        num_classes=CLASSES,
        pool_items=IMAGES,
        initial_labels_per_class=INITIAL,
        validation=ValidationConfig(source="none"),
        budget_bits=INITIAL * CLASSES * float(np.log2(CLASSES)) + QUESTIONS,
        quotas=(QUESTIONS,),
        requery="pool",
    )
    oracle = LabelsOracle(rng.integers(0, CLASSES, IMAGES, dtype=np.int32), CLASSES)
    scores: dict[str, Any] = {
        "item_ids": np.arange(IMAGES),
        "guess": rng.integers(0, CLASSES, IMAGES, dtype=np.int32),
        "confidence": rng.random(IMAGES, dtype=np.float32),
    }
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[..., T], *args: object, **settings: object) -> T:
        start = time.perf_counter()
        result = work(*args, **settings)
        times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            pool = Pool(of, Ledger(open_segments(folder)), oracle)
            timed("open, 30,000 initial labels", pool.open)
            eligible = timed("eligible", pool.eligible)
            chosen = timed(
                "choose, random",
                choose,
                MultiClass(),
                Random(),
                scores,
                eligible,
                QUESTIONS,
                known=pool.training_inputs,
                seed=0,
                round=1,
                mask_refused=True,
            )
            timed(
                "choose, easy",
                choose,
                MultiClass(),
                Easy(),
                scores,
                eligible,
                QUESTIONS,
                known=pool.training_inputs,
                seed=0,
                round=1,
                mask_refused=True,
            )
            timed("ask: plan, answers, both segments", pool.ask, 1, chosen)
            timed("training_inputs", pool.training_inputs)
            timed("counts", pool.counts)
            fresh = Pool(of, Ledger(open_segments(folder)), oracle)
            timed("open again, by replay", fresh.open)
            assert fresh.state().digest() == pool.state().digest()
            disk = sum(path.stat().st_size for path in Path(folder).iterdir())
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(of, Ledger(open_segments(folder)), oracle)
        pool.open()
        chosen = choose(
            MultiClass(),
            Random(),
            scores,
            pool.eligible(),
            QUESTIONS,
            known=pool.training_inputs,
            seed=0,
            round=1,
            mask_refused=True,
        )
        tracemalloc.start()
        pool.ask(1, chosen)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    print(
        f"{IMAGES:,} images, {CLASSES:,} classes, {QUESTIONS:,} questions; n = {repeats};"
        f" {platform.machine()}, Python {platform.python_version()}"
    )
    for name, seconds in times.items():
        print(
            f"  {name:36} median {statistics.median(seconds):7.3f} s   worst {max(seconds):7.3f} s"
        )
    mib = 2**20
    print(
        f"  state arrays {pool.state().nbytes() / mib:.1f} MiB; ask added {held / mib:.1f} MiB,"
        f" {peak / mib:.1f} MiB at its peak"
    )
    print(f"  ledger {disk / mib:.1f} MiB on disk")
    print(f"  process peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
