"""How a searcher makes a candidate out of plain numbers.

A searcher needs to know nothing of simplexes or dependent keys: it is asked for one number after
another (`settings_from`), or is given the list of them (`flatten`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from search_spaces.reading.domains import (
    SPLIT,
    STAGES,
    Choice,
    Domain,
    IntRange,
    LogUniform,
    Simplex,
    Uniform,
    stage_counts,
    to_plain,
)

_DIGITS: Final = 6
"""Significant digits of a drawn number: ids must not depend on the last bit of a machine's
logarithm.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One plain number that a searcher suggests."""

    name: str
    kind: Literal["float", "int", "category"]
    """`category`: the number of an option, from 0 to high; of options that are numbers, which have
    an order, an `int` in ascending order.
    """
    low: float
    high: float
    """Included."""
    log: bool = False


Ask = Callable[[Parameter], float]
"""Suggests a value for a parameter, within its limits."""


def flatten(vary: Mapping[str, Domain], stages: int | None) -> tuple[Parameter, ...]:
    """Every parameter that any candidate can need; for a simplex one for each share of the longest
    split but its last, which is what is left.
    """
    parameters: list[Parameter] = []
    for key, domain in vary.items():
        if isinstance(domain, Simplex):
            parameters += _shares_parameters(key, max(stage_counts(vary, stages)))
        else:
            parameters.append(_parameter(key, domain))
    return tuple(parameters)


def settings_from(vary: Mapping[str, Domain], stages: int | None, ask: Ask) -> dict[str, Any]:
    """One candidate's settings, asking for those parameters that it needs; the number of stages is
    asked for before their shares.

    Args:
        stages: rounds of a split whose number of stages is not varied.
    """
    settings: dict[str, Any] = {}
    for key in sorted(vary, key=lambda k: k == SPLIT):
        domain = vary[key]
        if isinstance(domain, Simplex):
            count = settings.get(STAGES, stages or 0)
            if count < 2:
                settings[key] = (1.0,) * count
                continue
            settings[key] = domain.split(
                [ask(parameter) for parameter in _shares_parameters(key, count)]
            )
        else:
            settings[key] = _value(domain, ask(_parameter(key, domain)))
    return {key: to_plain(settings[key]) for key in vary}


def numbers_of(vary: Mapping[str, Domain], settings: Mapping[str, Any]) -> dict[str, float]:
    """Parameter values from which settings_from makes these settings again; tells a new searcher
    about a finished candidate.
    """
    numbers: dict[str, float] = {}
    for key, domain in vary.items():
        value = settings[key]
        if isinstance(domain, Simplex):
            names = [parameter.name for parameter in _shares_parameters(key, len(value))]
            numbers.update(zip(names, domain.numbers(value), strict=True))
        elif isinstance(domain, Choice):
            numbers[key] = [to_plain(option) for option in _in_order(domain)].index(to_plain(value))
        else:
            numbers[key] = value
    return numbers


def keyed_ask(seed: int, index: int) -> Ask:
    """Suggestions of a random search: a function of the search's seed, the candidate's number and
    the parameter alone.
    """

    def ask(parameter: Parameter) -> float:
        digest = hashlib.sha256(f"{seed}/{index}/{parameter.name}".encode()).digest()
        return from_unit(parameter, (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53)

    return ask


def from_unit(parameter: Parameter, unit: float) -> float:
    """The parameter's value at `unit`, in [0, 1), of its range."""
    if parameter.kind != "float":
        return min(
            int(parameter.high), int(parameter.low + unit * (parameter.high - parameter.low + 1))
        )
    if parameter.log:
        return math.exp(
            math.log(parameter.low) + unit * (math.log(parameter.high) - math.log(parameter.low))
        )
    return parameter.low + unit * (parameter.high - parameter.low)


def _parameter(key: str, domain: Choice | IntRange | Uniform | LogUniform) -> Parameter:
    match domain:
        case Choice(options):
            return Parameter(
                name=key,
                kind="int" if _are_numbers(options) else "category",
                low=0,
                high=len(options) - 1,
            )
        case IntRange(low, high):
            return Parameter(name=key, kind="int", low=low, high=high)
        case Uniform(low, high) | LogUniform(low, high):
            return Parameter(
                name=key, kind="float", low=low, high=high, log=isinstance(domain, LogUniform)
            )


def _value(domain: Choice | IntRange | Uniform | LogUniform, number: float) -> Any:
    match domain:
        case Choice():
            return _in_order(domain)[int(number)]
        case IntRange(low, high):
            return min(high, max(low, int(number)))
        case Uniform(low, high) | LogUniform(low, high):
            return min(high, max(low, float(f"{number:.{_DIGITS}g}")))


def _are_numbers(options: tuple[Any, ...]) -> bool:
    return all(
        isinstance(option, (int, float)) and not isinstance(option, bool) for option in options
    )


def _in_order(domain: Choice) -> tuple[Any, ...]:
    """The options as a searcher counts them: numbers ascending, so that it can tell near from far;
    others as listed.
    """
    return tuple(sorted(domain.options)) if _are_numbers(domain.options) else domain.options


def _shares_parameters(key: str, count: int) -> list[Parameter]:
    # The last share needs no number: it is what the others leave.
    return [
        Parameter(name=f"{key}[{i}]", kind="float", low=0.0, high=1.0) for i in range(count - 1)
    ]
