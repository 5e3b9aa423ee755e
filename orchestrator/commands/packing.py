"""What of a spec travels to a cluster on which it is to run."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.catalogue import INSTALLED, load_spec
from orchestrator.commands.submissions import RemoteError
from orchestrator.engines.ray.cluster_file import LaunchedCluster
from orchestrator.storage.user_files import is_address
from orchestrator.sweeps.resolved import PATH_KEY, override_key
from search_spaces.reading.spec import Gathered, gather


def checked(cluster: LaunchedCluster, written: str, overrides: Sequence[str]) -> Gathered:
    """Returns the files of the spec, checked as far as this machine can.

    Raises:
        RemoteError: its data lies on this machine.
    """
    spec = gather(written, overrides, INSTALLED)
    if spec.data is None:
        load_spec(written, overrides)
        return spec
    if is_address(spec.data):
        return spec
    there = any(override_key(text) == PATH_KEY for text in overrides)
    if there and spec.data.startswith(("/", "~")):
        return spec
    raise RemoteError(
        f"{written}: dataset.path = {spec.data} is on this machine, and the sweep runs on"
        f" {cluster}. Copy the data to its head: ray rsync-up {cluster.file.name} {spec.data}"
        " '~/data'; then say where it lies there: --set dataset.path='~/data'"
    )


def for_shell(*words: str) -> str:
    """Returns the words as a shell takes them, the home folder of a path being the head's."""
    return " ".join(
        f'"$HOME"/{shlex.quote(word[2:])}' if word.startswith("~/") else shlex.quote(word)
        for word in words
    )


def files_of(spec: Gathered) -> dict[str, str]:
    """Returns the spec's own file and those that it extends and that are not packaged: name ->
    text, the spec's first, each as far from the others as here.

    Raises:
        RemoteError: one is extended by its absolute path.
    """
    texts = {os.path.abspath(spec.path): spec.text}  # noqa: PTH100
    for file in spec.extended:
        if not Path(file.shown).is_file():
            continue  # packaged, and so on the head too
        for _, written in file.extended_by:
            if written.startswith(("/", "~")):
                raise RemoteError(
                    f"{spec.path}: extends {written}, which the cluster does not have. Write the"
                    " path as seen from the file that extends it"
                )
        texts[os.path.abspath(file.shown)] = file.text  # noqa: PTH100
    root = os.path.commonpath([os.path.dirname(path) for path in texts])  # noqa: PTH120
    return {os.path.relpath(path, root): text for path, text in texts.items()}


@contextmanager
def folder_of(files: Mapping[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="orchestrate-") as name:
        for relative, text in files.items():
            path = Path(name, relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        yield Path(name)
