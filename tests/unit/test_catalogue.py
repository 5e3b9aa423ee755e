"""The catalogue: names without loading, classes of installed packages, and broken packages that
spoil nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from orchestrator.catalogue import BUILT_IN, Catalogue, load_spec
from search_spaces.reading.errors import SpecError
from tests.helpers.packages import install


@dataclass(frozen=True)
class Toy:
    name: ClassVar[str] = "toy"


GOOD = (
    "from dataclasses import dataclass\nfrom typing import ClassVar\n@dataclass(frozen=True)\nclass"
    " Far:\n    name: ClassVar[str] = 'far'\n"
)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which tests install packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, known in BUILT_IN.items() for name in known]
)
def test_every_built_in_class_is_where_the_table_says(kind: str, name: str) -> None:
    assert Catalogue().load(kind, name).name == name  # type: ignore[arg-type]


def test_a_package_offers_a_plugin_by_an_entry_point(packages: Path) -> None:
    install(packages, "catalogue_good", GOOD, "[orchestrate.queries]\nfar = catalogue_good:Far\n")
    catalogue = Catalogue()
    assert catalogue.names("query") == (*BUILT_IN["query"], "far")
    assert "catalogue_good" not in sys.modules, "names load no class"
    assert catalogue.load("query", "far").name == "far"
    assert "far" not in Catalogue(installed=False).names("query")
    with pytest.raises(KeyError):
        catalogue.load("oracle", "far")


def test_a_broken_package_is_named_and_spoils_nothing_else(packages: Path) -> None:
    install(
        packages,
        "catalogue_broken",
        "import not_there_at_all\n",
        "[orchestrate.queries]\nbad = catalogue_broken:Bad\n",
    )
    install(packages, "catalogue_whole", GOOD, "[orchestrate.queries]\nfar = catalogue_whole:Far\n")
    catalogue = Catalogue()
    assert {"bad", "far"} <= set(catalogue.names("query"))
    assert catalogue.load("query", "far").name == "far"
    with pytest.raises(
        SpecError,
        match=(
            r"query bad of the installed package catalogue_broken 1\.2 cannot be loaded"
            r" \(ModuleNotFoundError: .*not_there"
        ),
    ):
        catalogue.load("query", "bad")


@pytest.mark.parametrize("written", ["in the file", "on the command line"])
def test_a_key_that_a_broken_package_may_have_is_refused_with_the_package(
    packages: Path, tmp_path: Path, written: str
) -> None:
    install(
        packages,
        "catalogue_hurt",
        "import not_there_at_all\n",
        "[orchestrate.queries]\nbad = catalogue_hurt:Bad\n",
    )
    spec = tmp_path / "mine.yaml"
    inside = written == "in the file"
    base = "base: {query: {strategy: bad, reach: 3}}\n" if inside else ""
    spec.write_text(f"extends: smoke.yaml\nname: mine\n{base}")
    with pytest.raises(
        SpecError, match=r"query\.reach.*unknown key.*query bad of .*catalogue_hurt 1\.2 cannot be"
    ):
        load_spec(str(spec), () if inside else ("query.reach=3",))


def test_a_class_of_another_name_or_of_no_kind_is_refused(packages: Path) -> None:
    install(
        packages,
        "catalogue_odd",
        GOOD,
        "[orchestrate.queries]\nnear = catalogue_odd:Far\ncompare = catalogue_odd:dataclass\n",
    )
    for name in ("near", "compare"):
        with pytest.raises(
            SpecError, match=rf"catalogue_odd 1\.2: .* is not a dataclass whose `name` is '{name}'"
        ):
            Catalogue().load("query", name)


def test_a_name_that_two_packages_offer_is_refused_with_both(packages: Path) -> None:
    for package in ("catalogue_one", "catalogue_two"):
        install(packages, package, GOOD, f"[orchestrate.queries]\nfar = {package}:Far\n")
    with pytest.raises(
        SpecError, match=r"offered by several packages: catalogue_one 1\.2, catalogue_two 1\.2"
    ):
        Catalogue().load("query", "far")


def test_no_package_takes_the_place_of_what_is_built_in(packages: Path) -> None:
    install(
        packages,
        "catalogue_greedy",
        "class M:\n    name = 'mean_teacher'\n",
        "[orchestrate.methods]\nmean_teacher = catalogue_greedy:M\n",
    )
    assert Catalogue().load("method", "mean_teacher").__module__ == "trainers.mean_teacher.settings"


def test_a_class_handed_over_in_python_is_found_first() -> None:
    catalogue = Catalogue().adding("query", Toy)
    assert catalogue.load("query", "toy") is Toy and "toy" in catalogue.names("query")
    assert "toy" not in catalogue.names("oracle") and "toy" not in Catalogue().names("query")


def test_classes_load_nothing_heavy() -> None:
    code = """
import sys
from orchestrator.catalogue import BUILT_IN, Catalogue
for kind, known in BUILT_IN.items():
    for name in known:
        Catalogue().load(kind, name)
heavy = "torch ray optuna pydantic sklearn PIL pyarrow pandas scipy"
print(sorted(set(heavy.split()) & set(sys.modules)))
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
