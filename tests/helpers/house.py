"""Counts the rooms of the house from its imports: `python -m tests.helpers.house` prints rooms,
floors, arrows and circles.

A folder of `orchestrator` is a room, `engines/ray` another, and so is each file at its root;
`search_spaces` and `trainers` are a room each. An arrow is drawn where a file of one room imports a
file of another, wherever in the file the import stands; imports for types alone (TYPE_CHECKING)
count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "search_spaces", "trainers")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file, of every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Yields the modules of `known` that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inside]
        yield from (name for name in names if name in known)


def private_uses(path: Path, package: str) -> Iterator[str]:
    """Yields the names inside another package that begin with an underscore and that a file
    imports, or reaches by attributes: `package._inner`.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            root, *inside = name.split(".")
            if root == package and any(
                part.startswith("_") and not part.startswith("__") for part in inside
            ):
                yield name


def room(module: str, known: Mapping[str, Path]) -> str:
    """Returns the room of a module: its folder, or itself at the root of `orchestrator`."""
    if not module.startswith("orchestrator"):
        return module.split(".")[0]
    if module.count(".") == 1 or known[module].name == "__init__.py":
        return module
    return ".".join(module.split(".")[: 3 if module.startswith("orchestrator.engines.ray") else 2])


def arrows(root: Path = ROOT) -> dict[str, set[str]]:
    """Room -> the rooms that it imports from. Rooms that are empty files are left out."""
    known = modules(root)
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        if path.name == "__init__.py" and not path.read_text().strip():
            continue
        here = room(module, known)
        found.setdefault(here, set()).update(
            there for name in imports(path, known) if (there := room(name, known)) != here
        )
    return found


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of rooms each of which can be reached from every other of its set (strongly connected
    components of more than one room).
    """
    reached = {start: _reached(graph, start) for start in graph}
    together = {
        frozenset(
            {other for other in reached[start] if start in reached.get(other, set())} | {start}
        )
        for start in graph
    }
    return sorted((set(one) for one in together if len(one) > 1), key=sorted)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    open_rooms = [start]
    while open_rooms:
        for other in graph.get(open_rooms.pop(), set()) - seen:
            seen.add(other)
            open_rooms.append(other)
    return seen


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: 0 imports from no other, and each other stands one above the highest that
    it imports from. Circles stand on one floor.
    """
    circle_of = {name: frozenset(one) for one in circles(graph) for name in one}
    found: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in found:
            mine = circle_of.get(name, frozenset({name}))
            below = [height(other) for one in mine for other in graph.get(one, set()) - mine]
            found.update(dict.fromkeys(mine, 1 + max(below, default=-1)))
        return found[name]

    for name in graph:
        height(name)
    return found


def branches_on(names: set[str], source: str) -> list[str]:
    """Comparisons with one of these names, and cases of a `match` that are one, as they are written
    there.
    """

    def holds(node: ast.AST) -> bool:
        return any(
            isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in names
            for part in ast.walk(node)
        )

    nodes = (ast.Compare, ast.MatchValue)
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, nodes) and holds(node)
    ]


_OPENS = {"Path", "open", "FolderStore", "commit_file"}
_TOUCHES = {
    "exists",
    "glob",
    "is_dir",
    "is_file",
    "iterdir",
    "lexists",
    "listdir",
    "mkdir",
    "read_bytes",
    "read_text",
    "rglob",
    "rmtree",
    "scandir",
    "unlink",
    "write_bytes",
    "write_text",
}


def disk_calls(source: str) -> set[str]:
    """What a source calls to make a path or to touch a file, as it is written there."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            func = node.func
            named = isinstance(func, ast.Name) and func.id in _OPENS
            if named or (isinstance(func, ast.Attribute) and func.attr in _TOUCHES):
                found.add(ast.unparse(func))
    return found


_SAFE = {"load": {"np": "allow_pickle=False", "numpy": "allow_pickle=False"}}
_SAFE["load"]["torch"] = "weights_only=True"
_UNPICKLERS = ("cloudpickle.load", "cloudpickle.loads", "joblib.load", "pd.read_pickle")


def unpickling_calls(source: str) -> list[str]:
    """Calls that may run a program which stands in what they read, as they are written there:
    beside what ruff finds (S301, S302, S506), those of numpy and torch that do not say that they
    unpickle nothing.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, owner = ast.unparse(node.func), ast.unparse(node.func.value)
            wanted = _SAFE.get(node.func.attr, {}).get(owner)
            given = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
            if (wanted and wanted not in given) or called.endswith(_UNPICKLERS):
                found.append(ast.unparse(node))
    return found


def main() -> None:
    graph = arrows()
    heights = floors(graph)
    known = modules()
    files = {
        module: {name for name in imports(path, known) if name != module}
        for module, path in known.items()
    }
    for name in sorted(graph, key=lambda name: (-heights[name], name)):
        print(f"{heights[name]:3}  {name:32} -> {', '.join(sorted(graph[name]))}")
    print(
        f"{len(graph)} rooms, {len(set(heights.values()))} floors, {sum(map(len, graph.values()))}"
        f" arrows, {len(circles(graph))} circles of rooms"
    )
    print(f"{len(circles(files))} circles of files: {[sorted(one) for one in circles(files)]}")


if __name__ == "__main__":
    main()
