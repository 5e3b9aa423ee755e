"""CPU seconds and memory of a round of questions about pairs of an image and a category, all of
which may be asked: choosing 20,000 of them and learning their answers, each strategy in a process
of its own. Run by hand: `python -m tests.benchmark.bench_pairs`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.choose import choose
from orchestrator.labelling.facts import Facts
from orchestrator.labelling.oracles.simulated import LabelsOracle
from orchestrator.labelling.questions import ClassSets
from orchestrator.labelling.tasks.multilabel import MultiLabel
from tests.benchmark.printed import hardware
from trainers.stage import StageInputs

STRATEGIES = ("easy", "margin", "random", "class_balanced")
POOLS = ((16_000, 20), (80_000, 80))
QUOTA = 20_000


def main() -> None:
    print(f"{QUOTA:,} questions; n = 1; {hardware()}", flush=True)
    for images, classes in POOLS:
        for name in STRATEGIES:
            command = [sys.executable, "-m", "tests.benchmark.bench_pairs", name]
            subprocess.run([*command, str(images), str(classes)], check=True)


def one(name: str, images: int, classes: int) -> None:
    rng, task = np.random.default_rng(0), MultiLabel(label="positive")
    truth = (rng.random((images, classes)) < 3 / classes).astype(np.int32)
    facts, ids = Facts.none(images, classes), np.arange(images)
    # One positive is known of each image.
    labels = ClassSets.singles(rng.integers(0, classes, images))
    facts = task.know(facts, ids, labels)
    truth[ids, labels.classes] = 1
    none = np.empty(0, np.int64)
    inputs = StageInputs(
        pool_ids=ids,
        label_ids=facts.positives.ids.astype(np.int64),
        labels=facts.positives.classes.astype(np.int32),
        negative_ids=none,
        negative_classes=none.astype(np.int32),
        validation_ids=none,
        validation_labels=none.astype(np.int32),
    )
    scores = {"item_ids": ids, "probabilities": rng.random((images, classes), np.float32)}
    query = INSTALLED.load("query", name)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    asked = choose(
        task,
        query,
        scores,
        ids,
        QUOTA,
        known=lambda: inputs,
        seed=0,
        round=1,
        mask_refused=True,
    )
    chosen = time.process_time()
    answers = LabelsOracle(truth, classes).answer(asked, np.zeros(len(asked), np.int32))
    task.learn(facts, asked, answers)
    learned = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"  {name:15} {images:>7,} x {classes}: {chosen - start:5.2f} CPU s to choose,"
        f" {learned - chosen:5.2f} to answer and learn; process {peak / 1024:,.0f} MiB"
        f" ({before / 1024:,.0f} before)",
        flush=True,
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
