"""The verb `keys`: every key that a spec may have, read off the settings themselves, those of
installed plug-ins included.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from search_spaces.reading.errors import ABSENT, SpecError, show
from search_spaces.reading.plugins import Catalogue
from search_spaces.reading.sections import BASE
from search_spaces.reading.settings import (
    PLUGINS,
    SWEEP_SECTIONS,
    TRIAL_SECTIONS,
    Field,
    Keys,
    class_fields,
    unknown_key,
)
from trainers.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console

TOP: Final[Mapping[str, tuple[str, Any, str]]] = {
    "extends": (
        "a name or path of a spec, or a list of them",
        None,
        (
            "Files whose keys hold unless this one writes them, a later one's over an earlier"
            " one's; looked up beside this file, then among the packaged specs."
        ),
    ),
    "name": (
        "text",
        ABSENT,
        "Name of the sweep and, unless --out says otherwise, of its folder in runs/.",
    ),
    "seeds": (
        "a list of different whole numbers",
        ABSENT,
        "Each candidate is run once with each seed.",
    ),
    "cases": (
        "a mapping of names to key paths and values",
        None,
        "Rows of the sweep: what each changes of the base.",
    ),
    "vary": (
        "a mapping of key paths to domains",
        None,
        (
            "Keys that are searched, each over {choice: [1, 2]}, {int: [1, 4]}, {uniform: [0.9,"
            " 0.99]}, {loguniform: [1, 100]} or {simplex: {step: 0.05}}."
        ),
    ),
    "baseline": (
        "the name of a case or null",
        None,
        "Case that the report takes differences to; null: the first.",
    ),
    "orderings": (
        "a list of pairs of cases",
        None,
        (
            "Which row is expected above which: the report tests them together and says whether it"
            " shows."
        ),
    ),
}
"""Key -> what it may hold, its default and its meaning, of keys that stand in no section."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key of a spec."""

    key: str
    group: str
    """Heading under which it is shown: a section, or a plug-in of it."""
    allowed: str
    default: Any
    """ABSENT: it must be given."""
    meaning: str
    field: Field | None = None
    """None for keys that stand in no section."""
    plugin: str | None = None
    """Name of the plug-in that has it; None: the section has it whichever plug-in it names."""


def key_rows(catalogue: Catalogue, broken: list[str] | None = None) -> Iterator[Row]:
    """Yields every key, section by section.

    Args:
        broken: receives one line for each plug-in that cannot be loaded, which is left out.
    """
    keys = Keys(catalogue)
    for key, (allowed, default, meaning) in TOP.items():
        yield Row(key=key, group="sweep", allowed=allowed, default=default, meaning=meaning)
    for section in (*TRIAL_SECTIONS, *SWEEP_SECTIONS):
        if section not in PLUGINS:
            yield from _rows(keys.section(section, {}), section, None)
            continue
        slot = PLUGINS[section]
        named = keys.name_field(section)
        own = {
            key: field
            for key, field in keys.of_plugin(section, _loadable(keys, section)).items()
            if key in keys.own(section)
        }
        meaning = f"Which {slot.noun}; its own settings stand beside it."
        yield Row(
            key=slot.key,
            group=section,
            allowed=named.allowed,
            default=named.default,
            meaning=meaning,
            field=named,
        )
        yield from _rows(own, section, None)
        for name in catalogue.names(slot.kind):
            try:
                cls = keys.plugin(section, name)
                yield from _rows(
                    class_fields(cls, section), f"{section}, with {slot.key}: {name}", name
                )
            except SpecError as error:
                if broken is not None:
                    broken.append(str(error))


def _loadable(keys: Keys, section: str) -> str:
    """Returns a plug-in of the section that ships with this program."""
    return keys.catalogue.own(PLUGINS[section].kind)[0]


def _rows(fields: Mapping[str, Field], group: str, plugin: str | None) -> Iterator[Row]:
    for key, field in fields.items():
        yield Row(
            key=key,
            group=group,
            allowed=field.allowed,
            default=field.default,
            meaning=field.meaning,
            field=field,
            plugin=plugin,
        )


def show_keys(prefix: str, catalogue: Catalogue, *, as_json: bool) -> int:
    """Prints the keys that begin with `prefix`, as a table or as a JSON schema of whole specs.

    Raises:
        SpecError: no key begins so.
    """
    if as_json:
        json.dump(json_schema(catalogue), sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 0
    broken: list[str] = []
    rows = list(key_rows(catalogue, broken))
    wanted = prefix.removeprefix("base.")
    chosen = [row for row in rows if row.key.startswith(wanted)]
    if not chosen:
        raise unknown_key(wanted, {row.key: row for row in rows})
    print_keys(chosen)
    for line in broken:
        print(f"orchestrate: left out: {one_line(line)}", file=sys.stderr)
    return 0


def print_keys(rows: list[Row], console: Console | None = None) -> None:
    """Prints keys as one table a group."""
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    console = console or RichConsole()
    for group in dict.fromkeys(row.group for row in rows):
        table = Table(
            title=Text(group), title_justify="left", show_edge=False, pad_edge=False, expand=False
        )
        table.add_column("key", no_wrap=True)
        for heading in ("may hold", "default", "meaning"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            if row.group == group:
                default = "must be given" if row.default is ABSENT else show(row.default)
                table.add_row(
                    *(Text(one_line(cell)) for cell in (row.key, row.allowed, default, row.meaning))
                )
        console.print(table)
        console.print()


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Returns a JSON schema of specs, for editors. It knows types, limits and names; what agrees
    with what, `orchestrate plan` says.
    """
    sections: dict[str, dict[str, Any]] = {}
    for row in key_rows(catalogue):
        if row.field is not None:
            section, _, rest = row.key.partition(".")
            sections.setdefault(section, {}).setdefault(rest, []).append(row)
    nested = {section: _section_schema(rows) for section, rows in sections.items()}
    dotted = {
        f"{section}.{rest}": _of_rows(rows)
        for section, keys in sections.items()
        if section in TRIAL_SECTIONS
        for rest, rows in keys.items()
    }
    trial = {section: nested[section] for section in TRIAL_SECTIONS}
    case = {
        "type": ["object", "null"],
        "properties": {**trial, **dotted},
        "patternProperties": {r"^base\.": {}},
        "additionalProperties": False,
    }
    varied = {
        "type": ["object", "null"],
        "properties": dict.fromkeys(dotted, _DOMAIN),
        "patternProperties": {r"^base\.": _DOMAIN},
        "additionalProperties": False,
    }
    base = {
        "type": "object",
        "properties": {key: nested[key] for key in BASE},
        "patternProperties": {r"^\w+\.": {}},
        "additionalProperties": False,
    }
    by_key: dict[str, dict[str, Any]] = {
        "extends": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "minItems": 1,
            "uniqueItems": True,
        },
        "name": {"type": "string"},
        "seeds": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "uniqueItems": True,
        },
        "cases": {"type": ["object", "null"], "additionalProperties": case},
        "vary": varied,
        "baseline": {"type": ["string", "null"]},
        "orderings": {
            "type": ["array", "null"],
            "items": {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 2,
                "maxItems": 2,
                "uniqueItems": True,
            },
        },
    }
    top = {
        key: {**by_key.get(key, {"type": "string"}), "description": meaning}
        for key, (_, _, meaning) in TOP.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A spec of orchestrate",
        "type": "object",
        "properties": {
            **top,
            **{key: nested[key] for key in ("dataset", "budget")},
            "base": base,
            **{key: nested[key] for key in SWEEP_SECTIONS},
        },
        "additionalProperties": False,
    }


_DOMAIN: Final[Mapping[str, Any]] = {
    "type": ["object", "null"],
    "properties": {
        "choice": {"type": "array", "minItems": 1},
        "int": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "uniform": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "loguniform": {
            "type": "array",
            "items": {"type": "number", "exclusiveMinimum": 0},
            "minItems": 2,
            "maxItems": 2,
        },
        "simplex": {
            "type": ["object", "null"],
            "properties": {"floor": {"type": "number"}, "step": {"type": ["number", "null"]}},
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}


def _section_schema(keys: Mapping[str, list[Row]]) -> dict[str, Any]:
    """The schema of a section: key below it -> rows, of which several plug-ins may each have
    one.
    """
    properties: dict[str, Any] = {}
    deeper: dict[str, dict[str, list[Row]]] = {}
    for rest, rows in keys.items():
        head, _, tail = rest.partition(".")
        if tail:
            deeper.setdefault(head, {})[tail] = rows
        else:
            properties[head] = _of_rows(rows)
    properties |= {head: _section_schema(inside) for head, inside in deeper.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _of_rows(rows: list[Row]) -> dict[str, Any]:
    """The schema of one key; where plug-ins differ in it, what any of them takes."""
    schemas = []
    for row in rows:
        assert row.field is not None
        schema = row.field.schema
        # References would have to be moved to the top; a type that has some is not checked here.
        schemas.append(
            {}
            if "$defs" in schema
            else {key: value for key, value in schema.items() if key not in ("default", "title")}
        )
    merged = schemas[0] if all(schema == schemas[0] for schema in schemas) else {"anyOf": schemas}
    texts = [
        f"{row.plugin}: {row.meaning}" if row.plugin is not None and len(rows) > 1 else row.meaning
        for row in rows
        if row.meaning
    ]
    if texts:
        merged = merged | {"description": " ".join(dict.fromkeys(texts))}
    if len(rows) == 1 and rows[0].default is not ABSENT:
        default = rows[0].default
        merged = merged | {"default": list(default) if isinstance(default, tuple) else default}
    return merged
