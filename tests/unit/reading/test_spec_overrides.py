"""What `--set` says on the command line: text as it stands, YAML elsewhere, and a refusal that
names it instead of a line.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.catalogue import INSTALLED, load_spec
from search_spaces.reading.errors import Place
from search_spaces.reading.sections import Sections, apply_overrides
from search_spaces.reading.settings import Keys
from tests.helpers.specs import SEARCH, VALID, refusal, write

OVERRIDES = [
    ("method.epochs=many", "method.epochs", "whole number"),
    ("method.epochs=0", "method.epochs", "at least 1"),
    ("method.epoch=3", "method.epoch", 'did you mean "epochs"?'),
    ("epochs=3", "epochs", 'did you mean "method.epochs"?'),
    ("base.method.epochs=[1]", "method.epochs", "whole number"),
    ("schedule.split=[0.5, 0.6]", "schedule.split", "sum to 1.1"),
    ("schedule.stages=3", "schedule.stages", "disagrees"),
    ("method.labelled_per_batch=[20, 0]", "method.labelled_per_batch", "whole numbers, at least 1"),
    ("method.labelled_per_batch=[]", "method.labelled_per_batch", "whole numbers, at least 1"),
    ("method.labelled_per_batch=20", "method.labelled_per_batch", "whole numbers, at least 1"),
    (
        "method.labelled_per_batch=[64]",
        "method.labelled_per_batch",
        "no room for others in a batch of 64",
    ),
    ("method.preset=authors", "method.preset", "write extends: presets/"),
    ("seeds=[]", "seeds", "a list of different whole numbers"),
    ("seeds.0=1", "seeds.0", 'did you mean "seeds"?'),
    ("name=a/b", "name", "names a folder"),
    ("cases.two stages, NLS.method.nls=false", "cases.two stages, NLS.method.nls", "edit the file"),
    ("vary.method.nls=[true]", "method.nls", "choice"),
    ("vary.schedule.split={choice: [[1.0]]}", "schedule.split", "sets it"),
    ("search.algorithm=pbt", "search.algorithm", "reported bits would be wrong"),
    ("resources.workers=0", "resources.workers", "at least 1"),
    ("dataset.name=nothing", "dataset.name", "one of digits"),
    ("dataset.name=digits #1", "dataset.name", "'digits #1': must be one of digits"),
    ("dataset.path=\udcff", "dataset.path", "not UTF-8"),
    ("dataset.path=\x00", "dataset.path", "NUL"),
    ("baseline=two stages, NLS # it", "baseline", "not the name of a case"),
    ("orderings=[[a, b]]", "orderings", "not the name of a case"),
    ("method.epochs=5 # five", "method.epochs", "starts a comment"),
    ("method.epochs=# five", "method.epochs", "starts a comment"),
    ("seeds=[0, 1] #, 2]", "seeds", "starts a comment"),
    ("vary.method.nls={choice: [true]} # both", "vary.method.nls", "starts a comment"),
    ("search={algorithm: grid} # all", "search", "starts a comment"),
    ("cases={} # none", "cases", "starts a comment"),
    (f"cases={'[' * 100_000}", "cases", "nested deeper"),
    (f"cases={'? ' * 50_000}", "cases", "a key must be a plain word"),
    ("cases=| # none\n a", "cases", "starts a comment"),
    ("dataset={name: features, path: run #2.npz}", "dataset", "starts a comment"),
    ("dataset.name=null", "dataset.name", "one of digits"),
    ("budget.bits=10", "budget.bits", "the budget is 10"),
    ("method.epochs", None, "KEY=VALUE"),
    ("=3", None, "KEY=VALUE"),
    ("method.epochs=", "method.epochs", "no value"),
    ("method.epochs=[", None, "not valid YAML"),
    ("method.epochs=*a", "method.epochs", "anchors and aliases"),
    ("method.epochs=!!python/name:os.system x", "method.epochs", "tag"),
    ("method.epochs=\x00", None, "NUL"),
    ("method.epochs=\udcff", None, "not UTF-8"),
    ("method.\udcff=1", None, "KEY=VALUE"),
    ("method=3", "method", "must be a mapping"),
    ("base=3", "base", "must be a mapping"),
]


@pytest.mark.parametrize(
    ("override", "key", "says"), OVERRIDES, ids=[repr(text[:60]) for text, _, _ in OVERRIDES]
)
def test_a_bad_override_is_refused_and_named_instead_of_a_line(
    override: str, key: str | None, says: str, tmp_path: Path
) -> None:
    error = refusal(write(tmp_path, VALID), override)
    assert says in str(error), str(error)
    assert str(error).startswith("--set ")
    assert error.line is None
    assert error.key == key
    str(error).encode()


def set_path(value: str) -> object:
    """What `--set dataset.path=value` says."""
    sections = Sections(source=Place(), keys=Keys(INSTALLED))
    apply_overrides(sections, [f"dataset.path={value}"])
    return sections.trial["dataset.path"].value


@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)
)
@example("run #2.npz")
@example("#")
@example("yes")
@example("010")
@example("&a *b !c")
@example(" two  spaces ")
@example("a: {b")
@example('"a" and "b"')
@example('"a" # "b"')
@example("C:\\new\\table")
def test_text_from_a_shell_is_text(text: str) -> None:
    quoted = "'" + text.replace("'", "''") + "'"
    if (
        text.strip()
        and text != "null"
        and not (text.strip()[0] in "'\"" and text.strip()[-1] == text.strip()[0])
    ):
        assert set_path(text) == text
    if text.isprintable():
        # A quoted YAML scalar is what it quotes, which is how to say the rest.
        assert set_path(quoted) == text


def test_null_and_quotes_from_a_shell() -> None:
    assert set_path("null") is None
    assert set_path("'null'") == set_path('"null"') == "null"
    assert set_path('"a \\u00e9"') == "a é"
    assert set_path("~") == "~"


def test_a_file_with_a_number_sign_in_its_name_is_that_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "run", x=np.zeros((500, 8), np.float32), y=np.arange(500) % 5)
    (tmp_path / "run.npz").rename(tmp_path / "run")
    np.savez(tmp_path / "run #2.npz", x=np.zeros((700, 8), np.float32), y=np.arange(700) % 7)
    spec = load_spec("features_example.yaml", [f"dataset.path={tmp_path}/run #2.npz"])
    assert spec.base["dataset.path"] == f"{tmp_path}/run #2.npz"
    assert spec.facts.num_classes == 7


def test_the_name_and_the_baseline_of_a_sweep_are_text(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, VALID), ["name=12", "baseline=two stages, NLS"])
    assert (spec.name, spec.baseline) == ("12", "two stages, NLS")
    assert load_spec(write(tmp_path, VALID), ["baseline=null"]).baseline is None
    assert (
        load_spec(write(tmp_path, VALID), ["query.strategy= hard "]).base["query.strategy"]
        == "hard"
    )


def test_an_override_of_a_varied_key_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, SEARCH), "schedule.stages=3")
    assert "is varied" in str(error) and str(error).startswith("--set schedule.stages=3")


def test_a_batch_that_workers_cannot_share_is_refused_where_it_was_asked_for(
    tmp_path: Path,
) -> None:
    assert str(refusal(write(tmp_path, VALID), "resources.workers=3")).startswith(
        "--set resources.workers=3"
    )


def test_orderings_compare_cases_and_go_with_them() -> None:
    spec = load_spec("ablations.yaml")
    assert ("two stages, NLS", "full labels only") in spec.orderings
    assert load_spec("ablations.yaml", ["orderings=null"]).orderings == ()
    assert load_spec("ablations.yaml", ["cases={}"]).orderings == ()
