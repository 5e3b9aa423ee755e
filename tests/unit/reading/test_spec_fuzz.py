"""Damaged specs: each is a spec all the same or is refused with one plain message. The packaged
files are damaged in the same ways in every run.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.catalogue import INSTALLED, load_spec
from orchestrator.commands.plan import plan, print_plan
from search_spaces.reading.errors import SpecError
from search_spaces.reading.settings import Keys
from search_spaces.reading.yaml_source import PACKAGED
from tests.helpers.specs import SEARCH, VALID, refusal

TEXTS = [
    text
    for path in sorted(PACKAGED.glob("*.yaml"))
    # Those of feature files are refused for want of the file, whatever else is damaged.
    if "imagenet" not in path.name and "path: features.npz" not in (text := path.read_text())
]

_KEYS = Keys(INSTALLED)
KEYS = [*_KEYS.trial(), *_KEYS.any_plugin("search"), *_KEYS.any_plugin("resources")]
KEYS += ["seeds", "name", "baseline", "cases", "vary", "base", "dataset", "search", "resources"]
KEYS += ["vary.schedule.split", "vary.schedule.stages", "vary.method.epochs"]

VALUES = [
    "0",
    "-1",
    "2",
    "1e308",
    "-1e308",
    "1e-320",
    "-0.0",
    "999999999999",
    "99999999999999999999",
    "true",
    "null",
    "''",
    "1_000",
    "0x10",
    "x" * 300,
]
VALUES += [
    "[]",
    "{}",
    "[[]]",
    "[0.5, 0.5]",
    "[1, 1e-9]",
    "[0, 1, 2147483647]",
    "{a: 1,",
    "[1, 2",
    "- 1",
    "*a",
    "&a 1",
    "!!int 1",
    "|\n x",
    "? x",
    "[" * 40,
]
VALUES += [
    "{choice: [1, 2]}",
    "{choice: [null]}",
    "{choice: [[1.0], [0.5, 0.5]]}",
    "{int: [0, 100]}",
    "{int: [1, 1000000000000]}",
    "{uniform: [-1e308, 1e9]}",
]
VALUES += [
    "{loguniform: [1e-320, 1e308]}",
    "{simplex: {}}",
    "{simplex: {step: 0.0001}}",
    "{simplex: {floor: 1, step: 1}}",
    "{simplex: {floor: 0.999}}",
]
VALUES += [
    "digits",
    "imagenet",
    "folder",
    "features",
    "grid",
    "random",
    "tpe",
    "noisy",
    "mixed",
    "table",
    "authors",
    "initial_labels",
    "none",
    "/dev/null",
]
VALUES += [
    "~nouser/x",
    "\x00",
    "\x85",
    "\t",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\udcff",
    "\U0001f600",
    '"\\e[31m"',
]


def with_other_lines(rng: random.Random, text: str) -> bytes:
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                lines.insert(at, rng.choice(lines))
            case 1:
                lines[at] = " " * rng.randint(0, 4) + f"{rng.choice(KEYS)}: {rng.choice(VALUES)}"
            case 2:
                lines[at] = " " * rng.randint(0, 3) + lines[at]
            case _:
                lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(VALUES)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def with_other_bytes(rng: random.Random, text: str) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        if rng.random() < 0.5:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at : at + rng.randint(0, 20)] = rng.choice(VALUES).encode("utf-8", "surrogatepass")
    return bytes(data)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_spec_is_a_spec_or_is_refused_with_a_message(seed: int, tmp_path: Path) -> None:
    rng, path = random.Random(seed), tmp_path / "damaged.yaml"
    refused = 0
    for _ in range(60):
        text = rng.choice(TEXTS)
        damage = rng.choice([with_other_lines, with_other_bytes, None])
        path.write_bytes(damage(rng, text) if damage else text.encode())
        overrides = [
            f"{rng.choice(KEYS)}={rng.choice(VALUES)}"
            for _ in range(rng.randint(1, 3) if damage is None else 0)
        ]
        try:
            spec = load_spec(str(path), overrides)
        except SpecError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 2500
            assert "line None" not in str(error)
            continue
        found = plan(spec)
        json.dumps(found, allow_nan=False)
        print_plan(found, Console(file=io.StringIO(), width=100))
    assert 20 < refused < 60


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_spec_error(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    refusal(str(path))


FRAGMENTS = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ":",
        "-",
        "&a",
        "*a",
        "!!int",
        "!",
        "|",
        ">",
        "'",
        '"',
        "\\",
        "%YAML 9.9",
        "---",
        "...",
        "? ",
        "<<:",
        "\t",
        "\r",
        "\x85",
        "\ufeff",
        "null",
        "~",
        "1e5",
        "-1",
        "0x1",
    ]
) | st.text(max_size=6)


@settings(max_examples=250, deadline=None)
@given(
    source=st.sampled_from([VALID, SEARCH]),
    start=st.integers(0, len(VALID)),
    cut=st.integers(0, 40),
    fragment=FRAGMENTS,
)
def test_no_mutation_of_a_spec_raises_anything_but_a_spec_error(
    source: str, start: int, cut: int, fragment: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_bytes(
        (source[:start] + fragment + source[start + cut :]).encode("utf-8", "surrogatepass")
    )
    try:
        load_spec(str(path))
    except SpecError as error:
        assert str(error).isprintable()


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(
        [
            "method.epochs",
            "schedule.split",
            "vary",
            "cases",
            "seeds",
            "search",
            "budget",
            "dataset.validation",
            "vary.schedule.stages",
            "baseline",
            "orderings",
            "name",
        ]
    )
    | st.text(max_size=12),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)
def test_no_override_raises_anything_but_a_spec_error(key: str, value: object) -> None:
    try:
        load_spec("smoke.yaml", [f"{key}={value}"])
    except SpecError as error:
        assert str(error).isprintable()
