"""A spec that extends others is what one file with everything in it would be, and a mistake in any
of the files is named with that file and its line.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalogue import load_spec
from search_spaces.reading import extends
from search_spaces.reading.assemble import nest
from search_spaces.reading.config import Spec
from search_spaces.reading.errors import Place, SpecError
from search_spaces.reading.extends import MOST_DEEP, MOST_FILES
from search_spaces.reading.trials import enumerate_trials
from search_spaces.reading.yaml_source import Node

WHOLE: dict[str, Any] = {
    "name": "example",
    "dataset": {"name": "digits"},
    "budget": {"full_labels": 100},
    "base": {
        "method": {"name": "mean_teacher", "epochs": 20},
        "schedule": {"initial_labels_per_class": 2, "split": [0.5, 0.5]},
    },
    "cases": {"one": {"schedule.split": [1.0]}, "two": {}},
    "seeds": [0, 1],
}


def write(folder: Path, **files: Any) -> str:
    """Writes NAME.yaml for each, a text or a mapping; returns the path of `own`."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / "own.yaml")


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in WHOLE.items() if key not in keys}


def said(spec: Spec) -> dict[str, Any]:
    """What a spec says, apart from where it says it."""
    apart = {"source", "text", "extended", "places", "keys"}
    return {item.name: getattr(spec, item.name) for item in fields(spec) if item.name not in apart}


def refusal(path: str, *overrides: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    assert "\n" not in str(caught.value)
    return caught.value


VALUES: dict[str, list[Any]] = {
    "name": ["example", "other"],
    "seeds": [[0], [1, 2]],
    "baseline": [None, "a"],
    "dataset.name": ["digits"],
    "dataset.validation.per_class": [5, 9],
    "budget.full_labels": [100, 120],
    "base.method.name": ["mean_teacher"],
    "base.method.epochs": [1, 7, 20],
    "base.method.nls": [True, False],
    "base.schedule.initial_labels_per_class": [1, 2],
    "base.schedule.split": [[1.0], [0.5, 0.5]],
    "base.query.strategy": ["mixed"],
    "base.query.easy_share": [0.25, 0.75],
    "search.algorithm": ["grid"],
    "resources.max_concurrent": [1, 2],
}
NEEDED = {
    "name",
    "seeds",
    "dataset.name",
    "budget.full_labels",
    "base.method.name",
    "base.query.strategy",
    "base.schedule.initial_labels_per_class",
    "base.schedule.split",
}
CASES = [{}, {"method.epochs": 3}, {"query.easy_share": 0.1, "schedule.split": [1.0]}]
DOMAINS = [{"choice": [0.5]}, {"choice": [0.5, 0.75]}]


@st.composite
def layers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Three flat files that are complete together: key path -> value, cases and varied keys
    apart.
    """
    found: list[dict[str, Any]] = [{"cases": {"a": {}}}, {}, {}]
    for key, values in VALUES.items():
        where = draw(st.sets(st.integers(0, 2), min_size=int(key in NEEDED)))
        for number in where:
            found[number][key] = draw(st.sampled_from(values))
    for layer in found:
        cases = draw(st.dictionaries(st.sampled_from("ab"), st.sampled_from(CASES)))
        varied = draw(
            st.dictionaries(
                st.sampled_from(["method.momentum", "method.ema_decay"]), st.sampled_from(DOMAINS)
            )
        )
        for key, content in (("cases", cases), ("vary", varied)):
            if content:
                layer[key] = layer.get(key, {}) | content
    return found


def as_file(layer: dict[str, Any], **more: Any) -> dict[str, Any]:
    whole = {key: value for key, value in layer.items() if key in ("cases", "vary")}
    return {**more, **nest({k: v for k, v in layer.items() if k not in whole}), **whole}


@settings(max_examples=60, deadline=None)
@given(layers())
def test_extending_files_is_writing_one(found: list[dict[str, Any]]) -> None:
    low, middle, high = found
    merged: dict[str, Any] = low | middle | high
    for key in ("cases", "vary"):
        merged[key] = {name: value for layer in found for name, value in layer.get(key, {}).items()}
    with tempfile.TemporaryDirectory() as root:
        one = load_spec(write(Path(root) / "one", own=as_file(merged)))
        listed = write(
            Path(root) / "listed",
            low=as_file(low),
            middle=as_file(middle) or "vary: {}",
            own=as_file(high, extends=["low.yaml", "middle.yaml"]),
        )
        in_a_row = write(
            Path(root) / "row",
            low=as_file(low),
            middle=as_file(middle, extends="low.yaml"),
            own=as_file(high, extends="middle.yaml"),
        )
        assert said(load_spec(listed)) == said(load_spec(in_a_row)) == said(one)
        assert [trial.id for trial in enumerate_trials(load_spec(listed)) or []] == [
            trial.id for trial in enumerate_trials(one) or []
        ]


def test_a_part_may_lack_anything_and_the_whole_may_not(tmp_path: Path) -> None:
    for key in ("name", "dataset", "budget", "base", "seeds"):
        own = write(tmp_path, part={key: WHOLE[key]}, own={"extends": "part.yaml"} | without(key))
        assert load_spec(own).name == "example"
        error = refusal(
            write(tmp_path, part={"vary": {}}, own={"extends": "part.yaml"} | without(key))
        )
        assert (error.file, error.key, error.problem) == (own, key, "must be given")


def test_a_case_is_replaced_as_a_whole_and_null_removes_one(tmp_path: Path) -> None:
    parts = {"low": WHOLE | {"vary": {"method.nls": {"choice": [True, False]}}}}

    def rows(**own: Any) -> tuple[dict[str, Any], list[str]]:
        spec = load_spec(write(tmp_path, **parts, own={"extends": "low.yaml", **own}))
        return spec.cases, list(spec.vary)

    one, two = WHOLE["cases"]["one"], WHOLE["cases"]["two"]
    assert rows() == ({"one": one, "two": two}, ["method.nls"])
    replaced = {"method.epochs": 3}
    assert rows(cases={"one": replaced, "three": {}}) == (
        {"one": replaced, "two": {}, "three": {}},
        ["method.nls"],
    )
    assert rows(cases={"one": None}) == ({"two": two}, ["method.nls"])
    assert rows(cases=None) == ({}, ["method.nls"])
    assert rows(cases={}, vary={}) == rows()
    for key in ("method.nls", "base.method.nls"):
        assert rows(vary={key: None})[1] == []
    assert rows(vary={"base.method.nls": {"choice": [True]}})[1] == ["method.nls"]
    assert rows(vary=None)[1] == []


def test_null_in_a_file_that_extends_none_is_the_base_as_it_is(tmp_path: Path) -> None:
    whole = WHOLE | {"cases": {"one": None}}
    assert load_spec(write(tmp_path, own=whole)).cases == {"one": {}}
    own = {"extends": ["low.yaml", "high.yaml"]}
    spec = load_spec(write(tmp_path, low=WHOLE, high={"cases": {"one": None}}, own=own))
    assert spec.cases["one"] == {}


def test_naming_another_plug_in_leaves_the_settings_of_the_one_before_behind(
    tmp_path: Path,
) -> None:
    low = without("base") | {
        "base": WHOLE["base"] | {"query": {"strategy": "mixed", "easy_share": 0.3}}
    }
    for strategy, share in (("random", None), ("mixed", 0.3)):
        own = {"extends": "low.yaml", "base": {"query": {"strategy": strategy}}}
        assert load_spec(write(tmp_path, low=low, own=own)).base.get("query.easy_share") == share


def test_settings_in_a_file_that_names_no_plug_in_are_for_the_one_that_is_named_later(
    tmp_path: Path,
) -> None:
    part = {"base": {"query": {"easy_share": 0.3}, "method": {"epochs": 4}}}
    own = {"extends": "part.yaml"} | WHOLE
    own["base"] = WHOLE["base"] | {
        "query": {"strategy": "mixed"},
        "method": {"name": "mean_teacher"},
    }
    base = load_spec(write(tmp_path, part=part, own=own)).base
    assert (base["query.easy_share"], base["method.epochs"]) == (0.3, 4)


def test_of_two_ways_to_say_one_thing_the_higher_file_decides(tmp_path: Path) -> None:
    low = without("base")
    low["base"] = WHOLE["base"] | {
        "method": {"name": "mean_teacher", "labelled_per_batch": [8, 16]}
    }
    own = {
        "extends": "low.yaml",
        "budget": {"bits": 300},
        "base": {"method": {"labelled_share": 0.25}},
    }
    path = write(tmp_path, low=low, own=own)
    spec = load_spec(path)
    assert (spec.base["budget.bits"], spec.base["budget.full_labels"]) == (300, None)
    assert spec.base["method.labelled_per_batch"] is None
    spec = load_spec(path, ["budget.full_labels=90", "method.labelled_per_batch=[4]"])
    assert (spec.base["budget.bits"], spec.base["budget.full_labels"]) == (None, 90)
    assert spec.base["method.labelled_share"] is None


def test_set_goes_over_every_file_and_cannot_set_the_files(tmp_path: Path) -> None:
    own = {"extends": "low.yaml", "base": {"method": {"epochs": 5}}}
    path = write(tmp_path, low=WHOLE, own=own)
    assert load_spec(path).base["method.epochs"] == 5
    assert load_spec(path, ["method.epochs=6", "seeds=[4]"]).base["method.epochs"] == 6
    error = refusal(path, "extends=low.yaml")
    assert "--set extends=low.yaml: extends" in str(error) and "write a file" in str(error)


def test_a_path_starts_at_its_own_file_and_a_packaged_one_is_found_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    write(tmp_path, base=WHOLE)
    write(tmp_path / "deep", middle={"extends": "../base.yaml", "seeds": [5]})
    own = write(tmp_path / "side", own={"extends": "../deep/middle.yaml"})
    assert load_spec(own).seeds == (5,)
    absolute = write(tmp_path / "side", own={"extends": str(tmp_path / "base.yaml")})
    assert load_spec(absolute).seeds == (0, 1)

    own = write(tmp_path, own={"extends": "smoke.yaml", "seeds": [7]})
    spec = load_spec(own)
    assert (spec.name, spec.seeds, spec.extended[0].shown) == ("smoke", (7,), "smoke.yaml")
    write(tmp_path, smoke=WHOLE)
    assert load_spec(own).name == "example"


def test_the_files_are_told_with_who_extends_them_each_once(tmp_path: Path) -> None:
    low = write(tmp_path, low="seeds: [3]\n")
    own = write(
        tmp_path,
        left={"extends": "low.yaml", "name": "left"},
        right={"extends": "../" + tmp_path.name + "/low.yaml"},
        own={"extends": ["left.yaml", "right.yaml"]} | without("seeds", "name"),
    )
    found = {file.name: file for file in load_spec(own).extended}
    assert list(found) == ["1-left.yaml", "2-right.yaml", "3-low.yaml"]
    assert found["1-left.yaml"].extended_by == (("spec.yaml", "left.yaml"),)
    assert found["3-low.yaml"].extended_by == (
        ("1-left.yaml", "low.yaml"),
        ("2-right.yaml", f"../{tmp_path.name}/low.yaml"),
    )
    assert found["3-low.yaml"].text == Path(low).with_name("low.yaml").read_text()


@dataclass(frozen=True)
class Bad:
    """Files of which one is malformed in the line that carries the mark."""

    name: str
    files: dict[str, str]
    says: str
    key: str | None = "extends"


OWN = "extends: low.yaml\n"
BAD = [
    Bad("number", {"own": "extends: 5 #@"}, "must be the name or path of a spec file"),
    Bad("mapping", {"own": "extends: {a: b} #@"}, "must be the name or path of a spec file"),
    Bad("null", {"own": "seeds: [0]\nextends: null #@"}, "write extends: other.yaml"),
    Bad("none", {"own": "extends: [] #@"}, "write extends: other.yaml"),
    Bad("empty", {"own": "extends: '' #@"}, "write extends: other.yaml"),
    Bad("in_a_list", {"own": "extends:\n  - low.yaml\n  - [low.yaml] #@"}, "or a list of them"),
    Bad("twice", {"own": "extends:\n  - low.yaml\n  - ../bad/low.yaml #@"}, "names a file twice"),
    Bad("missing", {"own": "extends: lwo.yaml #@"}, 'no such file; did you mean "low.yaml"?'),
    Bad("nowhere", {"own": "extends: ../nowhere/zzz #@"}, "no such file; packaged: "),
    Bad("folder", {"own": "extends: . #@"}, "is a folder, not a spec file"),
    Bad("nul", {"own": 'extends: "a\\0b" #@'}, "holds an escape that is no character"),
    Bad("home", {"own": "extends: ~nobody-of-this-name/a.yaml #@"}, "write the whole path"),
    Bad("below", {"own": OWN, "low": "name: a\nextends: gone.yaml #@"}, "no such file"),
    Bad("itself", {"own": "extends: own.yaml #@"}, "is this very file"),
    Bad("each_other", {"own": OWN, "low": "extends: own.yaml #@"}, "by way of"),
    Bad(
        "a_ring",
        {"own": OWN, "low": "extends: next.yaml", "next": "seeds: [0]\nextends: low.yaml #@"},
        "next.yaml; a spec cannot extend itself",
    ),
    Bad("dotted", {"own": "extends.a: low.yaml #@"}, "key paths with dots", "extends.a"),
    Bad("under_base", {"own": OWN + "base: {extends: low.yaml} #@"}, "unknown", "base.extends"),
    Bad("in_a_case", {"own": OWN + "cases:\n  one:\n    extends: low.yaml #@"}, "whole sweep"),
    Bad("not_yaml", {"own": OWN, "low": "name: a\nbase: {method: [\n #@"}, "not valid YAML", None),
    Bad("no_mapping", {"own": OWN, "low": "- 1 #@"}, "must be a mapping with the keys", None),
    Bad("unknown", {"own": OWN, "low": "name: a\nsed: [0] #@"}, 'did you mean "seeds"?', "sed"),
    Bad(
        "wrong_type_below",
        {
            "own": OWN,
            "low": "name: a\nbase:\n  method:\n    name: mean_teacher\n    epochs: many #@",
        },
        "must be a whole number",
        "method.epochs",
    ),
    Bad(
        "wrong_type_above",
        {"own": OWN + "base: {method: {epochs: many}} #@"},
        "must be a whole number",
        "method.epochs",
    ),
    Bad(
        "limit_below_by_the_method_above",
        {
            "own": "extends: part.yaml\n" + yaml.safe_dump(WHOLE),
            "part": "base: {method: {momentum: 2}} #@",
        },
        "must be a number, at least 0",
        "method.momentum",
    ),
    Bad(
        "seeds_below",
        {"own": OWN, "low": "name: a\nseeds: [0, 0] #@"},
        "stands there twice",
        "seeds",
    ),
    Bad("name_below", {"own": OWN, "low": "name: a b #@"}, "it names a folder", "name"),
    Bad(
        "case_below",
        {"own": OWN, "low": "cases:\n  a: {method.epochz: 1} #@"},
        "epochs",
        "method.epochz",
    ),
    Bad(
        "cases_below",
        {"own": OWN + "cases: {a: {}}", "low": "cases: [a] #@"},
        "mapping of names",
        "cases",
    ),
    Bad("cases_above", {"own": OWN + "cases: [a] #@"}, "mapping of names", "cases"),
    Bad("vary_above", {"own": OWN + "vary: [a] #@"}, "key paths and domains", "vary"),
    Bad(
        "domain_below",
        {"own": OWN, "low": "vary:\n  method.epochs: 3 #@"},
        "choice",
        "method.epochs",
    ),
    Bad(
        "takes_no_case",
        {"own": OWN + "cases: {onee: null} #@"},
        'did you mean "one"?',
        "cases.onee",
    ),
    Bad(
        "takes_no_key",
        {"own": OWN + "vary: {method.nls: null} #@"},
        "varies this key",
        "vary.method.nls",
    ),
    Bad(
        "baseline_gone",
        {"own": OWN + "cases: {a: null}", "low": "baseline: a #@\ncases: {a: {}}"},
        "not the name",
        "baseline",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_mistake_is_named_with_its_own_file_and_line(bad: Bad, tmp_path: Path) -> None:
    own = write(tmp_path / "bad", rest=WHOLE, low=WHOLE)
    for name, text in bad.files.items():
        if name == "low" and "extends" not in text and bad.key is not None:
            # What it does not say itself is said below the file, so that nothing else is amiss.
            said_here = {line.partition(":")[0] for line in text.splitlines()}
            text += "\n" + yaml.safe_dump(without(*said_here))
        (tmp_path / "bad" / f"{name}.yaml").write_text(text)
    (marked,) = [name for name, text in bad.files.items() if "#@" in text]
    lines = bad.files[marked].splitlines()
    (line,) = [number for number, text in enumerate(lines, start=1) if "#@" in text]
    error = refusal(own)
    assert (error.file, error.line) == (str(Path(own).with_name(f"{marked}.yaml")), line), error
    assert error.key == bad.key and bad.says in str(error), error


def test_two_files_in_one_message_are_told_apart(tmp_path: Path) -> None:
    low = WHOLE | {"vary": {"method.nls": {"choice": [True]}}}
    own = write(tmp_path, low=low, own="extends: low.yaml\ncases:\n  one: {method.nls: false}\n")
    error = refusal(own)
    assert f'the case "one" sets it in {own}:3' in str(error)
    assert error.file == str(Path(own).with_name("low.yaml"))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    own = write(tmp_path, own=OWN)
    low = tmp_path / "low.yaml"
    for data, says in ((b"name: \xff\n", "is not UTF-8 text"), (b"a" * 2**21, "larger than")):
        low.write_bytes(data)
        error = refusal(own)
        assert error.file == str(low) and says in str(error)
    low.unlink()
    low.symlink_to(tmp_path / "gone.yaml")
    error = refusal(own)
    assert (error.file, error.line) == (own, 1) and "a link to a file that is not there" in str(
        error
    )


def test_rows_and_numbers_of_files_have_an_end(tmp_path: Path) -> None:
    def row(length: int) -> str:
        """Writes so many files below the spec's own, each of which extends the next."""
        for number in range(length):
            write(tmp_path, **{f"f{number}": {"extends": f"f{number + 1}.yaml"}})
        return write(tmp_path, **{f"f{length - 1}": WHOLE}, own={"extends": "f0.yaml"})

    assert load_spec(row(MOST_DEEP)).name == "example"
    error = refusal(row(MOST_DEEP + 1))
    assert error.file == str(tmp_path / f"f{MOST_DEEP - 1}.yaml")
    assert f"at most {MOST_DEEP}" in str(error)

    names = [f"f{number}" for number in range(MOST_FILES + 1)]
    write(tmp_path, **dict.fromkeys(names, "seeds: [0]\n"))
    for many, fits in ((names[:-1], True), (names, False)):
        own = write(tmp_path, own=WHOLE | {"extends": [f"{name}.yaml" for name in many]})
        if fits:
            assert len(load_spec(own).extended) == MOST_FILES
        else:
            assert str(MOST_FILES) in str(refusal(own))


def test_files_that_extend_the_same_ones_in_many_ways_are_read_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that, each row of two would double the work."""
    write(tmp_path, a0=WHOLE, b0="seeds: [0]\n")
    for number in range(1, MOST_DEEP):
        below = {"extends": [f"a{number - 1}.yaml", f"b{number - 1}.yaml"]}
        write(tmp_path, **{f"a{number}": below, f"b{number}": below})
    last = MOST_DEEP - 1
    own = write(tmp_path, own={"extends": [f"a{last}.yaml", f"b{last}.yaml"]})
    plain, parsed = extends.parse, []

    def parse(text: str, origin: Place) -> Node:
        parsed.append(origin.file)
        return plain(text, origin)

    monkeypatch.setattr(extends, "parse", parse)
    spec = load_spec(own)
    assert sorted(map(str, parsed)) == sorted([own, *(file.shown for file in spec.extended)])
    assert len(parsed) == 2 * MOST_DEEP + 1
