"""Which cluster of Ray's launcher (`ray up`) belongs to a folder: what its cluster.yaml says, and
what Ray has noted on this machine of having brought it up. Reads files alone and calls no cloud.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from orchestrator.engines.ray.preflight import temp_folder

FILES: Final = ("cluster.yaml", "cluster.local.yaml")
"""Names of the files that are looked for in a folder."""
STATE: Final = "ORCHESTRATE_STATE"
"""Variable that says below which folder or address sweeps are kept; the file's commands export
it.
"""

_TO_FILL_IN: Final = re.compile(r"<[A-Za-z](?:[^<>\n]*[^<>\s])?>")
_EXPORTED: Final = re.compile(rf"\b{STATE}=([^\s'\";]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedCluster:
    """A cluster that was brought up from this machine."""

    file: Path
    name: str
    provider: str
    head: str | None
    """Address of its head, where the file says it."""
    state: str | None
    """Below what its sweeps are kept, unless they are told otherwise."""

    def __str__(self) -> str:
        where = f", head {self.head}" if self.head else ""
        return f"cluster {self.name} ({self.file.name}: {self.provider}{where})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """A file of a cluster that cannot be asked to run anything."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file.name} {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the file of a cluster says, whether or not the cluster is up."""

    file: Path
    name: str
    provider: dict[str, Any]
    kind: str
    """Of the provider: `local` for one's own machines, or a cloud's name."""
    auth: dict[str, Any]
    state: str | None
    """Below what its sweeps are kept, unless they are told otherwise."""
    to_fill_in: tuple[tuple[int, str], ...]
    """What is left to be filled in, each with the number of its line."""

    @property
    def machines(self) -> tuple[str, ...]:
        """Addresses of one's own machines, the head's first; of a cloud none."""
        head, workers = self.provider.get("head_ip"), self.provider.get("worker_ips")
        if self.kind != "local" or not head:
            return ()
        listed = workers if isinstance(workers, list) else []
        return tuple(dict.fromkeys(map(str, [head, *listed])))

    def is_up(self) -> bool:
        """Returns whether Ray has on record on this machine that it brought the cluster up."""
        up = _local_is_up if self.kind == "local" else _cloud_is_up
        return up(self.name, self.provider)


def look(file: Path) -> LaunchedCluster | Unused | None:
    """Returns the cluster of that file, or why there is none; None where the file is not there, or
    is not one of Ray's launcher.
    """
    written = read(file)
    if not isinstance(written, Written):
        return written
    if written.to_fill_in:
        return Unused(file=file, reason=f"has {written.to_fill_in[0][1]} left to be filled in")
    if not written.is_up():
        return Unused(file=file, reason=f"is not up (ray up {file.name})")
    head = written.provider.get("head_ip")
    return LaunchedCluster(
        file=file,
        name=written.name,
        provider=written.kind,
        head=str(head) if head else None,
        state=written.state,
    )


def read(file: Path) -> Written | Unused | None:
    """Returns what that file says, or why it cannot be read; None where the file is not there, or
    is not one of Ray's launcher.
    """
    try:
        text = file.read_text(encoding="utf-8")
        written, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        return Unused(file=file, reason=f"cannot be read ({reason})")
    provider = written.get("provider") if isinstance(written, dict) else None
    if not isinstance(provider, dict) or not isinstance(written.get("cluster_name"), str):
        return None
    auth = written.get("auth")
    exported = (found[1] for text in _texts(written) if (found := _EXPORTED.search(text)))
    return Written(
        file=file,
        name=written["cluster_name"],
        provider=provider,
        kind=str(provider.get("type")),
        auth=auth if isinstance(auth, dict) else {},
        state=next(exported, None),
        # What an alias repeats is to be filled in once.
        to_fill_in=tuple(dict.fromkeys(_left_open(node))),
    )


def _left_open(node: Any) -> Iterator[tuple[int, str]]:
    """Yields what is to be filled in below a node of YAML, with the number of its line."""
    if isinstance(node, yaml.ScalarNode):
        # The text of a block begins on the line after its sign.
        first = node.start_mark.line + (2 if node.style in ("|", ">") else 1)
        for found in _TO_FILL_IN.finditer(node.value):
            yield first + node.value[: found.start()].count("\n"), found[0]
    elif node is not None:
        pairs = isinstance(node, yaml.MappingNode)
        for inner in (part for pair in node.value for part in pair) if pairs else node.value:
            yield from _left_open(inner)


def _texts(value: Any) -> Iterator[str]:
    """Yields every text in a value of YAML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _local_is_up(name: str, provider: dict[str, Any]) -> bool:
    """Returns whether Ray has on record here that the head of one's own machines was started, and
    not that it was ended.
    """
    with suppress(OSError, ValueError, AttributeError):
        noted = json.loads((temp_folder() / "ray" / f"cluster-{name}.state").read_text())
        head = noted.get(str(provider.get("head_ip")))
        return head is not None and head.get("state") == "running"
    return False


def _cloud_is_up(name: str, provider: dict[str, Any]) -> bool:
    """Returns whether Ray has kept here the configuration of such a cluster, which it resolves when
    it brings one up.
    """
    for path in temp_folder().glob("ray-config-*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            config = json.loads(path.read_text())["config"]
            kept = config["provider"]
            # Ray adds to what the file says of the provider.
            if config["cluster_name"] == name and all(
                kept.get(key) == value for key, value in provider.items()
            ):
                return True
    return False
