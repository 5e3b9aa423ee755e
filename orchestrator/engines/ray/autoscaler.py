"""What the autoscaler of a Ray cluster may add to the nodes that are there.

Ray publishes no call for it. On a cluster of `ray up`, the head's autoscaler is a process whose
command line names its settings; elsewhere (KubeRay runs it in another container) whoever set the
cluster up says it in NODE_TYPES.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from trainers.errors import UserError

NODE_TYPES: Final = "ORCHESTRATE_NODE_TYPES"
"""Environment variable with `available_node_types` as in a file for `ray up`, of worker nodes:
{gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 8}}.
"""
_SETTINGS: Final = "--autoscaling-config="
_SERVER: Final = "--gcs-address="


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """A kind of worker node that the autoscaler starts."""

    cpus: float | None
    """None where the settings do not say what such a node has (one's own machines)."""
    gpus: float | None
    most: int
    """At most so many nodes of it at a time, those that are there included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What a cluster may grow to."""

    types: tuple[NodeType, ...] = ()
    most: int = 0
    """Worker nodes of all types together."""


def growth(address: str) -> Growth:
    """Returns what the autoscaler of the Ray at `address` may start, as far as this machine
    shows it.

    Raises:
        UserError: NODE_TYPES does not hold node types.
    """
    said = os.environ.get(NODE_TYPES)
    if said:
        try:
            return _growth({"available_node_types": yaml.safe_load(said)})
        except (yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{NODE_TYPES}={said}: not node types ({str(error).splitlines()[0]}). Write them"
                " as in a file for `ray up`: {gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 8}}"
            ) from None
    for path in _settings_of(address, _command_lines()):
        try:
            return _growth(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError):
            # Ray's own file, of a form that is not known: then only the live nodes count.
            continue
    return Growth()


def _command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        try:
            yield process.cmdline()
        except psutil.Error:
            continue


def _settings_of(address: str, command_lines: Iterator[list[str]]) -> Iterator[Path]:
    """Yields the settings that the autoscalers of this Ray were started with."""
    for line in command_lines:
        if f"{_SERVER}{address}" in line:
            for argument in line:
                if argument.startswith(_SETTINGS):
                    yield Path(argument.removeprefix(_SETTINGS)).expanduser()


def _growth(settings: Mapping[str, Any]) -> Growth:
    head = settings.get("head_node_type")
    types = []
    for name, kind in settings["available_node_types"].items():
        most = kind.get("max_workers")
        if most is None:
            most = 0 if name == head else settings.get("max_workers", 0)
        resources = kind.get("resources") or {}
        known = bool(resources.keys() & {"CPU", "GPU"})
        types.append(
            NodeType(
                cpus=float(resources.get("CPU", 0)) if known else None,
                gpus=float(resources.get("GPU", 0)) if known else None,
                most=int(most),
            )
        )
    together = sum(kind.most for kind in types)
    return Growth(
        types=tuple(types), most=min(together, int(settings.get("max_workers", together)))
    )
