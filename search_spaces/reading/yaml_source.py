"""Reads a spec's text: a small, strict part of YAML in which every key keeps its line.

Built on the parser's events, not on its constructors: nothing is ever made of a tag, an alias is
never expanded, and a plain word has one meaning. Where YAML 1.1 and 1.2 disagree (`on`, `010`,
`1_000`), the value is refused rather than guessed; `1e-3` is the number it looks like.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from yaml import events as ev

from search_spaces.reading.errors import (
    Place,
    SpecError,
    did_you_mean,
    show,
    written_twice,
)
from trainers.errors import one_line

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 12
PACKAGED: Final = Path(__file__).parents[1]

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS: Final = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_TRAPS: Final = frozenset({"yes", "no", "on", "off", "y", "n"})
_WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER: Final = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_AMBIGUOUS_NUMBER: Final = re.compile(
    r"[-+]?(0[0-9]+|0[xob][0-9a-fA-F_]+|[0-9][0-9_,]*_[0-9_]*(\.[0-9_]*)?|[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?)"
)
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(inf|infinity|nan)", re.IGNORECASE)
_MAX_DIGITS: Final = 18
_OPENING: Final = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
_CLOSING: Final = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it was written; a mapping's values carry the place of their key."""

    value: Scalar | dict[str, Node] | list[Node]
    place: Place


def find_spec(written: str, *, beside: Path = Path(), place: Place | None = None) -> Path:
    """The file that a path or a name means: one that is not absolute is looked up in a folder, then
    among the packaged files.

    Args:
        beside: that folder; by default the working folder.
        place: where a spec says it after `extends:`, for messages; None: it is from the command
            line.

    Raises:
        SpecError: there is no such file.
    """

    def refused(problem: str, hint: str | None = None) -> SpecError:
        if place is None:
            return SpecError(problem, place=Place(file=written), hint=hint)
        return SpecError(problem, key="extends", value=written, place=place, hint=hint)

    try:
        path = beside / _at_home(written, beside, refused)
        if not written or "\x00" in written:
            raise ValueError("empty or with a NUL byte")
        packaged = PACKAGED / written
        inside = not Path(written).is_absolute() and ".." not in path.parts[len(beside.parts) :]
        if inside and not path.exists() and packaged.is_file():
            return packaged
        if path.is_dir():
            raise refused("is a folder, not a spec file")
        if path.is_symlink() and not path.exists():
            raise refused("is a link to a file that is not there")
        if not path.exists():
            raise refused("no such file", _nearest(written, beside, parts=place is not None))
        if not path.is_file():
            raise refused("is not a regular file")
    except (OSError, ValueError) as error:
        raise refused(f"cannot be a spec file ({_reason(error)})") from None
    return path


def _nearest(written: str, beside: Path, *, parts: bool) -> str:
    """Returns a hint that names the file that may be meant.

    Args:
        parts: it may be a part of specs, which lie in folders below the packaged ones.
    """
    packaged = {path.name for path in PACKAGED.glob("*.yaml")}
    if parts:
        packaged |= {path.relative_to(PACKAGED).as_posix() for path in PACKAGED.glob("*/*.yaml")}
    known = packaged | {path.name for path in beside.glob("*.yaml")}
    return (
        did_you_mean(written, known)
        or did_you_mean(Path(written).name, known)
        or f"packaged: {', '.join(sorted(packaged))}"
    )


def _at_home(text: str, beside: Path, refused: Callable[[str, str], SpecError]) -> Path:
    """The path, with a home folder for a leading ~ unless there is a file of that very name.

    Raises:
        SpecError: nobody has that home folder.
    """
    path = Path(text)
    if not text.startswith("~") or (beside / path).exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        problem = f"there is no home folder for {one_line(path.parts[0], 60)} on this machine"
        raise refused(problem, "write the whole path") from None


def read_text(path: Path, shown: str) -> str:
    """Reads the whole file as text.

    Raises:
        SpecError: it cannot be read, is larger than a spec can be, or is not UTF-8.
    """
    place = Place(file=shown)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot be read ({_reason(error)})", place=place) from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"is larger than {MAX_BYTES // 1024} KiB, which no spec is", place=place)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            "is not UTF-8 text", place=Place(file=shown, line=line), hint="save it as UTF-8"
        ) from None


def parse(text: str, origin: Place, key: str | None = None) -> Node:
    """Parses the one document in `text`.

    Args:
        origin: the file or override that the text came from; its line is filled in for a file.
        key: path of the key that the document is the value of, for messages.

    Raises:
        SpecError: the text is not YAML, or uses what a spec may not: aliases, tags, duplicate keys,
            several documents, numbers that are not finite.
    """
    if bad := _NO_TEXT.search(text):
        problem = "holds a NUL byte" if bad.group() == "\x00" else "is not UTF-8 text"
        raise SpecError(problem, place=_at(origin, text.count("\n", 0, bad.start())))
    try:
        return _Reader(text, origin).document(key)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        mistake = one_line(" ".join(filter(None, (error.context, error.problem))), 200)
        raise SpecError(
            f"is not valid YAML: {mistake}", place=_at(origin, mark.line if mark else 0)
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position))
        raise SpecError(
            f"holds a character that YAML does not allow: #x{_code(error.character):04x}",
            place=_at(origin, line),
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:
        # Escapes and directives with impossible numbers; where, the parser does not say.
        raise SpecError(f"is not valid YAML: {one_line(str(error), 200)}", place=origin) from None


def read_word(text: str, key: str, place: Place, *, optional: bool) -> Node:
    """Reads text from a shell as it stands: nothing in it is a comment, a number or a flag.

    `null` is no text where the key is optional. A value that is one quoted YAML scalar as a whole
    is what it quotes: shells' users write 'key="a b"'.

    Raises:
        SpecError: it is no UTF-8, or holds a NUL byte.
    """
    if bad := _NO_TEXT.search(text):
        raise SpecError(
            "holds a NUL byte" if bad.group() == "\x00" else "is not UTF-8 text",
            key=key,
            place=place,
        )
    if optional and text == "null":
        return Node(None, place)
    quoted = text.strip()
    if (
        len(quoted) > 1
        and quoted[0] in "'\""
        and quoted[-1] == quoted[0]
        and not has_comment(quoted)
    ):
        try:
            parsed = parse(quoted, place).value
        except SpecError:
            parsed = None
        if isinstance(parsed, str):
            return Node(parsed, place)
    return Node(text, place)


def has_comment(text: str) -> bool:
    """Whether YAML would pass over a part of the text as a comment."""
    end = depth = 0
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > MAX_DEPTH:
                return False  # refused for that, and slow to scan
            start = token.start_mark.index
            # The first line of a block (| or >) may have one, too.
            if "#" in text[end:start] or (
                text[start : start + 1] in ("|", ">") and "#" in text[start:].partition("\n")[0]
            ):
                return True
            end = max(end, token.end_mark.index)
    except (yaml.YAMLError, ValueError, OverflowError, IndexError):
        return False  # what is no YAML is refused for that
    return "#" in text[end:]


def plain(node: Node) -> Any:
    """The value without its places."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


class _Reader:
    """One pass over the parser's events."""

    def __init__(self, text: str, origin: Place) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self._origin = origin

    def document(self, key: str | None) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, (ev.StreamStartEvent, ev.StreamEndEvent, ev.DocumentEndEvent)):
                continue
            if isinstance(event, ev.DocumentStartEvent):
                if root is not None:
                    raise SpecError(
                        "starts a second YAML document",
                        place=self._place(event),
                        hint="a spec is one document; remove the line ---",
                    )
                continue
            root = self._node(event, 1, key)
        return root or Node(None, _at(self._origin, 0))

    def _place(self, event: Any) -> Place:
        return _at(self._origin, event.start_mark.line)

    def _node(self, event: Any, depth: int, key: str | None) -> Node:
        place = self._place(event)
        if isinstance(event, ev.AliasEvent) or event.anchor is not None:
            raise SpecError(
                f"anchors and aliases (&{event.anchor}, *{event.anchor}) are not allowed",
                key=key,
                place=place,
                hint="write the value out",
            )
        if event.tag is not None:
            raise SpecError(
                f"the YAML tag {one_line(event.tag, 60)} is not allowed",
                key=key,
                place=place,
                hint="write a plain value",
            )
        if depth > MAX_DEPTH:
            raise SpecError(f"is nested deeper than {MAX_DEPTH} levels", key=key, place=place)
        if isinstance(event, ev.MappingStartEvent):
            return Node(self._mapping(depth, key), place)
        if isinstance(event, ev.SequenceStartEvent):
            return Node(self._sequence(depth, key), place)
        return Node(_scalar(event, key, place), place)

    def _mapping(self, depth: int, path: str | None) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not isinstance(event := next(self._events), ev.MappingEndEvent):
            place = self._place(event)
            if (
                not isinstance(event, ev.ScalarEvent)
                or event.anchor is not None
                or event.tag is not None
            ):
                raise SpecError("a key must be a plain word", key=path, place=place)
            key = event.value
            # As key paths are written elsewhere: inside base, they start there.
            below = key if path in (None, "base") else f"{path}.{key}"
            if key == "<<":
                raise SpecError(
                    "merge keys (<<) are not allowed",
                    key=below,
                    place=place,
                    hint="write the values out",
                )
            if key in children:
                raise written_twice(below, place, children[key].place)
            children[key] = Node(self._node(next(self._events), depth + 1, below).value, place)
        return children

    def _sequence(self, depth: int, key: str | None) -> list[Node]:
        children = []
        while not isinstance(event := next(self._events), ev.SequenceEndEvent):
            children.append(self._node(event, depth + 1, key))
        return children


def _scalar(event: Any, key: str | None, place: Place) -> Scalar:
    text: str = event.value
    if _NO_TEXT.search(text):
        raise SpecError("holds an escape that is no character", key=key, place=place)
    # A plain scalar is the only one whose type is open; a quoted one is text.
    if not event.implicit[0]:
        return text
    if text in _NULLS:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if text.lower() in _TRAPS:
        raise SpecError(
            f"`{text}` is true or false to some YAML readers and text to others",
            key=key,
            place=place,
            hint="write true or false, or quote it",
        )
    if _NOT_FINITE.fullmatch(text):
        raise SpecError(
            f"`{text}` is not a finite number", key=key, place=place, hint="quote it if it is text"
        )
    if _WHOLE.fullmatch(text):
        if len(text.lstrip("+-")) > _MAX_DIGITS:
            raise SpecError(
                f"{show(text)} has more than {_MAX_DIGITS} digits", key=key, place=place
            )
        return int(text)
    if _AMBIGUOUS_NUMBER.fullmatch(text):
        raise SpecError(
            f"`{one_line(text, 40)}` is read as different numbers by different YAML readers",
            key=key,
            place=place,
            hint="write plain decimals, or quote it",
        )
    if _NUMBER.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise SpecError(f"{show(text)} is too large for a number", key=key, place=place)
        return number
    return text


def _at(origin: Place, line_index: int) -> Place:
    return origin if origin.override is not None else Place(file=origin.file, line=line_index + 1)


def _reason(error: Exception) -> str:
    return one_line((error.strerror if isinstance(error, OSError) else None) or str(error), 200)


def _code(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character[:1] or "\0")
