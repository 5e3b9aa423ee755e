"""docs/extending.md: what it shows is installed as it stands there, and swept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contracts import (
    MethodContract,
    OracleContract,
    QueryContract,
    SearchContract,
    SourceContract,
    StoreContract,
    TaskContract,
)

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILE = re.compile(r"^`([\w/]+\.(?:py|toml|yaml))`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SPEC = """\
name: extended
dataset: {name: digits, validation: {from: split, per_class: 5}}
budget: {full_labels: 40, mode: exact}
base:
  method: {name: mean_teacher, epochs: 1, batch_size: 256}
  schedule: {initial_labels_per_class: 2, split: [0.5, 0.5]}
  query: {strategy: spread, of: 5}
  oracle: {name: tired, skips: 0.5}
cases:
  spread and tired: {}
  neither: {query.strategy: random, oracle.name: labels}
  two classes at once: {task.name: families}
seeds: [0]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's package installed in it."""
    source, site = tmp_path_factory.mktemp("my-plugins"), tmp_path_factory.mktemp("site")
    files = FILE.findall(PAGE.read_text())
    assert files, "the page shows no files"
    for name, text in files:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    # Offline, and beside this environment: nothing of it is changed.
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return site


def orchestrate(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(
        [str(site), str(PAGE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_package_made_from_the_page_is_swept_by_the_names_it_offers(
    site: Path, tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    done = orchestrate(site, tmp_path, "sweep", "spec.yaml", "--engine", "inline", "--out", "out")
    assert done.returncode == 0, done.stderr
    shown = orchestrate(site, tmp_path, "ledger", "verify", "out")
    assert shown.returncode == 0 and "whole" in shown.stdout
    # Without the package the records are whole, and it is said what is missing.
    for words in (("report", "out"), ("status", "out"), ("ledger", "verify", "out")):
        unread = orchestrate(tmp_path, tmp_path, *words)
        assert unread.returncode == 2
        assert "which is not installed here" in unread.stderr and "damaged" not in unread.stderr
    # Without the package the same spec names the strategy and what there is.
    without = orchestrate(tmp_path, tmp_path, "plan", "spec.yaml")
    assert without.returncode == 2
    assert "spec.yaml:7: query.strategy = 'spread': must be one of random, easy" in without.stderr


def test_a_setting_of_a_plugin_is_refused_like_any_other(site: Path, tmp_path: Path) -> None:
    for wrong, said in (
        ("of: 0", "query.of = 0: must be a whole number, at least 1"),
        ("of: 5, off: 1", 'query.off = 1: unknown key; did you mean "of"?'),
    ):
        (tmp_path / "spec.yaml").write_text(SPEC.replace("of: 5", wrong))
        done = orchestrate(site, tmp_path, "plan", "spec.yaml")
        assert done.returncode == 2
        assert f"spec.yaml:7: {said}" in done.stderr


def test_keys_lists_what_an_installed_package_may_be_set_to(site: Path, tmp_path: Path) -> None:
    done = orchestrate(site, tmp_path, "keys", "query")
    assert done.returncode == 0, done.stderr
    assert "Images in a stretch." in " ".join(done.stdout.split())


def test_a_data_source_of_the_page_is_swept(site: Path, tmp_path: Path) -> None:
    # Three classes are no pairs, which the page's task says.
    text = SPEC.replace("name: digits", "name: wine, every: 4").replace("40", "30")
    (tmp_path / "spec.yaml").write_text(text)
    done = orchestrate(site, tmp_path, "plan", "spec.yaml")
    assert 'case "two classes at once": task.name = ' in done.stderr
    assert "3 classes are no pairs" in done.stderr
    text = text.replace("  two classes at once: {task.name: families}\n", "")
    (tmp_path / "spec.yaml").write_text(text)
    done = orchestrate(site, tmp_path, "sweep", "spec.yaml", "--engine", "inline", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "wine" in (tmp_path / "out" / "resolved.yaml").read_text()
    (tmp_path / "spec.yaml").write_text(text.replace("every: 4", "every: 1"))
    done = orchestrate(site, tmp_path, "plan", "spec.yaml")
    assert "spec.yaml:2: dataset.every = 1: must be a whole number, at least 2" in done.stderr


def test_a_method_of_the_page_is_swept(site: Path, tmp_path: Path) -> None:
    text = SPEC.replace("{name: mean_teacher, epochs: 1, batch_size: 256}", "{name: means}")
    (tmp_path / "spec.yaml").write_text(text)
    done = orchestrate(site, tmp_path, "sweep", "spec.yaml", "--engine", "inline", "--out", "out")
    assert done.returncode == 0, done.stderr
    for record in (tmp_path / "out").glob("trials/*/stages/*.json"):
        found = json.loads(record.read_text())
        assert (found["backbone"], found["epochs"]) == ("means", 2)
        assert found["test_top1_last"] > 50
    (tmp_path / "spec.yaml").write_text(text.replace("{name: means}", "{name: means, epochs: 0}"))
    done = orchestrate(site, tmp_path, "plan", "spec.yaml")
    assert "spec.yaml:5: method.epochs = 0: must be a whole number, at least 1" in done.stderr


KINDS = {
    "query": ("spread.py",),
    "method": ("means.py", "means_trainer.py"),
    "oracle": ("tired.py",),
    "source": ("wine.py",),
    "task": ("families.py",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_of_the_page_has_fewer_than_30_lines(kind: str) -> None:
    files = dict(FILE.findall(PAGE.read_text()))
    lines = [
        line for name in KINDS[kind] for line in files[f"my_plugins/{name}"].splitlines() if line
    ]
    assert 10 < len(lines) < 30


@pytest.mark.parametrize(
    ("file", "contracts"),
    [
        (
            "test_plugins.py",
            (
                QueryContract,
                OracleContract,
                SourceContract,
                TaskContract,
                SearchContract,
                StoreContract,
            ),
        ),
        ("test_means.py", (MethodContract,)),
    ],
)
def test_the_laws_of_the_page_are_run_by_pytest(
    site: Path, tmp_path: Path, file: str, contracts: tuple[type, ...]
) -> None:
    laws_of = [name for one in contracts for name in dir(one) if name.startswith("test_")]
    (laws,) = (text for name, text in FILE.findall(PAGE.read_text()) if name == file)
    (tmp_path / file).write_text(laws)
    path = os.pathsep.join([str(site), str(PAGE.parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", file],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(laws_of)} passed" in done.stdout


def test_a_search_of_the_page_draws_its_candidates_on_ray(site: Path, tmp_path: Path) -> None:
    text = (
        SPEC[: SPEC.index("cases:")]
        + "vary: {method.consistency_weight: {uniform: [1, 20]}}\nsearch: {algorithm: halving,"
        " num_candidates: 2}\nseeds: [0]\n"
    )
    (tmp_path / "spec.yaml").write_text(text)
    done = orchestrate(site, tmp_path, "sweep", "spec.yaml", "--local", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "candidates").iterdir())) == 2


def test_a_store_of_the_page_keeps_a_sweep(site: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    place = "box://kept/x.db"
    done = orchestrate(site, tmp_path, "sweep", "spec.yaml", "--engine", "inline", "--out", place)
    assert done.returncode == 0, done.stderr
    shown = orchestrate(site, tmp_path, "ledger", "verify", place)
    assert shown.returncode == 0 and f"{place}: whole" in shown.stdout
    assert (tmp_path / "runs" / "x.db" / "report" / "report.html").is_file()
    without = orchestrate(tmp_path, tmp_path, "status", place)
    assert without.returncode == 2
    assert "no installed package keeps sweeps at box://" in without.stderr
