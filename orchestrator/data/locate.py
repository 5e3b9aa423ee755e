"""Brings a source together with its data, wherever that lies: on this machine, raw in S3, or
prepared in a store. A source itself reads folders and files of this machine alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.data.download import Remote, look
from orchestrator.data.place import address_of, check_existing, place_of
from orchestrator.data.protocols import Loaded, Progress, Source
from orchestrator.data.references import reference_of
from search_spaces.reading.config import Contents
from trainers.errors import DataError


def contents(source: Any) -> Contents:
    """Returns what a source's data holds.

    Raises:
        DataError, OSError: it is not there or not what it should be.
        StorageError: it is in no place that a store has, or the store does not answer.
    """
    reference = reference_of(source)
    if reference is not None:
        return reference.contents(source)
    # Of a published set it is known without looking.
    found: Contents = (
        source.contents()
        if hasattr(source, "holds") or address_of(source) is None
        else locate(source).contents()
    )
    return found


@dataclass(slots=True)
class Located:
    """A source whose raw data was looked for and is there."""

    source: Any
    """As the spec has it."""
    remote: Remote | None
    """Its data, where that lies in S3."""
    _local: Path | None = field(default=None)

    @property
    def path(self) -> str | None:
        """Where the data lies, absolute; None of a source that needs none."""
        if self.remote is not None:
            return self.remote.address
        path = place_of(self.source)
        return str(path) if path else None

    def signature(self) -> str:
        """As Source.signature. Of data in S3 nothing is fetched."""
        if self.remote is not None:
            return self.remote.signature
        signature: str = self.source.signature()
        return signature

    def contents(self) -> Contents:
        """As Source.contents."""
        with self._named():
            found: Contents = self._here().contents()
        return found

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        """As Source.load."""
        with self._named():
            loaded = self._here().load(folder, on_progress)
        return replace(loaded, notes=tuple(self._told(note) for note in loaded.notes))

    def _here(self) -> Source:
        """Returns the source of data on this machine, which is brought here if it is not."""
        source: Source = self.source
        if self.remote is None:
            return source
        if self._local is None:
            self._local = self.remote.bring()
        here: Any = source
        local: Source = replace(here, path=str(self._local))
        return local

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors name the place in S3, and not its copy."""
        try:
            yield
        except DataError as error:
            if self._local is None:
                raise
            raise DataError(self._told(str(error))) from None

    def _told(self, text: str) -> str:
        if self.remote is None or self._local is None:
            return text
        return text.replace(str(self._local), self.remote.address)


def locate(source: Any) -> Located:
    """Returns a source with its raw data, which is looked for and not read.

    Raises:
        DataError: it is not there.
        StorageError: it lies in S3, and the address is none or the server does not answer.
    """
    address = address_of(source)
    if address is None:
        check_existing(source)
        return Located(source, None)
    form, suffix = getattr(source, "form", ""), getattr(source, "suffix", "")
    return Located(source, look(address, form=form, suffix=suffix))
