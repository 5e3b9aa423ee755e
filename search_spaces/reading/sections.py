"""Takes a spec's document apart into its sections, each key path with its value and place, and
applies `--set` to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from search_spaces.reading.errors import Place, SpecError, did_you_mean, written_twice
from search_spaces.reading.not_offered import NOT_OFFERED
from search_spaces.reading.settings import (
    PLUGINS,
    SWEEP_SECTIONS,
    TRIAL_SECTIONS,
    Field,
    Keys,
    unknown_key,
)
from search_spaces.reading.yaml_source import Node, has_comment, parse, plain, read_word
from trainers.errors import one_line

TOP_LEVEL: Final = (
    "extends",
    "name",
    "dataset",
    "budget",
    "base",
    "cases",
    "vary",
    "seeds",
    "search",
    "resources",
    "baseline",
    "orderings",
)
BASE: Final = ("method", "start", "schedule", "query", "oracle", "task")
"""Sections under `base`."""

_WHOLE: Final = ("name", "seeds", "baseline", "orderings", "cases", "vary")

NAMED: Final[Mapping[str, str]] = {
    "cases": "names and what each changes",
    "vary": "key paths and domains",
}
"""Parts that have entries, and what these are."""

Leaves = dict[str, Node]
"""Key path -> value and place."""


@dataclass(slots=True)
class Sections:
    """A document in parts, not yet checked beyond its keys."""

    source: Place
    keys: Keys
    top: dict[str, Node] = field(default_factory=dict)
    """name, seeds, baseline, orderings, cases, vary: as they stand."""
    trial: Leaves = field(default_factory=dict)
    """dataset, budget and everything under base."""
    outside: Leaves = field(default_factory=dict)
    """search and resources."""
    headings: dict[str, Place] = field(default_factory=dict)
    """Where each section starts."""
    overridden: set[str] = field(default_factory=set)
    """Key paths that a `--set` wrote."""
    extends: Node | None = None
    """The files that it extends, as they stand."""


def read_sections(root: Node, source: Place, keys: Keys) -> Sections:
    """Reads the sections of a document.

    Raises:
        SpecError: it is no mapping, a key is unknown or stands at the wrong level, or a section is
            not a mapping.
    """
    if root.value is None:
        raise SpecError(
            "is empty", place=source, hint="a spec has the keys " + ", ".join(TOP_LEVEL)
        )
    if not isinstance(root.value, dict):
        raise SpecError(f"must be a mapping with the keys {', '.join(TOP_LEVEL)}", place=root.place)
    sections = Sections(source=source, keys=keys)
    for key, node in root.value.items():
        sections.headings[key] = node.place
        if key == "extends":
            sections.extends = node
        elif key in _WHOLE:
            sections.top[key] = node
        elif key in SWEEP_SECTIONS:
            sections.outside.update(leaves(node, key, keys))
        elif key in ("dataset", "budget"):
            _check_name(node, key, keys)
            sections.trial.update(leaves(node, key, keys))
            _note_headings(sections, node, key)
        elif key == "base":
            _read_base(sections, node)
        else:
            raise _unknown_top(key, node.place)
    return sections


def entries(sections: Sections, key: str) -> dict[str, Node]:
    """Returns what stands under `cases` or `vary`, by its name.

    Raises:
        SpecError: it is no mapping.
    """
    node = sections.top.get(key)
    return {} if node is None or node.value is None else _mapping(node, key, NAMED[key])


def _read_base(sections: Sections, node: Node) -> None:
    for key, child in _mapping(
        node, "base", "the sections method, schedule, query, oracle and task"
    ).items():
        section = key.split(".")[0]
        if section in ("dataset", "budget"):
            raise SpecError(
                "stands under base, and belongs at the top level",
                key=key,
                place=child.place,
                hint=f"move it out of base: one {section} holds for all rows",
            )
        if section not in BASE:
            raise SpecError(
                "unknown key",
                key=f"base.{key}",
                place=child.place,
                hint=NOT_OFFERED.get(key)
                or did_you_mean(key, BASE)
                or f"known here: {', '.join(BASE)}",
            )
        _check_name(child, section, sections.keys)
        for path, leaf in leaves(child, key, sections.keys).items():
            if path in sections.trial:
                raise written_twice(path, leaf.place, sections.trial[path].place)
            sections.trial[path] = leaf
        _note_headings(sections, child, key)


def _check_name(node: Node, section: str, keys: Keys) -> None:
    """Checks the name of a section's plug-in before its settings, which are unknown where the
    plug-in is.
    """
    if section not in PLUGINS or not isinstance(node.value, dict):
        return
    key = PLUGINS[section].key
    named = node.value.get(key.partition(".")[2])
    if named is None or not isinstance(named.value, str):
        return
    try:
        keys.name_of(section, {key: named.value})
    except SpecError as error:
        raise error.located({key: named.place}, {key: named.value}) from None


def _note_headings(sections: Sections, node: Node, path: str) -> None:
    sections.headings[path] = node.place
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            if isinstance(child.value, dict):
                _note_headings(sections, child, f"{path}.{key}")


def _unknown_top(key: str, place: Place) -> SpecError:
    if key in BASE:
        return SpecError(
            "stands at the top level, and belongs under base",
            key=key,
            place=place,
            hint=f"write base: {{{key}: ...}}",
        )
    if "." in key and key.split(".")[0] in TOP_LEVEL:
        return SpecError(
            "key paths with dots are for cases, vary and --set",
            key=key,
            place=place,
            hint=f"write {key.replace('.', ': {', 1)}: ...}}",
        )
    hint = (
        NOT_OFFERED.get(key.lower())
        or did_you_mean(key, TOP_LEVEL)
        or f"known here: {', '.join(TOP_LEVEL)}"
    )
    return SpecError("unknown key", key=key, place=place, hint=hint)


def _mapping(node: Node, key: str, of: str) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise SpecError(f"must be a mapping of {of}", key=key, value=plain(node), place=node.place)
    return node.value


def _known(path: str, keys: Keys) -> Mapping[str, Field]:
    """Keys among which a path must be; plug-ins of other packages are loaded only for one that
    nothing here has.
    """
    section = path.split(".")[0]

    def among(*, foreign: bool) -> Mapping[str, Field]:
        return (
            keys.any_plugin(section, foreign=foreign)
            if section in SWEEP_SECTIONS
            else keys.trial(foreign=foreign)
        )

    own = among(foreign=False)
    return (
        own
        if path in own or any(key.startswith(f"{path}.") for key in own)
        else among(foreign=True)
    )


def leaves(node: Node, path: str, keys: Keys) -> Leaves:
    """Every key path below `path` with its value; a value is what stands at a known key, whatever
    its type.

    Raises:
        SpecError: a key is unknown, or a section is not a mapping.
    """
    known = _known(path, keys)
    if path in known:
        return {path: node}
    inside = sorted(
        {key.removeprefix(f"{path}.").split(".")[0] for key in known if key.startswith(f"{path}.")}
    )
    if not inside:
        error = unknown_key(path, known, keys.broken(path.partition(".")[0]))
        word = path.rpartition(".")[2].lower()
        raise SpecError(
            error.problem,
            key=path,
            value=plain(node),
            place=node.place,
            hint=NOT_OFFERED.get(word) or error.hint,
        )
    leaf_of: Leaves = {}
    for key, child in _mapping(node, path, ", ".join(inside)).items():
        for leaf_path, leaf in leaves(child, f"{path}.{key}", keys).items():
            if leaf_path in leaf_of:
                raise written_twice(leaf_path, leaf.place, leaf_of[leaf_path].place)
            leaf_of[leaf_path] = leaf
    return leaf_of


def trial_leaves(key: str, node: Node, what: str, keys: Keys) -> Leaves:
    """The key paths that an entry of `cases` or a key of `vary` sets; `base.` in front may be left
    out.

    Raises:
        SpecError: a key is unknown, or is one that holds for the whole sweep.
    """
    path = key.removeprefix("base.")
    section = path.split(".")[0]
    if section == "dataset":
        raise SpecError(
            f"{what} cannot change the data set: one data set and one validation set hold for all"
            " rows",
            key=key,
            place=node.place,
        )
    if section in TOP_LEVEL and section not in TRIAL_SECTIONS:
        raise SpecError(
            f"{what} cannot change {one_line(section, 40)}, which holds for the whole sweep",
            key=key,
            place=node.place,
        )
    return leaves(node, path, keys)


def apply_overrides(sections: Sections, overrides: Iterable[str]) -> None:
    """Sets in the sections what each `--set key.path=value` says, a later one over an earlier one.

    Where a key holds text (a path, a name), the value is that text as it stands; elsewhere it is
    YAML without comments.

    Raises:
        SpecError: one cannot be read, or names an unknown key.
    """
    for text in overrides:
        key, node = _parse_override(text, sections.keys)
        first, _, rest = key.partition(".")
        if key in _WHOLE:
            sections.top[key] = node
            if key == "cases":
                # They named some of the cases that are gone.
                sections.top.pop("baseline", None)
                sections.top.pop("orderings", None)
        elif first == "vary":
            _set_domain(sections, rest, node)
        elif first == "cases":
            raise SpecError(
                "a single case cannot be set",
                key=key,
                place=node.place,
                hint="edit the file, or drop all cases with --set 'cases={}'",
            )
        elif first == "extends":
            raise SpecError(
                "a spec's files cannot be set",
                key=key,
                place=node.place,
                hint="write a file that extends this one and the other:"
                " extends: [this.yaml, other.yaml]",
            )
        elif first in ("name", "seeds", "baseline", "orderings"):
            raise SpecError(
                "unknown key", key=key, place=node.place, hint=f'did you mean "{first}"?'
            )
        elif first in SWEEP_SECTIONS:
            sections.outside.update(leaves(node, key, sections.keys))
        else:
            _set_trial_key(sections, key, node)


def _set_trial_key(sections: Sections, key: str, node: Node) -> None:
    if key == "base":
        apart = Sections(source=node.place, keys=sections.keys)
        _read_base(apart, node)
        added = apart.trial
    else:
        added = leaves(node, key.removeprefix("base."), sections.keys)
    if not added:
        raise SpecError(
            "sets nothing: its mapping is empty",
            key=key,
            place=node.place,
            hint=f"write what it sets, as in {key}={{...}}",
        )
    plain_trial, plain_written = (
        {path: plain(leaf) for path, leaf in part.items()} for part in (sections.trial, added)
    )
    left = sections.keys.overlay(plain_trial, plain_written)
    # What another --set wrote stands, also where this one names another plug-in: the order of --set
    # of different keys is no part of what is meant.
    kept = {
        path: leaf
        for path, leaf in sections.trial.items()
        if path in left or path in sections.overridden
    }
    sections.trial = kept | added
    sections.overridden.update(added)


def _set_domain(sections: Sections, key: str, node: Node) -> None:
    vary = sections.top.get("vary")
    if vary is None or vary.value is None:
        vary = Node({}, node.place)
    domains = dict(_mapping(vary, "vary", "key paths and domains"))
    domains.pop(f"base.{key}", None)
    sections.top["vary"] = Node({**domains, key: node}, vary.place)


def _parse_override(text: str, keys: Keys) -> tuple[str, Node]:
    place = Place(override=text)
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or key != one_line(key, 400):
        raise SpecError("is not KEY=VALUE", place=place, hint="write --set method.epochs=5")
    if not value.strip():
        raise SpecError(
            "has no value",
            key=key,
            place=place,
            hint=f"write --set {key}=VALUE; null is written null",
        )
    field = _text_field(key, keys)
    if field is not None:
        # A name from a list has no spaces around it; any other text may.
        return key, read_word(
            value.strip() if field.options else value, key, place, optional=field.optional
        )
    if has_comment(value):
        raise SpecError(
            "# starts a comment in YAML, and what follows would be dropped",
            key=key,
            place=place,
            hint="remove it, or quote text that holds #",
        )
    return key, _placed(parse(value, place, key), place)


def _text_field(key: str, keys: Keys) -> Field | None:
    """The field of a key whose value is one piece of text; None where the value is YAML, or nothing
    is known of the key.
    """
    if key in ("name", "baseline"):
        return Field(hint=str | None if key == "baseline" else str)
    field = _known(key, keys).get(key.removeprefix("base."))
    return field if field is not None and field.kind == "text" else None


def _placed(node: Node, place: Place) -> Node:
    return node if node.place == place else Node(node.value, place)
