"""Which settings a record spells out: those that differ from the defaults of a numbered schema, so
that a new setting renames nothing.

The defaults are data and are not read from the classes: a default changed in code must not change
the name of a trial on disk. A setting that is added later gets a line in the table of its section,
with the default it was born with; that changes no name either. A line that stands is never edited:
where a default is to change, write a new schema beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from search_spaces.reading.assemble import flatten
from search_spaces.reading.errors import ABSENT
from search_spaces.reading.settings import Field, class_fields
from trainers.method import StagePlan

SCHEMA: Final = 2
"""Number of the tables below; part of every id and written into each sweep."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "dataset.path": None,
    "dataset.image_size": None,
    "dataset.validation.from": "split",
    "dataset.validation.per_class": 10,
    "dataset.validation.share": 0.2,
    "task.name": "multiclass",
    "task.seconds": 2.66,
    "task.seconds_per_class": 0.06,
    "budget.mode": "exact",
    "budget.bits": None,
    "budget.full_labels": None,
    "budget.questions": None,
    "start.name": "method",
    "start.temperature": 1.0,
    "schedule.stages": None,
    "schedule.initial_choice": "random",
    "schedule.rounds_buy": "answers",
    "query.strategy": "random",
    "query.easy_share": 0.5,
    "query.requery": "pool",
    "query.mask_refused": True,
    "oracle.name": "labels",
    "oracle.false_yes": 0.0,
    "oracle.false_no": 0.0,
    "search.algorithm": "grid",
    "search.num_candidates": None,
    "search.seed": 0,
    "resources.workers": 1,
    "resources.gpus_per_worker": 0,
    "resources.cpus_per_worker": 1,
    "resources.max_concurrent": 1,
    "resources.start_timeout": 300.0,
    "resources.checkpoint_seconds": 5.0,
    "resources.max_failures": 3,
    "resources.share_stages": True,
    "resources.max_hours": None,
    "resources.max_gpu_hours": None,
    "resources.price_per_hour": None,
    "resources.max_preemptions": 20,
}
"""Key path -> default, of every section but `method`. What has no default is always spelt out."""

METHOD_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "mean_teacher": {
        "method.preset": None,
        "method.backbone": "auto",
        "method.epochs": 20,
        "method.batch_size": 64,
        "method.labelled_share": None,
        "method.labelled_per_batch": None,
        "method.learning_rate": 0.05,
        "method.warmup_epochs": 0.0,
        "method.warmup_start_rate": 0.0,
        "method.momentum": 0.9,
        "method.nesterov": True,
        "method.weight_decay": 0.0002,
        "method.cosine_horizon": 1.1666666666666667,
        "method.consistency": "mse",
        "method.consistency_weight": 10.0,
        "method.consistency_rampup_epochs": 5.0,
        "method.logit_distance_weight": 0.01,
        "method.negative_weight": 0.0,
        "method.entropy_weight": 0.0,
        "method.ema_decay": 0.97,
        "method.teacher_init": "student",
        "method.nls": True,
        "method.nls_positive": "soft",
        "method.init": "scratch",
        "method.feature_noise": 0.1,
        "method.precision": "bf16",
        "method.compile": False,
    },
    "prior": {"method.preset": None, "method.temperature": 1.0},
    "head": {
        "method.preset": None,
        "method.negatives": True,
        "method.balanced": True,
        "method.l2": None,
        "method.scaling": "common",
        "method.unlabelled_weight": 0.0,
        "method.neighbours": 10,
    },
    "prototypes": {"method.preset": None},
    "spml": {
        "method.preset": None,
        "method.loss": "em",
        "method.student": "none",
        "method.threshold": 0.75,
        "method.keep_observed": True,
        "method.smoothing": 0.1,
        "method.expected_positives": None,
        "method.estimator_rate": 10.0,
        "method.entropy_weight": 0.2,
        "method.pseudo_weight": 0.02,
        "method.pseudo_share": 0.9,
        "method.warmup_epochs": 5,
        "method.backbone": "auto",
        "method.weights": None,
        "method.epochs": 10,
        "method.batch_size": 64,
        "method.learning_rate": 0.001,
        "method.patience": None,
        "method.scaling": "common",
        "method.precision": "bf16",
    },
    "obcp": {
        "method.preset": None,
        "method.backbone": "auto",
        "method.epochs": 200,
        "method.first_query_epoch": None,
        "method.batch_size": 64,
        "method.labelled_share": None,
        "method.learning_rate": 0.03,
        "method.momentum": 0.9,
        "method.weight_decay": 0.0005,
        "method.contrastive_weight": 0.1,
        "method.negative_weight": 0.1,
        "method.class_positives": True,
        "method.class_negatives": None,
        "method.with_replacement": False,
        "method.confirmed_labels": True,
        "method.queue_size": 256,
        "method.mask_same_class": False,
        "method.temperature": 0.07,
        "method.key_momentum": 0.999,
        "method.projection": "linear",
        "method.projection_dim": 128,
        "method.crop_area": 0.2,
        "method.jitter": 0.4,
        "method.greyscale": 0.2,
        "method.feature_noise": 0.1,
        "method.predictions": "eval",
        "method.mean_epochs": 30,
        "method.recent_epochs": 5,
        "method.precision": "bf16",
    },
}
"""Method -> key path -> default."""

_EMBEDDED: Final = {"query.normalise": True, "query.candidates": 20_000}

STRATEGY_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "even_odds": {"query.balanced": False},
    "answer_entropy": {"query.balanced": False},
    "typiclust": {"query.clusters": 500, "query.neighbours": 20, **_EMBEDDED},
    "probcover": {"query.delta": None, "query.purity": 0.95, **_EMBEDDED},
    "max_herding": {"query.bandwidth": 0.5, **_EMBEDDED},
    "uherding": {"query.bandwidth": 0.5, "query.temperature": 1.0, **_EMBEDDED},
    "margin_diverse": _EMBEDDED,
    "badge": {"query.candidates": 20_000},
    "dropquery": {"query.passes": 3, "query.rate": 0.75, "query.candidates": 20_000},
}
"""Query strategy -> key path -> default, of those that came after the table of all sections. By
strategy: one of another package may have a setting of the same name and another default.
"""

TASK_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "multilabel": {
        "task.label": "vector",
        "task.per_image": 2,
        "task.seconds_per_question": 2.72,
        "task.seconds_per_vector": 60.0,
        "task.seconds_per_positive": 60.0,
    },
}
"""Task -> key path -> default, in the same way."""

UNREAD: Final = frozenset(DEFAULTS)
"""Keys that stand in specs and records of schema 2 whether or not the plug-ins that they name read
them.
"""


def changed(flat: Mapping[str, Any], known: Mapping[str, Field] | None = None) -> dict[str, Any]:
    """Returns, of these settings (key path -> value), the ones that differ from the schema's
    defaults.

    Args:
        known: fields of settings that the tables do not have, which have been added since or are
            another package's: their classes' defaults count.
    """
    since = {key: field.default for key, field in (known or {}).items()}
    defaults = {**since, **DEFAULTS, **_of_plugins(flat)}
    return {
        key: value for key, value in flat.items() if not _same(value, defaults.get(key, ABSENT))
    }


def changed_of_method(method: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, of a method's settings (name -> value), the ones that differ from the schema's
    defaults.
    """
    flat = {
        "method.name": method.name,
        **{f"method.{key}": value for key, value in settings.items()},
    }
    differing = changed(flat, class_fields(method, "method"))
    return {
        key.removeprefix("method."): value
        for key, value in differing.items()
        if key != "method.name"
    }


def written_plan(plan: StagePlan) -> dict[str, Any]:
    """Returns what a stage's plan says besides its settings, and they do not: epochs other than the
    first `epochs` ones, and files of the stage before other than the model, which `init` says.
    """
    said: dict[str, Any] = {}
    if plan.epochs != (0, plan.settings.get("epochs")):
        said["epochs"] = list(plan.epochs)
    if plan.reads not in ((), ("model",)):
        said["reads"] = sorted(plan.reads)
    return said


def with_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Returns key path -> value of a recorded trial's nested configuration, with the schema's
    defaults of what it does not spell out.
    """
    flat = flatten(mapping)
    frozen = {**DEFAULTS, **_of_plugins(flat)}
    apart = ("search.", "resources.", "oracle.false_")
    return {key: value for key, value in frozen.items() if not key.startswith(apart)} | flat


def _of_plugins(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the defaults of the method, the query strategy and the task that the settings
    name.
    """
    return {
        **METHOD_DEFAULTS.get(str(flat.get("method.name")), {}),
        **STRATEGY_DEFAULTS.get(str(flat.get("query.strategy")), {}),
        **TASK_DEFAULTS.get(str(flat.get("task.name")), {}),
    }


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default; 1 is not true, and a list is the tuple that YAML and JSON
    cannot have.
    """
    value = tuple(value) if isinstance(value, list) else value
    return bool(value == default) and isinstance(value, bool) == isinstance(default, bool)
