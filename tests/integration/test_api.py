"""Sweeps from Python: the same folders and numbers as from the command line, tables, callbacks, and
plug-ins as objects.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator import api as oc
from orchestrator import cli
from orchestrator.reporting import results
from orchestrator.sweeps import resolved
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.errors import SpecError
from tests.helpers.sweeps import ONE_TRIAL_SPEC, TINY_SPEC, outcome_of, written
from tests.toys.first_ids import FirstIds
from trainers.errors import UserError


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
