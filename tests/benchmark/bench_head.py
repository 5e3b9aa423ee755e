"""CPU seconds of one stage of `head` beside scikit-learn's LogisticRegression on the same labels,
and the accuracy of both.

    python -m tests.benchmark.bench_head [--classes 10] [--features FILE.npz] [--repeats 5]

A first head learns from the labels alone and is asked about images drawn at random; each yes is a
label more, each no a refused class. What is timed is the stage after these answers: making the
trainer, the training, and every score array of the pool and the guesses on test images; of
scikit-learn the fit and the probabilities of the same images. Each is timed --repeats times, in
turns, on one thread. Without --features the vectors are noise around one mean a class.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from tests.benchmark.printed import hardware, spread
from trainers.data.augment import Recipe
from trainers.data.items import StageData
from trainers.distributed.ranks import ALONE
from trainers.head.settings import Head
from trainers.head.trainer import DEFAULT_L2, HeadTrainer
from trainers.stage import POOL_ARRAYS, StageInputs

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Vectors:
    x: Array
    y: Array
    x_test: Array
    y_test: Array


def synthetic(classes: int, items: int = 50_000, width: int = 128) -> Vectors:
    """Vectors whose classes overlap, 10,000 of them for a test."""
    random = np.random.default_rng(0)
    means = random.normal(size=(classes, width)) / 4
    y = random.integers(0, classes, items + 10_000)
    x = (means[y] + random.normal(size=(len(y), width))).astype(np.float32)
    return Vectors(x[:items], y[:items], x[items:], y[items:])


def read(path: str) -> Vectors:
    """The arrays of a feature file."""
    with np.load(path, allow_pickle=False) as file:
        x, x_test = (file[name].astype(np.float32) for name in ("x", "x_test"))
        return Vectors(x, file["y"].astype(np.int64), x_test, file["y_test"].astype(np.int64))


def stage_data(vectors: Vectors) -> StageData:
    """The vectors as a prepared cache has them."""
    x = vectors.x.astype(np.float64)
    return StageData(
        folder=Path("none"),
        name="vectors",
        kind="features",
        num_classes=int(vectors.y.max()) + 1,
        train=vectors.x,
        test=vectors.x_test,
        mean=tuple(x.mean(0).tolist()),
        std=tuple(x.std(0).tolist()),
        recipe=Recipe(),
        crop=None,
        fingerprint="",
        class_names=(),
    )


def trained(data: StageData, inputs: StageInputs) -> HeadTrainer:
    """Trains a stage."""
    method = Head()
    trainer = HeadTrainer(
        method.stage(1, 1, has_negatives=len(inputs.negative_ids) > 0),
        method,
        data,
        inputs,
        seed=0,
        device=torch.device("cpu"),
        ranks=ALONE,
        parent=None,
    )
    trainer.epoch(0)
    return trainer


def stage(data: StageData, inputs: StageInputs) -> tuple[HeadTrainer, dict[str, Any], Array]:
    """Trains a stage and scores what a stage scores."""
    trainer = trained(data, inputs)
    pool = dict(trainer.scores("pool", inputs.pool_ids, POOL_ARRAYS))
    test = trainer.scores("test", np.arange(len(data.test)), ["raw_guess"])["raw_guess"]
    return trainer, pool, np.asarray(test)


def asked(vectors: Vectors, data: StageData, labels: int, answers: int) -> StageInputs:
    """What is known after this many labels and answers."""
    random = np.random.default_rng(1)
    none = np.zeros(0, np.int64)
    order = random.permutation(len(vectors.x))
    # As many of each class, as initial labels are.
    by_class = [
        order[vectors.y[order] == k][: labels // data.num_classes] for k in range(data.num_classes)
    ]
    first = np.sort(np.concatenate(by_class))
    inputs = StageInputs(
        pool_ids=np.arange(len(vectors.x)),
        label_ids=first,
        labels=vectors.y[first].astype(np.int32),
        negative_ids=none,
        negative_classes=none.astype(np.int32),
        validation_ids=none,
        validation_labels=none.astype(np.int32),
    )
    _, pool, _ = stage(data, inputs)
    ids = np.sort(random.choice(np.setdiff1d(inputs.pool_ids, first), answers, replace=False))
    right = pool["guess"][ids] == vectors.y[ids]
    label_ids = np.sort(np.concatenate([first, ids[right]]))
    return dataclasses.replace(
        inputs,
        label_ids=label_ids,
        labels=vectors.y[label_ids].astype(np.int32),
        negative_ids=ids[~right],
        negative_classes=pool["guess"][ids[~right]],
    )


def theirs(vectors: Vectors, data: StageData, inputs: StageInputs) -> Array:
    """Guesses of scikit-learn's LogisticRegression on the test images, by the labels alone."""
    from sklearn.linear_model import LogisticRegression

    length = np.sqrt(np.square(data.std).sum())
    x, test = ((array - np.asarray(data.mean)) / length for array in (vectors.x, vectors.x_test))
    model = LogisticRegression(C=1 / DEFAULT_L2, max_iter=10_000)
    model.fit(x[inputs.label_ids], inputs.labels)
    model.predict_proba(x)
    return np.asarray(model.predict(test))


def timed(work: Callable[[], Array]) -> tuple[float, Array]:
    """CPU seconds of this process, and what the work returns."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> None:
    """Reads the options and prints the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", help="an .npz file with x, y, x_test and y_test")
    for name, value in (("classes", 10), ("labels", 300), ("answers", 1000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        compare(read(args.features) if args.features else synthetic(args.classes), args)


def compare(vectors: Vectors, args: argparse.Namespace) -> None:
    """Times both on the vectors, and prints what was found."""
    data = stage_data(vectors)
    inputs = asked(vectors, data, args.labels, args.answers)
    print(hardware())
    print(
        f"{len(vectors.x):,} x {vectors.x.shape[1]}, {data.num_classes} classes:"
        f" {len(inputs.label_ids)} labels and {len(inputs.negative_ids)} refused classes"
    )
    steps = stage(data, inputs)[0].steps
    times: dict[str, list[float]] = {"head": [], "LogisticRegression": []}
    guesses: dict[str, Array] = {}
    theirs(vectors, data, inputs)  # imports are no part of it
    for _ in range(args.repeats):
        for name, work in (
            ("head", lambda: stage(data, inputs)[2]),
            ("LogisticRegression", lambda: theirs(vectors, data, inputs)),
        ):
            seconds, guesses[name] = timed(work)
            times[name].append(seconds)
    for name, seconds_of in times.items():
        right = 100 * (guesses[name] == vectors.y_test).mean()
        print(f"{name}: {spread(seconds_of)} CPU s, test accuracy {right:.1f}")
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"head / LogisticRegression: {spread(ratios, '.2f')}; {steps} steps of the head")


if __name__ == "__main__":
    main()
