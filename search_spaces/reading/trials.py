"""From a checked spec to its trials: which there are, what each is called, what it costs, and which
stage trainings it shares with others.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Final

from search_spaces.reading.assemble import (
    build_config,
    check_plugins,
    config_fields,
    config_to_mapping,
    flat_settings,
    nest,
    number_of_stages,
)
from search_spaces.reading.config import DatasetFacts, Schedule, Spec, Trial, TrialConfig
from search_spaces.reading.domains import corners, to_plain
from search_spaces.reading.errors import Place, SpecError, show
from search_spaces.reading.plugins import Catalogue
from search_spaces.reading.schedule import (
    check_pool,
    held_out,
    hours_range,
    resolve,
    validation_bits,
)
from search_spaces.reading.schema import (
    SCHEMA,
    UNREAD,
    changed,
    changed_of_method,
    with_defaults,
    written_plan,
)
from search_spaces.reading.settings import PLUGINS, Keys
from search_spaces.reading.starts import check_start
from search_spaces.reading.suggest import Ask, settings_from
from trainers.errors import one_line

_ID_DIGITS: Final = 12
_ID: Final = re.compile(f"[0-9a-f]{{{_ID_DIGITS}}}")
_MOST_CORNERS: Final = 20_000


def make_trial(
    spec: Spec, settings: Mapping[str, Any], seed: int, cases: tuple[str, ...] = ()
) -> Trial:
    """Makes the trial of `settings` (key path -> value) over the spec's base and checks it as a
    whole.

    Raises:
        SpecError: the settings do not make a valid trial; says which line, case or varied key is to
            blame.
    """
    values = spec.keys.overlay(spec.base, settings)
    try:
        unread = _unread(spec, values, settings)
        values = {key: value for key, value in values.items() if key not in unread}
        config = build_config(values, spec.keys)
        facts = spec.facts
        label_bits = config.label_bits(facts.num_classes)
        schedule, budget_bits = resolve(
            config.budget, config.schedule, facts, label_bits, held_out(config.dataset, facts)
        )
        blind = not config.schedule.choice.of_each_class
        check_pool(
            schedule,
            config.dataset,
            config.query,
            facts,
            spec.smallest_class,
            config.schedule.initial_labels_per_class,
            blind,
            config.task,
        )
        check_plugins(config, facts, spec.resources.workers)
        check_start(config, prior=spec.prior, able=_able(spec.keys.catalogue))
        _check_labels(config.task, spec)
    except SpecError as error:
        raise error.located(_places(spec, values, settings, cases), values) from None
    candidate = _hash(_identity(config, schedule, budget_bits))
    return Trial(
        id=_trial_id(candidate, seed),
        candidate=candidate,
        cases=cases,
        settings={
            key: to_plain(value)
            for key, value in settings.items()
            if key in spec.vary and key not in unread
        },
        seed=seed,
        config=config,
        facts=facts,
        schedule=schedule,
        budget_bits=budget_bits,
        bits=schedule.labels * label_bits + schedule.questions,
        validation_bits=validation_bits(
            config.dataset, facts, config.validation_label_bits(facts.num_classes)
        ),
        # The most, where they depend on what will be asked.
        annotation_hours=hours_range(
            config.task, facts.num_classes, schedule.labels, schedule.questions
        )[1],
    )


def _able(catalogue: Catalogue) -> list[str]:
    """Returns the names of methods that train without a label; other packages' are left out."""
    own = [catalogue.load("method", name) for name in catalogue.own("method")]
    return [method.name for method in own if getattr(method, "without_labels", None)]


def _check_labels(task: Any, spec: Spec) -> None:
    if task.several_labels != spec.several_labels:
        here, there = (
            "several classes an image" if several else "one class an image"
            for several in (task.several_labels, spec.several_labels)
        )
        raise SpecError(
            f"task {task.name} is about {here}, and {spec.facts.name} has {there}",
            keys=("task.name", "dataset.name"),
            hint="write another task, or another data set",
        )


def _unread(spec: Spec, values: Mapping[str, Any], settings: Mapping[str, Any]) -> set[str]:
    """Returns the varied keys that this candidate's plug-ins do not have, where the plug-in is
    varied too: `mixed` alone reads its share.
    """
    unread = set()
    for section, plugin in PLUGINS.items():
        if plugin.key in spec.vary:
            known = spec.keys.section(section, values)
            unread |= {
                key
                for key in settings
                if key.startswith(f"{section}.") and key in spec.vary and key not in known
            }
    return unread


def enumerate_trials(spec: Spec) -> list[Trial] | None:
    """Every trial in order, candidate by candidate and each candidate's seeds together; None for a
    search that learns from results.

    The same settings under several cases are one trial that has all their names. Candidate i of a
    random search depends on the search's seed and i alone.
    """
    if spec.search.algorithm.adaptive:
        return None
    trials: dict[str, Trial] = {}
    for cases, settings in spec.search.algorithm.candidates(spec):
        trial = make_trial(spec, settings, spec.seeds[0], cases)
        first = trials.get(trial.candidate)
        trials[trial.candidate] = (
            trial
            if first is None
            else replace(first, cases=first.cases + tuple(c for c in cases if c not in first.cases))
        )
    return [with_seed(trial, seed) for trial in trials.values() for seed in spec.seeds]


def with_seed(trial: Trial, seed: int) -> Trial:
    """The trial of the same candidate with another seed."""
    return replace(trial, seed=seed, id=_trial_id(trial.candidate, seed))


def candidate_settings(spec: Spec, ask: Ask) -> dict[str, Any]:
    """Settings of one candidate of a search, made of the numbers that `ask` suggests; make_trial
    turns them into trials.
    """
    return settings_from(spec.vary, number_of_stages(spec.base), ask)


def check_candidates(spec: Spec) -> None:
    """Checks that every candidate makes a valid trial; of a search, whose candidates are not known
    yet, those at the ends of its domains.

    Each requirement is monotone in each key, so checking the corners of the domains is enough.

    Raises:
        SpecError: one does not.
    """
    if not spec.search.draws:
        enumerate_trials(spec)
        return
    for number, settings in enumerate(corners(spec.vary, number_of_stages(spec.base))):
        if number >= _MOST_CORNERS:
            break
        make_trial(spec, settings, spec.seeds[0])


def stage_prefixes(trial: Trial) -> tuple[str, ...]:
    """One key for each stage training: equal keys are, by configuration, one training.

    A key holds what the stage can depend on: data set, seed, D_S, its method's plan of that stage,
    from the first round on all that decided the questions, and by its chain of parents the number
    of rounds with questions before it. As in an id, defaults and the data's path are no part of it.
    """
    config, rounds = trial.config, len(trial.schedule.quotas)
    settings = _changed_settings(config)
    # Stage 0 depends on no round.
    bought = settings["schedule"].pop("rounds_buy", None)
    key = _hash(
        {
            "schema": SCHEMA,
            "dataset": settings["dataset"],
            "seed": trial.seed,
            "schedule": settings["schedule"],
            **({"task": settings["task"]} if "task" in settings else {}),
            "method": _planned(config.method_of(0), 0, rounds, has_negatives=False),
        }
    )
    keys = [key]
    asked = False
    drawn = config.schedule.choice.bits_decide
    # A share that is planned to come to no question may come to one where it is of what the draws
    # leave.
    may_ask = [bool(part) for part in (config.schedule.split if drawn else trial.schedule.quotas)]
    for stage, quota in enumerate(trial.schedule.quotas, start=1):
        asks = may_ask[stage - 1]
        before, planned = (
            _planned(config.method_of(number), number, rounds, has_negatives=asked or asks)
            for number in (stage - 1, stage)
        )
        if asks or planned != before or _reads(config.method, stage, rounds):
            parts: dict[str, Any] = {
                "parent": key,
                "quota": quota,
                "strategy": config.query.strategy.name,
                "oracle": settings.get("oracle", {}),
            }
            parts |= asdict(config.query.strategy)
            if bought is not None:
                parts |= {"rounds_buy": bought}
            if drawn:
                parts |= {"budget_bits": trial.budget_bits, "split": config.schedule.split}
            if asked:
                # Before the second round no image has been asked and no class refused.
                parts |= {
                    "requery": config.query.requery,
                    "mask_refused": config.query.mask_refused,
                }
            asked = asked or asks
            key = _hash(parts | {"method": planned})
        # A round without questions, from fresh weights, is the training before it again.
        keys.append(key)
    return tuple(keys)


def trial_to_mapping(trial: Trial) -> dict[str, Any]:
    """The trial as JSON values; trial_from_mapping is the inverse."""
    return {
        "id": trial.id,
        "candidate": trial.candidate,
        "cases": list(trial.cases),
        "settings": trial.settings,
        "seed": trial.seed,
        "config": config_to_mapping(trial.config),
        "facts": asdict(trial.facts),
        "schedule": {
            "initial_labels": trial.schedule.initial_labels,
            "quotas": list(trial.schedule.quotas),
        },
        "budget_bits": trial.budget_bits,
        "bits": trial.bits,
        "validation_bits": trial.validation_bits,
        "annotation_hours": trial.annotation_hours,
    }


def trials_from_mappings(
    mappings: Sequence[Mapping[str, Any]], catalogue: Catalogue
) -> tuple[Trial, ...]:
    """The trials that trial_to_mapping described; settings that several of them have in common, as
    the seeds of a candidate do, are checked once.

    Raises:
        SpecError: one is no such description.
    """
    known: list[tuple[Any, TrialConfig]] = []
    trials = []
    for mapping in mappings:
        settings = mapping.get("config") if isinstance(mapping, dict) else None
        config = next((config for other, config in known if other == settings), None)
        trials.append(trial_from_mapping(mapping, catalogue, config))
        if config is None:
            known.append((settings, trials[-1].config))
    return tuple(trials)


def trial_from_mapping(
    mapping: Mapping[str, Any], catalogue: Catalogue, config: TrialConfig | None = None
) -> Trial:
    """The trial that trial_to_mapping described, this release's or an earlier one's: settings that
    were added since have their defaults.

    Args:
        catalogue: the plug-ins that it may name.
        config: what an equal description of the settings came to before; None: they are checked
            now.

    Raises:
        SpecError: it is not such a description.
    """
    try:
        schedule, facts = mapping["schedule"], DatasetFacts(**mapping["facts"])
        for count in (
            facts.num_classes,
            facts.train_items,
            facts.test_items,
            schedule["initial_labels"],
            mapping["seed"],
            *schedule["quotas"],
        ):
            if type(count) is not int or count < 0:
                raise ValueError(f"{show(count)} is no whole number from 0")
        for key in ("id", "candidate"):
            # They become paths.
            if not isinstance(mapping[key], str) or not _ID.fullmatch(mapping[key]):
                raise ValueError(f"{show(mapping[key])} is no {key} of {_ID_DIGITS} hex digits")
        if not all(isinstance(text, str) for text in (facts.name, *mapping["cases"])):
            raise TypeError("the name of a case or of the data is no text")
        if facts.num_classes < 2 or facts.kind not in ("images", "features"):
            raise ValueError(f"{facts.num_classes} classes of {show(facts.kind)} are no data set")
        json.dumps(mapping["settings"], allow_nan=False)
        if config is None:
            config = build_config(with_defaults(mapping["config"]), Keys(catalogue, UNREAD))
        return Trial(
            id=mapping["id"],
            candidate=mapping["candidate"],
            cases=tuple(mapping["cases"]),
            settings=dict(mapping["settings"]),
            seed=mapping["seed"],
            config=config,
            facts=facts,
            schedule=Schedule(
                initial_labels=schedule["initial_labels"],
                quotas=tuple(schedule["quotas"]),
                buys=config.schedule.rounds_buy,
            ),
            budget_bits=_number(mapping["budget_bits"]),
            bits=_number(mapping["bits"]),
            validation_bits=_number(mapping["validation_bits"]),
            annotation_hours=_number(mapping["annotation_hours"]),
        )
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise SpecError(
            f"the record of a trial is damaged ({type(error).__name__}:"
            f" {one_line(str(error), 200)})"
        ) from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{show(value)} is no finite number")
    return float(value)


def _places(
    spec: Spec, values: Mapping[str, Any], settings: Mapping[str, Any], cases: tuple[str, ...]
) -> dict[str, Place]:
    """Where each key's value in effect was written."""
    gone = set(spec.base) - set(values)
    places = {
        path[1]: place
        for path, place in spec.places.items()
        if path[0] == "base" and path[1] not in gone
    }
    for key in settings:
        for path in (("cases", *cases[:1], key), ("vary", key)):
            if path in spec.places:
                places[key] = spec.places[path]
    return places


def _identity(config: TrialConfig, schedule: Schedule, budget_bits: float) -> dict[str, Any]:
    """What makes a candidate itself. The budget is in bits and the schedule in whole questions,
    however they were written.
    """
    identity = _changed_settings(config)
    identity["budget"] = {"bits": budget_bits}
    # Where bits decide, quotas are expectations: the shares are what was decided.
    drawn = config.schedule.choice.bits_decide
    identity["schedule"] |= (
        {"split": list(config.schedule.split)} if drawn else {"quotas": list(schedule.quotas)}
    )
    return {"schema": SCHEMA, **identity}


def _changed_settings(config: TrialConfig) -> dict[str, Any]:
    """The settings that are no default, by section. Without the path, for where the data lies is no
    part of what a trial is, and without the shares.
    """
    settings = changed(flat_settings(config), config_fields(config))
    settings.pop("dataset.path", None)
    del settings["schedule.split"]
    return nest(settings)


@lru_cache(maxsize=1024)
def _planned(method: Any, number: int, rounds: int, *, has_negatives: bool) -> Mapping[str, Any]:
    """What a key says of a stage's plan. Most stages of a sweep have few plans."""
    plan = method.stage(number, rounds, has_negatives=has_negatives)
    beside = written_plan(plan)
    return {
        "name": method.name,
        "version": method.version,
        **changed_of_method(type(method), plan.settings),
        **({"plan": beside} if beside else {}),
    }


@lru_cache(maxsize=1024)
def _reads(method: Any, number: int, rounds: int) -> bool:
    return bool(method.stage(number, rounds, has_negatives=False).reads)


def _trial_id(candidate: str, seed: int) -> str:
    return _hash({"candidate": candidate, "seed": seed})


def _hash(value: Any) -> str:
    """12 hex digits of the SHA-256 over canonical JSON: keys sorted, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
