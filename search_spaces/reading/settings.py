"""What each key of a spec may hold, read off the classes that become of it: their fields, types,
limits and defaults.

Sections whose behaviour is a plug-in (dataset, method, start, query, oracle, search) take their
settings from the class that their name chooses; which names there are and which class each means is
handed down as a catalogue. Values are checked by pydantic, which is imported here alone.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from annotated_types import Interval, MinLen

from search_spaces.reading.config import (
    MOST_ROUNDS,
    BudgetConfig,
    DatasetConfig,
    QueryConfig,
    ResourcesConfig,
    ScheduleWritten,
    SearchConfig,
    ValidationConfig,
)
from search_spaces.reading.errors import ABSENT, SpecError, did_you_mean
from search_spaces.reading.initial_choices import OrStrategy
from search_spaces.reading.plugins import Catalogue
from search_spaces.reading.plugins import Kind as PluginKind
from search_spaces.reading.recorded_presets import PRESETS

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Kind = Literal["flag", "whole", "number", "text", "shares", "counts", "other"]
Flat = Mapping[str, Any]
"""Key path -> value."""

TRIAL_SECTIONS: Final = (
    "dataset",
    "task",
    "budget",
    "method",
    "start",
    "schedule",
    "query",
    "oracle",
)
SWEEP_SECTIONS: Final = ("search", "resources")
"""Sections that hold for the whole sweep."""


@dataclass(frozen=True, slots=True)
class PluginKey:
    """Where a section names its plug-in."""

    kind: PluginKind
    key: str
    attribute: str
    """Of the section's own class, which holds the plug-in; empty where the section is the plug-in.
    """
    noun: str
    """What messages call it."""


PLUGINS: Final[Mapping[str, PluginKey]] = {
    "dataset": PluginKey("source", "dataset.name", "source", "data set"),
    "method": PluginKey("method", "method.name", "", "method"),
    "start": PluginKey("start", "start.name", "", "start"),
    "query": PluginKey("query", "query.strategy", "strategy", "query"),
    "oracle": PluginKey("oracle", "oracle.name", "", "oracle"),
    "task": PluginKey("task", "task.name", "", "task"),
    "search": PluginKey("search", "search.algorithm", "algorithm", "search"),
}

_OWN: Final[Mapping[str, type[Any]]] = {
    "dataset": DatasetConfig,
    "budget": BudgetConfig,
    "schedule": ScheduleWritten,
    "query": QueryConfig,
    "search": SearchConfig,
    "resources": ResourcesConfig,
}
"""Sections with keys of their own, and the classes that have them."""

_WRITTEN: Final = {("dataset.validation", "source"): "from"}
"""Attributes that are written otherwise in YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What one key may hold."""

    hint: Any
    """Its type with limits, as the class has it."""
    default: Any = ABSENT
    """ABSENT: the key must be given."""
    owner: Hashable = None
    """The class that has it, and its attribute there."""
    attribute: str = ""

    @property
    def optional(self) -> bool:
        return type(None) in _alternatives(self.hint)

    @property
    def plain(self) -> Any:
        """The type without null and without limits."""
        return _bare(self._inner)

    @property
    def _inner(self) -> Any:
        inner = [hint for hint in _alternatives(self.hint) if hint is not type(None)]
        return inner[0] if len(inner) == 1 else self.hint

    @property
    def options(self) -> tuple[str, ...]:
        return typing.get_args(self.plain) if typing.get_origin(self.plain) is Literal else ()

    @property
    def kind(self) -> Kind:
        known: dict[Any, Kind] = {bool: "flag", int: "whole", float: "number", str: "text"}
        if self.options:
            return "text"
        if typing.get_origin(self.plain) is tuple:
            of = _bare(typing.get_args(self.plain)[0])
            return "shares" if of is float else "counts" if of is int else "other"
        return known.get(self.plain, "other")

    @property
    def limits(self) -> Interval:
        """Of the number, or of each number of a list."""
        inner = (
            typing.get_args(self.plain)[0]
            if typing.get_origin(self.plain) is tuple
            else self._inner
        )
        return next((item for item in _metadata(inner) if isinstance(item, Interval)), Interval())

    @property
    def allowed(self) -> str:
        """In words, for messages."""
        match self.kind:
            case "flag":
                text = "true or false"
            case "text":
                text = "one of " + ", ".join(self.options) if self.options else self._text
            case "shares":
                text = "a list of shares from 0 to 1, as in [0.5, 0.5]"
            case "counts":
                text = f"a list of whole numbers{_range(self.limits)}, as in [50, 200, 320]"
            case "whole":
                text = "a whole number" + _range(self.limits)
            case "number":
                text = "a number" + _range(self.limits)
            case _:
                text = f"a value of type {self.plain}"
        return text + (" or null" if self.optional else "")

    @property
    def _text(self) -> str:
        filled = any(isinstance(item, MinLen) for item in _metadata(self._inner))
        return "text that is not empty" if filled else "text"

    def convert(self, key: str, value: Any) -> Any:
        """Returns the value as the key's one type: a whole number where a fraction may stand
        becomes one, a list a tuple; nothing else is converted.

        Raises:
            SpecError: it is of another type, or outside what the key allows.
        """
        # The form of the value first: it is asked of every key of every candidate.
        if isinstance(value, list | tuple) and self.kind == "shares":
            _check_shares(self, key, value)
        try:
            return _adapter(self.hint).validate_python(_tuples(value))
        except (ValueError, RecursionError):
            hint = did_you_mean(value, self.options) if isinstance(value, str) else None
            shown = list(value) if isinstance(value, tuple) else value
            raise SpecError(f"must be {self.allowed}", key=key, value=shown, hint=hint) from None

    @property
    def schema(self) -> dict[str, Any]:
        """What it may hold, as JSON schema."""
        return dict(_adapter(self.hint).json_schema())

    @property
    def meaning(self) -> str:
        """What the class says of it: the text under the attribute."""
        return _documented(self.owner).get(self.attribute, "") if self.owner is not None else ""


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _metadata(hint: Any) -> tuple[Any, ...]:
    return hint.__metadata__ if typing.get_origin(hint) is typing.Annotated else ()


def _range(limits: Interval) -> str:
    low = (
        f"more than {limits.gt:.12g}"
        if limits.gt is not None
        else f"at least {limits.ge:.12g}"
        if limits.ge is not None
        else ""
    )
    high = (
        f"less than {limits.lt:.12g}"
        if limits.lt is not None
        else f"at most {limits.le:.12g}"
        if limits.le is not None
        else ""
    )
    parts = " and ".join(part for part in (low, high) if part)
    return f", {parts}" if parts else ""


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _check_shares(field: Field, key: str, value: Any) -> None:
    if len(value) > MOST_ROUNDS:
        raise SpecError(
            f"has {len(value)} shares, and at most {MOST_ROUNDS} rounds are possible", key=key
        )
    for share in value:
        if (
            isinstance(share, bool)
            or not isinstance(share, int | float)
            or not math.isfinite(share)
        ):
            raise SpecError(f"must be {field.allowed}", key=key, value=list(value))
        if not 0 <= share <= 1:
            raise SpecError(
                "every share must be from 0 to 1, and all of them sum to 1",
                key=key,
                value=list(value),
            )


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    # Here, and not above: processes that only write settings down do not pay for it.
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
    except PydanticUserError:
        # A class that has a configuration of its own.
        return TypeAdapter(hint)


@cache
def _documented(cls: Hashable) -> Mapping[str, str]:
    """Attribute -> the text under it in the source of the class."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(typing.cast(type, cls)))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    texts = {}
    for node, after in itertools.pairwise(body):
        text = (
            after.value.value
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            else None
        )
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(text, str)
        ):
            texts[node.target.id] = " ".join(text.split())
    return texts


def key_of(prefix: str, attribute: str) -> str:
    """Returns the key path of an attribute."""
    return f"{prefix}.{_WRITTEN.get((prefix, attribute), attribute)}"


def class_fields(cls: Any, prefix: str) -> dict[str, Field]:
    """Returns key path -> field of everything that a settings class has under `prefix`, in its
    order.
    """
    return dict(_class_fields(cls, prefix))


@cache
def _class_fields(cls: Any, prefix: str) -> Mapping[str, Field]:
    hints = typing.get_type_hints(cls, include_extras=True)
    known: dict[str, Field] = {}
    for item in fields(cls):
        key, hint = key_of(prefix, item.name), hints[item.name]
        if hint is ValidationConfig:
            known.update(class_fields(ValidationConfig, key))
        elif hint is not Any:
            default = ABSENT if item.default is MISSING else item.default
            known[key] = Field(hint=hint, default=default, owner=cls, attribute=item.name)
    return known


def names_field(names: tuple[str, ...], default: Any) -> Field:
    """Returns the field of a key that holds one of these names."""
    return Field(hint=Literal[names], default=default)


_PRESET: Final = Field(hint=Literal[PRESETS] | None, default=None)
"""Of sweeps of earlier versions, whose specs may name a preset."""


@dataclass(frozen=True)
class Keys:
    """Every key of a spec, with the plug-ins of one catalogue."""

    catalogue: Catalogue
    unread: frozenset[str] = frozenset()
    """Keys that earlier versions let stand where no plug-in read them: of records, they are passed
    over where the plug-in does not have them.
    """

    @property
    def recorded(self) -> bool:
        """Whether the keys are those of records."""
        return bool(self.unread)

    def is_unread(self, key: str, values: Flat) -> bool:
        """Returns whether a recorded value has no meaning for the plug-in that the values name."""
        section = key.partition(".")[0]
        return (
            key in self.unread and section in PLUGINS and key not in self.section(section, values)
        )

    _cache: dict[tuple[str, ...], dict[str, Field]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def name_field(self, section: str) -> Field:
        """Returns the field of the key that names a section's plug-in."""
        if ("name", section) not in self._cache:
            plugin = PLUGINS[section]
            default = self.catalogue.default(plugin.kind)
            found = names_field(
                self.catalogue.names(plugin.kind), ABSENT if default is None else default
            )
            self._cache["name", section] = {plugin.key: found}
        return self._cache["name", section][PLUGINS[section].key]

    def name_of(self, section: str, values: Flat) -> str:
        """Returns the name of a section's plug-in.

        Raises:
            SpecError: it is not given and has no default, or there is none of that name.
        """
        plugin, names = PLUGINS[section], self.name_field(section)
        value = values.get(plugin.key, self.catalogue.default(plugin.kind))
        if value is None and plugin.key not in values:
            raise SpecError(
                "must be given", key=plugin.key, hint=f"write one of {', '.join(names.options)}"
            )
        name: str = names.convert(plugin.key, value)
        return name

    def plugin(self, section: str, name: str) -> type[Any]:
        """Returns the class of a section's plug-in.

        Raises:
            SpecError: it cannot be loaded.
        """
        try:
            return self.catalogue.load(PLUGINS[section].kind, name)
        except SpecError as error:
            raise SpecError(
                error.problem, key=PLUGINS[section].key, value=name, hint=error.hint
            ) from error

    def searches(self, fits: Callable[[type[Any]], bool]) -> str:
        """Returns the names of the search algorithms that fit, for a hint; other packages' are left
        out.
        """
        names = self.catalogue.own("search")
        return " or ".join(name for name in names if fits(self.catalogue.load("search", name)))

    def of_plugin(self, section: str, name: str) -> dict[str, Field]:
        """Returns key path -> field of a section with this plug-in: its own keys, the plug-in's
        name, the plug-in's settings.
        """
        if ("plugin", section, name) in self._cache:
            return self._cache["plugin", section, name]
        known = dict(class_fields(_OWN[section], section)) if section in _OWN else {}
        known[PLUGINS[section].key] = self.name_field(section)
        if section == "method" and self.recorded:
            known["method.preset"] = _PRESET
        known |= class_fields(self.plugin(section, name), section)
        return self._cache.setdefault(("plugin", section, name), known)

    def section(self, section: str, values: Flat) -> Mapping[str, Field]:
        """Returns key path -> field of a section, with the plug-in that the values name."""
        if section in PLUGINS:
            return self.of_plugin(section, self.name_of(section, values))
        return self.own(section)

    def own(self, section: str) -> Mapping[str, Field]:
        """Returns key path -> field of what a section has whichever plug-in it names."""
        if ("own", section) not in self._cache:
            known = class_fields(_OWN[section], section) if section in _OWN else {}
            self._cache["own", section] = {
                key: self._with_strategies(each) for key, each in known.items()
            }
        return self._cache["own", section]

    def _with_strategies(self, known: Field) -> Field:
        """Returns the field, where strategies are values too, with their names. Those of other
        packages are there unseen: none is loaded before a spec names it.
        """
        of = next((item for item in _metadata(known.hint) if isinstance(item, OrStrategy)), None)
        if of is None:
            return known
        own = self.catalogue.own("query")
        fit = [name for name in own if of.fits(self.catalogue.load("query", name))]
        others = [name for name in self.catalogue.names("query") if name not in own]
        return replace(known, hint=Literal[(*known.options, *fit, *others)])

    def any_plugin(self, section: str, *, foreign: bool = True) -> dict[str, Field]:
        """Returns every key that a section can have with one plug-in or another; those that cannot
        be loaded are left out.

        Args:
            foreign: plug-ins of other packages too.
        """
        if section not in PLUGINS:
            return dict(self.section(section, {}))
        kind = PLUGINS[section].kind
        known: dict[str, Field] = {}
        for name in self.catalogue.names(kind) if foreign else self.catalogue.own(kind):
            try:
                known = self.of_plugin(section, name) | known
            except SpecError:
                continue
        return known

    def broken(self, section: str) -> list[str]:
        """Returns what is wrong with each plug-in of a section that cannot be loaded, and whose
        keys are therefore unknown.
        """
        problems = []
        for name in self.catalogue.names(PLUGINS[section].kind) if section in PLUGINS else ():
            try:
                self.plugin(section, name)
            except SpecError as error:
                problems.append(error.problem)
        return problems

    def trial(self, *, foreign: bool = True) -> dict[str, Field]:
        """Returns every key that a trial can have."""
        cached = ("trial", str(foreign))
        if cached not in self._cache:
            self._cache[cached] = {
                key: field_
                for section in TRIAL_SECTIONS
                for key, field_ in self.any_plugin(section, foreign=foreign).items()
            }
        return self._cache[cached]

    def lookup(self, key: str, values: Flat) -> Field:
        """Returns the field of a key, with the plug-ins that the values name.

        Raises:
            SpecError: there is no such key, or it is another plug-in's.
        """
        section = key.partition(".")[0]
        known = self.section(section, values)
        if key in known:
            return known[key]
        if section in PLUGINS:
            owners = [
                name
                for name in self.catalogue.names(PLUGINS[section].kind)
                if key in self._settings(section, name)
            ]
            if owners:
                plugin, mine = PLUGINS[section], self.name_of(section, values)
                raise SpecError(
                    f"{plugin.noun} {mine} has no such setting",
                    keys=(key, plugin.key),
                    hint=f"write {plugin.key}: {' or '.join(owners)}, or remove it",
                )
        raise unknown_key(key, self.trial(), self.broken(section))

    def _settings(self, section: str, name: str) -> Mapping[str, Field]:
        try:
            return class_fields(self.plugin(section, name), section)
        except SpecError:
            return {}

    def overlay(self, values: Flat, *layers: Flat) -> dict[str, Any]:
        """Returns `values` with each layer's written over the one before.

        A layer that names another plug-in starts that plug-in's settings afresh; one that says a
        thing in one of two ways takes the other back.
        """
        merged = dict(values)
        for layer in layers:
            for section, plugin in PLUGINS.items():
                if plugin.key in layer and layer[plugin.key] != merged.get(
                    plugin.key, self.catalogue.default(plugin.kind)
                ):
                    own = class_fields(_OWN[section], section) if section in _OWN else {}
                    merged = {
                        key: value
                        for key, value in merged.items()
                        if not key.startswith(f"{section}.") or key in own or key == "method.preset"
                    }
            for key in layer:
                for other in self.other_ways(key, layer, merged):
                    if other not in layer:
                        merged.pop(other, None)
            merged.update(layer)
        return merged

    def other_ways(self, key: str, *layers: Flat) -> Iterator[str]:
        """Yields the keys that say in another way what this one says, with the plug-ins that the
        layers name.
        """
        yield from _ALTERNATIVES.get(key, ())
        section = key.partition(".")[0]
        if section not in PLUGINS:
            return
        plugin = PLUGINS[section]
        default = self.catalogue.default(plugin.kind)
        name = next((layer[plugin.key] for layer in layers if plugin.key in layer), default)
        if isinstance(name, str) and name in self.catalogue.names(plugin.kind):
            pairs = getattr(self.plugin(section, name), "alternatives", ())
            for one, other in (*pairs, *(pair[::-1] for pair in pairs)):
                if key == f"{section}.{one}":
                    yield f"{section}.{other}"


_ALTERNATIVES: Final = {
    "budget.bits": ("budget.full_labels",),
    "budget.full_labels": ("budget.bits",),
}
"""Keys that say one thing in two ways: setting one takes the other back."""


def unknown_key(key: str, known: Mapping[str, Any], broken: Sequence[str] = ()) -> SpecError:
    """Returns the error for a key path that is not among `known`, with the nearest one in its
    section, or one of that name in another.

    Args:
        broken: what is wrong with plug-ins whose keys could not be known.
    """
    section, _, word = key.rpartition(".")
    siblings = (
        {path.removeprefix(f"{section}.") for path in known if path.startswith(f"{section}.")}
        if section
        else set()
    )
    siblings |= {path.split(".")[0] for path in siblings}
    hint = did_you_mean(word, siblings)
    elsewhere = [path for path in known if path.rpartition(".")[2] == word]
    if elsewhere:
        hint = f'did you mean "{elsewhere[0]}"?'
    elif hint is None:
        hint = did_you_mean(key, known) or (
            f"known here: {', '.join(sorted(siblings))}" if siblings else None
        )
    problem = "unknown key"
    if broken:
        problem += f"; some keys are not known: {'; '.join(broken)}"
        hint = hint or "fix or uninstall that package"
    return SpecError(problem, key=key, hint=hint)
