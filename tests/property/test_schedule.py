"""Bits, quotas, ids and shared stages: what must hold whatever the schedule."""

from __future__ import annotations

import json
import math
from collections import Counter
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalogue import INSTALLED, load_spec
from orchestrator.data.sources.digits import Digits
from search_spaces.reading.config import (
    BudgetConfig,
    DatasetConfig,
    DatasetFacts,
    Schedule,
    ScheduleConfig,
    Spec,
    ValidationConfig,
)
from search_spaces.reading.datasets import contents
from search_spaces.reading.domains import (
    Choice,
    Domain,
    IntRange,
    LogUniform,
    Simplex,
    Uniform,
    grid,
    grid_size,
    grid_values,
    to_plain,
)
from search_spaces.reading.errors import SpecError
from search_spaces.reading.schedule import (
    annotation_hours,
    equal_shares,
    quotas,
    resolve,
    validation_bits,
    worth_of_labels,
)
from search_spaces.reading.suggest import flatten, keyed_ask, numbers_of, settings_from
from search_spaces.reading.trials import (
    candidate_settings,
    enumerate_trials,
    make_trial,
    stage_prefixes,
    trial_from_mapping,
    trial_to_mapping,
)

SHARES = (
    st.lists(st.integers(0, 1000), min_size=1, max_size=8)
    .filter(any)
    .map(lambda parts: [part / sum(parts) for part in parts])
)
CLASSES = st.sampled_from([2, 3, 4, 10, 16, 100, 200, 1000])


def data(num_classes: int, train_items: int = 10**9) -> DatasetFacts:
    return DatasetFacts(
        name="any", num_classes=num_classes, train_items=train_items, test_items=1, kind="images"
    )


def cost(schedule: Schedule, num_classes: int) -> float:
    return schedule.initial_labels * math.log2(num_classes) + sum(schedule.quotas)


def resolved(
    budget: BudgetConfig, schedule: ScheduleConfig, facts: DatasetFacts
) -> tuple[Schedule, float]:
    """Resolves where a label costs log2 C bits."""
    return resolve(budget, schedule, facts, math.log2(facts.num_classes))


# --- quotas


@given(questions=st.integers(0, 10**7), shares=SHARES)
def test_quotas_sum_to_the_questions_and_stay_within_one_of_their_share(
    questions: int, shares: list[float]
) -> None:
    found = quotas(questions, shares)
    assert sum(found) == questions
    assert all(
        quota >= 0 and abs(quota - questions * share) < 1 + 1e-6 * questions
        for quota, share in zip(found, shares, strict=True)
    )


@given(questions=st.integers(0, 10**6), shares=SHARES)
def test_a_larger_share_never_gets_the_smaller_quota(questions: int, shares: list[float]) -> None:
    found = quotas(questions, shares)
    for i, larger in enumerate(shares):
        for j, smaller in enumerate(shares):
            if larger > smaller:
                assert found[i] >= found[j]


@given(questions=st.integers(0, 10**6), stages=st.integers(1, 12))
def test_ties_go_to_earlier_rounds(questions: int, stages: int) -> None:
    found = quotas(questions, equal_shares(stages))
    assert list(found) == sorted(found, reverse=True)
    assert max(found) - min(found) <= 1


@given(questions=st.integers(1, 10**6), at=st.integers(0, 4), stages=st.integers(1, 5))
def test_all_questions_in_one_round_is_one_stage(questions: int, at: int, stages: int) -> None:
    shares = [0.0] * stages
    shares[at % stages] = 1.0
    assert tuple(quota for quota in quotas(questions, shares) if quota) == quotas(questions, [1.0])


def test_shares_are_the_decimals_they_are_written_as() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point.
    assert quotas(100, [0.29, 0.71]) == (29, 71)
    assert quotas(5, [0.5, 0.5]) == (3, 2)
    # 3.5 and 6.5 are a tie, although 0.35 is a little less in floating point.
    assert quotas(10, [0.35, 0.65]) == (4, 6)


# --- rounds that buy labels


@given(
    num_classes=CLASSES,
    total=st.integers(0, 10**5),
    initial=st.integers(0, 50),
    shares=SHARES,
    spare=st.floats(0, 0.999),
)
def test_rounds_that_buy_labels_spend_every_label_that_the_budget_holds(
    num_classes: int, total: int, initial: int, shares: list[float], spare: float
) -> None:
    schedule = ScheduleConfig(
        initial_labels_per_class=initial, split=tuple(shares), rounds_buy="labels"
    )
    label_bits, first = math.log2(num_classes), initial * num_classes
    written = [
        BudgetConfig(full_labels=total),
        BudgetConfig(bits=total * label_bits),
        BudgetConfig(bits=(total + spare) * label_bits),
    ]
    for budget in written:
        if total < first + sum(share > 0 for share in shares):
            with pytest.raises(SpecError):
                resolved(budget, schedule, data(num_classes))
            continue
        found, bits = resolved(budget, schedule, data(num_classes))
        assert (found.labels, found.questions) == (total, 0)
        assert found.quotas == quotas(total - first, shares)
        assert found.labels * label_bits <= bits


# --- bits


@pytest.mark.parametrize(
    ("num_classes", "full_labels", "per_class", "questions"),
    [
        (100, 10_000, 30, 46_506),
        (100, 10_000, 50, 33_219),
        (100, 10_000, 10, 59_794),
        (1000, 128_000, 30, 976_646),
        (1000, 128_000, 50, 777_331),
        (1000, 128_000, 10, 1_175_962),
    ],
)
def test_exact_questions_are_those_of_the_published_budgets(
    num_classes: int, full_labels: int, per_class: int, questions: int
) -> None:
    schedule = ScheduleConfig(initial_labels_per_class=per_class, split=(27 / 47, 20 / 47))
    found, bits = resolved(BudgetConfig(full_labels=full_labels), schedule, data(num_classes))
    assert sum(found.quotas) == questions
    assert bits == full_labels * math.log2(num_classes)
    same, _ = resolved(BudgetConfig(bits=bits), schedule, data(num_classes))
    assert same == found


@pytest.mark.parametrize(
    ("num_classes", "per_class", "questions", "kbits"),
    [(100, 30, 47_000, 66.9), (1000, 30, 977_000, 1276)],
)
def test_table_budgets_are_the_published_kilobits(
    num_classes: int, per_class: int, questions: int, kbits: float
) -> None:
    """Table 1 of Hu et al. 2020."""
    budget = BudgetConfig(mode="table", questions=questions)
    found, bits = resolved(
        budget, ScheduleConfig(initial_labels_per_class=per_class, split=(1.0,)), data(num_classes)
    )
    assert found.quotas == (questions,)
    assert bits == cost(found, num_classes)
    assert bits / 1000 == pytest.approx(kbits, abs=0.05 if kbits < 100 else 0.5)


def test_the_published_stage_quotas_come_out_of_their_shares() -> None:
    assert quotas(47_000, [27 / 47, 20 / 47]) == (27_000, 20_000)
    assert quotas(47_000, [15 / 47, 17 / 47, 15 / 47]) == (15_000, 17_000, 15_000)
    assert quotas(977_000, [27 / 47, 20 / 47]) == (561_255, 415_745)


@given(labels=st.integers(0, 3000), num_classes=CLASSES)
def test_labels_are_worth_exactly_the_whole_questions_that_fit(
    labels: int, num_classes: int
) -> None:
    found = worth_of_labels(labels, num_classes, math.log2(num_classes))
    assert 2**found <= num_classes**labels < 2 ** (found + 1)


@given(labels=st.integers(0, 10**12), num_classes=CLASSES)
def test_the_worth_of_many_labels_is_as_exact_and_costs_no_time(
    labels: int, num_classes: int
) -> None:
    """Against 80 digits of the logarithm; C^labels of a billion labels would fill a gigabyte."""
    found = worth_of_labels(labels, num_classes, math.log2(num_classes))
    with localcontext() as context:
        context.prec = 80
        exact = labels * Decimal(num_classes).ln() / Decimal(2).ln()
    assert found == math.floor(exact + Decimal("1e-50"))


@pytest.mark.parametrize(
    "labels", [3, 28, 59, 146, 643, 4004, 8651, 12_655, 21_306, 76_573, 97_879, 325_147]
)
def test_a_worth_that_is_all_but_whole_is_on_the_right_side(labels: int) -> None:
    """As many labels of 10 classes are worth a whole number of questions but for a little, more or
    less (denominators of log2 10 as a continued fraction).
    """
    found = worth_of_labels(labels, 10, math.log2(10))
    assert 2**found <= 10**labels < 2 ** (found + 1)


@given(bits=st.floats(1, 1e7), per_class=st.integers(1, 50), num_classes=CLASSES, shares=SHARES)
def test_not_one_bit_over_and_less_than_one_left(
    bits: float, per_class: int, num_classes: int, shares: list[float]
) -> None:
    schedule = ScheduleConfig(initial_labels_per_class=per_class, split=tuple(shares))
    try:
        found, budget = resolved(BudgetConfig(bits=bits), schedule, data(num_classes))
    except SpecError:
        assert bits - per_class * num_classes * math.log2(num_classes) < len(shares) + 1e-6
        return
    assert budget == bits
    assert budget - 1 - 1e-6 < cost(found, num_classes) <= budget


@given(full=st.integers(1, 10**5), per_class=st.integers(1, 50), num_classes=CLASSES, shares=SHARES)
def test_a_budget_in_labels_is_never_exceeded_in_bits(
    full: int, per_class: int, num_classes: int, shares: list[float]
) -> None:
    schedule = ScheduleConfig(initial_labels_per_class=per_class, split=tuple(shares))
    try:
        found, budget = resolved(BudgetConfig(full_labels=full), schedule, data(num_classes))
    except SpecError:
        assert (full - per_class * num_classes) * math.log2(num_classes) < len(shares) + 1e-6
        return
    assert budget - 1 - 1e-6 < cost(found, num_classes) <= budget


@given(questions=st.integers(1, 10**9), per_class=st.integers(1, 50), num_classes=CLASSES)
def test_a_budget_one_rounding_below_a_price_does_not_buy_it(
    questions: int, per_class: int, num_classes: int
) -> None:
    schedule = ScheduleConfig(initial_labels_per_class=per_class, split=(1.0,))
    price = per_class * num_classes * math.log2(num_classes) + questions
    assert (
        sum(resolved(BudgetConfig(bits=price), schedule, data(num_classes))[0].quotas) == questions
    )
    if questions > 1:
        found, _ = resolved(
            BudgetConfig(bits=math.nextafter(price, 0)), schedule, data(num_classes)
        )
        assert cost(found, num_classes) < price


@pytest.mark.parametrize(("rounds", "valid"), [(1, True), (2, True), (3, False)])
def test_every_round_needs_a_question(rounds: int, valid: bool) -> None:
    schedule = ScheduleConfig(initial_labels_per_class=1, split=equal_shares(rounds))
    budget = BudgetConfig(mode="table", questions=2)
    if valid:
        assert sum(resolved(budget, schedule, data(10))[0].quotas) == 2
    else:
        with pytest.raises(SpecError, match="3 rounds share 2 questions"):
            resolved(budget, schedule, data(10))


@given(questions=st.integers(0, 50), asking=st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_round_without_a_share_asks_nothing(questions: int, asking: list[bool]) -> None:
    share = 1 / max(sum(asking), 1)
    split = tuple(share if asks else 0.0 for asks in asking)
    schedule = ScheduleConfig(initial_labels_per_class=1, split=split)
    budget = BudgetConfig(mode="table", questions=questions)
    if sum(asking) > questions or (questions and not any(asking)):
        with pytest.raises(SpecError, match=r"each round needs one|sum to 0"):
            resolved(budget, schedule, data(10))
        return
    found, bits = resolved(budget, schedule, data(10))
    assert [quota > 0 for quota in found.quotas] == asking
    assert sum(found.quotas) == questions and bits == cost(found, 10)


def test_full_labels_alone_are_valid_only_when_they_use_the_budget() -> None:
    alone = ScheduleConfig(initial_labels_per_class=10, split=())
    found, bits = resolved(BudgetConfig(full_labels=100), alone, data(10))
    assert found == Schedule(initial_labels=100, quotas=())
    assert cost(found, 10) == bits
    # Less than one question left is nothing left; one question is too much.
    resolved(BudgetConfig(bits=bits + 0.99), alone, data(10))
    with pytest.raises(SpecError, match="there is no round"):
        resolved(BudgetConfig(bits=bits + 1.01), alone, data(10))


@pytest.mark.parametrize(("per_class", "valid"), [(106, True), (107, False)])
def test_initial_labels_and_validation_fit_into_the_smallest_class(
    per_class: int, valid: bool
) -> None:
    overrides = [
        "cases={}",
        "budget.full_labels=1100",
        f"schedule.initial_labels_per_class={per_class}",
    ]
    if valid:
        assert load_spec("smoke.yaml", overrides).smallest_class == 116
    else:
        with pytest.raises(SpecError, match="has 106 images beside 10 for validation"):
            load_spec("smoke.yaml", overrides)


def test_annotation_hours_are_those_of_the_user_study() -> None:
    assert annotation_hours(3000, 47_000) == pytest.approx(85.5, abs=0.05)
    assert annotation_hours(10_000, 0) == pytest.approx(166.7, abs=0.05)


def test_only_a_validation_split_is_priced_beside_the_budget() -> None:
    config = DatasetConfig(
        source=Digits(), validation=ValidationConfig(source="split", per_class=10)
    )
    facts = contents(config.source).facts("digits")
    assert validation_bits(config, facts, math.log2(10)) == pytest.approx(332.193, abs=1e-3)
    for source in ("initial_labels", "none"):
        other = DatasetConfig(
            source=Digits(), validation=ValidationConfig(source=source, per_class=10)
        )
        assert validation_bits(other, facts, math.log2(10)) == 0.0


# --- domains


STEPS: Any = st.sampled_from([None, 0.05, 0.1, 0.02])
UNITS = st.lists(st.floats(0, 1), max_size=7)


@given(numbers=UNITS, floor=st.integers(0, 2), step=STEPS)
def test_shares_sum_to_one_and_respect_floor_and_step(
    numbers: list[float], floor: int, step: float | None
) -> None:
    simplex = Simplex(floor * 0.05, step)
    if not simplex.fits(len(numbers) + 1):
        return
    for shares in (simplex.split(numbers), simplex.equal(len(numbers) + 1)):
        assert math.fsum(shares) == pytest.approx(1, abs=1e-9)
        assert min(shares) >= simplex.floor - 1e-9
        if step is not None:
            assert all(abs(share / step - round(share / step)) < 1e-9 for share in shares)
        assert sum(quotas(12_345, shares)) == 12_345
    assert max(shares) - min(shares) <= 1 / simplex.units + 1e-9, (
        "equal shares differ by a step at most"
    )


@given(numbers=UNITS, step=STEPS)
def test_shares_make_numbers_and_numbers_make_the_shares_again(
    numbers: list[float], step: float | None
) -> None:
    simplex = Simplex(0.05, step)
    shares = simplex.split(numbers)
    assert all(0 <= number <= 1 for number in simplex.numbers(shares))
    assert simplex.split(simplex.numbers(shares)) == shares


@given(
    stages=st.integers(1, 4),
    step=st.sampled_from([0.1, 0.2, 0.25]),
    floor=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_every_split_of_a_grid_has_numbers(stages: int, step: float, floor: float) -> None:
    simplex = Simplex(floor, step)
    if simplex.fits(stages):
        for shares in grid_values(simplex, stages):
            assert simplex.split(simplex.numbers(shares)) == shares


@given(
    numbers=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    lower=st.floats(0, 1),
    index=st.integers(0, 2),
)
def test_a_smaller_number_is_no_smaller_share(
    numbers: list[float], lower: float, index: int
) -> None:
    """So that a searcher can learn from it."""
    changed = [*numbers[:index], min(lower, numbers[index]), *numbers[index + 1 :]]
    assert Simplex(0.0, 0.05).split(changed)[index] >= Simplex(0.0, 0.05).split(numbers)[index]


@pytest.mark.parametrize(
    ("stages", "simplex"),
    [
        (2, Simplex(0.0, 0.05)),
        (3, Simplex(0.0, 0.1)),
        (3, Simplex(0.05, 0.05)),
        (4, Simplex(0.0, 0.2)),
    ],
)
def test_every_split_is_drawn_equally_often(stages: int, simplex: Simplex) -> None:
    """Chi-square over all splits; edges and corners were drawn 0.03 to 0.5 times as often while
    weights were rounded to steps.
    """
    vary: dict[str, Domain] = {"schedule.split": simplex}
    cells = grid_size(vary, stages)
    draws = 100 * cells
    counts = Counter(
        tuple(settings_from(vary, stages, keyed_ask(1, index))["schedule.split"])
        for index in range(draws)
    )
    assert counts.keys() == set(grid_values(simplex, stages))
    chi_square = sum((count - draws / cells) ** 2 for count in counts.values()) / (draws / cells)
    # Mean and standard deviation of chi-square with that many degrees of freedom.
    assert abs(chi_square - (cells - 1)) < 3.5 * math.sqrt(2 * (cells - 1))


def test_numbers_among_a_choice_have_an_order_and_words_have_none() -> None:
    vary: dict[str, Domain] = {
        "method.epochs": Choice((40, 5, 20)),
        "method.init": Choice(("scratch", "continue")),
        "method.nls": Choice((True, False)),
        "method.labelled_share": Choice((None, 0.5)),
    }
    kinds = {parameter.name: parameter.kind for parameter in flatten(vary, None)}
    assert kinds == {
        "method.epochs": "int",
        "method.init": "category",
        "method.nls": "category",
        "method.labelled_share": "category",
    }
    for index, epochs in enumerate((5, 20, 40)):
        numbers = {
            "method.epochs": index,
            "method.init": 1,
            "method.nls": 0,
            "method.labelled_share": 1,
        }
        found = settings_from(vary, None, lambda parameter, given=numbers: given[parameter.name])  # type: ignore[misc]
        assert found["method.epochs"] == epochs
        assert numbers_of(vary, found) == numbers


VARY: dict[str, Domain] = {
    "schedule.split": Simplex(0.05, 0.05),
    "schedule.stages": IntRange(0, 5),
    "method.nls": Choice((True, False)),
    "method.consistency_weight": LogUniform(1, 100),
    "method.ema_decay": Uniform(0.9, 0.99),
}


@given(
    seed=st.integers(0, 10**6),
    index=st.integers(0, 10**6),
    step=st.sampled_from([None, 0.05, 0.02]),
)
def test_numbers_make_settings_and_settings_make_the_numbers_again(
    seed: int, index: int, step: float | None
) -> None:
    vary = VARY | {"schedule.split": Simplex(0.05, step)}
    found = settings_from(vary, None, keyed_ask(seed, index))
    assert len(found["schedule.split"]) == found["schedule.stages"]
    assert list(found) == list(vary)
    numbers = numbers_of(vary, found)
    known = {parameter.name: parameter for parameter in flatten(vary, None)}
    assert numbers.keys() <= known.keys()
    assert all(known[name].low <= number <= known[name].high for name, number in numbers.items())
    assert settings_from(vary, None, lambda parameter: numbers[parameter.name]) == found
    assert json.loads(json.dumps(found)) == found


def test_a_draw_depends_on_its_own_key_alone() -> None:
    fewer = {key: domain for key, domain in VARY.items() if key != "method.nls"}
    for index in range(20):
        all_of_them = settings_from(VARY, None, keyed_ask(3, index))
        assert settings_from(fewer, None, keyed_ask(3, index)) == {
            key: all_of_them[key] for key in fewer
        }


def test_the_draws_of_one_candidate_are_independent_of_each_other() -> None:
    vary: dict[str, Domain] = {"method.momentum": Uniform(0, 1), "method.ema_decay": Uniform(0, 1)}
    drawn = [settings_from(vary, None, keyed_ask(0, index)) for index in range(200)]
    low = sum(row["method.momentum"] < 0.5 and row["method.ema_decay"] < 0.5 for row in drawn)
    assert 25 < low < 75


def test_draws_cover_their_domains() -> None:
    drawn = [settings_from(VARY, None, keyed_ask(0, index)) for index in range(300)]
    assert {row["schedule.stages"] for row in drawn} == set(range(6))
    assert {row["method.nls"] for row in drawn} == {True, False}
    weights = [row["method.consistency_weight"] for row in drawn]
    assert 1 <= min(weights) < 1.5 and 70 < max(weights) <= 100
    assert 0.4 < sum(weight < 10 for weight in weights) / 300 < 0.6


@given(
    stages=st.integers(0, 4),
    step=st.sampled_from([0.1, 0.2, 0.25]),
    floor=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_a_grid_lists_every_split_once(stages: int, step: float, floor: float) -> None:
    simplex = Simplex(floor, step)
    if not simplex.fits(stages):
        return
    vary: dict[str, Domain] = {"schedule.split": simplex, "method.nls": Choice((True, False))}
    points = [(tuple(point["schedule.split"]), point["method.nls"]) for point in grid(vary, stages)]
    assert len(points) == len(set(points)) == grid_size(vary, stages)
    for shares, _ in points:
        assert len(shares) == stages
        assert stages == 0 or math.fsum(shares) == pytest.approx(1)


def test_a_grid_over_stages_and_splits_has_as_many_shares_as_stages() -> None:
    vary: dict[str, Domain] = {
        "schedule.split": Simplex(0.25, 0.25),
        "schedule.stages": IntRange(1, 3),
    }
    found = list(grid(vary, None))
    assert grid_size(vary, None) == len(found) == 1 + 3 + 3
    assert all(len(point["schedule.split"]) == point["schedule.stages"] for point in found)


# --- trials


@pytest.fixture(scope="module")
def smoke() -> Spec:
    return load_spec("smoke.yaml", ["cases={}"])


SETTINGS: Any = st.fixed_dictionaries(
    {},
    optional={
        "method.epochs": st.integers(1, 50),
        "method.nls": st.booleans(),
        "method.consistency_weight": st.floats(0, 1000) | st.integers(0, 1000),
        "schedule.initial_labels_per_class": st.integers(1, 5),
        "schedule.split": SHARES.map(lambda shares: [float(share) for share in shares]),
        "query.strategy": st.sampled_from(["random", "easy", "hard"]),
        "oracle.name": st.sampled_from(["labels", "noisy"]),
        "budget.bits": st.floats(250, 400),
    },
)


@settings(max_examples=100)
@given(chosen=SETTINGS, seed=st.integers(0, 2**31 - 1))
def test_a_trial_survives_being_written_down(
    smoke: Spec, chosen: dict[str, Any], seed: int
) -> None:
    trial = make_trial(smoke, chosen, seed, ("a case",))
    assert trial_from_mapping(json.loads(json.dumps(trial_to_mapping(trial))), INSTALLED) == trial


@settings(max_examples=100)
@given(chosen=SETTINGS, seed=st.integers(0, 2**31 - 1))
def test_an_id_depends_on_the_settings_and_not_on_their_order_or_case(
    smoke: Spec, chosen: dict[str, Any], seed: int
) -> None:
    trial = make_trial(smoke, chosen, seed, ("one",))
    assert make_trial(smoke, dict(reversed(chosen.items())), seed, ("other",)).id == trial.id
    assert make_trial(smoke, chosen, seed + 1).id != trial.id
    assert make_trial(smoke, chosen, seed + 1).candidate == trial.candidate
    assert len(trial.id) == len(trial.candidate) == 12 and set(trial.id + trial.candidate) <= set(
        "0123456789abcdef"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method.epochs", 4),
        ("method.feature_noise", 0.2),  # unread for images, and part of the id all the same
        ("method.labelled_per_batch", [20, 40]),
        ("query.requery", "never"),
        ("schedule.initial_choice", "first"),
        ("oracle.name", "noisy"),
        ("budget.full_labels", 101),
        ("schedule.initial_labels_per_class", 3),
        ("schedule.split", [0.6, 0.4]),
    ],
)
def test_every_setting_is_part_of_the_id(smoke: Spec, key: str, value: Any) -> None:
    assert make_trial(smoke, {key: value}, 0).id != make_trial(smoke, {}, 0).id


def test_ids_do_not_change_from_one_release_to_the_next(smoke: Spec) -> None:
    """Records on disk are found by their ids: this one is never changed. A setting that is added
    changes none (see test_schema).
    """
    assert make_trial(smoke, {}, 0).id == "00baefa81d7d"


def test_ways_to_write_one_trial_have_one_id(smoke: Spec) -> None:
    trial = make_trial(smoke, {}, 0)
    for same in (
        {"schedule.split": [0.5, 0.5], "schedule.stages": 2},
        {"budget.bits": 100 * math.log2(10)},
        {"method.consistency_weight": 10},
        {"schedule.split": [0.5000001, 0.4999999]},
    ):
        assert make_trial(smoke, same, 0).id == trial.id


def test_the_same_settings_under_two_cases_are_one_trial_with_both_names() -> None:
    trials = enumerate_trials(load_spec("ablations.yaml"))
    assert trials is not None
    names = {trial.cases for trial in trials}
    assert ("two stages, NLS", "split 57/43", "2 labels per class", "random questions") in names
    assert (
        len({trial.id for trial in trials})
        == len(trials)
        == 14 * len(load_spec("ablations.yaml").seeds)
    )


def test_a_longer_random_search_begins_with_the_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "random.yaml"
    path.write_text(
        Path(load_spec("stage_schedules.yaml").source)
        .read_text()
        .replace("algorithm: tpe", "algorithm: random")
    )
    shorter, longer = (
        enumerate_trials(load_spec(str(path), [f"search.num_candidates={n}"])) for n in (5, 9)
    )
    assert shorter is not None and longer is not None
    assert longer[: len(shorter)] == shorter
    other = enumerate_trials(load_spec(str(path), ["search.num_candidates=5", "search.seed=1"]))
    assert other is not None and {t.id for t in other}.isdisjoint({t.id for t in shorter})


def test_a_searchers_numbers_make_a_trial_and_it_keeps_the_varied_keys() -> None:
    spec = load_spec("stage_schedules.yaml")
    assert enumerate_trials(spec) is None
    for index in range(30):
        chosen = candidate_settings(spec, keyed_ask(0, index))
        trial = make_trial(spec, chosen, 0)
        assert trial.settings == chosen and list(chosen) == list(spec.vary)
        assert len(trial.schedule.quotas) == chosen["schedule.stages"]
        assert trial.bits <= trial.budget_bits < trial.bits + 1
        assert [to_plain(value) for value in chosen.values()] == list(chosen.values())


# --- shared stages


def prefixes(spec: Spec, **changes: Any) -> tuple[str, ...]:
    return stage_prefixes(
        make_trial(spec, {key.replace("__", "."): value for key, value in changes.items()}, 0)
    )


def test_one_key_for_each_stage_training(smoke: Spec) -> None:
    assert len(prefixes(smoke)) == 3
    assert len(prefixes(smoke, schedule__split=[], schedule__initial_labels_per_class=10)) == 1


def test_trials_share_the_stages_before_they_differ(smoke: Spec) -> None:
    base = prefixes(smoke)
    for depth, changed in (
        (1, prefixes(smoke, method__nls=False)),
        (1, prefixes(smoke, query__strategy="easy")),
        (1, prefixes(smoke, schedule__split=[0.4, 0.6])),
        (1, prefixes(smoke, oracle__name="noisy")),
        (2, prefixes(smoke, query__requery="never")),
        (2, prefixes(smoke, query__mask_refused=False)),
        (0, prefixes(smoke, method__epochs=4)),
        (0, prefixes(smoke, schedule__initial_choice="first")),
        (0, prefixes(smoke, method__labelled_per_batch=[20, 30, 40])),
        (0, prefixes(smoke, schedule__initial_labels_per_class=3)),
    ):
        assert changed[:depth] == base[:depth]
        assert set(changed[depth:]).isdisjoint(base)


def test_a_list_with_an_entry_a_stage_is_read_entry_by_entry(smoke: Spec) -> None:
    listed = prefixes(smoke, method__labelled_per_batch=[20, 30, 40])
    assert prefixes(smoke, method__labelled_per_batch=[20, 30])[:2] == listed[:2]
    assert prefixes(smoke, method__labelled_per_batch=[20, 30])[2] != listed[2]
    assert prefixes(smoke, method__labelled_per_batch=[20, 30, 30]) == prefixes(
        smoke, method__labelled_per_batch=[20, 30]
    )
    one = prefixes(smoke, method__labelled_per_batch=[20, 30], schedule__split=[0.0, 1.0])
    assert len(set(one)) == 3, "a stage with other batches is trained anew even without an answer"


def test_only_mixed_has_a_share(smoke: Spec) -> None:
    with pytest.raises(
        SpecError, match=r"query random has no such setting; write query\.strategy: mixed"
    ):
        prefixes(smoke, query__easy_share=0.1)
    assert (
        prefixes(smoke, query__easy_share=0.1, query__strategy="mixed")[1]
        != prefixes(smoke, query__strategy="mixed")[1]
    )


def test_another_budget_alone_shares_everything_that_has_equal_quotas(smoke: Spec) -> None:
    assert prefixes(smoke, budget__bits=332.0) == prefixes(smoke)
    assert stage_prefixes(make_trial(smoke, {}, 1))[0] != prefixes(smoke)[0]


def test_a_round_without_questions_trains_nothing_new(smoke: Spec) -> None:
    one, padded = (
        prefixes(smoke, schedule__split=[1.0]),
        prefixes(smoke, schedule__split=[0.0, 1.0, 0.0]),
    )
    assert set(padded) == set(one)
    assert len(padded) == 4
