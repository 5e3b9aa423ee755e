"""CPU seconds and memory of each query strategy that looks at vectors, each in a process of its
own: 2,000 questions of pools of three sizes. Run by hand: `python -m tests.benchmark.bench_queries
[STRATEGY ...]`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.protocols import Draw, Scores
from orchestrator.labelling.questions import Questions
from tests.benchmark.printed import hardware

STRATEGIES = (
    *("typiclust", "probcover", "max_herding", "uherding"),
    *("margin_diverse", "badge", "dropquery"),
)
POOLS = (10_000, 50_000, 100_000)
QUOTA, LABELLED, WIDTH, CLASSES = 2_000, 1_000, 128, 100


def some_draw(
    images: int, classes: int = CLASSES, labelled: int = LABELLED, quota: int = QUOTA
) -> Draw:
    """Returns a round over images of overlapping classes, and of a linear model of them."""
    rng = np.random.default_rng(0)
    count = images + labelled
    centres = rng.normal(size=(classes, WIDTH))
    embedding = centres[rng.integers(0, classes, count)] + rng.normal(size=(count, WIDTH))
    embedding = np.maximum(embedding, 0).astype(np.float32)
    logits = embedding @ (0.2 * centres.T).astype(np.float32)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    arrays = {
        "embedding": embedding,
        "probabilities": probabilities,
        "margin": best[:, 1] - best[:, 0],
    }
    scores: Scores = {name: array[:images] for name, array in arrays.items()}
    held: Scores = {name: array[images:] for name, array in arrays.items()}
    asked = Questions.singles(np.arange(images), probabilities[:images].argmax(1), best[:images, 1])
    return Draw(asked, scores, 0, 1, quota, False, held, classes)


def main(strategies: list[str]) -> None:
    print(
        f"{QUOTA:,} questions, {LABELLED:,} labelled, {WIDTH} numbers an image, {CLASSES} classes;"
        f" n = 1; {hardware()}",
        flush=True,
    )
    for name in strategies or STRATEGIES:
        for images in POOLS:
            command = [sys.executable, "-m", "tests.benchmark.bench_queries", name, str(images)]
            subprocess.run(command, check=True)


def one(name: str, images: int) -> None:
    draw = some_draw(images)
    query = INSTALLED.load("query", name)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, wall = time.process_time(), time.perf_counter()
    rank = query.rank(draw)
    cpu, wall = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    different = np.unique(rank[draw.order(rank)[:QUOTA]]).size
    print(
        f"  {name:15} {images:>8,} images: {cpu:6.1f} CPU s, {wall:6.1f} s; process"
        f" {peak / 1024:.0f} MiB ({before / 1024:.0f} before); {different:,} ranks",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[2].isdigit():
        one(sys.argv[1], int(sys.argv[2]))
    else:
        main(sys.argv[1:])
