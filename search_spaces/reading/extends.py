"""Puts a spec together of the files that it extends.

Each file is read into its sections by itself, the files that it extends first; then a later one of
them goes over an earlier one and the file itself over all. What a file says takes the place of what
the files below it say, key path by key path; a case takes the place of the case of its name. `null`
takes away: a case, a varied key, or all of `cases` or `vary`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Final

from search_spaces.reading.config import Extended
from search_spaces.reading.errors import Place, SpecError, did_you_mean
from search_spaces.reading.sections import (
    NAMED,
    Leaves,
    Sections,
    entries,
    read_sections,
)
from search_spaces.reading.settings import PLUGINS, Keys
from search_spaces.reading.yaml_source import (
    PACKAGED,
    Node,
    find_spec,
    parse,
    plain,
    read_text,
)
from trainers.errors import one_line

MOST_DEEP: Final = 8
"""Files that extend one another in a row."""
MOST_FILES: Final = 64
"""Files that one spec is put together of."""

OWN: Final = "spec.yaml"
"""What records call the spec's own file."""

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class SpecFile:
    """One of the files that a spec is put together of."""

    path: Path
    shown: str
    """What messages call it."""
    text: str
    identity: str
    """Equal for two mentions of one file."""


Find = Callable[[str, SpecFile, Place], SpecFile]
"""The file that a text after `extends:` means, where it is written, and the place of it."""


def own_file(path: Path, shown: str, text: str) -> SpecFile:
    """Returns the file of the spec itself."""
    return SpecFile(path, shown, text, str(path.resolve()))


def on_disk(written: str, by: SpecFile, place: Place) -> SpecFile:
    """Returns the file of that path, as seen from the folder of the file that says it, or else from
    that of the packaged specs.

    Raises:
        SpecError: there is none, or it cannot be read.
    """
    path = find_spec(written, beside=by.path.parent, place=place)
    shown = path.relative_to(PACKAGED).as_posix() if path.is_relative_to(PACKAGED) else str(path)
    return SpecFile(path, shown, read_text(path, shown), str(path.resolve()))


def kept(files: Sequence[Extended]) -> Find:
    """Returns what finds a file among those that a sweep keeps."""
    by_mention = {mention: file for file in files for mention in file.extended_by}
    names = {file.name for file in files}

    def find(written: str, by: SpecFile, place: Place) -> SpecFile:
        file = by_mention.get((by.identity if by.identity in names else OWN, written))
        if file is None:
            raise SpecError(
                "is not among the files that the sweep keeps",
                key="extends",
                value=written,
                place=place,
                hint="restore the sweep's folder from a copy",
            )
        return SpecFile(Path(file.shown), file.shown, file.text, file.name)

    return find


def put_together(
    own: SpecFile, keys: Keys, find: Find = on_disk
) -> tuple[Sections, tuple[Extended, ...]]:
    """Returns the sections of a spec with everything that it extends, and the files that it
    extends, itself or by way of others, in the order in which they are first mentioned.

    Raises:
        SpecError: one of the files cannot be used, or they extend each other.
    """
    assembly = _Assembly(own, keys, find)
    return assembly.sections(own, ()), assembly.extended()


class _Assembly:
    """Reads each file once, however often it is mentioned."""

    def __init__(self, own: SpecFile, keys: Keys, find: Find) -> None:
        self._keys, self._find = keys, find
        self._names = {own.identity: OWN}
        self._files: dict[str, SpecFile] = {}
        self._mentions: dict[str, list[tuple[str, str]]] = {}
        self._done: dict[str, Sections] = {}

    def sections(self, file: SpecFile, chain: tuple[SpecFile, ...]) -> Sections:
        if file.identity in self._done:
            return self._done[file.identity]
        source = Place(file=file.shown)
        own = read_sections(parse(file.text, source), source, self._keys)
        if own.extends is not None:
            below = [
                self.sections(found, (*chain, file))
                for found in self._extended_by(file, own.extends, (*chain, file))
            ]
            under = reduce(_over, below)
            own = _over(*_without_what_is_taken_away(under, own))
        self._done[file.identity] = own
        return own

    def extended(self) -> tuple[Extended, ...]:
        return tuple(
            Extended(
                name=self._names[identity],
                shown=file.shown,
                text=file.text,
                extended_by=tuple(self._mentions[identity]),
            )
            for identity, file in self._files.items()
        )

    def _extended_by(
        self, file: SpecFile, written: Node, chain: tuple[SpecFile, ...]
    ) -> list[SpecFile]:
        """The files that `file` extends, which is the last of the chain."""
        found: list[SpecFile] = []
        for node in _texts(written):
            other = self._find(str(node.value), file, node.place)

            def refused(problem: str, hint: str, node: Node = node) -> SpecError:
                return SpecError(
                    problem, key="extends", value=plain(node), place=node.place, hint=hint
                )

            if other.identity in (known.identity for known in chain):
                raise refused(_loop(other, chain), "a spec cannot extend itself; remove it")
            if other.identity in (known.identity for known in found):
                raise refused("names a file twice", "keep one of them")
            if len(chain) > MOST_DEEP:
                raise refused(
                    f"is the {len(chain)}th of a row of files that extend one another; at most"
                    f" {MOST_DEEP} are possible",
                    "let it extend fewer",
                )
            if other.identity not in self._files:
                if len(self._files) >= MOST_FILES:
                    raise refused(
                        f"is one more than the {MOST_FILES} files that a spec may extend",
                        "put some of them together",
                    )
                self._files[other.identity] = other
                self._names[other.identity] = f"{len(self._files)}-{_plain_name(other.path)}"
            self._mentions.setdefault(other.identity, []).append(
                (self._names[file.identity], str(node.value))
            )
            found.append(other)
        return found


def _plain_name(path: Path) -> str:
    return _NO_NAME.sub("_", path.name)[-_LONGEST_NAME:]


def _loop(other: SpecFile, chain: Sequence[SpecFile]) -> str:
    start = next(i for i, known in enumerate(chain) if known.identity == other.identity)
    names = [file.shown for file in chain[start + 1 :]]
    return "is this very file" if not names else f"extends this file by way of {', '.join(names)}"


def _texts(node: Node) -> list[Node]:
    """The one text after `extends:`, or those of its list."""
    items = node.value if isinstance(node.value, list) else [node]
    wrong = next(
        (item for item in items if not isinstance(item.value, str) or not item.value.strip()),
        None if items else node,
    )
    if wrong is not None:
        raise SpecError(
            "must be the name or path of a spec file, or a list of them",
            key="extends",
            value=plain(wrong),
            place=wrong.place,
            hint="write extends: other.yaml, or extends: [one.yaml, other.yaml]",
        )
    return items


def _over(below: Sections, above: Sections) -> Sections:
    """What `above` says over what `below` says."""
    top = below.top | above.top
    for key in NAMED:
        if key in below.top and key in above.top:
            mine = entries(above, key)
            again = {_bare(key, name) for name in mine}
            under = {
                name: entry
                for name, entry in entries(below, key).items()
                if name in mine or _bare(key, name) not in again
            }
            top[key] = Node(under | mine, above.top[key].place)
    return Sections(
        source=above.source,
        keys=above.keys,
        top=top,
        trial=_leaves_over(below.trial, above.trial, above.keys),
        outside=_leaves_over(below.outside, above.outside, above.keys),
        headings=below.headings | above.headings,
    )


def _bare(key: str, name: str) -> str:
    """The name of a case, or a varied key without the `base.` that may stand in front."""
    return name.removeprefix("base.") if key == "vary" else name


def _leaves_over(below: Leaves, above: Leaves, keys: Keys) -> Leaves:
    values, layer = ({path: plain(leaf) for path, leaf in part.items()} for part in (below, above))
    # Settings of a plug-in that no file below names are for the one that is named above.
    named = {
        plugin.key: layer[plugin.key]
        for plugin in PLUGINS.values()
        if plugin.key in layer and plugin.key not in values
    }
    left = keys.overlay(values | named, layer)
    return {path: leaf for path, leaf in below.items() if path in left} | above


def _without_what_is_taken_away(below: Sections, own: Sections) -> tuple[Sections, Sections]:
    """Both without the cases and varied keys that `own` takes away by `null`."""
    below_top, own_top = dict(below.top), dict(own.top)
    for key in NAMED.keys() & own_top.keys():
        node = own_top[key]
        known = {} if node.value is None else dict(entries(below, key))
        mine = entries(own, key)
        for name, entry in mine.items():
            if entry.value is None:
                gone = [other for other in known if _bare(key, other) == _bare(key, name)]
                if not gone:
                    raise _takes_nothing(key, name, entry, known)
                for other in gone:
                    del known[other]
        if key in below_top:
            below_top[key] = Node(dict(known), below_top[key].place)
        own_top[key] = Node(
            {name: entry for name, entry in mine.items() if entry.value is not None}, node.place
        )
    return replace(below, top=below_top), replace(own, top=own_top)


def _takes_nothing(key: str, name: str, entry: Node, known: Mapping[str, Node]) -> SpecError:
    what, otherwise = (
        ("no extended file has a case of this name", "write {} for the base as it is")
        if key == "cases"
        else ("no extended file varies this key", "write its domain, or remove it")
    )
    return SpecError(
        f"null takes away, and {what}",
        key=f"{key}.{one_line(name, 120)}",
        value=None,
        place=entry.place,
        hint=did_you_mean(name, known) or otherwise,
    )
