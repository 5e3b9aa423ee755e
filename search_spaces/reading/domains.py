"""Domains: the values that a varied key may take, one by one and, for a grid, all of them
together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from search_spaces.reading.errors import SpecError, show

STAGES: Final = "schedule.stages"
SPLIT: Final = "schedule.split"

_FINEST: Final = 1e-6
"""Step of a simplex that has none: shares are exact decimals, and sum to 1 exactly."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few listed values."""

    options: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class IntRange:
    """A whole number from low to high, both included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Uniform:
    """A number from low to high."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LogUniform:
    """A number from low to high whose logarithm is uniform."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Simplex:
    """Shares that sum to 1, one for each round; as many as `schedule.stages`."""

    floor: float = 0.0
    """Least share."""
    step: float | None = None
    """Every share is a multiple of it; 1 / step is whole."""

    @property
    def units(self) -> int:
        """Steps in the whole."""
        return round(1 / (self.step or _FINEST))

    @property
    def floor_units(self) -> int:
        """Least steps in a share."""
        return math.ceil(self.floor * self.units - 1e-6)

    def fits(self, stages: int) -> bool:
        """Whether that many shares can all have the least size."""
        return stages * self.floor_units <= self.units

    def free_units(self, stages: int) -> int:
        """Steps to be shared out after every round has its least."""
        return self.units - stages * self.floor_units

    def equal(self, stages: int) -> tuple[float, ...]:
        """Shares as equal as the step allows; of what is left over, the earlier rounds have one
        step more.
        """
        each, over = divmod(self.units, stages) if stages else (0, 0)
        return tuple((each + (i < over)) / self.units for i in range(stages))

    def split(self, numbers: Sequence[float]) -> tuple[float, ...]:
        """The shares that numbers from 0 to 1 stand for, one for each round but the last.

        A number is the part of all ways to share out what is left in which that round has more than
        its share: the smaller it is, the larger the share. Numbers drawn uniformly make every
        possible split equally likely. Computed in whole numbers, so that no machine rounds it
        otherwise.
        """
        left, steps = self.free_units(len(numbers) + 1), []
        for others, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
            top, bottom = number.as_integer_ratio()
            most = top * _ways(left, others)
            # An estimate in floating point; the whole numbers near it decide.
            taken = min(
                left,
                max(
                    0,
                    int(
                        left + (others - 1) / 2 - (left + (others + 1) / 2) * number ** (1 / others)
                    ),
                ),
            )
            while taken < left and _ways(left - taken - 1, others) * bottom > most:
                taken += 1
            while taken > 0 and _ways(left - taken, others) * bottom <= most:
                taken -= 1
            steps.append(taken)
            left -= taken
        return tuple((self.floor_units + taken) / self.units for taken in (*steps, left))

    def numbers(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Numbers that stand for these shares: the inverse of `split`."""
        left, units = self.free_units(len(shares)), []
        for others, share in zip(range(len(shares) - 1, 0, -1), shares, strict=False):
            taken = round(share * self.units) - self.floor_units
            more, as_much = _ways(left - taken - 1, others), _ways(left - taken, others)
            units.append((more + as_much) / (2 * _ways(left, others)))
            left -= taken
        return tuple(units)


def _ways(steps: int, others: int) -> int:
    """How many ways there are to share out that many steps, or fewer, among `others` rounds."""
    return math.comb(steps + others, others) if steps >= 0 else 0


Domain = Choice | IntRange | Uniform | LogUniform | Simplex


def parse_domain(key: str, value: Any) -> Domain:
    """The domain that a value under `vary` describes.

    Raises:
        SpecError: it describes none.
    """
    forms = (
        "{choice: [1, 2, 4]}, {int: [1, 4]}, {uniform: [0.9, 0.99]}, {loguniform: [1, 100]} or"
        " {simplex: {floor: 0.05, step: 0.05}}"
    )
    if not isinstance(value, Mapping) or len(value) != 1:
        hint = (
            f"write {{choice: {show(value)}}}"
            if isinstance(value, list) and len(value) < 10
            else f"write {forms}"
        )
        raise SpecError("is not a domain", key=key, value=value, hint=hint)
    ((form, inside),) = value.items()
    match form:
        case "choice":
            return _choice(key, inside)
        case "int" | "uniform" | "loguniform":
            return _range(key, form, inside)
        case "simplex":
            return _simplex(key, inside)
    raise SpecError(f"unknown kind of domain {show(form)}", key=key, hint=f"write {forms}")


def _choice(key: str, inside: Any) -> Choice:
    if not isinstance(inside, list) or not inside:
        raise SpecError("choice needs a list of at least one value", key=key, value=inside)
    if any(isinstance(item, Mapping) for item in inside):
        raise SpecError("choice takes plain values, not mappings", key=key, value=inside)
    options = tuple(tuple(item) if isinstance(item, list) else item for item in inside)
    known: set[str] = set()
    for item in options:
        text = f"{type(item).__name__} {item!r}"
        if text in known:
            raise SpecError("choice lists a value twice", key=key, value=item)
        known.add(text)
    return Choice(options)


def _range(key: str, form: str, inside: Any) -> Domain:
    whole = form == "int"
    kinds = int if whole else (int, float)
    ends = inside if isinstance(inside, list) else []
    if len(ends) != 2 or not all(
        isinstance(end, kinds) and not isinstance(end, bool) for end in ends
    ):
        raise SpecError(
            f"{form} needs [low, high], two {'whole ' if whole else ''}numbers",
            key=key,
            value=inside,
        )
    low, high = ends
    if low > high or (low == high and not whole):
        raise SpecError(f"{form} needs a low end below its high end", key=key, value=inside)
    if whole:
        return IntRange(low, high)
    if form == "loguniform" and low <= 0:
        raise SpecError("loguniform needs a low end above 0", key=key, value=inside)
    return (
        LogUniform(float(low), float(high))
        if form == "loguniform"
        else Uniform(float(low), float(high))
    )


def _simplex(key: str, inside: Any) -> Simplex:
    inside = {} if inside is None else inside
    if not isinstance(inside, Mapping) or not set(inside) <= {"floor", "step"}:
        raise SpecError(
            "simplex takes floor and step",
            key=key,
            value=inside,
            hint="write {simplex: {floor: 0.05, step: 0.05}}",
        )
    floor, step = inside.get("floor", 0.0), inside.get("step")
    for name, value, least in (("floor", floor, 0.0), ("step", step, 1e-4)):
        if value is not None and (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not least <= value <= 1
        ):
            raise SpecError(
                f"simplex: {name} must be a number from {least:g} to 1", key=key, value=value
            )
    if floor is None:
        raise SpecError("simplex: floor must be a number from 0 to 1", key=key, value=floor)
    if step is not None and abs(1 / step - round(1 / step)) > 1e-6:
        raise SpecError(
            "simplex: 1 / step must be a whole number",
            key=key,
            value=step,
            hint="write 0.1, 0.05, 0.02 or 0.01",
        )
    return Simplex(float(floor), None if step is None else float(step))


def is_continuous(domain: Domain) -> bool:
    """Whether the domain has no end of values, so that a grid cannot hold them."""
    return isinstance(domain, (Uniform, LogUniform)) or (
        isinstance(domain, Simplex) and domain.step is None
    )


def grid_values(domain: Domain, stages: int) -> Iterator[Any]:
    """Every value of a domain that has an end of them, in order; for a simplex, every split into
    `stages` shares.
    """
    match domain:
        case Choice(options):
            yield from options
        case IntRange(low, high):
            yield from range(low, high + 1)
        case Simplex():
            for whole in _compositions(domain.units, stages, domain.floor_units):
                yield tuple(steps / domain.units for steps in whole)
        case _:
            raise AssertionError(domain)


def _compositions(total: int, parts: int, least: int) -> Iterator[tuple[int, ...]]:
    if parts == 0:
        yield ()
    elif parts == 1:
        if total >= least:
            yield (total,)
    else:
        for first in range(least, total - least * (parts - 1) + 1):
            for rest in _compositions(total - first, parts - 1, least):
                yield (first, *rest)


def stage_counts(vary: Mapping[str, Domain], stages: int | None) -> list[int]:
    """Every number of rounds that a candidate can have.

    Args:
        stages: the number where `schedule.stages` is not varied.
    """
    return list(grid_values(vary[STAGES], 0)) if STAGES in vary else [stages or 0]


def grid_size(vary: Mapping[str, Domain], stages: int | None) -> int:
    """How many candidates a grid has, without listing them."""
    return sum(
        math.prod(_size(domain, count) for key, domain in vary.items() if key != STAGES)
        for count in stage_counts(vary, stages)
    )


def _size(domain: Domain, stages: int) -> int:
    match domain:
        case Choice(options):
            return len(options)
        case IntRange(low, high):
            return high - low + 1
        case Simplex() if domain.fits(stages) and stages > 0:
            return math.comb(domain.free_units(stages) + stages - 1, stages - 1)
    return 1


def grid(vary: Mapping[str, Domain], stages: int | None) -> Iterator[dict[str, Any]]:
    """The settings of every point, the last key changing fastest; the number of stages is settled
    before its split.
    """
    for count in stage_counts(vary, stages):
        values = [
            [count] if key == STAGES else list(grid_values(domain, count))
            for key, domain in vary.items()
        ]
        for point in itertools.product(*values):
            yield {key: to_plain(value) for key, value in zip(vary, point, strict=True)}


def corners(vary: Mapping[str, Domain], stages: int | None) -> Iterator[dict[str, Any]]:
    """The settings in which every domain stands at one of its ends; a listed domain at each of its
    values, a simplex at equal shares.
    """
    ends = {
        key: _ends(domain)
        for key, domain in vary.items()
        if key != SPLIT or not isinstance(domain, Simplex)
    }
    for point in itertools.product(*ends.values()):
        settings = dict(zip(ends, point, strict=True))
        if isinstance(simplex := vary.get(SPLIT), Simplex):
            count = settings.get(STAGES, stages or 0)
            settings[SPLIT] = simplex.equal(count)
        yield {key: to_plain(settings[key]) for key in vary}


def _ends(domain: Domain) -> tuple[Any, ...]:
    if isinstance(domain, Choice):
        return domain.options
    if isinstance(domain, Simplex):
        return ()
    return (domain.low,) if domain.low == domain.high else (domain.low, domain.high)


def to_plain(value: Any) -> Any:
    """The value as YAML and JSON have it: a list, not a tuple."""
    return list(value) if isinstance(value, tuple) else value
