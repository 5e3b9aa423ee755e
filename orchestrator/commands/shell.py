"""The flags that print and exit: the version, and what a shell needs to complete words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, Final, NoReturn

PACKAGE: Final = "one-bit-orchestrator"
SHELLS: Final = ("bash", "zsh", "tcsh")
_FILES: Final = ("SPEC", "FILE")
_FOLDERS: Final = ("DIR",)


def version() -> str:
    """Returns the installed version, or `unknown` where only the source is there."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"


class PrintVersion(argparse.Action):
    """Prints the version."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        print(f"orchestrate {version()}")
        parser.exit()


class PrintCompletion(argparse.Action):
    """Prints the script that lets a shell complete verbs, flags, specs and folders."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        import shtab

        for action in _arguments(parser):
            named = str(action.metavar or action.dest).upper()
            if named in _FILES or named in _FOLDERS:
                action.complete = (  # type: ignore[attr-defined]  # shtab's own door
                    shtab.FILE if named in _FILES else shtab.DIRECTORY
                )
        print(shtab.complete(parser, shell=str(values)))
        parser.exit()


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the arguments of a parser and of its verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in {id(one): one for one in action.choices.values()}.values():
                yield from _arguments(verb)
        else:
            yield action
