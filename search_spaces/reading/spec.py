"""Reads a spec: from a YAML file and `--set` overrides to a checked Spec, every candidate of which
is known to be a valid trial.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from search_spaces.reading.assemble import build_config, complete, resources_config, search_config
from search_spaces.reading.config import Extended, ResourcesConfig, SearchConfig, Spec, draws
from search_spaces.reading.datasets import contents
from search_spaces.reading.domains import to_plain
from search_spaces.reading.errors import Place, SpecError, cases_in_words, did_you_mean
from search_spaces.reading.extends import kept, on_disk, own_file, put_together
from search_spaces.reading.not_offered import NOT_OFFERED
from search_spaces.reading.orderings import read_orderings
from search_spaces.reading.plugins import Catalogue
from search_spaces.reading.recorded_presets import supplied
from search_spaces.reading.schema import UNREAD
from search_spaces.reading.sections import Sections, apply_overrides
from search_spaces.reading.settings import Keys
from search_spaces.reading.trials import check_candidates, make_trial
from search_spaces.reading.variations import (
    Places,
    check_crossing,
    check_number_of_trials,
    explained,
    read_cases,
    read_vary,
)
from search_spaces.reading.yaml_source import find_spec, plain, read_text

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST_SEED: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The files of a spec."""

    name: str
    path: Path
    text: str
    extended: tuple[Extended, ...]
    data: str | None
    """`dataset.path`, as it is written."""


def load_spec(
    path_or_name: str,
    overrides: Sequence[str],
    catalogue: Catalogue,
    *,
    recorded: bool = False,
    extended: Sequence[Extended] = (),
) -> Spec:
    """Reads the spec in a file and checks all of it: the file and those that it extends, the
    overrides, the base trial and every candidate.

    Args:
        path_or_name: a path, or a bare name to be found in the working folder or among the packaged
            specs.
        overrides: `key.path=value`, the value in YAML or, where the key holds text, as it stands.
        catalogue: the plug-ins that it may name.
        recorded: it is of a sweep's folder, and may say what earlier versions let stand unread.
        extended: of a sweep's folder, the files that it extends, which are kept there.

    Raises:
        SpecError: anything is wrong with it. The message names the file and line (or the override),
            the key, the value and what is allowed.
    """
    path = find_spec(path_or_name)
    return read_spec(
        read_text(path, path_or_name),
        overrides,
        catalogue,
        path=path,
        shown=path_or_name,
        recorded=recorded,
        extended=extended,
    )


def gather(path_or_name: str, overrides: Sequence[str], catalogue: Catalogue) -> Gathered:
    """Returns what a spec is made of, without a look at its data or at what it varies: for a
    machine that has not the data.

    Raises:
        SpecError: a file or an override cannot be read.
    """
    path = find_spec(path_or_name)
    text = read_text(path, path_or_name)
    sections, files = put_together(own_file(path, path_or_name, text), Keys(catalogue), on_disk)
    apply_overrides(sections, overrides)
    node = sections.trial.get("dataset.path")
    return Gathered(
        name=_name(sections),
        path=path,
        text=text,
        extended=files,
        data=None if node is None or node.value is None else str(node.value),
    )


def read_spec(
    text: str,
    overrides: Sequence[str],
    catalogue: Catalogue,
    *,
    path: Path,
    shown: str,
    recorded: bool = False,
    extended: Sequence[Extended] = (),
) -> Spec:
    """Reads the spec in a text, as `load_spec` does.

    Args:
        path: of the file that it came from.
        shown: what messages call that file.
    """
    sections, files = put_together(
        own_file(path, shown, text),
        Keys(catalogue, UNREAD if recorded else frozenset()),
        kept(extended) if recorded else on_disk,
    )
    apply_overrides(sections, overrides)
    spec = _check(sections, path, text, tuple(overrides))
    return replace(spec, extended=tuple(extended) if recorded else files)


def _check(sections: Sections, path: Path, text: str, overrides: tuple[str, ...]) -> Spec:
    name = _name(sections)
    given = {key: plain(node) for key, node in sections.trial.items()}
    places = _places(sections)
    base_places = {key[1]: place for key, place in places.items()}
    for needed in ("dataset", "budget", "base"):
        _needed(sections, needed, needed in sections.headings)
    try:
        base = {key: to_plain(value) for key, value in complete(given, sections.keys).items()}
        source = build_config(base, sections.keys).dataset.source
        data = contents(source, sections.keys.catalogue.contents)
    except SpecError as error:
        raise explained(error).located(base_places, given) from None
    cases = read_cases(sections, places, base)
    vary = read_vary(sections, places, base, cases)
    if any("method.preset" in layer for layer in (vary, *cases.values())):
        # In a recorded spec a row's own preset supplies what the base has not written.
        for key in supplied() - given.keys():
            base.pop(key, None)
    search = _search(sections, base_places)
    check_crossing(sections.keys, search, base, cases, vary, places)
    spec = Spec(
        name=name,
        source=path,
        text=text,
        overrides=overrides,
        base=base,
        cases=cases,
        vary=vary,
        seeds=_seeds(sections),
        search=search,
        resources=_resources(sections, base_places),
        facts=data.facts(source.name),
        baseline=_baseline(sections, cases),
        orderings=read_orderings(sections, cases),
        smallest_class=data.smallest_class,
        several_labels=data.several_labels,
        prior=data.prior,
        keys=sections.keys,
        places=places,
    )
    if search.algorithm.adaptive and base["dataset.validation.from"] == "none":
        problem = (
            f"search {search.algorithm.name} learns from validation accuracy, and"
            " dataset.validation is none"
        )
        keys = ("search.algorithm", "dataset.validation.from")
        raise SpecError(
            problem,
            keys=keys,
            hint="write validation: {from: split, per_class: 10}, or search with "
            + sections.keys.searches(lambda algorithm: not algorithm.adaptive),
        ).located(base_places, base)
    make_trial(spec, {}, spec.seeds[0])
    check_number_of_trials(spec)
    check_candidates(spec)
    return spec


def _places(sections: Sections) -> Places:
    places: Places = {("base", heading): place for heading, place in sections.headings.items()}
    for leaves in (sections.top, sections.trial, sections.outside):
        places.update({("base", key): node.place for key, node in leaves.items()})
    return places


def _needed(sections: Sections, key: str, given: bool) -> None:
    if not given:
        raise SpecError("must be given", key=key, place=sections.source)


def _name(sections: Sections) -> str:
    _needed(sections, "name", "name" in sections.top)
    node = sections.top["name"]
    if not isinstance(node.value, str) or not _NAME.fullmatch(node.value):
        problem = (
            "must be a word of letters, digits, dots, dashes and underscores that starts with a"
            " letter or digit; it names a folder"
        )
        hint = "put it in quotes" if isinstance(node.value, (int, float)) else None
        raise SpecError(problem, key="name", value=plain(node), place=node.place, hint=hint)
    return node.value


def _seeds(sections: Sections) -> tuple[int, ...]:
    _needed(sections, "seeds", "seeds" in sections.top)
    node = sections.top["seeds"]
    allowed = "a list of different whole numbers from 0, as in [0, 1, 2]"
    if not isinstance(node.value, list) or not node.value:
        raise SpecError(f"must be {allowed}", key="seeds", value=plain(node), place=node.place)
    seeds: dict[int, None] = {}
    for item in node.value:
        place, seed = item.place, item.value
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= _LARGEST_SEED:
            raise SpecError(
                f"is no seed; seeds must be different whole numbers from 0 to {_LARGEST_SEED}",
                key="seeds",
                value=plain(item),
                place=place,
            )
        if seed in seeds:
            raise SpecError(
                f"the seed {seed} stands there twice",
                key="seeds",
                value=plain(node),
                place=place,
                hint="the same seed is the same trial",
            )
        seeds[seed] = None
    return tuple(seeds)


def _baseline(sections: Sections, cases: Mapping[str, Any]) -> str | None:
    node = sections.top.get("baseline")
    if node is None or node.value is None:
        return None
    if not isinstance(node.value, str) or node.value not in cases:
        hint = (did_you_mean(str(node.value), cases) if cases else None) or (
            cases_in_words(cases) if cases else "this spec has no cases"
        )
        raise SpecError(
            "is not the name of a case",
            key="baseline",
            value=plain(node),
            place=node.place,
            hint=hint,
        )
    return node.value


def _search(sections: Sections, places: Mapping[str, Place]) -> SearchConfig:
    values = {
        key: plain(node) for key, node in sections.outside.items() if key.startswith("search.")
    }
    word = str(values.get("search.algorithm", "")).lower()
    try:
        if word in NOT_OFFERED:
            raise SpecError(
                NOT_OFFERED[word],
                key="search.algorithm",
                value=values["search.algorithm"],
                hint=f"write one of {', '.join(sections.keys.catalogue.names('search'))}",
            )
        search = search_config(values, sections.keys)
        if not search.draws and search.num_candidates is not None:
            raise SpecError(
                f"a {search.algorithm.name} runs every candidate and takes no number",
                keys=("search.num_candidates",),
                hint=f"remove it, or search with {sections.keys.searches(draws)}",
            )
        if search.draws and search.num_candidates is None:
            keys = ("search.num_candidates", "search.algorithm")
            raise SpecError(
                f"search {search.algorithm.name} needs num_candidates",
                keys=keys,
                hint="write how many candidates to draw, as in num_candidates: 40",
            )
    except SpecError as error:
        raise error.located(places, values) from None
    return search


def _resources(sections: Sections, places: Mapping[str, Place]) -> ResourcesConfig:
    values = {
        key: plain(node) for key, node in sections.outside.items() if key.startswith("resources.")
    }
    try:
        resources = resources_config(values, sections.keys)
        if resources.gpus_per_worker > 1 and resources.gpus_per_worker != int(
            resources.gpus_per_worker
        ):
            raise SpecError(
                "must be at most 1, or whole: a worker has a part of one GPU or several whole ones",
                keys=("resources.gpus_per_worker",),
            )
        if resources.max_gpu_hours is not None and not resources.gpus_per_worker:
            raise SpecError(
                "counts nothing: resources.gpus_per_worker is 0, so that no training has a GPU",
                keys=("resources.max_gpu_hours",),
                hint="leave it out, or write resources.max_hours",
            )
    except SpecError as error:
        raise error.located(places, values) from None
    return resources
