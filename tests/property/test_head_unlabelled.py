"""Laws of what a head learns from images without a label: the soft targets are those of a plain
computation, and none is where nothing can be known.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from tests.helpers.stage_world import CLASSES, TEST, TRAIN, some_inputs, write_cache
from trainers.data.items import open_data
from trainers.distributed.ranks import ALONE
from trainers.head import trainer as head_trainer
from trainers.head import unlabelled
from trainers.head.objective import Objective, SoftTargets
from trainers.head.settings import Head
from trainers.head.trainer import HeadTrainer
from trainers.head.unlabelled import REACH, graph, soft_targets, spread
from trainers.method import as_planned
from trainers.stage import StageInputs

often = settings(deadline=None, max_examples=30)
Array = npt.NDArray[np.float64]
World = tuple[Path, npt.NDArray[np.int32]]
LEARNS = Head(unlabelled_weight=3.0)


@dataclasses.dataclass(frozen=True)
class Pool:
    """Labelled images, others with and without refusals, and a first head's logits."""

    x: Array
    labels: npt.NDArray[np.int64]
    weights: Array
    said: Array
    refused: npt.NDArray[np.bool_]
    neighbours: int
    balanced: bool

    def targets(self) -> Array:
        rows, classes = np.nonzero(self.refused)
        arrays = (self.x, self.labels, self.weights, self.said, rows, classes)
        found = soft_targets(
            *(torch.from_numpy(array) for array in arrays),
            neighbours=self.neighbours,
            balanced=self.balanced,
        )
        return found.numpy()

    def plainly(self) -> Array:
        """The same, class by class with dense matrices."""
        count, labelled, classes = len(self.x), len(self.labels), self.said.shape[1]
        unit = self.x / np.linalg.norm(self.x, axis=1, keepdims=True)
        cosines = unit @ unit.T
        near = np.zeros((count, count))
        for i in range(count):
            others = sorted((j for j in range(count) if j != i), key=lambda j: -cosines[i, j])
            for j in others[: self.neighbours]:
                near[i, j] = max(cosines[i, j], 0) ** 3
        near += near.T
        sums = np.where(near.sum(1) > 0, near.sum(1), 1)
        near /= np.sqrt(np.outer(sums, sums))
        by_graph = np.zeros_like(self.said)
        may = np.concatenate([np.ones((labelled, classes)), ~self.refused])
        for k in range(classes):
            given = np.zeros(count)
            given[:labelled] = self.weights * (self.labels == k)
            system = np.eye(count) - REACH * may[:, k, None] * near
            by_graph[:, k] = np.linalg.solve(system, (1 - REACH) * given)[labelled:]
        total = by_graph.sum(1, keepdims=True)
        shares = np.where(total > 0, by_graph / np.where(total > 0, total, 1), 0)
        product = np.maximum(shares, unlabelled.FLOOR) * np.exp(self.said) * ~self.refused
        product /= product.sum(1, keepdims=True)
        seen = np.unique(self.labels)
        for _ in range(unlabelled.ROUNDS if self.balanced else 0):
            sums = product[:, seen].sum(0)
            product[:, seen] *= sums.mean() / np.maximum(sums, 1e-200)
            product /= product.sum(1, keepdims=True)
        return product


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    labelled, others = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    classes = draw(st.integers(2, 5))
    refused = random.random((others, classes)) < draw(st.sampled_from([0.0, 0.3]))
    refused[np.arange(others), random.integers(0, classes, others)] = False
    return Pool(
        x=random.normal(size=(labelled + others, draw(st.integers(2, 5)))),
        labels=random.integers(0, classes, labelled),
        weights=random.uniform(0.2, 3, labelled),
        said=random.normal(size=(others, classes)),
        refused=refused,
        neighbours=draw(st.integers(1, 25)),
        balanced=draw(st.booleans()),
    )


@often
@given(pools())
def test_targets_are_those_of_a_plain_computation(pool: Pool) -> None:
    np.testing.assert_allclose(pool.targets(), pool.plainly(), atol=2e-3)


@often
@given(pools())
def test_targets_are_distributions_without_refused_classes(pool: Pool) -> None:
    targets = pool.targets()
    np.testing.assert_allclose(targets.sum(1), 1)
    assert (targets >= 0).all() and not targets[pool.refused].any()


@often
@given(pools(), st.integers(0, 2**31))
def test_the_order_of_images_does_not_matter(pool: Pool, seed: int) -> None:
    random, labelled = np.random.default_rng(seed), len(pool.labels)
    first, rest = random.permutation(labelled), random.permutation(len(pool.x) - labelled)
    moved = dataclasses.replace(
        pool,
        x=pool.x[np.concatenate([first, labelled + rest])],
        labels=pool.labels[first],
        weights=pool.weights[first],
        said=pool.said[rest],
        refused=pool.refused[rest],
    )
    np.testing.assert_allclose(moved.targets(), pool.targets()[rest], atol=1e-9)


def test_the_steps_end_near_the_solution() -> None:
    random = np.random.default_rng(0)
    who = graph(torch.from_numpy(random.normal(size=(200, 3))), 5)
    start = np.eye(4)[random.integers(0, 4, 200)] * (np.arange(200) < 20)[:, None]
    may = (random.random((200, 4)) > 0.2).astype(float)
    found = spread(who, start, may)
    for k in range(4):
        system = np.eye(200) - REACH * may[:, k, None] * who.toarray()
        exact = np.linalg.solve(system, (1 - REACH) * start[:, k] * may[:, k])
        assert np.linalg.norm(found[:, k] - exact) <= 1e-4 * np.linalg.norm(exact) * 2


def test_balanced_targets_have_equal_shares_of_the_classes_with_a_label() -> None:
    random = np.random.default_rng(0)
    pool = Pool(
        x=random.normal(size=(600, 4)),
        labels=np.array([0, 1, 1, 2]),
        weights=np.ones(4),
        said=random.normal([0, 2, 0, 0], size=(596, 4)),
        refused=np.zeros((596, 4), bool),
        neighbours=10,
        balanced=True,
    )
    shares = pool.targets().sum(0)
    assert shares[:3].max() < 1.01 * shares[:3].min()
    assert shares[3] < 0.1 * shares[0], "no label says that there are images of class 3"
    uneven = dataclasses.replace(pool, balanced=False).targets().sum(0)
    assert uneven[:3].max() > 1.5 * uneven[:3].min()


@often
@given(pools(), st.integers(0, 2**31))
def test_the_soft_loss_and_its_gradient_are_those_of_a_plain_computation(
    pool: Pool, seed: int
) -> None:
    x, targets = pool.x[len(pool.labels) :], pool.plainly()
    soft = SoftTargets(torch.from_numpy(x), torch.from_numpy(targets), 3.0)
    none = torch.zeros(0, dtype=torch.int64)
    objective = Objective(
        x=torch.from_numpy(pool.x[: len(pool.labels)]),
        labels=torch.from_numpy(pool.labels),
        label_weights=torch.from_numpy(pool.weights),
        refused_rows=none,
        refused_classes=none,
        num_classes=targets.shape[1],
        l2=0.1,
    )
    at = np.random.default_rng(seed).normal(size=objective.weights)
    both = dataclasses.replace(objective, soft=soft)

    def plain(flat: Array) -> float:
        odds = np.exp(x @ flat.reshape(at.shape)[:-1] + flat.reshape(at.shape)[-1])
        crossed = -(targets * np.log(odds / odds.sum(1, keepdims=True))).sum(1)
        return float(objective(torch.from_numpy(flat.reshape(at.shape)))[0] + 3 * crossed.mean())

    value, gradient = both(torch.from_numpy(at))
    assert value == pytest.approx(plain(at.ravel()), rel=1e-12)
    assert check_grad(plain, lambda _: gradient.numpy().ravel(), at.ravel()) < 1e-5


@pytest.fixture
def world(tmp_path: Path) -> World:
    return write_cache(tmp_path / "cache", kind="features")


def trained(method: Head, data: Path, inputs: StageInputs, seed: int = -5) -> HeadTrainer:
    plan = method.stage(1, 1, has_negatives=len(inputs.negative_ids) > 0)
    trainer = HeadTrainer(
        plan,
        as_planned(method, plan),
        open_data(data),
        inputs,
        seed=seed,
        device=torch.device("cpu"),
        ranks=ALONE,
        parent=None,
    )
    trainer.epoch(0)
    return trainer


def accuracy(trainer: HeadTrainer) -> float:
    guess = trainer.scores("test", np.arange(TEST), ["raw_guess"])["raw_guess"]
    return float((guess == np.arange(TEST) % CLASSES).mean())


def test_images_without_a_label_teach(world: World) -> None:
    data, truth = world
    inputs = some_inputs(truth, labelled=4, refused=0)
    assert accuracy(trained(LEARNS, data, inputs)) > accuracy(trained(Head(), data, inputs))


def test_with_none_left_or_no_label_it_is_the_head_of_the_labels(world: World) -> None:
    data, truth = world
    inputs = some_inputs(truth, labelled=TRAIN, refused=0)
    assert np.array_equal(inputs.label_ids, inputs.pool_ids)
    assert torch.equal(trained(LEARNS, data, inputs).weights, trained(Head(), data, inputs).weights)
    inputs = some_inputs(truth, labelled=0)
    assert torch.equal(trained(LEARNS, data, inputs).weights, trained(Head(), data, inputs).weights)


def test_of_many_images_some_are_drawn_by_the_seed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, truth = world
    inputs = some_inputs(truth)
    everything = trained(LEARNS, data, inputs)
    assert torch.equal(everything.weights, trained(LEARNS, data, inputs, seed=7).weights)
    monkeypatch.setattr(head_trainer, "MOST", 10)
    some = trained(LEARNS, data, inputs)
    assert torch.equal(some.weights, trained(LEARNS, data, inputs).weights)
    assert not torch.equal(some.weights, everything.weights)
    assert not torch.equal(some.weights, trained(LEARNS, data, inputs, seed=7).weights)


def test_the_graph_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(57, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = graph(x, 5).toarray()
    monkeypatch.setattr(unlabelled, "AT_ONCE", 57 * 10)
    np.testing.assert_allclose(graph(x, 5).toarray(), whole, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_few_neighbours(count: int) -> None:
    assert graph(torch.ones(count, 3, dtype=torch.float64), 5).shape == (count, count)


def test_what_is_not_read_is_in_no_key() -> None:
    plain = Head().stage(1, 1, has_negatives=True)
    assert Head(neighbours=5).stage(1, 1, has_negatives=True) == plain
    learns = LEARNS.stage(1, 1, has_negatives=True)
    assert dataclasses.replace(LEARNS, neighbours=5).stage(1, 1, has_negatives=True) != learns
    assert learns != plain
