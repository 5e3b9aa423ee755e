"""Laws of the linear head: its objective and optimum are those of a plain computation, and what it
is trained on decides it alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad, minimize

from tests.helpers.stage_world import CLASSES, TEST, TRAIN, some_inputs, write_cache
from trainers.data.items import open_data
from trainers.distributed.ranks import ALONE
from trainers.head import minimise as search
from trainers.head.minimise import minimise
from trainers.head.objective import Objective
from trainers.head.settings import Head
from trainers.head.trainer import HeadTrainer
from trainers.method import StagePlan, as_planned
from trainers.stage import StageInputs, TrainingFailed

often = settings(deadline=None, max_examples=30)
Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Problem:
    """An objective, and the same written down a second time in numpy, image by image."""

    x: Array
    labels: npt.NDArray[np.int64]
    label_weights: Array
    refused: list[set[int]]
    """Of each image without a label."""
    num_classes: int
    l2: float

    @property
    def objective(self) -> Objective:
        pairs = [(row, k) for row, of in enumerate(self.refused) for k in sorted(of)]
        rows, classes = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        return Objective(
            x=torch.from_numpy(self.x),
            labels=torch.from_numpy(self.labels),
            label_weights=torch.from_numpy(self.label_weights),
            refused_rows=rows,
            refused_classes=classes,
            num_classes=self.num_classes,
            l2=self.l2,
        )

    def plain(self, flat: Array) -> float:
        weights = flat.reshape(-1, self.num_classes)
        total = 0.0
        for row, image in enumerate(self.x):
            odds = np.exp(image @ weights[:-1] + weights[-1])
            said = odds / odds.sum()
            if row < len(self.labels):
                total -= self.label_weights[row] * np.log(said[self.labels[row]])
            else:
                refused = self.refused[row - len(self.labels)]
                total -= np.log(sum(p for k, p in enumerate(said) if k not in refused))
        divisor = len(self.labels) or len(self.x)
        return float(total / divisor + self.l2 / 2 * (weights[:-1] ** 2).sum())


@st.composite
def problems(draw: st.DrawFn, *, refusals: bool = True) -> Problem:
    """Some images with labels, which need not be of every class, and some without."""
    seed, width = draw(st.integers(0, 2**31)), draw(st.integers(1, 5))
    classes, labelled = draw(st.integers(2, 5)), draw(st.integers(0 if refusals else 1, 8))
    others = draw(st.integers(0 if labelled else 1, 6)) if refusals else 0
    random = np.random.default_rng(seed)
    return Problem(
        x=random.normal(size=(labelled + others, width)),
        labels=random.integers(0, classes, labelled),
        label_weights=random.uniform(0.2, 3, labelled),
        refused=[
            set(random.permutation(classes)[: random.integers(1, classes)].tolist())
            for _ in range(others)
        ],
        num_classes=classes,
        l2=draw(st.sampled_from([0.01, 0.1, 1.0])),
    )


@often
@given(problems(), st.integers(0, 2**31))
def test_objective_and_gradient_are_those_of_a_plain_computation(p: Problem, seed: int) -> None:
    objective = p.objective
    at = np.random.default_rng(seed).normal(size=objective.weights).ravel()
    value, gradient = objective(torch.from_numpy(at).view(objective.weights))
    assert value == pytest.approx(p.plain(at), rel=1e-12)
    error = check_grad(p.plain, lambda _: gradient.numpy().ravel(), at)
    assert error < 1e-5


@often
@given(problems())
def test_the_optimum_is_one_of_the_plain_computation(p: Problem) -> None:
    weights, _ = minimise(p.objective, remedy="")
    found = weights.numpy().ravel()
    slope = minimize(p.plain, found, method="BFGS", options={"gtol": 1e-6})
    assert slope.fun >= p.plain(found) - 1e-9, "a step from there goes down"
    # From zero too, where all minima are one.
    if not p.refused:
        other = minimize(p.plain, np.zeros_like(found), method="BFGS", options={"gtol": 1e-7})
        assert np.abs(weights[:-1].numpy() - other.x.reshape(weights.shape)[:-1]).max() < 1e-3


@often
@given(problems(refusals=False))
def test_without_refusals_it_is_scikit_learns_logistic_regression(p: Problem) -> None:
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(p.labels)
    if len(seen) < 3:
        return  # of two classes it fits one logit
    p = dataclasses.replace(p, labels=np.searchsorted(seen, p.labels), num_classes=len(seen))
    weights, _ = minimise(p.objective, remedy="")
    theirs = LogisticRegression(C=1 / (p.l2 * len(p.labels)), tol=1e-10, max_iter=10_000)
    theirs.fit(p.x, p.labels, sample_weight=p.label_weights)
    np.testing.assert_allclose(weights[:-1].numpy(), theirs.coef_.T, atol=1e-5)
    bias = weights[-1].numpy()
    np.testing.assert_allclose(
        bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4
    )


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, npt.NDArray[np.int32]]:
    return write_cache(tmp_path / "cache", kind="features")


def trained(method: Head, data: Path, inputs: StageInputs) -> HeadTrainer:
    plan: StagePlan = method.stage(1, 1, has_negatives=len(inputs.negative_ids) > 0)
    trainer = HeadTrainer(
        plan,
        as_planned(method, plan),
        open_data(data),
        inputs,
        seed=0,
        device=torch.device("cpu"),
        ranks=ALONE,
        parent=None,
    )
    trainer.epoch(0)
    return trainer


def test_labels_are_weighted_as_scikit_learn_balances_them(
    world: tuple[Path, npt.NDArray[np.int32]],
) -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    data, truth = world
    inputs = some_inputs(truth)
    keep = (inputs.labels > 0) | (np.cumsum(inputs.labels == 0) == 1)
    inputs = dataclasses.replace(
        inputs, label_ids=inputs.label_ids[keep], labels=inputs.labels[keep]
    )
    assert len(set(np.bincount(inputs.labels))) > 1, "as many of each class show nothing"
    weights = trained(Head(), data, inputs).objective().label_weights
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", inputs.labels))
    plain = trained(Head(balanced=False), data, inputs).objective().label_weights
    assert plain.tolist() == [1.0] * len(inputs.labels)


def without(inputs: StageInputs, *, labels: bool = False, refusals: bool = False) -> StageInputs:
    changes: dict[str, Any] = {}
    if labels:
        changes |= {"label_ids": inputs.label_ids[:0], "labels": inputs.labels[:0]}
    if refusals:
        changes |= {
            "negative_ids": inputs.negative_ids[:0],
            "negative_classes": inputs.negative_classes[:0],
        }
    return dataclasses.replace(inputs, **changes)


def probabilities(trainer: HeadTrainer) -> npt.NDArray[Any]:
    return np.asarray(trainer.scores("test", np.arange(TEST), ["probabilities"])["probabilities"])


@pytest.mark.parametrize("scaling", ["common", "each", "rows"])
def test_in_whatever_order_the_images_lie_the_head_is_the_same(
    scaling: Any, world: tuple[Path, npt.NDArray[np.int32]], tmp_path: Path
) -> None:
    data, truth = world
    inputs, method = some_inputs(truth), Head(scaling=scaling)
    order = np.random.default_rng(1).permutation(TRAIN)
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    np.save(moved / "train.npy", np.load(data / "train.npy")[order])
    new = np.argsort(order)

    def sorted_by_id(ids: Any, classes: Any) -> tuple[Any, Any]:
        at = np.argsort(new[ids])
        return new[ids][at], classes[at]

    label_ids, labels = sorted_by_id(inputs.label_ids, inputs.labels)
    negative_ids, negatives = sorted_by_id(inputs.negative_ids, inputs.negative_classes)
    elsewhere = dataclasses.replace(
        inputs,
        pool_ids=np.sort(new[inputs.pool_ids]),
        label_ids=label_ids,
        labels=labels,
        negative_ids=negative_ids,
        negative_classes=negatives,
    )
    here, there = trained(method, data, inputs), trained(method, moved, elsewhere)
    assert (here.weights - there.weights).abs().max() < 1e-5 * here.weights.abs().max()


def test_refusals_teach_unless_they_are_not_to(world: tuple[Path, npt.NDArray[np.int32]]) -> None:
    data, truth = world
    inputs = some_inputs(truth)
    bare = without(inputs, refusals=True)
    with_them, ignored = (trained(Head(negatives=n), data, inputs) for n in (True, False))
    assert torch.equal(ignored.weights, trained(Head(), data, bare).weights)
    refused = with_them.negatives.pairs(inputs.negative_ids)

    def mass(trainer: HeadTrainer) -> float:
        said = trainer.scores("validation", inputs.negative_ids, ["probabilities"])
        return float(np.asarray(said["probabilities"])[refused].mean())

    assert mass(with_them) < 0.8 * mass(ignored)


def test_an_image_of_which_every_class_is_refused_says_nothing(
    world: tuple[Path, npt.NDArray[np.int32]],
) -> None:
    data, truth = world
    inputs = some_inputs(truth)
    spoilt = inputs.negative_ids[0]
    rest = inputs.negative_ids != spoilt
    bare = dataclasses.replace(
        inputs,
        negative_ids=inputs.negative_ids[rest],
        negative_classes=inputs.negative_classes[rest],
    )
    every = np.arange(CLASSES, dtype=np.int32)
    full = dataclasses.replace(
        bare,
        negative_ids=np.concatenate([np.full(CLASSES, spoilt), bare.negative_ids]),
        negative_classes=np.concatenate([every, bare.negative_classes]),
    )
    assert torch.equal(trained(Head(), data, full).weights, trained(Head(), data, bare).weights)


def test_without_refusals_to_learn_from_or_not_is_one_training() -> None:
    plans = [Head(negatives=n).stage(0, 2, has_negatives=False) for n in (True, False)]
    assert plans[0] == plans[1]
    plans = [Head(negatives=n).stage(1, 2, has_negatives=True) for n in (True, False)]
    assert plans[0] != plans[1]


def test_a_class_without_a_label_is_learned_from_refusals_or_left_alone(
    world: tuple[Path, npt.NDArray[np.int32]],
) -> None:
    data, truth = world
    inputs = some_inputs(truth, labelled=24)
    keep = inputs.labels != 0
    short = dataclasses.replace(
        inputs, label_ids=inputs.label_ids[keep], labels=inputs.labels[keep]
    )
    said = probabilities(trained(Head(), data, without(short, refusals=True)))
    assert np.isfinite(said).all() and set(said.argmax(1)) == {1, 2, 3}
    # Images of class 0 of which every other class is refused stand for labels of it.
    ids = np.setdiff1d(np.flatnonzero(truth == 0), [*short.validation_ids, *short.label_ids])
    told = dataclasses.replace(
        short,
        negative_ids=np.repeat(ids, CLASSES - 1),
        negative_classes=np.tile(np.arange(1, CLASSES, dtype=np.int32), len(ids)),
    )
    assert 0 in probabilities(trained(Head(), data, told)).argmax(1)


def test_refusals_alone_teach_and_nothing_at_all_says_nothing(
    world: tuple[Path, npt.NDArray[np.int32]],
) -> None:
    data, truth = world
    only = without(some_inputs(truth, labelled=0, refused=90), labels=True)
    right = probabilities(trained(Head(), data, only)).argmax(1) == np.arange(TEST) % CLASSES
    assert right.mean() > 0.5
    nothing = probabilities(trained(Head(), data, without(only, labels=True, refusals=True)))
    assert np.array_equal(nothing, np.full((TEST, CLASSES), 1 / CLASSES, np.float32))


def test_a_search_that_does_not_converge_is_said_with_a_remedy(
    world: tuple[Path, npt.NDArray[np.int32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, truth = world
    monkeypatch.setattr(search, "MOST_STEPS", 2)
    with pytest.raises(TrainingFailed, match=r"not converge.* try a larger method\.l2$"):
        trained(Head(l2=1e-6), data, some_inputs(truth))


def test_the_same_bytes_come_of_one_thread_and_of_several() -> None:
    code = (
        "import torch, json; from trainers.head.minimise import minimise;"
        "from trainers.head.objective import Objective; torch.set_num_threads(1);"
        "draw = torch.Generator().manual_seed(0); none = torch.zeros(0, dtype=torch.int64);"
        "x = torch.randn(90, 400, dtype=torch.float64, generator=draw) / 20;"
        "labels = torch.arange(90) % 30;"
        "o = Objective(x=x, labels=labels, label_weights=torch.ones(90).double(),"
        " refused_rows=none, refused_classes=none,"
        " num_classes=30, l2=1e-3);"
        "print(json.dumps(minimise(o, remedy='')[0].flatten().tolist()))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert len(json.loads(found[0])) == 401 * 30
    assert found[0] == found[1]
