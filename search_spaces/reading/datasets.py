"""What a data set holds, as its source says it before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args

from search_spaces.reading.config import Contents, DataKind
from search_spaces.reading.errors import SpecError, show
from trainers.errors import DataError


def contents(source: Any, ask: Callable[[Any], Contents] | None = None) -> Contents:
    """Returns what the checks of a spec need of a data set.

    Args:
        ask: gets it from the source (search_spaces.reading.plugins.Catalogue); None: its method.

    Raises:
        SpecError: the folder or file is not there or not what it should be. Without a place: see
            SpecError.located.
    """
    placed = any(item.name == "path" for item in fields(source))
    key, value = ("dataset.path", source.path) if placed else ("dataset.name", source.name)
    try:
        found: Contents = source.contents() if ask is None else ask(source)
    except DataError as error:
        raise SpecError(str(error), key=key, value=value) from None
    except OSError as error:
        raise SpecError(
            f"cannot be read ({error.strerror or error})", key=key, value=value
        ) from None
    _check(source.name, found)
    return found


def _check(name: str, found: Contents) -> None:
    """Raises SpecError where a source says what no data set is: nothing may take a third kind of
    data for one of the two.
    """
    if found.kind not in get_args(DataKind):
        raise SpecError(
            f"the data source says that its items are {show(found.kind)}; known are"
            f" {', '.join(get_args(DataKind))}",
            key="dataset.name",
            value=name,
        )
    for what, count, least in (
        ("classes", found.num_classes, 2),
        ("training items", found.train_items, 1),
        ("test items", found.test_items, 1),
        ("items in its smallest class", found.smallest_class, 1),
    ):
        if type(count) is not int or count < least:
            raise SpecError(
                f"the data source says that it has {show(count)} {what}; at least {least} are"
                " needed",
                key="dataset.name",
                value=name,
            )
