"""Where a source's data lies, as its settings and the environment say it."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from orchestrator.storage.s3_client import split
from orchestrator.storage.user_files import expand
from trainers.errors import DataError

_IN_S3: Final = re.compile("[sS]3:")


def place_of(source: Any) -> Path | None:
    """Returns the absolute place of the data on this machine: the source's `path`, else
    $ORCHESTRATE_DATA/<name>; None where the source has no such setting, or neither is set.

    Raises:
        DataError: the path begins with the home folder of nobody, or is an address.
    """
    if not is_placed(source):
        return None
    if source.path is not None:
        return expand(source.path, "dataset.path")
    place = os.environ.get("ORCHESTRATE_DATA")
    return expand(place, "ORCHESTRATE_DATA") / source.name if place else None


def address_of(source: Any) -> str | None:
    """Returns the address in S3 of the data: the source's `path`, else $ORCHESTRATE_DATA/<name>;
    None where the data lies on this machine, or nowhere.

    Raises:
        StorageError: it is meant as one and is none.
    """
    if not is_placed(source):
        return None
    place = os.environ.get("ORCHESTRATE_DATA")
    text = source.path
    if text is None and place:
        text = f"{place.rstrip('/')}/{source.name}"
    if text is None or not _IN_S3.match(text):
        return None
    bucket, key = split(text)
    return f"s3://{bucket}/{key}".rstrip("/")


def existing(source: Any) -> Path:
    """Returns the place of the data, where something is.

    Raises:
        DataError: nothing says where the data is, or nothing is there.
    """
    path = place_of(source)
    if path is None:
        raise DataError(
            f"{source.name}: nothing says where the data is. Set dataset.path, or set"
            f" ORCHESTRATE_DATA to the folder that holds {source.name}/. Nothing is downloaded."
        )
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such {getattr(source, 'form', 'file or folder')} ({source.name})."
            " Set dataset.path to where the data is."
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Set dataset.path to where the"
            " data is."
        ) from None
    return path


def check_existing(source: Any) -> None:
    """Raises DataError where a source that lies somewhere is not there."""
    if is_placed(source):
        existing(source)


def is_placed(source: Any) -> bool:
    """Returns whether a source has a setting that says where its data lies."""
    return any(item.name == "path" for item in fields(source))
