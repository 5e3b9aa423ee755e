"""Puts prepared data where other machines find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.data import delivery
from orchestrator.data.delivery import Part
from orchestrator.data.locate import contents
from orchestrator.data.place import is_placed
from orchestrator.data.prepare import PreparedData, prepare
from orchestrator.data.protocols import Progress, Source
from orchestrator.data.references import Reference, put_reference, reference_to
from orchestrator.data.shelf import shelf_at
from search_spaces.reading.config import Spec
from search_spaces.reading.trials import make_trial
from trainers.errors import DataError

_PARTS: tuple[Part, ...] = ("images", "labels")


def _quiet(done: int, total: int) -> None:
    pass


def _unsaid(data: PreparedData) -> None:
    pass


def put_spec_data(
    spec: Spec,
    location: str,
    *,
    on_progress: Progress = _quiet,
    on_prepared: Callable[[PreparedData], None] = _unsaid,
) -> str | None:
    """Prepares the data of a spec on this machine and puts it into the store at `location`, labels
    too, under its fingerprint; what is there already is not put again.

    Args:
        on_prepared: called with the data before it is put.

    Returns:
        The address that another machine gives as `dataset.path` (`--set dataset.path=ADDRESS`) to
        run the spec; None where its source needs no data from anywhere.

    Raises:
        DataError: the data is missing, unreadable or not what its layout promises.
        StorageError: the store cannot be used.
    """
    source: Any = make_trial(spec, {}, spec.seeds[0]).config.dataset.source
    if not is_placed(source):
        return None
    return put_data(source, location, on_progress=on_progress, on_prepared=on_prepared).address


def put_data(
    source: Source,
    location: str,
    *,
    on_progress: Progress = _quiet,
    on_prepared: Callable[[PreparedData], None] = _unsaid,
) -> Reference:
    """Prepares a data set and puts it into the store at `location`, as `put_spec_data`.

    Raises:
        DataError: also where the source has no `path` by which another machine could be told.
        StorageError: the store cannot be used.
    """
    if not is_placed(source):
        raise DataError(f"{source.name}: has no dataset.path; every machine has its data already.")
    shelf = shelf_at(location)
    shelf.store.check_writable()
    data = prepare(source, on_progress=on_progress)
    on_prepared(data)
    reference = reference_to(data, source, shelf)
    for part in _PARTS:
        delivery.put(shelf, data, part)
    put_reference(reference, data, source, contents(source))
    return reference
