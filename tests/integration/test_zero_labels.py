"""Trials that buy no label before the first question: their first guesses are by prior scores."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import orchestrator as oc
from orchestrator.catalogue import load_spec
from orchestrator.commands.replay import read_segments, replay
from orchestrator.labelling.state import CONFIRMED, ELIMINATED, NO_LABEL, SPLIT_VALIDATION
from orchestrator.storage.segments import open_segments
from search_spaces.reading.errors import SpecError
from search_spaces.reading.trials import enumerate_trials, stage_prefixes
from tests.helpers.dying import run_cli
from tests.helpers.pool_reference import replayed
from tests.helpers.sweeps import outcome_of, written
from tests.toys.continuous import Continuous
from tests.toys.means import Means
from tests.toys.student import Student
from trainers.head.settings import Head
from trainers.prototypes.settings import Prototypes

CLASSES = 6

SPEC = """\
name: zero
dataset: {name: features, path: mine.npz, validation: {from: split, per_class: 3}}
budget: {bits: 120}
base:
  method: {name: prior}
  start: {name: prior, temperature: 0.5}
  schedule: {initial_labels_per_class: 0, split: [0.6, 0.4]}
  query: {strategy: easy}
seeds: [0]
"""

SWEEP = ["sweep", "spec.yaml", "--engine", "inline", "--out", "out"]


def arrays(rows: int = 300, test: int = 60) -> dict[str, Any]:
    """Blobs, and scores whose guesses are right about two times in three."""
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for end, count in (("", rows), ("_test", test)):
        y = random.permutation(np.arange(count) % CLASSES)
        found[f"y{end}"] = y
        found[f"x{end}"] = random.normal(size=(count, 8)) + 2.5 * np.eye(CLASSES, 8)[y]
        found[f"scores{end}"] = random.normal(size=(count, CLASSES)) + 1.5 * np.eye(CLASSES)[y]
    return found


def folder_of(folder: Path, spec: str = SPEC, **changes: Any) -> Path:
    written(folder, spec)
    stored = {name: array for name, array in (arrays() | changes).items() if array is not None}
    np.savez(folder / "mine.npz", **stored)
    return folder


def as_mapping(folder: Path, **base: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(SPEC)
    spec["dataset"]["path"] = str(folder / "mine.npz")
    spec["base"] |= base
    return spec


def ledgers(out: Path) -> list[Path]:
    return sorted(out.glob("trials/*/ledger"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = folder_of(tmp_path_factory.mktemp("zero"))
    assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()
    return folder


@pytest.mark.slow
def test_no_label_is_bought_before_the_first_question_and_every_bit_is_a_question(
    swept: Path,
) -> None:
    (ledger,) = ledgers(swept / "out")
    segments, before = read_segments(ledger), replay(ledger, 0)
    assert [segment.kind for segment in segments] == ["labels", *["plan", "answers"] * 2]
    assert set(before.origins[before.labels != NO_LABEL]) == {SPLIT_VALIDATION}
    assert before.counts().label_bits == 0 and before.counts().labelled == 0
    counts = replay(ledger).counts()
    assert (counts.label_bits, counts.question_bits) == (0, 120)
    frame = oc.load(swept / "out").frame()
    assert frame["labelled"].tolist()[0] == 0
    assert frame["label_bits"].tolist() == [0, 0, 0]
    assert frame["question_bits"].tolist() == [0, 72, 120]


@pytest.mark.slow
def test_the_pool_is_that_of_the_slow_rules(swept: Path) -> None:
    (ledger,) = ledgers(swept / "out")
    state, slow = replay(ledger), replayed(open_segments(ledger))
    assert slow.problems == [] and slow.spent == state.spent() == 120
    labels = [NO_LABEL if image.label is None else image.label for image in slow.images]
    assert labels == state.labels.tolist()
    refused = {(i, c) for i, image in enumerate(slow.images) for c in image.refused}
    negatives = state.facts.negatives
    assert refused == set(zip(negatives.ids.tolist(), negatives.classes.tolist(), strict=True))
    assert set(state.origins) & {CONFIRMED, ELIMINATED}


@pytest.mark.slow
def test_it_verifies_and_the_report_tells_how_often_the_prior_was_right(swept: Path) -> None:
    (swept / "log").unlink()
    assert run_cli(["ledger", "verify", "out"], swept) == 0, (swept / "log").read_text()
    report = json.loads((swept / "out" / "report" / "report.json").read_text())
    (row,) = report["rows"]
    first = row["rounds"][0]
    even = 100 / np.log2(CLASSES)
    assert report["break_even"]["per_bit"] == pytest.approx(even)
    assert first["guess_accuracy"]["mean"] == pytest.approx(100 * first["yes"] / 72)
    assert first["worth"]["per_bit"] == pytest.approx(first["guess_accuracy"]["mean"] / even)
    says = f"before any training, were right in {first['guess_accuracy']['mean']:.1f} % of 72"
    for page in ("report.md", "report.html"):
        text = html.unescape((swept / "out" / "report" / page).read_text())
        assert says in text.replace("\xa0", " "), page
    # And its test accuracy before any question is that of the scores alone.
    data = arrays()
    right = 100 * np.mean(data["scores_test"].argmax(1) == data["y_test"])
    assert row["test_stages"][0] == pytest.approx(right)


def test_a_plan_says_from_how_many_right_guesses_on_questions_pay(tmp_path: Path) -> None:
    planned = oc.plan(as_mapping(folder_of(tmp_path)))
    assert planned["break_even"]["per_bit"] == pytest.approx(100 / np.log2(CLASSES))
    (trial,) = planned["trials"]
    assert trial["schedule"] == {"initial_labels": 0, "quotas": [72, 48], "buys": "answers"}
    assert (trial["bits"], trial["questions"]) == (120, 120)
    folder = written(tmp_path, SPEC)
    assert run_cli(["plan", "spec.yaml"], folder) == 0
    log = " ".join((folder / "log").read_text().split())
    assert "guesses are right more often than 38.7 % per bit" in log
    assert "holds from the first question on, of guesses by prior scores too" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [Means(), Head(), Prototypes(), Student(epochs=5, sure=0.8)],
    ids=lambda method: method.name,
)
def test_a_method_goes_on_from_what_the_prior_learned_by_asking(
    tmp_path: Path, method: Any
) -> None:
    labels = 0 if hasattr(method, "without_labels") else 1
    schedule = {"initial_labels_per_class": labels, "split": [0.6, 0.4]}
    spec = as_mapping(folder_of(tmp_path), method=method, schedule=schedule)
    sweep = oc.sweep(spec, out=tmp_path / "out", progress=False)
    frame = sweep.frame()
    assert (
        frame["backbone"].tolist()[0] == "prior" and "prior" not in frame["backbone"].tolist()[1:]
    )
    assert frame["test"].tolist()[2] > frame["test"].tolist()[0] + 5
    oc.resume(tmp_path / "out", plugins=[type(method)], progress=False)


@pytest.mark.slow
def test_one_killed_anywhere_ends_as_if_it_had_not_been(swept: Path, tmp_path: Path) -> None:
    killed, deaths = folder_of(tmp_path), 0
    (killed / "mine.npz").write_bytes((swept / "mine.npz").read_bytes())
    while run_cli(SWEEP, killed, die_at=30 + deaths % 7) == -9:
        deaths += 1
        assert deaths < 80, "no progress between deaths"
    assert deaths >= 2
    assert outcome_of(killed / "out") == outcome_of(swept / "out")


@pytest.mark.slow
def test_on_ray_it_is_the_same(swept: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "mine.npz").write_bytes((swept / "mine.npz").read_bytes())
    assert run_cli(["sweep", "spec.yaml", "--local", "--out", "out"], folder) == 0, (
        folder / "log"
    ).read_text()
    assert outcome_of(folder / "out") == outcome_of(swept / "out")


@pytest.mark.slow
def test_rows_in_another_order_are_asked_the_same(tmp_path: Path) -> None:
    """`easy` ranks by the scores alone, which have no ties here."""
    order = np.random.default_rng(3).permutation(300)
    stored, found = arrays(), []
    moved = {name: stored[name][order] for name in ("x", "y", "scores")}
    spec = SPEC.replace("from: split, per_class: 3", "from: none")
    for name, changes, number in (("a", {}, np.arange(300)), ("b", moved, order)):
        folder = folder_of(tmp_path / name, spec, **changes)
        assert run_cli(SWEEP, folder) == 0, (folder / "log").read_text()
        (ledger,) = ledgers(folder / "out")
        asked = {
            (one.number, int(number[image]), guess, answer)
            for one in replay(ledger).rounds
            for image, guess, answer in zip(
                one.ids.tolist(), one.guesses.tolist(), one.answers.tolist(), strict=True
            )
        }
        report = json.loads((folder / "out" / "report" / "report.json").read_text())
        found.append((asked, report["rows"][0]["test_stages"]))
    assert len(found[0][0]) == 120
    assert found[0] == found[1]


NOTHING = "initial_labels_per_class is 0 and dataset.path='mine.npz' has no array `scores`"


@pytest.mark.parametrize(
    ("old", "new", "changes", "said"),
    [
        (
            "",
            "",
            {"scores": None, "scores_test": None},
            f"spec.yaml:7: schedule.initial_labels_per_class = 0: {NOTHING}, by which start prior",
        ),
        (
            "  start: {name: prior, temperature: 0.5}\n",
            "",
            {"scores": None, "scores_test": None},
            f"schedule.initial_labels_per_class = 0: {NOTHING}",
        ),
        ("", "", {"scores_test": None}, "mine.npz: has scores but no scores_test"),
        ("", "", {"scores": np.zeros((300, 5))}, "scores has shape [300, 5]; expected [300, 6]"),
        ("", "", {"scores": np.full((300, 6), np.nan)}, "scores[0, 0] is nan"),
        (
            "{name: prior}",
            "{name: mean_teacher}",
            {},
            "spec.yaml:7: schedule.initial_labels_per_class = 0: initial_labels_per_class is 0, and"
            " method mean_teacher cannot train without a label",
        ),
        (
            "{name: prior}\n  start: {name: prior, temperature: 0.5}",
            "{name: mean_teacher}",
            {},
            "mean_teacher guesses nothing before it has learned from labels; write start: {name:"
            " prior}",
        ),
        (
            "split: [0.6, 0.4]",
            "split: [0.6, 0.4], initial_choice: priced_balanced",
            {},
            "priced_balanced draws until each class has its labels, and initial_labels_per_class",
        ),
        (
            "from: split, per_class: 3",
            "from: initial_labels, per_class: 1",
            {},
            "1 validation labels of each class are carved from 0 initial ones",
        ),
        ("{bits: 120}", "{mode: table, questions: 0}", {}, "nothing is bought"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    tmp_path: Path, old: str, new: str, changes: dict[str, Any], said: str
) -> None:
    spec = SPEC.replace(old, new, 1)
    if "questions: 0" in new:
        spec = spec.replace("[0.6, 0.4]", "[]")
    folder = folder_of(tmp_path, spec, **changes)
    assert run_cli(SWEEP, folder) == 2
    log = (folder / "log").read_text()
    assert said in log
    assert len(log.strip().splitlines()) == 1 and "Traceback" not in log
    assert not (folder / "out").exists()


def test_a_method_that_continues_another_stages_weights_needs_one_that_was_trained(
    tmp_path: Path,
) -> None:
    folder_of(tmp_path)
    schedule = {"initial_labels_per_class": 1, "split": [1.0]}
    for method in (Continuous(epochs=8), {"name": "mean_teacher", "init": "continue"}):
        spec = as_mapping(tmp_path, method=method, schedule=schedule)
        with pytest.raises(SpecError, match="continues in stage 1 what stage 0 trained"):
            oc.plan(spec)
        del spec["base"]["start"]
        assert oc.plan(spec)["trials"]


def test_a_start_that_is_the_method_is_in_no_id_and_no_key(tmp_path: Path) -> None:
    spec = load_spec("smoke.yaml", ["cases={}"])
    said = load_spec("smoke.yaml", ["cases={}", "start.name=method"])
    (one, *_), (other, *_) = (enumerate_trials(each) or [] for each in (spec, said))
    assert one.id == other.id and stage_prefixes(one) == stage_prefixes(other)
    folder_of(tmp_path)
    ids = {
        oc.plan(as_mapping(tmp_path, start=start))["trials"][0]["id"]
        for start in (
            {"name": "method"},
            {"name": "prior"},
            {"name": "prior", "temperature": 2.0},
            {"name": "prior", "temperature": None},
        )
    }
    assert len(ids) == 4


@pytest.mark.slow
def test_what_starts_alike_shares_its_start_and_what_starts_otherwise_is_not_like_with_like(
    tmp_path: Path,
) -> None:
    spec = as_mapping(folder_of(tmp_path), method=Means(epochs=2))
    spec["cases"] = {
        "two": {},
        "three": {"method.epochs": 3},
        "labels first": {
            "start.name": "method",
            "schedule.initial_labels_per_class": 2,
        },
    }
    planned = oc.plan(spec)["stage_trainings"]
    assert planned == {"total": 9, "distinct": 8}
    report = oc.sweep(spec, out=tmp_path / "out", progress=False).report()
    assert report["stage_trainings"]["trained"] == 8 and report["stage_trainings"]["shared"] == 1
    rows = {row["case"]: row for row in report["rows"]}
    assert not rows["labels first"]["like_with_like"]
    differs = {item["key"]: item["like"] for item in rows["labels first"]["also_differs"]}
    assert differs["start.name"] is False


@pytest.mark.slow
def test_the_shipped_example_and_that_of_the_guide_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "mine.npz").rename(folder / "features.npz")
    page = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    section = page.split("### Starting from zero labels")[1]
    (folder / "guide.yaml").write_text(section.split("```yaml\n")[1].split("```")[0])
    plans = []
    for name in ("zero_labels_example.yaml", "guide.yaml"):
        (folder / "log").unlink(missing_ok=True)
        assert run_cli(["plan", name, "--json"], folder) == 0, (folder / "log").read_text()
        planned = json.loads((folder / "log").read_text())
        plans.append({key: planned[key] for key in ("trials", "stage_trainings", "break_even")})
    assert plans[0] == plans[1]
    words = [*SWEEP, "--set", "seeds=[0]"]
    assert run_cli([words[0], "zero_labels_example.yaml", *words[2:]], folder) == 0, (
        folder / "log"
    ).read_text()
    assert len(ledgers(folder / "out")) == 3
    for ledger in ledgers(folder / "out"):
        assert replay(ledger, 0).counts().labelled == 0
        assert replay(ledger).counts().question_bits == 300
    rows = oc.load(folder / "out").report()["rows"]
    heads = [row for row in rows if "never" not in row["case"]]
    assert all(row["test_stages"][-1] > row["test_stages"][0] + 5 for row in heads)
