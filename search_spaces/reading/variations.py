"""The rows of a sweep: its cases and varied keys, read and checked against the base and against
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from search_spaces.reading.assemble import number_of_stages
from search_spaces.reading.config import SearchConfig, Spec, draws
from search_spaces.reading.domains import (
    SPLIT,
    STAGES,
    Choice,
    Domain,
    IntRange,
    LogUniform,
    Simplex,
    Uniform,
    grid_size,
    is_continuous,
    parse_domain,
    stage_counts,
    to_plain,
)
from search_spaces.reading.errors import Place, SpecError, written_twice
from search_spaces.reading.sections import Leaves, Sections, entries, trial_leaves
from search_spaces.reading.settings import PLUGINS, Field, Keys
from search_spaces.reading.yaml_source import plain
from trainers.errors import one_line

MOST_TRIALS: Final = 20_000
"""Largest sweep accepted; a larger one is almost certainly a mistake."""

Places = dict[tuple[str, ...], Place]

_LONGEST_CASE: Final = 120


def read_cases(
    sections: Sections, places: Places, base: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Reads the cases: case -> key path -> value. Notes in `places` where each was written.

    Raises:
        SpecError: a name, key or value is wrong.
    """
    cases: dict[str, dict[str, Any]] = {}
    for name, node in entries(sections, "cases").items():
        if not name.strip() or name != one_line(name, _LONGEST_CASE):
            raise SpecError(
                f"a case needs a printable name of at most {_LONGEST_CASE} characters",
                key="cases",
                value=name,
                place=node.place,
            )
        if node.value is not None and not isinstance(node.value, dict):
            hint = "write {} for the base as it is"
            raise SpecError(
                "must be a mapping of key paths and values",
                key=f"cases.{name}",
                value=plain(node),
                place=node.place,
                hint=hint,
            )
        leaves: Leaves = {}
        for key, child in (node.value or {}).items():
            for path, leaf in trial_leaves(key, child, "a case", sections.keys).items():
                if path in leaves:
                    raise written_twice(path, leaf.place, leaves[path].place)
                leaves[path] = leaf
        cases[name] = {}
        values = sections.keys.overlay(base, {path: plain(leaf) for path, leaf in leaves.items()})
        for path, leaf in leaves.items():
            place = Place(
                file=leaf.place.file, line=leaf.place.line, override=leaf.place.override, case=name
            )
            places["cases", name, path] = place
            cases[name][path] = to_plain(_convert(path, plain(leaf), place, values, sections.keys))
    return cases


def explained(error: SpecError) -> SpecError:
    """The same error, saying where domains belong if one stands where a value should."""
    if isinstance(error.value, dict) and error.key is not None:
        return SpecError(
            error.problem,
            key=error.key,
            value=error.value,
            hint="values that vary stand under vary",
        )
    return error


def _convert(key: str, value: Any, place: Place, values: Mapping[str, Any], keys: Keys) -> Any:
    try:
        return (
            value if keys.is_unread(key, values) else keys.lookup(key, values).convert(key, value)
        )
    except SpecError as error:
        raise explained(error).located({key: place}, {key: value}) from None


def read_vary(
    sections: Sections,
    places: Places,
    base: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
) -> dict[str, Domain]:
    """Reads `vary`: key path -> domain. Notes in `places` where each was written.

    Raises:
        SpecError: a key or domain is wrong, or holds values that the key cannot have.
    """
    domains: dict[str, Domain] = {}
    for key, node in entries(sections, "vary").items():
        path = key.removeprefix("base.")
        place = Place(
            file=node.place.file, line=node.place.line, override=node.place.override, varied=True
        )
        known = sections.keys.trial()
        inside = [leaf for leaf in known if leaf.startswith(f"{path}.")]
        if inside:
            raise SpecError(
                "is a section; one key at a time is varied",
                key=path,
                place=place,
                hint=f"write {inside[0]}: ...",
            )
        trial_leaves(key, node, "vary", sections.keys)
        if path in domains:
            raise written_twice(path, place, places["vary", path])
        if path in sections.overridden:
            problem = "is varied, and --set gives it one value"
            raise SpecError(
                problem,
                key=path,
                place=sections.trial[path].place,
                hint=f"write --set 'vary.{path}={{choice: [...]}}' or remove it from vary",
            )
        try:
            domains[path] = _fit(
                path,
                parse_domain(path, plain(node)),
                _field(path, sections.keys, base, cases, domains),
            )
        except SpecError as error:
            raise error.located({path: place}, {path: plain(node)}) from None
        places["vary", path] = place
    return domains


def _field(
    key: str,
    keys: Keys,
    base: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
    vary: Mapping[str, Domain],
) -> Field:
    """Returns the field of a varied key: of the base's plug-in, of a case's, or of one that is
    varied too.

    Raises:
        SpecError: none of them has such a key.
    """
    section = key.partition(".")[0]
    rows: list[Mapping[str, Any]] = [base, *(keys.overlay(base, case) for case in cases.values())]
    if section in PLUGINS:
        named = vary.get(PLUGINS[section].key)
        rows += [
            keys.overlay(base, {PLUGINS[section].key: option})
            for option in (named.options if isinstance(named, Choice) else ())
        ]
    for values in rows[1:]:
        if key in keys.section(section, values):
            return keys.section(section, values)[key]
    return keys.lookup(key, base)


def _fit(key: str, domain: Domain, field: Field) -> Domain:
    """The domain with every value of its key's type.

    Raises:
        SpecError: it holds values that the key cannot have.
    """
    match domain:
        case Choice(options):
            return Choice(tuple(field.convert(key, option) for option in options))
        case Simplex():
            if key != SPLIT:
                raise SpecError(f"a simplex is for {SPLIT}", key=key)
            return domain
        case IntRange(low, high) if field.kind in ("whole", "number"):
            field.convert(key, low), field.convert(key, high)
            return domain
        case Uniform(low, high) | LogUniform(low, high) if field.kind == "number":
            field.convert(key, low), field.convert(key, high)
            return domain
    hint = "write {int: [1, 4]}" if field.kind == "whole" else "write {choice: [...]}"
    raise SpecError(
        f"this domain gives numbers, and the key must be {field.allowed}", key=key, hint=hint
    )


def check_crossing(
    keys: Keys,
    search: SearchConfig,
    base: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
    vary: Mapping[str, Domain],
    places: Places,
) -> None:
    """Cases, varied keys and the search fit together.

    Raises:
        SpecError: they do not.
    """
    algorithm_place = places.get(("base", "search.algorithm"))
    if search.draws:
        if not vary:
            raise SpecError(
                "has nothing to search: vary is empty",
                key="search.algorithm",
                value=search.algorithm.name,
                place=algorithm_place,
                hint="name the keys to vary",
            )
        if cases:
            problem = "cases are crossed with vary in a grid only"
            raise SpecError(
                problem,
                key="search.algorithm",
                value=search.algorithm.name,
                place=algorithm_place,
                hint="remove cases, or write algorithm: "
                + keys.searches(lambda algorithm: not draws(algorithm)),
            )
    for key, domain in vary.items():
        place = places["vary", key]
        if not search.draws and is_continuous(domain):
            hint = (
                "write {choice: [...]}"
                + (" or give the simplex a step" if isinstance(domain, Simplex) else "")
                + f", or search with {keys.searches(draws)}"
            )
            raise SpecError(
                f"is continuous, and a {search.algorithm.name} needs values that can be listed",
                key=key,
                place=place,
                hint=hint,
            )
        for name, case in cases.items():
            if key in case:
                where = places["cases", name, key].inside(place)
                raise SpecError(
                    f'is varied, and the case "{one_line(name, 60)}" sets it{where}',
                    key=key,
                    place=place,
                    hint="keep one of them",
                )
    if STAGES in vary and SPLIT not in vary and SPLIT in base:
        hint = (
            "write stages instead of split in base for equal shares, or vary schedule.split with"
            " {simplex: {}}"
        )
        raise SpecError(
            "the number of stages is varied, and base lists the shares of a split",
            key=STAGES,
            place=places["vary", STAGES],
            hint=hint,
        )
    simplex = vary.get(SPLIT)
    if isinstance(simplex, Simplex):
        for layer in [{}, *cases.values()]:
            most = max(stage_counts(vary, number_of_stages(keys.overlay(base, layer))))
            if not simplex.fits(most):
                problem = (
                    f"{most} shares of at least {simplex.floor_units / simplex.units:g} sum to more"
                    " than 1"
                )
                raise SpecError(
                    problem,
                    key=SPLIT,
                    place=places["vary", SPLIT],
                    hint="lower floor, or take fewer stages",
                )


def check_number_of_trials(spec: Spec) -> None:
    """Checks that the trials are not absurdly many, without listing them.

    Raises:
        SpecError: they are. Names what asks for most of them.
    """
    seeds = len(spec.seeds)
    if not spec.search.draws:
        rows: list[Mapping[str, Any]] = list(spec.cases.values()) or [{}]
        candidates = sum(
            grid_size(spec.vary, number_of_stages(spec.keys.overlay(spec.base, case)))
            for case in rows
        )
        key, hint = (
            ("vary", f"vary fewer values, or search with {spec.keys.searches(draws)}")
            if spec.vary
            else ("cases", "split them into several sweeps")
        )
    else:
        candidates = spec.search.num_candidates or 0
        key, hint = "search.num_candidates", "draw fewer; a sweep can be extended later"
    if candidates * seeds <= MOST_TRIALS:
        return
    if seeds > candidates:
        key, hint = "seeds", "take fewer seeds"
    place = (
        next((place for path, place in spec.places.items() if path[0] == "vary"), None)
        if key == "vary"
        else spec.places.get(("base", key))
    )
    each = (
        f"{_counted(candidates, 'candidate')} with {_counted(seeds, 'seed')} each,"
        f" {_counted(candidates * seeds, 'trial')}"
    )
    raise SpecError(
        f"asks for {each}; at most {MOST_TRIALS} are possible",
        key=key,
        place=place or Place(file=str(spec.source)),
        hint=hint,
    )


def _counted(number: int, word: str) -> str:
    amount = str(number) if number < 10**12 else f"about 10^{len(str(number)) - 1}"
    return f"{amount} {word}{'' if number == 1 else 's'}"
