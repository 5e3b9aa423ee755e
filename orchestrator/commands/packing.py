"""What of a spec travels to a cluster on which it is to run."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.commands.submissions import RemoteError
from search_spaces.reading.spec import Gathered


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
