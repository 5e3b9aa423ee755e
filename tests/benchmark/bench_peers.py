"""CPU seconds and peak memory of choosing a batch, here and by modAL and scikit-activeml, and of a
round of training a linear head, scoring and choosing.

    pip install --no-deps --target /tmp/peers modAL-python scikit-activeml makefun
    PYTHONPATH=/tmp/peers python -m tests.benchmark.bench_peers [margin] [cover] [round]

They are no dependencies of this project; what is not installed is left out, and said. Every turn is
a forked process of its own, the parties take turns, all on one thread: medians, with the smallest
and the largest. Memory is what a turn adds at its peak to the arrays that it is given. "The same"
counts the images that the batch of the first party holds too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from orchestrator.catalogue import INSTALLED
from orchestrator.labelling.protocols import Draw, Scores
from orchestrator.labelling.queries.confidence import Margin
from orchestrator.labelling.queries.covering import MaxHerding, ProbCover
from orchestrator.labelling.queries.vectors import one_thread, spread_of, squared_distances, unit
from orchestrator.labelling.questions import Questions
from tests.benchmark import bench_head
from tests.benchmark.bench_queries import WIDTH, some_draw
from tests.benchmark.printed import hardware
from tests.benchmark.turns import Array, Choice, compare
from trainers import predict
from trainers.data.items import VALUES_AT_ONCE
from trainers.head.minimise import WANTED
from trainers.head.trainer import DEFAULT_L2
from trainers.stage import StageInputs

POOLS = (1_000, 10_000, 100_000)
CLASSES = (10, 100)
BATCH, LABELLED = 100, 300
LARGEST = 900 << 20
"""Bytes of the largest table that a peer may make; it works on copies of it besides."""
IN_A_BALL = 0.02
"""Share of the images that a ball of probcover holds."""
PEERS = {"modAL": "modAL-python", "skactiveml": "scikit-activeml makefun"}


def installed() -> set[str]:
    """Returns which peers are there, and says what to install for the others."""
    there = {name for name in PEERS if importlib.util.find_spec(name)}
    if absent := [PEERS[name] for name in PEERS if name not in there]:
        print(
            f"left out: pip install --no-deps --target /tmp/peers {' '.join(absent)};"
            " then set PYTHONPATH=/tmp/peers"
        )
    return there


def by_margin(images: int, classes: int, there: set[str]) -> dict[str, Choice | str]:
    """Who chooses by margin, given what a linear head says of a pool."""
    draw = some_draw(images, classes, LABELLED, BATCH)
    logits = np.log(draw.scores["probabilities"].astype(np.float64))
    # Theirs read probabilities, in the precision in which the head here computes.
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    given = torch.from_numpy(logits)
    embedding = draw.scores["embedding"]
    parties: dict[str, Choice | str] = {
        "ours, from logits": lambda: _ask(draw.ids, _margins(given)),
        "ours, from margins": lambda: _best(draw, Margin()),
    }
    if "modAL" in there:
        from modAL.uncertainty import margin_sampling

        parties["modAL margin_sampling"] = lambda: margin_sampling(
            _Fixed(probabilities), embedding, n_instances=BATCH
        )[0]
    if "skactiveml" in there:
        from skactiveml.pool import UncertaintySampling

        model, unknown = fixed(probabilities), np.full(images, np.nan)
        parties["skactiveml UncertaintySampling"] = lambda: UncertaintySampling(
            "margin_sampling", random_state=0
        ).query(embedding, unknown, model, fit_clf=False, batch_size=BATCH)
    return parties


def _margins(logits: torch.Tensor) -> Scores:
    """What a stage of `head` makes of its logits, as many rows at once."""
    names = ("guess", "confidence", "margin")
    rows = VALUES_AT_ONCE["cpu"] // logits.shape[1] + 1
    parts = [predict.arrays(names, part) for part in logits.split(rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _ask(ids: Array, scores: Scores) -> Array:
    asked = Questions.singles(ids, scores["guess"], scores["confidence"])
    return _best(Draw(asked, scores, 0, 1, BATCH), Margin())


def _best(draw: Draw, query: Any) -> Array:
    return draw.order(query.rank(draw))[:BATCH]


class _Fixed:
    """A model whose probabilities are known."""

    def __init__(self, probabilities: Array) -> None:
        self._probabilities = probabilities

    def predict_proba(self, X: Array, **_: Any) -> Array:
        return self._probabilities


def fixed(probabilities: Array) -> Any:
    """Returns the same for scikit-activeml, which asks for a class of its own."""
    from skactiveml.base import SkactivemlClassifier

    class Fixed(SkactivemlClassifier):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(classes=list(range(probabilities.shape[1])))

        def fit(self, X: Array, y: Array) -> Any:
            return self

        def predict_proba(self, X: Array) -> Array:
            return probabilities

    model = Fixed()
    model.classes_ = np.arange(probabilities.shape[1])
    return model


def by_cover(
    images: int, classes: int, there: set[str]
) -> Iterator[tuple[str, dict[str, Choice | str], Callable[[Array], float]]]:
    """Strategies that both sides have, with the same clusters, radius or width, and how far images
    then are from the nearest one that is asked about or labelled, on average.
    """
    draw = some_draw(images, classes, LABELLED, BATCH)
    vectors, held = unit(draw.scores["embedding"]), unit(draw.labelled["embedding"])
    some = squared_distances(vectors[:1000], vectors[:1000])
    radius = float(np.sqrt(np.quantile(some, IN_A_BALL)))
    queries: dict[str, Any] = {
        "typiclust": INSTALLED.load("query", "typiclust")(),
        "probcover": ProbCover(delta=radius),
        "max_herding": MaxHerding(),
        "badge": INSTALLED.load("query", "badge")(),
    }
    theirs = _theirs(draw, vectors, held, radius) if "skactiveml" in there else {}

    def distance(batch: Array) -> float:
        centres = np.concatenate([held, vectors[batch]])
        return float(np.sqrt(squared_distances(vectors[:10_000], centres).min(1)).mean())

    for name, query in queries.items():
        if name != "badge" and classes != CLASSES[0]:
            continue  # the others do not look at the classes
        parties: dict[str, Choice | str] = {"ours": partial(_best, draw, query)}
        if name in theirs:
            size, choice = theirs[name]
            parties["skactiveml"] = (
                f"left out: a table of {size / 2**30:.2f} GiB" if size > LARGEST else choice
            )
        yield name, parties, distance


def _theirs(
    draw: Draw, vectors: Array, held: Array, radius: float
) -> dict[str, tuple[int, Choice]]:
    """Returns those of scikit-activeml, and the bytes of the largest table that each makes."""
    from skactiveml import pool

    images, every = len(vectors), np.concatenate([vectors, held])
    # The labelled images are those that have a label, whichever.
    labels = np.concatenate([np.full(images, np.nan), np.zeros(len(held))])
    squares = 8 * len(every) ** 2
    typical = pool.TypiClust(cluster_algo_dict={"n_init": 1, "max_iter": 30}, k=20, random_state=0)
    herding = pool.MaxHerding(
        metric_dict={"gamma": (MaxHerding().bandwidth * spread_of(vectors)) ** -2}, random_state=0
    )
    model = fixed(draw.scores["probabilities"])
    return {
        "typiclust": (0, lambda: typical.query(every, labels, batch_size=BATCH)),
        "probcover": (
            squares,
            lambda: pool.ProbCover(deltas=[radius], random_state=0).query(
                every, labels, batch_size=BATCH
            ),
        ),
        "max_herding": (squares, lambda: herding.query(every, labels, batch_size=BATCH)),
        "badge": (
            8 * images * draw.num_classes * WIDTH,
            lambda: pool.Badge(random_state=0).query(
                draw.scores["embedding"], labels[:images], model, False, batch_size=BATCH
            ),
        ),
    }


def by_round(classes: int, there: set[str]) -> dict[str, Choice | str]:
    """Who trains on labels, scores the pool and chooses by margin."""
    from sklearn.linear_model import LogisticRegression

    vectors = bench_head.synthetic(classes)
    data = bench_head.stage_data(vectors)
    labelled = np.random.default_rng(1).permutation(len(vectors.x))[:LABELLED]
    # A class without a label is one that theirs would not know.
    kinds = np.array([np.flatnonzero(vectors.y == k)[0] for k in range(classes)])
    labelled = np.union1d(labelled[: LABELLED - classes], kinds)
    pool = np.setdiff1d(np.arange(len(vectors.x)), labelled)
    none = np.zeros(0, np.int64)
    inputs = StageInputs(
        pool_ids=np.arange(len(vectors.x)),
        label_ids=labelled,
        labels=vectors.y[labelled].astype(np.int32),
        negative_ids=none,
        negative_classes=none.astype(np.int32),
        validation_ids=none,
        validation_labels=none.astype(np.int32),
    )
    names = ("guess", "confidence", "margin")

    def ours() -> Array:
        scores = bench_head.trained(data, inputs).scores("pool", pool, names)
        return _ask(pool, scores)

    # Scaled as the head scales for itself, before the time that is taken.
    x = (vectors.x - np.asarray(data.mean)) / np.sqrt(np.square(data.std).sum())
    x_labelled, x_pool, y = x[labelled], x[pool], vectors.y[labelled]

    def model(tol: float = 1e-4) -> Any:
        balanced = "balanced"  # as the head is: the same minimum
        return LogisticRegression(C=1 / DEFAULT_L2, class_weight=balanced, max_iter=10_000, tol=tol)

    def bare(tol: float = 1e-4) -> Array:
        best = np.partition(model(tol).fit(x_labelled, y).predict_proba(x_pool), -2, axis=1)
        return np.argpartition(best[:, -1] - best[:, -2], BATCH)[:BATCH]

    parties: dict[str, Choice | str] = {
        "ours": ours,
        "scikit-learn and numpy": bare,
        "the same, to the head's tolerance": lambda: bare(WANTED),
    }
    if "modAL" in there:
        from modAL.models import ActiveLearner
        from modAL.uncertainty import margin_sampling

        parties["modAL"] = lambda: ActiveLearner(model(), margin_sampling, x_labelled, y).query(
            x_pool, n_instances=BATCH
        )[0]
    if "skactiveml" in there:
        from skactiveml.classifier import SklearnClassifier
        from skactiveml.pool import UncertaintySampling

        known = np.full(len(x), np.nan)
        known[labelled] = y

        def scikit_activeml() -> Array:
            learner = SklearnClassifier(model(), classes=range(classes), random_state=0)
            found = UncertaintySampling("margin_sampling", random_state=0).query(
                x, known, learner, batch_size=BATCH
            )
            return np.searchsorted(pool, found)

        parties["skactiveml"] = scikit_activeml
    return parties


def main() -> None:
    """Reads the options and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="margin, cover, round; all without one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pools", type=int, nargs="+", default=POOLS)
    args = parser.parse_args()
    parts = args.parts or ["margin", "cover", "round"]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        with one_thread():  # loads what strategies use: imports are no part of a turn
            there = installed()
        print(f"{BATCH} of a pool, {LABELLED} labelled, {WIDTH} numbers an image; {hardware()}")
        sizes = [(images, classes) for classes in CLASSES for images in args.pools]
        for images, classes in sizes if "margin" in parts else ():
            title = f"margin, {images:,} images, {classes} classes, n = {args.repeats}"
            compare(title, by_margin(images, classes, there), args.repeats)
        for images, classes in sizes if "cover" in parts else ():
            for name, parties, distance in by_cover(images, classes, there):
                title = f"{name}, {images:,} images, {classes} classes, n = {args.repeats}"
                compare(title, parties, args.repeats, distance)
        for classes in CLASSES if "round" in parts else ():
            title = f"a round, 50,000 images, {classes} classes, n = {args.repeats}"
            compare(title, by_round(classes, there), args.repeats)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
