"""`orchestrate keys`: what can be set is said by the settings themselves, those of installed
packages among them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator import cli
from orchestrator.catalogue import INSTALLED, Catalogue, load_spec
from orchestrator.commands.keys import Row, json_schema, key_rows
from search_spaces.reading.errors import ABSENT, SpecError
from search_spaces.reading.settings import PLUGINS
from search_spaces.reading.yaml_source import PACKAGED
from tests.helpers.packages import install
from tests.helpers.specs import SEARCH, VALID, write

ROWS = list(key_rows(Catalogue(installed=False)))

TOY = """
from dataclasses import dataclass
from typing import Annotated, ClassVar
from annotated_types import Interval

{classes}
"""

TOY_CLASS = '''
@dataclass(frozen=True, slots=True, kw_only=True)
class {cls}:
    """A toy."""
    name: ClassVar[str] = "toy"
    needs: ClassVar[tuple[str, ...]] = ()
    adaptive: ClassVar[bool] = False
    epochs: Annotated[int, Interval(ge=1, le=7000)] = 99
    """How long a toy {kind} takes."""
    heat: Annotated[float, Interval(gt=0, lt=1)]
    """What must be given to a toy {kind}."""
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a plug-in of each kind, and another whose plug-ins cannot be
    loaded.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    kinds = sorted(slot.kind for slot in PLUGINS.values())
    groups = {
        kind: {"query": "queries", "search": "searches"}.get(kind, f"{kind}s") for kind in kinds
    }
    classes = "".join(TOY_CLASS.format(cls=f"Toy{kind.title()}", kind=kind) for kind in kinds)
    points = "".join(
        f"[orchestrate.{groups[kind]}]\ntoy = keys_toys:Toy{kind.title()}\n" for kind in kinds
    )
    install(tmp_path, "keys_toys", TOY.format(classes=classes), points)
    install(
        tmp_path,
        "keys_broken",
        "import not_there_at_all\n",
        "[orchestrate.queries]\nbad = keys_broken:Bad\n",
    )
    return tmp_path


def rows_of(key: str, rows: list[Row]) -> dict[str | None, Row]:
    return {row.plugin: row for row in rows if row.key == key}


def test_a_key_says_its_type_limits_default_and_meaning() -> None:
    row = rows_of("method.epochs", ROWS)["mean_teacher"]
    assert (row.allowed, row.default, row.meaning) == (
        "a whole number, at least 1 and at most 100000",
        20,
        "Passes over the unlabelled images in one stage.",
    )
    assert rows_of("schedule.initial_labels_per_class", ROWS)[None].default is ABSENT
    assert "mixed" in rows_of("query.easy_share", ROWS)


def test_every_key_has_a_meaning() -> None:
    assert [row.key for row in ROWS if not row.meaning and row.key != "dataset.name"] == []


def test_every_key_that_a_spec_can_say_is_listed() -> None:
    for name in ("ablations.yaml", "ablations_images.yaml", "smoke.yaml", "stage_schedules.yaml"):
        assert load_spec(name).base.keys() <= {row.key for row in ROWS}


def test_an_installed_package_brings_its_keys(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(key_rows(INSTALLED))
    for section, slot in PLUGINS.items():
        row = rows_of(f"{section}.epochs", rows)["toy"]
        assert (row.default, row.meaning) == (99, f"How long a toy {slot.kind} takes.")
        assert rows_of(f"{section}.heat", rows)["toy"].default is ABSENT
        assert "toy" in rows_of(slot.key, rows)[None].allowed
    assert rows_of("method.epochs", rows)["mean_teacher"].default == 20
    assert cli.main(["keys", "query"]) == 0
    said = capsys.readouterr()
    assert "query.heat" in said.out and "method." not in said.out
    assert "left out: " in said.err and "keys_broken 1.2 cannot be loaded" in said.err
    assert (
        json_schema(INSTALLED)["properties"]["base"]["properties"]["oracle"]["properties"][
            "epochs"
        ]["maximum"]
        == 7000
    )


def test_settings_of_installed_plugins_stand_apart(toys: Path, tmp_path: Path) -> None:
    text = VALID.replace("strategy: random", "strategy: toy\n    heat: 0.5")
    assert load_spec(write(tmp_path, text)).base["query.epochs"] == 99
    for override, says in (
        ("query.heat=2", "must be a number, more than 0 and less than 1"),
        (
            "query.easy_share=0.5",
            "query toy has no such setting; write query.strategy: mixed, or remove it",
        ),
        ("query.het=0.5", 'did you mean "heat"?'),
    ):
        with pytest.raises(SpecError) as caught:
            load_spec(write(tmp_path, text), [override])
        assert says in str(caught.value) and str(caught.value).startswith(f"--set {override}")
    with pytest.raises(SpecError, match=r"query toy needs query\.heat"):
        load_spec(write(tmp_path, VALID), ["query.strategy=toy"])
    with pytest.raises(
        SpecError,
        match=(
            r"query.strategy = 'bad': query bad of the installed package keys_broken 1\.2 cannot be"
            r" loaded"
        ),
    ):
        load_spec(write(tmp_path, VALID), ["query.strategy=bad"])
    assert load_spec(write(tmp_path, VALID)).base["method.epochs"] == 20


def test_an_unknown_prefix_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "method.epoch_s"]) == 2
    assert 'did you mean "epochs"?' in capsys.readouterr().err
    assert cli.main(["keys", "base.method.epochs"]) == 0
    assert "20" in capsys.readouterr().out


def errors_of(text: str) -> list[Any]:
    schema = json_schema(Catalogue(installed=False))
    jsonschema.Draft202012Validator.check_schema(schema)
    return [
        ".".join(map(str, error.absolute_path))
        for error in jsonschema.Draft202012Validator(schema).iter_errors(yaml.safe_load(text))
    ]


@pytest.mark.parametrize(
    "text",
    [VALID, SEARCH, *(path.read_text() for path in sorted(PACKAGED.glob("*.yaml")))],
    ids=lambda text: text[:40],
)
def test_the_json_schema_takes_every_valid_spec(text: str) -> None:
    assert errors_of(text) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("    epochs: 20", "    epochs: 0", "base.method.epochs"),
        ("    epochs: 20", "    epochs: many", "base.method.epochs"),
        ("    nls: true", "    nsl: true", "base.method"),
        ("    strategy: random", "    strategy: randm", "base.query.strategy"),
        ("    per_class: 10", "    per_clas: 10", "dataset.validation"),
        (
            "    schedule.split: []",
            "    schedule.split: 3",
            "cases.full labels only.schedule.split",
        ),
        ("vary: {}", "vary: {method.epochs: {chioce: [1]}}", "vary.method.epochs"),
        ("seeds: [0, 1, 2]", "seeds: 3", "seeds"),
        ("resources:", "resource:", ""),
    ],
)
def test_the_json_schema_refuses_what_is_wrong(old: str, new: str, where: str) -> None:
    assert errors_of(VALID.replace(old, new, 1)) == [where]


def test_the_json_schema_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(json_schema(INSTALLED)))
