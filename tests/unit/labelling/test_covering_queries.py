"""What strategies that look at vectors choose, against plain references and worlds in which the
right choice is known.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalogue import BUILT_IN, INSTALLED
from orchestrator.labelling.protocols import Draw, Query, Scores
from orchestrator.labelling.queries import covering
from orchestrator.labelling.queries.covering import MaxHerding, ProbCover, UHerding, unsureness
from orchestrator.labelling.queries.diverse import Badge, Factored
from orchestrator.labelling.queries.dropout import DropQuery, last_layer
from orchestrator.labelling.queries.typical import TypiClust
from orchestrator.labelling.questions import ClassSets, Questions

Array = npt.NDArray[Any]

CLASSES: Final = 5
COVERING: Final = ("typiclust", "probcover", "max_herding", "uherding")
SEEDING: Final = ("margin_diverse", "badge")
LOOK_AT_LABELLED: Final = (*COVERING, *SEEDING)


def a_draw(
    vectors: Array, labelled: Array | None = None, *, quota: int = 10, seed: int = 0, **more: Array
) -> Draw:
    """Returns a round over these vectors; of what else a strategy reads, `more` or anything."""
    rng = np.random.default_rng(seed)

    def arrays(embedding: Array, given: dict[str, Array]) -> Scores:
        made = {
            "margin": rng.uniform(0.1, 0.9, len(embedding)).astype(np.float32),
            "probabilities": rng.dirichlet(np.ones(CLASSES), len(embedding)).astype(np.float32),
        }
        return made | {"embedding": embedding.astype(np.float32)} | given

    scores = arrays(vectors, more)
    asked = Questions.singles(np.arange(len(vectors)), scores["probabilities"].argmax(1))
    known = vectors[:0] if labelled is None else labelled
    return Draw(asked, scores, seed, 1, quota, False, arrays(known, {}), CLASSES)


def chosen(query: Query, draw: Draw) -> list[int]:
    """Returns the places of those that are asked about, the first first."""
    return draw.order(query.rank(draw))[: draw.quota].tolist()


def far_clusters(count: int, each: int, seed: int = 0) -> tuple[Array, npt.NDArray[np.intp]]:
    """Returns vectors in clusters that are small beside their distances, shuffled, and the cluster
    of each.
    """
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat(np.arange(count), each))
    return 100 * np.eye(count, count + 2)[of] + rng.normal(size=(len(of), count + 2)), of


def made(name: str, **settings: Any) -> Any:
    """Returns a strategy; the right radius of far_clusters where it takes one."""
    known = {"delta": 0.5} if name == "probcover" else {}
    return INSTALLED.load("query", name)(**{**known, **settings})


@pytest.mark.parametrize("name", LOOK_AT_LABELLED)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), labelled=st.integers(1, 6))
def test_no_image_that_is_like_a_labelled_one_is_asked_about_before_one_of_its_own_kind(
    name: str, seed: int, labelled: int
) -> None:
    rng = np.random.default_rng(seed)
    known, new = 100 * np.eye(12)[:labelled], 100 * np.eye(12)[6:]
    copies = known[rng.integers(0, labelled, 40)]
    vectors = np.concatenate([copies, new])
    draw = a_draw(vectors, known, quota=len(new), seed=seed)
    if name in SEEDING:
        # Said the same of an image and its copy.
        for array in ("margin", "probabilities"):
            held = draw.labelled[array]
            at = [int(np.flatnonzero((known == one).all(1))[0]) for one in copies]
            draw.scores[array][: len(copies)] = held[at]
        sets = ClassSets.singles(draw.scores["probabilities"].argmax(1))
        draw = replace(draw, questions=replace(draw.questions, sets=sets))
    assert set(chosen(made(name), draw)) == set(range(len(copies), len(vectors)))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("name", ["typiclust", "probcover", "max_herding"])
@settings(max_examples=10, deadline=None)
@given(count=st.integers(2, 12), seed=st.integers(0, 10**6), known=st.integers(0, 3))
def test_of_far_clusters_one_image_each_is_asked_about(
    name: str, normalise: bool, count: int, seed: int, known: int
) -> None:
    known = min(known, count - 1)
    vectors, of = far_clusters(count, 25, seed)
    first = [int(np.flatnonzero(of == cluster)[0]) for cluster in range(known)]
    draw = a_draw(np.delete(vectors, first, 0), vectors[first], quota=count - known, seed=seed)
    wide = {} if normalise or name != "probcover" else {"delta": 30.0}
    asked = np.delete(of, first)[chosen(made(name, normalise=normalise, **wide), draw)]
    assert sorted(asked.tolist()) == list(range(known, count))


def test_typiclust_asks_about_the_densest_part_of_the_largest_cluster_first() -> None:
    rng = np.random.default_rng(0)
    large = np.concatenate([rng.normal(0, 3, (60, 2)), rng.normal(0, 0.05, (30, 2))]) + np.array(
        [100, 0]
    )
    small = rng.normal(0, 1, (40, 2)) + np.array([0, 100])
    draw = a_draw(np.concatenate([small, large]), quota=2)
    first, second = chosen(TypiClust(normalise=False, clusters=2), draw)
    assert first >= len(small) + 60 and second < len(small)


def test_typiclust_with_more_questions_than_clusters_takes_turns() -> None:
    vectors, of = far_clusters(4, 30)
    asked = of[chosen(TypiClust(clusters=4), a_draw(vectors, quota=10))]
    assert sorted(np.bincount(asked).tolist()) == [2, 2, 3, 3]
    assert len(set(asked[:4].tolist())) == len(set(asked[4:8].tolist())) == 4


def slow_gains(
    vectors: Array, covered: Array, weights: Array, kernel: Any
) -> npt.NDArray[np.float64]:
    """What each image adds to the coverage, straight from the definition."""
    gains = [
        sum(
            weight * max(0.0, float(kernel(np.linalg.norm(one - other))) - held)
            for other, weight, held in zip(vectors, weights, covered, strict=True)
        )
        for one in vectors
    ]
    return np.array(gains)


def check_greedy(query: Query, draw: Draw, kernel: Any, weights: Array) -> None:
    """Checks that each image asked about adds as much as any other would then."""
    vectors = draw.scores["embedding"].astype(np.float64)
    covered = np.zeros(len(vectors))
    for one in draw.labelled["embedding"].astype(np.float64):
        covered = np.maximum(covered, kernel(np.linalg.norm(vectors - one, axis=1)))
    for at in chosen(query, draw):
        gains = slow_gains(vectors, covered, weights, kernel)
        assert gains[at] >= gains.max() - 1e-5 * max(1.0, gains.max())
        covered = np.maximum(covered, kernel(np.linalg.norm(vectors - vectors[at], axis=1)))


worlds = given(
    seed=st.integers(0, 10**6), n=st.integers(1, 25), known=st.integers(0, 4), d=st.integers(1, 4)
)


@settings(max_examples=25, deadline=None)
@worlds
def test_herding_is_the_greedy_choice_by_its_definition(
    seed: int, n: int, known: int, d: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, labelled = (rng.normal(size=(k, d)).astype(np.float32) for k in (n, known))
    margin = rng.uniform(0, 1, n).astype(np.float32)
    draw = a_draw(vectors, labelled, quota=6, seed=seed, margin=margin)
    squares = ((vectors[:, None] - vectors[None]).astype(np.float64) ** 2).sum(2)
    width = 0.5 * (np.sqrt(squares.mean()) or 1.0)

    def kernel(distance: Any) -> Any:
        return np.exp(-((distance / width) ** 2))

    check_greedy(MaxHerding(normalise=False), draw, kernel, np.ones(n))
    check_greedy(UHerding(normalise=False), draw, kernel, 1 - margin.astype(np.float64))


@settings(max_examples=25, deadline=None)
@worlds
def test_probcover_is_the_greedy_choice_by_its_definition(
    seed: int, n: int, known: int, d: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, labelled = (rng.normal(size=(k, d)).astype(np.float32) for k in (n, known))
    draw = a_draw(vectors, labelled, quota=6, seed=seed)

    def ball(distance: Any) -> Any:
        return np.asarray(distance <= 0.8).astype(float)

    check_greedy(ProbCover(normalise=False, delta=0.8), draw, ball, np.ones(n))


def test_the_greedy_choice_is_the_same_where_gains_are_computed_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = a_draw(np.random.default_rng(0).normal(size=(300, 6)), quota=100)
    whole = chosen(MaxHerding(), draw)
    monkeypatch.setattr(covering, "_ROWS", 1000)
    assert chosen(MaxHerding(), draw) == whole


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), margin=st.sampled_from([0.0, 0.3, 1.0]))
def test_uherding_of_equal_margins_is_max_herding(seed: int, margin: float) -> None:
    vectors = np.random.default_rng(seed).normal(size=(80, 5))
    labelled = np.random.default_rng(seed + 1).normal(size=(5, 5))
    # A power of two, by which sums are the same to the last bit: 1 - margin scales all gains.
    equal = np.full(80, margin if margin != 0.3 else 0.5, np.float32)
    draw = a_draw(vectors, labelled, quota=20, seed=seed, margin=equal)
    assert chosen(UHerding(), draw) == chosen(MaxHerding(), draw)


def test_uherding_goes_to_the_unsure_and_the_hotter_the_less() -> None:
    vectors, of = far_clusters(2, 50)
    margin = np.where(of == 0, 0.95, 0.2).astype(np.float32)
    draw = a_draw(vectors, quota=20, margin=margin)
    assert of[chosen(UHerding(), draw)][0] == 1
    cold, hot = unsureness(margin, 1.0), unsureness(margin, 10.0)
    assert np.allclose(cold, 1 - margin, atol=1e-6)
    assert np.ptp(hot) < 0.3 < np.ptp(cold)
    # Of two classes alone: the margin is that of the logits over the temperature.
    logits = np.array([[2.0, 0.5], [1.0, 0.9]])

    def margins(temperature: float) -> Array:
        p = np.exp(logits / temperature)
        p /= p.sum(1, keepdims=True)
        return np.asarray(p[:, 0] - p[:, 1])

    assert np.allclose(unsureness(margins(1.0), 3.0), 1 - margins(3.0))


@pytest.mark.parametrize("purity", [0.5, 0.9, 0.95])
def test_at_the_radius_of_probcover_so_many_balls_are_pure_and_no_more(purity: float) -> None:
    vectors, of = far_clusters(6, 60)
    vectors = vectors.astype(np.float32)
    radius = covering.pure_radius(vectors, 6, purity, 0)
    distance = np.linalg.norm((vectors[:, None] - vectors[None]).astype(float), axis=2)

    def pure(within: float) -> float:
        return float(np.mean([len(set(of[row <= within])) == 1 for row in distance]))

    assert pure(radius * 0.9999) >= purity - 0.01
    assert pure(radius * 1.05) < purity


def test_probcover_without_a_radius_covers_far_clusters_too() -> None:
    vectors, of = far_clusters(CLASSES, 40)
    asked = of[chosen(ProbCover(), a_draw(vectors, quota=CLASSES))]
    assert sorted(asked.tolist()) == list(range(CLASSES))


def test_badge_measures_the_gradients_that_it_does_not_form() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(30, 4)).astype("f"), rng.normal(size=(30, 7)).astype("f")
    outer = (left[:, :, None] * right[:, None]).reshape(30, -1).astype(float)
    plain = ((outer[:, None] - outer[None]) ** 2).sum(2)
    both = Factored(left, right)
    assert np.allclose(both.squared_distances(both), plain, atol=1e-4)
    assert np.allclose(both.squares, (outer**2).sum(1), rtol=1e-5)


def test_badge_draws_its_first_image_by_the_squared_length_of_its_gradient() -> None:
    rng = np.random.default_rng(0)
    vectors, p = rng.normal(size=(8, 3)), rng.dirichlet(np.ones(CLASSES), 8).astype(np.float32)
    draw = a_draw(vectors, quota=1, probabilities=p)
    error = p.copy()
    error[np.arange(8), draw.guesses] -= 1
    mass = (error**2).sum(1) * (vectors**2).sum(1)
    hits = np.zeros(8)
    for number in range(3000):
        hits[chosen(Badge(), replace(draw, round=number))[0]] += 1
    expected = 3000 * mass / mass.sum()
    # 7 degrees of freedom: the 99.99% point is about 30.
    assert np.sum((hits - expected) ** 2 / expected) < 30


@pytest.mark.parametrize("name", SEEDING)
def test_images_of_which_the_model_is_sure_are_one_to_a_draw(name: str) -> None:
    """Their vectors have no length: once one is drawn, the others are no distance away."""
    vectors = np.random.default_rng(0).normal(size=(60, 6))
    p = np.full((60, CLASSES), 0.2, np.float32)
    p[30:] = np.eye(CLASSES)[np.arange(30) % CLASSES]
    margin = np.repeat([0.0, 1.0], 30).astype(np.float32)
    draw = a_draw(vectors, quota=30, probabilities=p, margin=margin)
    asked = chosen(made(name), draw)
    assert len(set(asked)) == 30 and sum(at >= 30 for at in asked) <= 1


def linear_world(n: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Returns vectors, and the weights and probabilities of a linear layer over them."""
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(size=(n, 6)).astype("f"), rng.normal(size=(6, CLASSES))
    logits = vectors @ weights + np.arange(CLASSES)
    p = np.exp(logits - logits.max(1, keepdims=True))
    return vectors, weights, (p / p.sum(1, keepdims=True)).astype(np.float32)


def test_the_last_layer_is_made_out_to_a_common_shift() -> None:
    vectors, weights, p = linear_world(200)
    found, bias = last_layer(vectors, p)
    assert np.allclose(found, weights - weights.mean(1, keepdims=True), atol=1e-3)
    assert np.allclose(bias, np.arange(CLASSES) - 2, atol=1e-3)


def test_dropquery_asks_about_guesses_that_do_not_stand_and_far_from_one_another() -> None:
    vectors, _, p = linear_world(400)
    # Some have so large a bias that no dropped feature changes their guess.
    sure = np.concatenate([np.zeros((200, 6)), vectors[200:]]).astype(np.float32)
    draw = a_draw(sure, quota=30, probabilities=np.concatenate([p[:1].repeat(200, 0), p[200:]]))
    weights, bias = last_layer(sure[200:], p[200:])
    logits = sure @ weights + bias
    q = np.exp(logits - logits.max(1, keepdims=True))
    q = (q / q.sum(1, keepdims=True)).astype(np.float32)
    draw = replace(draw, scores={**draw.scores, "probabilities": q})
    asked = chosen(DropQuery(passes=5), draw)
    assert min(asked) >= 200 and len(set(asked)) == 30


def test_dropquery_with_few_such_guesses_goes_on_with_the_others() -> None:
    vectors, _, p = linear_world(50)
    assert len(set(chosen(DropQuery(), a_draw(vectors, quota=48, probabilities=p)))) == 48


@pytest.mark.parametrize("name", SEEDING)
def test_each_draw_goes_far_from_those_before(name: str) -> None:
    vectors, of = far_clusters(8, 20)
    # All but points: the chance of two of one cluster is about one in a million.
    points = 100 * np.eye(8, 10)[of] + 0.001 * vectors
    equal = np.full((160, CLASSES), 0.2, np.float32)
    draw = a_draw(points, quota=8, probabilities=equal, margin=equal[:, 0])
    assert sorted(of[chosen(made(name), draw)].tolist()) == list(range(8))


def test_dropquery_asks_about_one_image_of_each_cluster_of_those(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, of = far_clusters(8, 20)

    def changes(_: DropQuery, vectors: Array, *_layer: Any) -> Array:
        return np.where(vectors.argmax(1) < 6, 3, 0)

    monkeypatch.setattr(DropQuery, "_changes", changes)
    assert sorted(of[chosen(DropQuery(), a_draw(vectors, quota=6))].tolist()) == list(range(6))


@pytest.mark.parametrize("name", ["probcover", "max_herding", "uherding"])
def test_there_are_several_candidates_a_question_however_few_are_asked_for(name: str) -> None:
    vectors, of = far_clusters(40, 10)
    draw = a_draw(0.1 * vectors, quota=40)
    # Of 40 clusters 160 random images leave out 0.2 on average, and 40 random images 14.
    assert len(set(of[chosen(made(name, candidates=1), draw)].tolist())) >= 32


@pytest.mark.parametrize("name", (*LOOK_AT_LABELLED, "dropquery"))
def test_a_pool_beyond_the_candidates_is_asked_about_too(name: str) -> None:
    rng = np.random.default_rng(0)
    draw = a_draw(rng.normal(size=(400, 6)), rng.normal(size=(10, 6)), quota=20)
    query = made(name, candidates=10)
    hits = np.zeros(400)
    for number in range(60):
        asked = chosen(query, replace(draw, round=number))
        assert len(set(asked)) == 20
        hits[asked] += 1
    # Ten candidates alone would be ten images a round, and those that came first in all of them.
    assert np.count_nonzero(hits) > 100
    assert chosen(query, draw) == chosen(query, draw)


def test_planning_a_sweep_loads_none_of_the_libraries() -> None:
    modules = sorted({where.partition(":")[0] for where in BUILT_IN["query"].values()})
    code = (
        f"import sys, {', '.join(modules)}\n"
        "print(sorted({'torch', 'ray', 'sklearn', 'threadpoolctl', 'scipy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
