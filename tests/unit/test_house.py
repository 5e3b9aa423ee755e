"""The rooms of the code: which there are, and that no arrow between them leads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalogue import BUILT_IN
from tests.helpers import house


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_no_room_and_no_file_is_part_of_a_circle() -> None:
    known = house.modules()
    files = {
        module: {name for name in house.imports(path, known) if name != module}
        for module, path in known.items()
    }
    assert house.circles(house.arrows()) == []
    assert house.circles(files) == []


def test_a_circle_is_found_wherever_the_import_stands(tmp_path: Path) -> None:
    above = {
        "orchestrator/a/__init__.py": "",
        "orchestrator/a/one.py": "from orchestrator.b import two\n",
    }
    _write(
        tmp_path,
        above
        | {
            "orchestrator/b/__init__.py": "",
            "orchestrator/b/two.py": "def f():\n    from orchestrator.a.one import f\n",
        },
    )
    assert house.circles(house.arrows(tmp_path)) == [{"orchestrator.a", "orchestrator.b"}]


def test_a_room_stands_above_all_that_it_imports_from(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "orchestrator/cli.py": "import orchestrator.b.two\nfrom trainers import stage\n",
            "orchestrator/b/__init__.py": "",
            "orchestrator/b/two.py": "from trainers.stage import x\n",
            "trainers/__init__.py": "",
            "trainers/stage.py": "x = 1\n",
        },
    )
    graph = house.arrows(tmp_path)
    assert house.floors(graph) == {"orchestrator.cli": 2, "orchestrator.b": 1, "trainers": 0}
    assert graph["orchestrator.cli"] == {"orchestrator.b", "trainers"}


def test_nothing_private_of_ray_is_used() -> None:
    """What Ray does not publish may change with every release of it."""
    files = [
        path
        for folder in ("orchestrator", "search_spaces", "trainers", "tests")
        for path in sorted((house.ROOT / folder).rglob("*.py"))
    ]
    assert house.ROOT / "orchestrator/engines/ray/cluster.py" in files
    assert [
        (str(path), *used) for path in files if (used := [*house.private_uses(path, "ray")])
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        "from ray._raylet import GcsClient",
        "import ray._private.worker",
        "from ray import _private",
        "def f():\n    from ray.autoscaler._private.util import prepare_config",
        "import ray\nray._private.worker.global_worker",
    ],
)
def test_what_is_private_is_found_wherever_it_stands(line: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(f"import ray.util\nprint(ray.__version__)\n{line}\n")
    assert list(house.private_uses(tmp_path / "one.py", "ray"))
    assert list(house.private_uses(tmp_path / "one.py", "torch")) == []


def test_nothing_that_is_read_may_run_a_program() -> None:
    """What another user or machine wrote, or may have changed: objects of a store, checkpoints,
    caches, data.
    """
    files = list(house.modules().values())
    assert house.ROOT / "trainers/checkpoint.py" in files
    assert [
        (str(path), *calls) for path in files if (calls := house.unpickling_calls(path.read_text()))
    ] == []


@pytest.mark.parametrize(
    "call",
    [
        "np.load(file)",
        "numpy.load(file, allow_pickle=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "ray.cloudpickle.loads(content)",
        "joblib.load(file)",
    ],
)
def test_a_call_that_unpickles_is_found(call: str) -> None:
    assert house.unpickling_calls(f"def f(file, content):\n    return {call}\n") == [call]
    assert not house.unpickling_calls(
        "np.load(f, allow_pickle=False); torch.load(f, weights_only=True)"
    )


ABOUT_ONE_CLASS = {
    "orchestrator/contracts/methods.py": ["'multiclass' in method.tasks"],
}
"""What a name may decide outside the file or folder that it is of: which laws a method is held to,
where a plug-in may be for tasks of which this program knows nothing.
"""


def test_what_a_method_or_a_task_is_called_decides_nothing() -> None:
    homes = {}
    for kind in ("method", "task"):
        for name, path in BUILT_IN[kind].items():
            module = path.partition(":")[0]
            # A method has a folder, a task a file.
            homes[name] = module.rpartition(".")[0] if kind == "method" else module
    found = {}
    for module, path in house.modules().items():
        others = {name for name, home in homes.items() if not module.startswith(home)}
        if branches := house.branches_on(others, path.read_text()):
            found[path.relative_to(house.ROOT).as_posix()] = branches
    assert found == ABOUT_ONE_CLASS


@pytest.mark.parametrize(
    "branch",
    [
        "if task.name == 'multilabel':\n    pass",
        "x = 1 if name in ('multilabel', 'other') else 2",
        "match name:\n    case 'multilabel':\n        pass",
    ],
)
def test_a_branch_on_a_name_is_found_however_it_is_written(branch: str) -> None:
    assert len(house.branches_on({"multilabel"}, branch)) == 1
    assert not house.branches_on({"another"}, branch)


ELSEWHERE = {
    # The program's own files, and where the data lies.
    "sweeps/folder.py": {"Path", "(root / package).rglob", "path.read_bytes"},
    "reporting/html.py": {"resources.files('orchestrator.reporting').joinpath(name).read_text"},
    "reporting/published.py": {"Path", "FILE.read_text"},
    # A copy of the report for people, where the sweep is kept in no folder.
    "reporting/report_files.py": {"FolderStore", "Path"},
    # A node's folder for work, where trainers write.
    "sweeps/stage_store.py": {
        "left.work_dir.mkdir",
        "work_dir.glob",
        "path.read_bytes",
        "commit_file",
    },
    "engines/ray/node.py": {"self.request.work_dir.glob"},
    "engines/ray/broker.py": {"left.work_dir.mkdir"},
    "engines/ray/worker_group.py": {"work.mkdir"},
    "engines/ray/engine.py": {"shutil.rmtree"},
    # A sweep's default folder, which the store's opener takes.
    "driver.py": {"Path"},
}
"""What is no file of a sweep: file -> calls."""

RAYS_OWN = {
    f"engines/ray/{name}.py"
    for name in (
        *("autoscaler", "cluster", "cluster_file", "inspect_cluster", "jobs", "joining"),
        *("preflight", "scratch"),
    )
}
"""Files about Ray's own files on a machine."""


def test_what_a_sweep_keeps_is_touched_by_its_store_alone() -> None:
    root = house.ROOT / "orchestrator"
    rooms = [root / name for name in ("sweeps", "reporting", "engines", "search")]
    files = [path for room in rooms for path in room.rglob("*.py")]
    found = {}
    for path in [*files, root / "trial.py", root / "driver.py"]:
        name = path.relative_to(root).as_posix()
        if name not in RAYS_OWN and (calls := house.disk_calls(path.read_text())):
            found[name] = calls
    assert found == ELSEWHERE


def test_a_path_and_a_file_are_found_however_they_are_used() -> None:
    source = "def f(layout):\n    p = Path(layout.location)\n    (p / 'x').unlink()\n    open(p)\n"
    assert house.disk_calls(source) == {"Path", "(p / 'x').unlink", "open"}
