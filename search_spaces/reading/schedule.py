"""Bits, questions, quotas and annotation time of a schedule, in whole numbers where things are
counted.

A label costs what the task says, and any yes/no answer 1 bit (Hu et al. 2020, arXiv:2009.06168,
whose full labels cost log2 C bits).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any, Final

from search_spaces.reading.blind_draws import BlindDraws, blind_draws
from search_spaces.reading.config import (
    BudgetConfig,
    DatasetConfig,
    DatasetFacts,
    QueryConfig,
    Schedule,
    ScheduleConfig,
)
from search_spaces.reading.errors import SpecError

SECONDS_PER_QUESTION: Final = 2.72
"""A yes/no answer, measured with three labellers on 100 ImageNet images (Hu et al. 2020, user
study).
"""
SECONDS_PER_LABEL: Final = 60.0
"""A full label among 1,000 classes (Hu et al. 2020, user study)."""

SHARES_TOLERANCE: Final = 1e-6


def worth_of_labels(labels: int, num_classes: int, label_bits: float) -> int:
    """Returns how many whole yes/no questions cost no more than `labels` labels, exactly.

    Args:
        label_bits: price of one. Where it is log2 C to the last digit, that number itself is meant.
    """
    if label_bits != math.log2(num_classes):
        return math.floor(labels * Fraction(label_bits))
    if num_classes & (num_classes - 1) == 0:
        return labels * (num_classes.bit_length() - 1)
    product = labels * label_bits
    digits = 50
    while abs(product - round(product)) <= 1e-9 * max(1.0, product) and labels:
        # Too near to a whole number for floating point. log2 C is irrational where C is no power of
        # 2, so that enough digits always tell.
        with localcontext() as context:
            context.prec = digits
            exact = labels * _log2(num_classes, digits)
            below, above = (
                math.floor(exact * (1 + sign * Decimal(10) ** (5 - digits))) for sign in (-1, 1)
            )
        if below == above:
            return below
        digits *= 2
    return math.floor(product)


@cache
def _log2(number: int, digits: int) -> Decimal:
    with localcontext() as context:
        context.prec = digits
        return Decimal(number).ln() / Decimal(2).ln()


def quotas(questions: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Whole quotas that sum to `questions` exactly: largest remainders are rounded up, of equal
    ones the earlier rounds'. Where no round has a share, none has a quota.

    Shares are taken as the decimals they print as, so that 0.29 is 29 hundredths and ties are ties.
    """
    exact = [Fraction(repr(float(share))) for share in shares]
    total = sum(exact, Fraction(0))
    if not total:
        return (0,) * len(exact)
    ideal = [questions * share / total for share in exact]
    whole = [math.floor(value) for value in ideal]
    largest_first = sorted(range(len(whole)), key=lambda i: (whole[i] - ideal[i], i))
    for i in largest_first[: questions - sum(whole)]:
        whole[i] += 1
    return tuple(whole)


def equal_shares(stages: int) -> tuple[float, ...]:
    """One equal share a round."""
    return tuple([1 / stages] * stages)


def annotation_hours(
    labels: int,
    questions: int,
    seconds_per_question: float = SECONDS_PER_QUESTION,
    seconds_per_label: float = SECONDS_PER_LABEL,
) -> float:
    """Hours of people's work for full labels and yes/no answers."""
    return (labels * seconds_per_label + questions * seconds_per_question) / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSeconds:
    """How long people take, in seconds."""

    label: float
    question: float
    """An answer about one class."""
    longest: float
    """An answer about as many classes as a question may name."""
    measured: bool
    """Whether it is what Hu et al. 2020 measured, of such labels and answers."""


def task_seconds(task: Any, num_classes: int) -> TaskSeconds:
    """Returns the seconds that a task says, or those of Hu et al. 2020."""
    label = float(getattr(task, "label_seconds", SECONDS_PER_LABEL))
    answer = getattr(task, "answer_seconds", None)
    if answer is None:
        question = longest = SECONDS_PER_QUESTION
        measured = not hasattr(task, "label_seconds")
        return TaskSeconds(label=label, question=question, longest=longest, measured=measured)
    most = task.most_classes(num_classes) if hasattr(task, "most_classes") else 1
    return TaskSeconds(label=label, question=answer(1), longest=answer(most), measured=False)


def hours_range(task: Any, num_classes: int, labels: int, questions: int) -> tuple[float, float]:
    """Returns the least and the most hours of people's work; they differ where the time of an
    answer depends on how many classes a question names.
    """
    takes = task_seconds(task, num_classes)
    least, most = (
        annotation_hours(labels, questions, seconds, takes.label)
        for seconds in (takes.question, takes.longest)
    )
    return least, most


def questions_of_image(task: Any, num_classes: int) -> int:
    """Returns how many questions a round may ask about an image, at most."""
    if not task.several_questions:
        return 1
    return min(num_classes, getattr(task, "per_image", num_classes))


def validation_bits(dataset: DatasetConfig, facts: DatasetFacts, label_bits: float) -> float:
    """Price of a validation set outside the pool, which is beside the budget; 0 for the other
    kinds.
    """
    return images_apart(dataset, facts) * label_bits


def images_apart(dataset: DatasetConfig, facts: DatasetFacts) -> int:
    """Returns how many validation images lie outside the pool."""
    validation = dataset.validation
    if validation.source == "share":
        return share_of(facts.train_items, validation.share)
    return held_out(dataset, facts) * facts.num_classes


def share_of(items: int, share: float) -> int:
    """Returns how many images a share of them is."""
    return round(share * items)


def held_out(dataset: DatasetConfig, facts: DatasetFacts) -> int:
    """Returns the images of each class that a validation set outside the pool takes; of a share, if
    classes are equally large.
    """
    validation = dataset.validation
    if validation.source == "share":
        return -(-share_of(facts.train_items, validation.share) // facts.num_classes)
    return validation.per_class if validation.source == "split" else 0


def draws(schedule: ScheduleConfig, facts: DatasetFacts, apart: int = 0) -> BlindDraws | None:
    """How many labels `priced_balanced` buys, if classes are equally large: the true sizes are
    hidden labels. None for any other choice of D_S.

    Args:
        apart: images of each class that are not in the pool.
    """
    class_size = facts.train_items // facts.num_classes - apart
    if not schedule.choice.bits_decide or schedule.initial_labels_per_class > class_size:
        # Where a class cannot be filled, check_pool says so.
        return None
    return blind_draws(facts.num_classes, class_size, schedule.initial_labels_per_class)


def resolve(
    budget: BudgetConfig,
    schedule: ScheduleConfig,
    facts: DatasetFacts,
    label_bits: float,
    apart: int = 0,
) -> tuple[Schedule, float]:
    """Resolves the schedule to whole numbers and the budget to bits. What the schedule costs never
    exceeds the budget.

    Args:
        label_bits: price of one label of round 0.
        apart: as for `draws`.

    Raises:
        SpecError: the budget is not said once and clearly, D_S costs more than it, or the rounds do
            not fit the questions that are left.
    """
    _check_zero(budget, schedule)
    expected = draws(schedule, facts, apart)
    initial = (
        schedule.initial_labels_per_class * facts.num_classes
        if expected is None
        else expected.expected
    )
    _check_budget_keys(budget)
    _check_drawn(budget, schedule)
    if schedule.rounds_buy == "labels":
        return _resolve_labels(budget, schedule, initial, label_bits)
    if budget.mode == "table":
        assert budget.questions is not None
        questions, bits = budget.questions, initial * label_bits + budget.questions
    elif budget.full_labels is not None:
        bits = budget.full_labels * label_bits
        _check_initial(initial, label_bits, bits, "budget.full_labels", expected is not None)
        questions = worth_of_labels(budget.full_labels - initial, facts.num_classes, label_bits)
    else:
        assert budget.bits is not None
        bits = budget.bits
        _check_initial(initial, label_bits, bits, "budget.bits", expected is not None)
        # The sum is what is charged; the difference may have been rounded to the next whole number,
        # up or down.
        questions = math.floor(bits - initial * label_bits) + 1
        while initial * label_bits + questions > bits:
            questions -= 1
    _check_split(schedule.split, questions, initial)
    return (
        Schedule(
            initial_labels=initial,
            quotas=quotas(questions, schedule.split) if schedule.split else (),
        ),
        bits,
    )


def _resolve_labels(
    budget: BudgetConfig, schedule: ScheduleConfig, initial: int, label_bits: float
) -> tuple[Schedule, float]:
    """Resolves a schedule whose rounds buy labels. What is too little for a label is not spent."""
    if budget.mode == "table":
        raise SpecError(
            "mode table gives a number of questions, and these rounds buy labels",
            keys=("schedule.rounds_buy", "budget.mode"),
            hint="write budget: {full_labels: 100}",
        )
    key = "budget.bits" if budget.full_labels is None else "budget.full_labels"
    if budget.full_labels is not None:
        bits, labels = budget.full_labels * label_bits, budget.full_labels
    else:
        assert budget.bits is not None
        bits, labels = budget.bits, math.floor(budget.bits / label_bits)
        # The product is what is charged; the quotient may have been rounded.
        labels += ((labels + 1) * label_bits <= bits) - (labels * label_bits > bits)
    _check_initial(initial, label_bits, bits, key, expected=False)
    _check_split(schedule.split, labels - initial, initial, "labels")
    shared = quotas(labels - initial, schedule.split) if schedule.split else ()
    return Schedule(initial_labels=initial, quotas=shared, buys="labels"), bits


def _check_budget_keys(budget: BudgetConfig) -> None:
    given = [
        name for name in ("bits", "full_labels", "questions") if getattr(budget, name) is not None
    ]
    if budget.mode == "table":
        if given != ["questions"]:
            keys = tuple(f"budget.{name}" for name in given if name != "questions")
            problem = (
                "mode table takes the number of questions and nothing else, not"
                f" {' and '.join(given) or 'nothing'}"
            )
            raise SpecError(
                problem,
                keys=(*keys, "budget.mode"),
                hint="write budget: {mode: table, questions: 47000}",
            )
    elif "questions" in given:
        raise SpecError(
            "questions are given only in mode table; in mode exact they are what the bits leave"
            " after D_S",
            keys=("budget.questions", "budget.mode"),
        )
    elif len(given) != 1:
        problem = "give bits or full_labels, not both" if given else "the budget is not given"
        raise SpecError(
            problem,
            keys=("budget.bits", "budget.full_labels", "budget.mode"),
            hint="write one of {full_labels: 100} and {bits: 332.2}",
        )


def _check_zero(budget: BudgetConfig, schedule: ScheduleConfig) -> None:
    """Checks that something is bought where no label is."""
    if schedule.initial_labels_per_class:
        return
    if schedule.choice.bits_decide:
        raise SpecError(
            f"{schedule.initial_choice} draws until each class has its labels, and"
            " initial_labels_per_class is 0",
            keys=("schedule.initial_choice", "schedule.initial_labels_per_class"),
            hint="remove initial_choice, or write at least 1",
        )
    if budget.mode == "table" and budget.questions == 0:
        raise SpecError(
            "nothing is bought: initial_labels_per_class is 0 and so are the questions",
            keys=("schedule.initial_labels_per_class", "budget.questions"),
            hint="buy labels or ask questions",
        )


def _check_drawn(budget: BudgetConfig, schedule: ScheduleConfig) -> None:
    if not schedule.choice.bits_decide:
        return
    if schedule.rounds_buy == "labels":
        raise SpecError(
            f"{schedule.initial_choice} leaves its rounds what the draws do not cost, in questions,"
            " and these rounds buy labels",
            keys=("schedule.rounds_buy", "schedule.initial_choice"),
            hint="write initial_choice: uniform",
        )
    if budget.mode == "table":
        raise SpecError(
            "mode table prices a number of labels that is given, and"
            f" {schedule.initial_choice} draws it",
            keys=("schedule.initial_choice", "budget.mode"),
            hint="write budget: {full_labels: 100}, or another initial_choice",
        )
    if not schedule.split:
        raise SpecError(
            f"how many labels {schedule.initial_choice} buys is known once they are drawn, and no"
            " round spends what they leave",
            keys=("schedule.split", "schedule.stages", "schedule.initial_choice"),
            hint=(
                "give this row a round, or write initial_choice: uniform to spend its whole budget"
                " on labels drawn blindly"
            ),
        )


def _check_initial(
    initial: int, label_bits: float, bits: float, budget_key: str, expected: bool
) -> None:
    if initial * label_bits > bits:
        labels = (
            f"priced_balanced is expected to draw {initial} labels, which"
            if expected
            else f"|D_S| = {initial} labels"
        )
        raise SpecError(
            f"{labels} cost {initial * label_bits:.6g} bits, and the budget is {bits:.6g}",
            keys=("schedule.initial_labels_per_class", budget_key),
            hint="lower initial_labels_per_class or raise the budget",
        )


def _check_split(
    split: Sequence[float], questions: int, initial: int, bought: str = "questions"
) -> None:
    """Checks the shares of the rounds. A round whose share is 0 buys nothing, and all may be such
    where nothing is left to buy.

    Args:
        bought: what `questions` counts, which rounds share.
    """
    keys = ("schedule.split", "schedule.stages")
    asking = [share for share in split if share > 0]
    negative = [share for share in split if share < 0]
    if negative:
        raise SpecError(
            f"a share of the {bought} cannot be negative ({negative[0]})",
            keys=keys,
            hint="write shares from 0 to 1 that sum to 1",
        )
    if split and abs(math.fsum(split) - 1) > SHARES_TOLERANCE and (asking or questions):
        raise SpecError(
            f"the shares sum to {math.fsum(split):.10g}, not to 1",
            keys=keys,
            hint=f"write one share of the {bought} for each round",
        )
    if not split and questions > 0:
        raise SpecError(
            f"there is no round, and {questions} {bought} of the budget are left after |D_S| ="
            f" {initial} labels",
            keys=(
                *keys,
                "schedule.initial_labels_per_class",
                "budget.full_labels",
                "budget.bits",
                "budget.questions",
            ),
            hint="write split: [1.0] for one round, or let |D_S| use the budget",
        )
    if len(asking) > questions:
        raise SpecError(
            f"{len(asking)} rounds share {questions} {bought}; each round needs one",
            keys=(
                *keys,
                "schedule.initial_labels_per_class",
                "budget.full_labels",
                "budget.bits",
                "budget.questions",
            ),
            hint="take fewer rounds, fewer initial labels or a larger budget"
            + ("" if questions else "; split: [] trains on full labels only"),
        )


def check_pool(
    schedule: Schedule,
    dataset: DatasetConfig,
    query: QueryConfig,
    facts: DatasetFacts,
    smallest_class: int,
    per_class: int,
    blind: bool = False,
    task: Any = None,
) -> None:
    """Checks that the images suffice for the labels bought and, where no image is asked twice, for
    the questions.

    Args:
        smallest_class: training images of the class that has the fewest.
        per_class: initial labels of each class.
        blind: D_S is as many labels in all, of whatever classes.
        task: where a round may ask about an image more than once.

    Raises:
        SpecError: they do not.
    """
    validation = dataset.validation
    if validation.source == "initial_labels" and validation.per_class >= per_class:
        raise SpecError(
            f"{validation.per_class} validation labels of each class are carved from {per_class}"
            " initial ones, and none is left to train on",
            keys=(
                "dataset.validation.per_class",
                "schedule.initial_labels_per_class",
                "dataset.validation.from",
            ),
            hint="take fewer, or more initial labels",
        )
    outside = images_apart(dataset, facts)
    # How many of a share are of the smallest class, the data tells.
    apart = validation.per_class if validation.source == "split" else 0
    if getattr(task, "several_labels", False):
        # An image counts for each of its categories: as many images as with one class each, of
        # whatever categories.
        blind = True
        if outside >= facts.train_items:
            raise SpecError(
                f"the validation split takes {outside} images ({apart} for each"
                f" of {facts.num_classes} categories), and {facts.name} has {facts.train_items}"
                " training images",
                keys=(
                    "dataset.validation.per_class",
                    "dataset.validation.from",
                    "dataset.validation",
                ),
                hint="take fewer",
            )
    elif apart >= smallest_class:
        raise SpecError(
            f"the validation split takes {apart} images of each class, and the smallest class of"
            f" {facts.name} has {smallest_class} training image"
            + ("" if smallest_class == 1 else "s"),
            keys=("dataset.validation.per_class", "dataset.validation.from", "dataset.validation"),
            hint=(
                f"take fewer than {smallest_class}"
                if smallest_class > 1
                else "give it more images, or write validation: {from: none}"
            ),
        )
    left = facts.train_items - outside
    if blind and schedule.initial_labels > left:
        raise SpecError(
            f"{schedule.initial_labels} initial labels are asked for, and {facts.name} has {left}"
            " training images" + (" beside validation" if apart else ""),
            keys=("schedule.initial_labels_per_class", "dataset.validation.per_class"),
            hint=f"take at most {left // facts.num_classes}",
        )
    if not blind and apart + per_class > smallest_class:
        raise SpecError(
            f"{per_class} initial labels of each class are asked for, and the smallest class of"
            f" {facts.name} has {smallest_class - apart} images"
            + (f" beside {apart} for validation" if apart else ""),
            keys=("schedule.initial_labels_per_class", "dataset.validation.per_class"),
            hint=f"take at most {smallest_class - apart}",
        )
    unlabelled = left - schedule.initial_labels
    if schedule.labels > left:
        raise SpecError(
            f"{schedule.labels} labels are to be bought in all, and {facts.name} has {left}"
            " training images" + (" beside validation" if apart else ""),
            keys=("schedule.rounds_buy", "budget.full_labels", "budget.bits"),
            hint="lower the budget",
        )
    askable, rule, room = unlabelled, "asks each image at most once", f"{unlabelled} images"
    if getattr(task, "several_questions", False):
        each = questions_of_image(task, facts.num_classes)
        # An image that has a label may be open too.
        askable, rule = left * each, "asks about an image in one round only"
        room = f"{left} images, {each} of each at most"
    if query.requery == "never" and schedule.questions > askable:
        raise SpecError(
            f"requery: never {rule}, and there are {schedule.questions} questions for {room}",
            keys=(
                "query.requery",
                "schedule.initial_labels_per_class",
                "budget.full_labels",
                "budget.bits",
                "budget.questions",
            ),
            hint="write requery: pool, or lower the budget",
        )
