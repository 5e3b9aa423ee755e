"""What is said when a spec is wrong: where, what stands there, and what may stand there instead."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from trainers.errors import UserError, one_line

_LONGEST_VALUE: Final = 80
_LONGEST_KEY: Final = 120
_LONGEST_PART: Final = 800
_LONGEST_FILE: Final = 1024
_MOST_NAMES: Final = 600
"""Characters of the names of cases in a hint."""
_MOST_COMPARED: Final = 1000
"""Names that one is compared with for a hint, which takes a while each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value was written: a line of a file, or a `--set` on the command line."""

    file: str | None = None
    line: int | None = None
    override: str | None = None
    """The text after `--set`."""
    case: str | None = None
    """Name of the case that sets it."""
    varied: bool = False
    """Whether it stands under `vary`."""

    def __str__(self) -> str:
        if self.override is not None:
            return f"--set {one_line(self.override, _LONGEST_KEY)}"
        name = one_line(self.file or "", _LONGEST_FILE)
        return f"{name}:{self.line}" if name and self.line is not None else name

    def inside(self, other: Place) -> str:
        """Returns where this is, for a message about another place; begins with a space, and is
        empty where both are the same override.
        """
        if self.override is not None:
            return (
                ""
                if self.override == other.override
                else f" in --set {one_line(self.override, _LONGEST_KEY)}"
            )
        if self.line is None:
            return ""
        return f" in line {self.line}" if self.file == other.file else f" in {self}"


@dataclass(frozen=True, slots=True)
class _Absent:
    """No value belongs to the error; None is a value."""


ABSENT: Final = _Absent()


class SpecError(UserError):
    """A spec file, an override or a recorded trial cannot be used. str() is the whole message."""

    def __init__(
        self,
        problem: str,
        *,
        key: str | None = None,
        value: Any = ABSENT,
        place: Place | None = None,
        hint: str | None = None,
        keys: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            problem: what is wrong, without the place, key and value.
            hint: what to write instead.
            keys: every key path that has a part in it, the likeliest to be changed first; `located`
                picks the one to show.
        """
        self.problem = problem
        self.key = key
        self.value = value
        self.place = place
        self.hint = hint
        self.keys = keys or ((key,) if key is not None else ())
        super().__init__(self._message())

    @property
    def file(self) -> str | None:
        return self.place.file if self.place else None

    @property
    def line(self) -> int | None:
        return self.place.line if self.place else None

    def _message(self) -> str:
        parts = [str(self.place)] if self.place and str(self.place) else []
        if self.place and self.place.case is not None:
            parts.append(f'case "{one_line(self.place.case, _LONGEST_KEY)}"')
        if self.key is not None:
            shown = "" if self.value is ABSENT else f" = {show(self.value)}"
            parts.append(one_line(self.key, _LONGEST_KEY) + shown)
        # They may quote a name or path from a file, as long and as strange as its writer liked.
        texts = [one_line(part, _LONGEST_PART) for part in (self.problem, self.hint) if part]
        return ": ".join([*parts, "; ".join(texts)])

    def located(self, places: Mapping[str, Place], values: Mapping[str, Any]) -> SpecError:
        """The same error with its place, unless it has one.

        Of the keys that have a part in it, one that a case, `vary` or `--set` wrote goes first; for
        a key that was not written, the section it is missing from.
        """
        if self.place is not None:
            return self
        known = [key for key in self.keys if key in places]
        if not known:
            return self._in_section(places)
        key = next(
            (
                k
                for k in known
                if places[k].case is not None or places[k].varied or places[k].override is not None
            ),
            known[0],
        )
        value = values.get(key, ABSENT) if key != self.key or self.value is ABSENT else self.value
        return SpecError(
            self.problem, key=key, value=value, place=places[key], hint=self.hint, keys=self.keys
        )

    def _in_section(self, places: Mapping[str, Place]) -> SpecError:
        section = self.keys[0] if self.keys else ""
        while "." in section:
            section = section.rpartition(".")[0]
            if section in places:
                break
        place = places.get(section) or places.get("base")
        return (
            self
            if place is None
            else SpecError(
                self.problem,
                key=self.key,
                value=self.value,
                place=place,
                hint=self.hint,
                keys=self.keys,
            )
        )


def written_twice(key: str, place: Place, first: Place) -> SpecError:
    """The error for a key that one mapping writes twice."""
    where = first.inside(place)
    return SpecError(
        "the key is written twice" + (f", first{where}" if where else ""),
        key=key,
        place=place,
        hint="keep one of them",
    )


def show(value: Any) -> str:
    """A value as it would stand in YAML, short enough for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)) and all(
        isinstance(item, (int, float, str, bool)) for item in value
    ):
        return one_line("[" + ", ".join(show(item) for item in value[:50]) + "]", _LONGEST_VALUE)
    return one_line(str(value) if isinstance(value, (int, float)) else repr(value), _LONGEST_VALUE)


def cases_in_words(cases: Iterable[str]) -> str:
    """The names of a spec's cases, each in quotes: they may have commas in them. As many as fit."""
    said, rest = "", list(cases)
    while rest and len(said) + len(rest[0]) < _MOST_NAMES:
        said += f'{", " if said else ""}"{rest.pop(0)}"'
    return f"the cases are {said}" + (f" and {len(rest)} more" if rest else "")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest of `known`, or None where nothing is near."""
    near = difflib.get_close_matches(
        word[:_LONGEST_KEY], list(itertools.islice(known, _MOST_COMPARED)), n=1, cutoff=0.6
    )
    return f'did you mean "{near[0]}"?' if near else None
