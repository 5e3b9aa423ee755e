"""Brings the data of a spec from this machine to where a cluster finds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from orchestrator.catalogue import INSTALLED, load_spec
from orchestrator.commands.submissions import RemoteError
from orchestrator.data.notes import print_notes
from orchestrator.data.publish import put_spec_data
from orchestrator.data.shelf import VARIABLE, shelf_of
from orchestrator.engines.ray.cluster_file import LaunchedCluster
from orchestrator.storage.files import StorageError, StorageLost
from orchestrator.storage.opening import open_store
from orchestrator.storage.user_files import is_address
from orchestrator.sweeps.resolved import PATH_KEY, override_key
from search_spaces.reading.config import Spec
from search_spaces.reading.spec import Gathered, gather
from trainers.errors import DataError


def checked(written: str, overrides: Sequence[str]) -> tuple[Gathered, Spec | None]:
    """Returns the files of a spec, and the spec itself where this machine has what it needs to
    check it all: data on the cluster or in a store is looked at there.

    Raises:
        SpecError: it is no valid spec.
        DataError: its data is on this machine and cannot be used.
    """
    gathered = gather(written, overrides, INSTALLED)
    path = gathered.data
    if path is not None and (is_address(path) or _is_there(path, overrides)):
        return gathered, None
    return gathered, load_spec(written, overrides)


def _is_there(path: str, overrides: Sequence[str]) -> bool:
    """Returns whether a path is one of the cluster's head: absolute, given with --set, and nothing
    on this machine.
    """
    given = any(override_key(text) == PATH_KEY for text in overrides)
    return given and path.startswith(("/", "~")) and not os.path.lexists(os.path.expanduser(path))  # noqa: PTH111


def destination(
    cluster: LaunchedCluster, place: str, gathered: Gathered, spec: Spec | None
) -> str | None:
    """Returns the store that the data of this machine is to be put into; None where the head needs
    none of it.

    Args:
        place: of the sweep, as its head sees it.
        gathered, spec: as `checked` returned them.

    Raises:
        RemoteError: both machines see no such store.
    """
    if spec is None or gathered.data is None:
        return None
    location = shelf_of(open_store(place), None).location if is_address(place) else place
    if is_address(location):
        return location
    why = (
        f"{location} ({VARIABLE}) is a folder"
        if is_address(place)
        else f"{place}, where the sweep will be, is no store that this machine sees"
    )
    raise RemoteError(
        f"{_said(cluster, gathered)}; {why}. Keep the sweep in a bucket, and the data is brought"
        f" there: --out s3://BUCKET/sweeps/{gathered.name}; or {_by_hand(cluster, gathered)}"
    )


def bring(
    cluster: LaunchedCluster, location: str, gathered: Gathered, spec: Spec, given: Sequence[str]
) -> list[str]:
    """Puts the data of this machine into a store, under its fingerprint; what is there already is
    not put again.

    Args:
        location: as `destination` returned it.
        given: the overrides of this machine.

    Returns:
        The overrides with which the head finds the data.

    Raises:
        RemoteError: this machine may not write there.
        StorageLost: the store does not answer.
        DataError: the data cannot be read.
    """
    path, quiet = gathered.data, not sys.stderr.isatty()
    print(f"bringing {path} to {location}, for the cluster", file=sys.stderr, flush=True)
    try:
        with Progress(console=Console(file=sys.stderr), transient=True, disable=quiet) as bar:
            task = bar.add_task(f"decoding {path}", total=None)
            address = put_spec_data(
                spec,
                location,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
                on_prepared=print_notes,
            )
    except (StorageLost, DataError):
        raise
    except StorageError as error:
        source = spec.base.get("dataset.name")
        raise RemoteError(
            f"{_said(cluster, gathered)}, and it cannot be put where that finds it: {error}. Give"
            " this machine the right to write there; or, on a machine that has it: orchestrate data"
            f" prepare {source} --path {path} --to {location}, and give the --set that this"
            f" prints; or {_by_hand(cluster, gathered)}"
        ) from error
    kept = [text for text in given if override_key(text) != PATH_KEY]
    return kept if address is None else [*kept, f"{PATH_KEY}={address}"]


def _said(cluster: LaunchedCluster, gathered: Gathered) -> str:
    return f"dataset.path = {gathered.data} is on this machine, and the sweep runs on {cluster}"


def _by_hand(cluster: LaunchedCluster, gathered: Gathered) -> str:
    return (
        f"copy the data to its head: ray rsync-up {cluster.file.name} {gathered.data} '~/data';"
        " then say where it lies there: --set dataset.path='~/data'"
    )
