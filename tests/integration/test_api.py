"""Sweeps from Python: the same folders and numbers as from the command line, tables, callbacks, and
plug-ins as objects.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml

from orchestrator import api as oc
from orchestrator import cli
from orchestrator.labelling.queries.confidence import Mixed
from orchestrator.reporting import results
from orchestrator.sweeps import resolved
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.errors import SpecError
from tests.helpers.sweeps import ONE_TRIAL_SPEC, TINY_SPEC, outcome_of, written
from tests.toys.first_ids import FirstIds
from tests.toys.k_centre import KCentre
from trainers.errors import UserError
from trainers.mean_teacher.settings import MeanTeacherConfig


def spec_with(strategy: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    spec["base"]["query"] = {"strategy": strategy}
    return spec


def test_a_sweep_from_python_is_the_sweep_from_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, ONE_TRIAL_SPEC) / "spec.yaml"
    assert (
        cli.main(["sweep", str(path), "--engine", "inline", "--out", str(tmp_path / "typed")]) == 0
    )
    called: list[tuple[str, int]] = []
    made = oc.sweep(
        path,
        out=tmp_path / "made",
        progress=False,
        on_stage=lambda label, record: called.append((label, record.stage)),
    )
    from_dict = oc.sweep(yaml.safe_load(ONE_TRIAL_SPEC), out=tmp_path / "dict", progress=False)
    assert (
        outcome_of(tmp_path / "typed")
        == outcome_of(made.location)
        == outcome_of(from_dict.location)
    )
    assert called == [("two stages, NLS · seed 0", stage) for stage in range(3)]
    assert (Path(made.location) / "report" / "report.html").is_file()
    assert "1 finished" in repr(made)


def test_a_frame_has_a_row_for_each_stage_or_for_each_case(tmp_path: Path) -> None:
    made = oc.sweep(
        written(tmp_path, TINY_SPEC) / "spec.yaml", out=tmp_path / "out", progress=False
    )
    stages, cases = made.frame(), made.frame(by="case")
    assert len(stages) == 2 * 1 + 4 * 3
    assert len(cases) == 3
    for case in cases["case"]:
        last = stages[stages["case"] == case].groupby("seed").last()
        row = cases[cases["case"] == case].iloc[0]
        assert row["n"] == len(last) == 2
        assert row["test"] == pytest.approx(last["test"].mean()) and row["bits"] == pytest.approx(
            last["bits"].mean()
        )
    assert cases["baseline"].sum() == 1
    assert "<table" in made._repr_html_()


def test_an_error_of_a_callback_fails_no_trial_and_is_raised_at_the_end(tmp_path: Path) -> None:
    def broken(label: str, record: Any) -> None:
        raise RuntimeError("of the callback")

    with pytest.raises(RuntimeError, match="of the callback"):
        oc.sweep(
            written(tmp_path, ONE_TRIAL_SPEC) / "spec.yaml",
            out=tmp_path / "out",
            progress=False,
            on_stage=broken,
        )
    assert oc.load(tmp_path / "out").counts()["finished"] == 1


def test_what_is_no_spec_is_refused_in_one_line(tmp_path: Path) -> None:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    assert oc.plan(spec | {"seeds": [np.int64(3)]})["trials"][0]["seed"] == 3
    wrong = spec | {"dataset": {"name": "folder", "path": tmp_path / "nowhere"}}
    with pytest.raises(SpecError, match="nowhere"):
        oc.plan(wrong)
    for stray in (object(), FirstIds, {1, 2}):
        with pytest.raises(UserError, match=r"no spec file could|must be|is not allowed"):
            oc.plan(spec | {"seeds": stray})
    with pytest.raises(UserError, match="engine = 'foo': write 'inline' or 'ray'"):
        oc.sweep(spec, out=tmp_path / "out", engine="foo")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_plugin_is_an_object_where_yaml_takes_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = oc.sweep(spec_with(FirstIds(start=700)), out=tmp_path / "out", progress=False)
    [trial] = results.load(
        SweepLayout.at(made.location), catalogue=_catalogue(made.location)
    ).trials
    assert trial.trial.config.query.strategy == FirstIds(start=700)
    assert resolved.read(SweepLayout.at(made.location))["plugins"] == [
        {
            "kind": "query",
            "name": "first_ids",
            "class": "tests.toys.first_ids:FirstIds",
            "version": 1,
        }
    ]
    assert len(made.frame()) == 3
    # A command cannot know the class, and says which it is.
    for verb in (["resume", "--engine", "inline"], ["report"], ["status"]):
        assert cli.main([*verb, made.location]) == 2
        assert "tests.toys.first_ids:FirstIds" in capsys.readouterr().err
    with pytest.raises(UserError, match="plugins=\\[FirstIds\\]"):
        oc.load(made.location)
    record = Path(made.location) / "trials" / trial.trial.id / "stages" / "0002.json"
    before = record.read_bytes()
    record.unlink()
    again = oc.resume(made.location, plugins=[FirstIds], progress=False)
    assert len(again.frame()) == 3
    assert record.read_bytes() == before


def _catalogue(root: str) -> Any:
    layout = SweepLayout.at(root)
    return resolved.catalogue_of(layout, resolved.read(layout), [FirstIds])


def test_settings_of_an_object_are_checked_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"query\.start = -1: must be a whole number, at least 0"):
        oc.plan(spec_with(FirstIds(start=-1)))
    assert oc.plan(spec_with(FirstIds()))["trials"][0]["config"]["query"]["strategy"] == "first_ids"


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = (
        "import sys, orchestrator\nprint(sorted(name for name in sys.modules if name.split('.')[0]"
        " in ('orchestrator', 'numpy', 'pandas', 'torch', 'ray')))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "['orchestrator']"
    )


def varied(*options: Any, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    del spec["cases"]
    return spec | {"vary": {"query.strategy": {"choice": list(options)}} | more}


def strategies_of(spec: dict[str, Any]) -> list[Any]:
    """Returns the query strategy of each trial, as the spec with names reads it."""
    keys = ("strategy", "start", "limit", "easy_share")
    return [
        {key: found for key in keys if (found := trial["config"]["query"].get(key)) is not None}
        for trial in oc.plan(spec)["trials"]
    ]


def test_objects_may_be_varied_and_keep_their_settings(tmp_path: Path) -> None:
    spec = varied(FirstIds(start=7), "random", KCentre(), Mixed(easy_share=0.25))
    assert strategies_of(spec) == [
        {"strategy": "first_ids", "start": 7},
        {"strategy": "random"},
        {"strategy": "k_centre", "limit": 50},
        {"strategy": "mixed", "easy_share": 0.25},
    ]
    # The base and the cases set another object of the same class.
    spec = varied(FirstIds(), "random")
    spec["base"]["query"] = {"strategy": FirstIds(start=9)}
    assert strategies_of(spec)[0] == {"strategy": "first_ids", "start": 0}
    spec = varied(FirstIds(start=7), "random")
    made = oc.sweep(spec, out=tmp_path / "out", progress=False)
    assert made.counts()["finished"] == 2
    assert len(oc.load(made.location, plugins=[FirstIds]).frame()) == 6


def test_methods_are_varied_by_their_section_too() -> None:
    spec = varied("random")
    spec["vary"] = {"method": {"choice": [MeanTeacherConfig(epochs=3), MeanTeacherConfig.name]}}
    with pytest.raises(
        SpecError, match=r"method\.epochs: is a setting of .* and of 'mean_teacher'"
    ):
        oc.plan(spec)
    spec["vary"] = {"method": {"choice": [MeanTeacherConfig(epochs=3)]}}
    assert [trial["config"]["method"]["epochs"] for trial in oc.plan(spec)["trials"]] == [3]


@dataclass(frozen=True, kw_only=True)
class Other(FirstIds):
    name: ClassVar[str] = "other"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (varied(FirstIds(start=7), FirstIds(start=8)), "two objects of class FirstIds"),
        (varied(FirstIds(start=7), Other()), "query.start: is a setting of"),
        (varied(FirstIds(start=7), Other(start=8)), "query.start: is a setting of"),
        (
            varied(FirstIds(start=7), **{"query.start": {"choice": [1, 2]}}),
            "query.start: is varied, and an object in a choice",
        ),
    ],
)
def test_objects_that_cannot_be_told_apart_by_name_are_refused(
    spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        oc.plan(spec)


def test_a_class_with_the_name_of_another_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(FirstIds):
        name: ClassVar[str] = "random"

    said = (
        r"query\.strategy: is an object of .*:test_a_class.*Mine, whose name 'random' is that of"
        r" another query, orchestrator\.labelling\.queries\.chance:Random; give the class a name"
    )
    for spec in (spec_with(Mine()), varied(Mine(), "easy")):
        with pytest.raises(SpecError, match=said):
            oc.plan(spec)
    spec = spec_with(FirstIds())
    spec["cases"] = {"a": {}, "b": {"query.strategy": dataclass(frozen=True)(_again())()}}
    with pytest.raises(SpecError, match="whose name 'first_ids' is that of another query"):
        oc.plan(spec)


def _again() -> type[Any]:
    """Returns another class of the name first_ids."""

    class Again(FirstIds):
        name: ClassVar[str] = "first_ids"

    return Again


def test_an_object_without_a_name_is_refused() -> None:
    @dataclass(frozen=True)
    class Nameless:
        of: int = 3

    with pytest.raises(SpecError, match="Nameless, which has no name"):
        oc.plan(spec_with(Nameless()))
