"""A data source in a file of its own is planned, prepared and swept like one of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import api as oc
from orchestrator import cli
from search_spaces.reading.errors import SpecError
from tests.helpers.packages import install
from tests.helpers.sweeps import ONE_TRIAL_SPEC
from tests.toys.blobs import Blobs
from trainers.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def spec_on(source: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    spec["dataset"]["name"] = source
    return spec


def test_a_source_is_an_object_where_yaml_takes_a_name(tmp_path: Path, cache: Path) -> None:
    made = oc.sweep(spec_on(Blobs(classes=3, spread=0.2)), out=tmp_path / "out", progress=False)
    rows = made.frame()
    assert len(rows) == 3
    # Blobs that hardly overlap are told apart, which takes their true labels.
    assert rows["test"].iloc[-1] > 50
    with pytest.raises(UserError, match=r"plugins=\[Blobs\]"):
        oc.load(made.location)
    assert len(oc.resume(made.location, plugins=[Blobs], progress=False).frame()) == 3
    (entry,) = (cache / "sources").glob("*.json")
    assert '"spread": 0.2' in entry.read_text()


def test_a_setting_of_a_source_is_part_of_a_trial_where_it_is_no_default() -> None:
    def of(**settings: Any) -> dict[str, Any]:
        found: dict[str, Any] = oc.plan(spec_on(Blobs(**settings)))["trials"][0]
        return found

    assert of()["id"] == of(spread=0.5)["id"]
    assert len({of()["id"], of(spread=0.6)["id"], of(train_per_class=50)["id"]}) == 3
    assert of(spread=0.6)["config"]["dataset"] == {
        "name": "blobs",
        "classes": 4,
        "train_per_class": 60,
        "spread": 0.6,
        "validation": {"from": "split", "per_class": 5, "share": 0.2},
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("name: blobs, spread: 0", "dataset.spread = 0: must be a number, more than 0"),
        ("name: blobs, spred: 1", 'dataset.spred = 1: unknown key; did you mean "spread"?'),
        ("name: blob", "dataset.name = 'blob': must be one of digits"),
        (
            "name: digits, spread: 1",
            "data set digits has no such setting; write dataset.name: blobs, or remove it",
        ),
        (
            "name: blobs, train_per_class: 3",
            "the validation split takes 5 images of each class, and the smallest class of blobs",
        ),
    ],
)
def test_a_setting_of_an_installed_source_is_refused_like_any_other(
    line: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path,
        "blob_package",
        "from tests.toys.blobs import Blobs\n",
        "[orchestrate.sources]\nblobs = blob_package:Blobs\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "spec.yaml"
    path.write_text(ONE_TRIAL_SPEC.replace("name: digits", line))
    with pytest.raises(SpecError) as caught:
        oc.plan(path)
    assert str(caught.value).startswith(f"{path}:2: ") and says in str(caught.value)


def test_an_installed_source_is_prepared_and_listed_by_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(
        tmp_path,
        "blob_package",
        "from tests.toys.blobs import Blobs\n",
        "[orchestrate.sources]\nblobs = blob_package:Blobs\n",
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert cli.main(["data", "list"]) == 0
        assert "orchestrate data prepare blobs" in capsys.readouterr().out
        assert cli.main(["data", "prepare", "blobs", "--set", "dataset.classes=7"]) == 0
        assert "420 training and 70 test items of 7 classes" in capsys.readouterr().out
        assert cli.main(["data", "prepare", "blobs", "--set", "dataset.classes=1"]) == 2
        assert "--set dataset.classes=1: dataset.classes = 1" in capsys.readouterr().err
        assert cli.main(["data", "prepare", "blobs", "--set", "seeds=[1]"]) == 2
        assert cli.main(["keys", "dataset.spread"]) == 0
        assert "Half the side of the box" in " ".join(capsys.readouterr().out.split())
        assert cli.main(["data", "list"]) == 0
        assert "7 classes, 420 training" in capsys.readouterr().out
    # Without the package its data is still there, and still listed.
    assert cli.main(["data", "list"]) == 0
    assert "7 classes, 420 training" in capsys.readouterr().out
