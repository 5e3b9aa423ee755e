"""Specs that hold objects of plug-ins where YAML has their names: from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from search_spaces.reading.assemble import flatten
from search_spaces.reading.errors import SpecError, show
from search_spaces.reading.plugins import Catalogue, Kind
from search_spaces.reading.settings import PLUGINS

Classes = Mapping[tuple[Kind, str], type[Any]]


def without_objects(
    spec: Mapping[str, Any], catalogue: Catalogue
) -> tuple[dict[str, Any], dict[tuple[Kind, str], type[Any]]]:
    """Returns a spec with names and settings in place of objects of plug-ins, and those of their
    classes that the catalogue does not have, by kind and name.

    Raises:
        SpecError: a class has the name of another one, or objects of a `choice` cannot stand there
            by name.
    """
    reader = _Reader(catalogue)
    plain = reader.mapping(spec, ())
    vary = spec.get("vary")
    if isinstance(vary, Mapping):
        plain["vary"] = reader.vary(vary, plain)
    return plain, reader.classes


class _Reader:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.classes: dict[tuple[Kind, str], type[Any]] = {}

    def mapping(self, values: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Returns the values under this path without objects."""
        plain: dict[str, Any] = {}
        for key, item in values.items():
            where = tuple(part for part in (*path, *str(key).split(".")) if part != "base")
            section = next((name for name in PLUGINS if name in where), None)
            if isinstance(item, Mapping):
                plain[key] = {} if where == ("vary",) else self.mapping(item, where)
            elif section is None or not _is_object(item):
                plain[key] = _plain(item)
            elif where[-1] == section:
                plain[key] = self._named(item, section)
            else:
                # query.strategy: an object; its settings stand beside its name.
                prefix = str(key).removesuffix(where[-1])
                named = self._named(item, section)
                plain |= {f"{prefix}{name}": setting for name, setting in named.items()}
        return plain

    def vary(self, values: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what varies without objects: their names, and what they are set to beside the
        defaults as keys of one value, which only their plug-in reads.
        """
        plain: dict[str, Any] = {}
        added: dict[str, Any] = {}
        for key, domain in values.items():
            path = str(key).removeprefix("base.")
            section = next((s for s, at in PLUGINS.items() if path in (s, at.key)), None)
            options = domain.get("choice") if isinstance(domain, Mapping) else None
            if section is None or not isinstance(options, list | tuple):
                options = ()
            if not any(map(_is_object, options)):
                plain[key] = (
                    self.mapping(domain, ("vary",)) if isinstance(domain, Mapping) else domain
                )
                continue
            assert section is not None
            plain[PLUGINS[section].key] = {
                "choice": [item.name if _is_object(item) else _plain(item) for item in options]
            }
            added |= self._settings_of(list(options), section, spec)
        for key, setting in added.items():
            if key in values or f"base.{key}" in values:
                raise SpecError(
                    "is varied, and an object in a choice of vary sets it",
                    key=key,
                    hint="write the name of the object's class in the choice in its place",
                )
            plain[key] = {"choice": [setting]}
        return plain

    def _settings_of(
        self, options: list[Any], section: str, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns key path -> value of what the objects among the options of a choice are set to
        beside their defaults.
        """
        common = {key: value for key, value in spec.items() if key not in ("cases", "vary")}
        base = {key.removeprefix("base."): value for key, value in flatten(common).items()}
        cases = flatten({"cases": spec.get("cases")})
        set_by: dict[str, tuple[Any, Any]] = {}
        objects = [item for item in options if _is_object(item)]
        for number, obj in enumerate(objects):
            named = self._named(obj, section)
            if twin := next((one for one in objects[:number] if one.name == obj.name), None):
                raise SpecError(
                    f"choice has two objects of class {type(obj).__name__}, {twin!r:.100} and"
                    f" {obj!r:.100}",
                    key=PLUGINS[section].key,
                    hint=f"write its name {show(obj.name)} once and vary its settings, as in"
                    f" {section}.SETTING: {{choice: [...]}}, or write each object as a case",
                )
            for item in fields(obj):
                key, value = f"{section}.{item.name}", named[item.name]
                # What the base or a case sets of a plug-in of that name would be taken too.
                stray = base.get(key, value) != value or any(
                    said != value for path, said in cases.items() if path.endswith(f".{key}")
                )
                if value != _plain(item.default) or stray or "extends" in spec:
                    set_by[key] = (value, obj)
        for key, (value, obj) in set_by.items():
            for other, has in self._others(options, obj, section, key, base):
                if has != value:
                    raise SpecError(
                        f"is a setting of {obj!r:.100} and of {other!r:.100}, which stand in one"
                        " choice and have other values of it",
                        key=key,
                        hint="write each of them as a case",
                    )
        return {key: value for key, (value, _) in set_by.items()}

    def _others(
        self, options: list[Any], obj: Any, section: str, key: str, base: Mapping[str, Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Yields each other option that has this setting too, and to what it is set there."""
        plugin, attribute = PLUGINS[section], key.partition(".")[2]
        for other in options:
            if other is obj:
                continue
            if _is_object(other):
                cls = type(other)
            elif isinstance(other, str):
                try:
                    cls = self._catalogue.load(plugin.kind, other)
                except KeyError:
                    continue
            else:
                continue
            item = next((one for one in fields(cls) if one.name == attribute), None)
            if item is None:
                continue
            if _is_object(other):
                yield other, _plain(getattr(other, attribute))
            elif other == base.get(plugin.key, self._catalogue.default(plugin.kind)):
                yield other, base.get(key, _plain(item.default))
            else:
                yield other, _plain(item.default)

    def _named(self, obj: Any, section: str) -> dict[str, Any]:
        """Returns the name of an object's class and its settings, as a spec writes them."""
        self._note(type(obj), section)
        return {PLUGINS[section].key.partition(".")[2]: obj.name} | {
            item.name: _plain(getattr(obj, item.name)) for item in fields(obj)
        }

    def _note(self, cls: type[Any], section: str) -> None:
        """Notes a class that the catalogue does not have."""
        kind, name = PLUGINS[section].kind, getattr(cls, "name", None)
        if not isinstance(name, str):
            raise SpecError(
                f"is an object of {_qualified(cls)}, which has no name",
                key=PLUGINS[section].key,
                hint=f"give the class a name: ClassVar[str], by which a spec calls the {kind}",
            )
        known = self.classes.get((kind, name))
        if known is None:
            try:
                known = self._catalogue.load(kind, name)
            except KeyError:
                self.classes[kind, name] = cls
                return
        if known is not cls:
            raise SpecError(
                f"is an object of {_qualified(cls)}, whose name {name!r} is that of another"
                f" {kind}, {_qualified(known)}",
                key=PLUGINS[section].key,
                hint="give the class a name of its own",
            )


def _is_object(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _qualified(cls: type[Any]) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if value is MISSING:
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    # Numbers of numpy and of libraries like it.
    as_python = getattr(value, "item", None)
    return as_python() if as_python is not None and getattr(value, "shape", None) == () else value
