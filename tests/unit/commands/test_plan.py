"""The dry run: its fields, its numbers, and what it must not load."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from orchestrator import cli
from orchestrator.catalogue import BUILT_IN, INSTALLED, load_spec
from orchestrator.commands.plan import _numbers, plan, print_plan
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder
from orchestrator.reporting.results import load
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.datasets import contents
from search_spaces.reading.errors import SpecError
from tests.helpers.small_sweep import SPEC, write_data

TRIAL_FIELDS = {
    "id",
    "cases",
    "settings",
    "seed",
    "config",
    "schedule",
    "bits",
    "questions",
    "annotation_hours",
    "seconds",
    "annotation_hours_least",
    "draws",
    "beyond_pool",
    "asked_again",
}

HEAVY = (
    "torch",
    "torchvision",
    "ray",
    "sklearn",
    "pyarrow",
    "scipy",
    "matplotlib",
    "optuna",
    "pandas",
    "boto3",
)


def shown(spec: str) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_plan(plan(load_spec(spec)), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_planning_loads_none_of_the_libraries_that_training_needs() -> None:
    code = (
        "import sys, json; from orchestrator.commands.plan import plan, print_plan; from"
        " orchestrator.catalogue import load_spec;found = plan(load_spec('ablations.yaml'));"
        " print_plan(found); print(json.dumps(sorted(sys.modules)))"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    print(f"plan of ablations.yaml, with starting Python: {time.perf_counter() - start:.2f} s")
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "search_spaces.reading.spec" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("name", "trainings", "distinct", "rows"),
    [("ablations_images.yaml", 36, 27, 13), ("ablations.yaml", 39, 29, 14)],
)
def test_the_ablations_share_the_trainings_of_equal_beginnings(
    name: str, trainings: int, distinct: int, rows: int
) -> None:
    spec = load_spec(name)
    found, seeds = plan(spec), len(spec.seeds)
    assert found["stage_trainings"] == {"total": seeds * trainings, "distinct": seeds * distinct}
    assert len(found["trials"]) == seeds * rows


@pytest.mark.parametrize(("name", "cases"), [("ablations_images.yaml", 16), ("ablations.yaml", 17)])
def test_the_ablations_cost_the_same_bits_in_every_row(name: str, cases: int) -> None:
    spec = load_spec(name)
    for trial in plan(spec)["trials"]:
        assert 331.1 < trial["bits"] <= 332.1929
    assert spec.baseline == "full labels only"
    assert sum("splits" in name or name.startswith("split ") for name in spec.cases) == 4
    assert len(spec.cases) == cases


def test_a_plan_has_the_documented_fields_and_is_json() -> None:
    found = json.loads(json.dumps(plan(load_spec("smoke.yaml")), allow_nan=False))
    assert set(found) == {
        "name",
        "trials",
        "tasks",
        "stage_trainings",
        "break_even",
        "training",
    }
    first = found["trials"][0]
    assert set(first) == TRIAL_FIELDS
    assert first["cases"] == ["full labels only"] and first["seed"] == 0
    assert first["schedule"] == {"initial_labels": 100, "quotas": [], "buys": "answers"}
    assert first["annotation_hours"] == pytest.approx(100 * 60 / 3600)
    second = found["trials"][2]
    assert second["schedule"] == {"initial_labels": 20, "quotas": [133, 132], "buys": "answers"}
    assert second["questions"] == 265
    assert second["annotation_hours"] == pytest.approx((20 * 60 + 265 * 2.72) / 3600)
    assert second["config"]["method"]["name"] == "mean_teacher"
    assert second["config"]["dataset"]["validation"] == {
        "from": "split",
        "per_class": 10,
        "share": 0.2,
    }


def test_questions_that_no_pool_can_take_are_counted_and_said() -> None:
    """Digits has 1,347 training images, 100 of them for validation and 20 labelled here."""
    assert "can never be asked" not in shown("smoke.yaml")
    given = ["cases={}", "budget.bits=4000", "schedule.initial_labels_per_class=2"]
    spec = load_spec("smoke.yaml", [*given, "schedule.split=[0.5, 0.5]"])
    row = plan(spec)["trials"][0]
    images = spec.facts.train_items - 100 - row["schedule"]["initial_labels"]
    assert min(row["schedule"]["quotas"]) > images
    assert row["beyond_pool"] == row["questions"] - 2 * images
    console = Console(file=io.StringIO(), width=400)
    print_plan(plan(spec), console)
    assert isinstance(console.file, io.StringIO)
    assert (
        f"{row['beyond_pool']:,} of the {row['questions']:,} questions" in console.file.getvalue()
    )


def test_questions_that_must_be_about_images_asked_before_are_counted_and_said() -> None:
    assert "answered no before" not in shown("smoke.yaml")
    given = ["cases={}", "budget.bits=2000", "schedule.initial_labels_per_class=2"]
    spec = load_spec("smoke.yaml", [*given, "schedule.split=[0.5, 0.5]"])
    row = plan(spec)["trials"][0]
    images = spec.facts.train_items - 100 - row["schedule"]["initial_labels"]
    assert max(row["schedule"]["quotas"]) <= images < row["questions"]
    assert (row["beyond_pool"], row["asked_again"]) == (0, row["questions"] - images)
    console = Console(file=io.StringIO(), width=400)
    print_plan(plan(spec), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert f"at least {row['asked_again']:,} of the {row['questions']:,} of" in text


def test_varied_rows_are_told_apart_by_their_settings() -> None:
    """By the names that the report will have."""
    text = shown("pseudo_labels_tau.yaml")
    for teacher in ("AN", "EM"):
        for threshold in ("0.55", "0.65", "0.75", "0.85", "0.95"):
            assert f"teacher {teacher}, threshold {threshold}" in text


def test_pairs_are_answered_once_in_a_whole_trial() -> None:
    """3,200 canvases of ten categories: what is left for a later round is what no earlier one
    asked.
    """
    given = ["cases={}", "base.task.per_image=10", "base.task.label=vector", "seeds=[0]"]
    given += ["baseline=null", "orderings=null", "budget.full_labels=null", "budget.bits=40000"]
    given += ["schedule.initial_labels_per_class=20", "schedule.split=[0.5, 0.5]"]
    row = plan(load_spec("pseudo_labels.yaml", given))["trials"][0]
    unknown = 10 * (3200 - 200)
    assert max(row["schedule"]["quotas"]) < unknown < row["questions"]
    assert row["beyond_pool"] == row["questions"] - unknown
    console = Console(file=io.StringIO(), width=400)
    print_plan(plan(load_spec("pseudo_labels.yaml", given)), console)
    assert isinstance(console.file, io.StringIO)
    assert "pairs of which nothing is known" in console.file.getvalue()


def test_rows_of_the_pages_example_take_equal_hours(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guide.md").read_text(encoding="utf-8")
    example = page.partition("### At equal hours")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "equal_hours.yaml").write_text(example)
    rows = plan(load_spec(str(tmp_path / "equal_hours.yaml")))["trials"]
    hours = {row["cases"][0]: row["annotation_hours"] for row in rows}
    assert len(hours) == 2
    assert max(hours.values()) == pytest.approx(min(hours.values()), rel=0.001)
    assert len({row["bits"] for row in rows}) == 2


def test_a_search_that_learns_says_how_many_candidates_it_will_draw() -> None:
    found = plan(load_spec("stage_schedules.yaml"))
    assert found["trials"] is None
    assert found["search"] == {"algorithm": "tpe", "num_candidates": 40, "seeds": [0, 1, 2]}
    assert "40 candidates" in shown("stage_schedules.yaml")


def test_the_printed_plan_has_a_row_for_every_candidate() -> None:
    text = shown("ablations.yaml")
    for name in load_spec("ablations.yaml").cases:
        assert name in text
    assert "780 stage trainings, 580 of them distinct" in text


@pytest.mark.parametrize(
    ("name", "overrides", "trials"),
    [
        ("smoke.yaml", ["cases={}", f"seeds={list(range(20_000))}"], 20_000),
        ("smoke.yaml", ["cases={}", "seeds=[0]", "vary.method.epochs={int: [1, 2000]}"], 2000),
        (
            "stage_schedules.yaml",
            ["search.algorithm=random", "search.num_candidates=2000", "seeds=[0]"],
            1500,
        ),
        ("smoke.yaml", ["cases={}", "budget.full_labels=1000000000"], 2),
        (
            "stage_schedules.yaml",
            ["search.num_candidates=20000", "seeds=[0]", "budget.full_labels=1000000000"],
            None,
        ),
    ],
)
def test_a_plan_costs_what_is_asked(name: str, overrides: list[str], trials: int | None) -> None:
    """A trial in a millisecond or less, of this process's time; four times as long is allowed."""
    start = time.process_time()
    spec = load_spec(name, overrides)
    found = plan(spec)
    console = Console(file=io.StringIO(), width=120)
    print_plan(found, console)
    assert time.process_time() - start < 2 + 4e-3 * (trials or 0)
    assert found["trials"] is None if trials is None else len(found["trials"]) >= trials
    assert isinstance(console.file, io.StringIO)
    assert len(console.file.getvalue()) < 500_000


def test_a_long_plan_is_cut_and_says_so() -> None:
    found = plan(
        load_spec("smoke.yaml", ["cases={}", "seeds=[0]", "vary.method.epochs={int: [1, 600]}"])
    )
    console = Console(file=io.StringIO(), width=120)
    print_plan(found, console)
    assert isinstance(console.file, io.StringIO)
    assert "100 more candidates are not shown; --json lists every trial." in console.file.getvalue()
    assert found["stage_trainings"] == {"total": 3 * 600, "distinct": 3 * 600}


def test_many_seeds_are_written_short() -> None:
    assert _numbers([0, 1, 2]) == "0, 1, 2"
    assert _numbers(list(range(7, 2007))) == "7 to 2006"
    assert _numbers([5, *range(30)][:25]).endswith("17, 18, ... (25)")


def test_names_in_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "brackets.yaml"
    path.write_text(
        Path(load_spec("smoke.yaml").source)
        .read_text()
        .replace("two stages, NLS: {}", "'[red]two[/red] [/x]': {}")
    )
    assert "[red]two[/red] [/x]" in shown(str(path))


def test_built_in_sizes_are_consistent() -> None:
    for name in BUILT_IN["source"]:
        found = getattr(INSTALLED.load("source", name), "holds", None)
        if found is None:
            continue
        assert found.smallest_class * found.num_classes <= found.train_items


class TestFeatures:
    def save(self, folder: Path, **arrays: object) -> Features:
        path = folder / "vectors.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return Features(path=str(path))

    def test_sizes_come_from_the_headers_and_the_classes(self, tmp_path: Path) -> None:
        y = np.repeat(np.arange(4), [30, 20, 25, 25])
        config = self.save(tmp_path, x=np.zeros((100, 7), np.float32), y=y)
        found = contents(config)
        assert (
            found.num_classes,
            found.train_items,
            found.test_items,
            found.kind,
        ) == (4, 80, 20, "features")
        assert found.smallest_class == 16
        config = self.save(
            tmp_path, x=np.zeros((100, 7)), y=y, x_test=np.zeros((9, 7)), y_test=np.zeros(9, int)
        )
        assert (
            contents(config).train_items,
            contents(config).test_items,
            contents(config).smallest_class,
        ) == (100, 9, 20)

    def test_the_vectors_themselves_are_not_read(self, tmp_path: Path) -> None:
        config = self.save(tmp_path, x=np.zeros((100, 7)), y=np.arange(100) % 2)
        path = Path(config.path)
        data = bytearray(path.read_bytes())
        # Damage the middle of x: its header and y stay whole.
        data[1000:1100] = b"\xff" * 100
        path.write_bytes(data)
        assert contents(config).num_classes == 2

    @pytest.mark.parametrize(
        ("arrays", "says"),
        [
            ({"x": np.zeros((4, 2))}, "no array y"),
            ({"x": np.zeros(4), "y": np.zeros(4, int)}, "shape"),
            ({"x": np.zeros((4, 2)), "y": np.zeros(3, int)}, "x has 4 rows and y 3"),
            ({"x": np.zeros((4, 2)), "y": np.zeros(4)}, "whole class numbers"),
            (
                {"x": np.zeros((4, 2)), "y": np.array(["a", "b", "a", "b"], dtype=object)},
                "y cannot be read without pickle",
            ),
            ({"x": np.zeros((4, 2)), "y": np.array([0, 1, 3, 3])}, "class 2"),
            ({"x": np.zeros((4, 2)), "y": np.array([-1, 1, 0, 0])}, r"y\[0\] is -1"),
            ({"x": np.zeros((4, 2)), "y": np.zeros(4, int)}, "one class only"),
            (
                {"x": np.zeros((4, 2)), "y": np.array([0, 1, 0, 1]), "x_test": np.zeros((2, 2))},
                "belong together",
            ),
        ],
    )
    def test_a_file_that_is_not_features_is_refused(
        self, tmp_path: Path, arrays: dict[str, object], says: str
    ) -> None:
        config = self.save(tmp_path, **arrays)
        with pytest.raises(SpecError, match=says) as caught:
            contents(config)
        assert caught.value.key == "dataset.path"

    @pytest.mark.parametrize("cut", [0, 1, 50, 300, 600])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, cut: int) -> None:
        config = self.save(tmp_path, x=np.zeros((20, 2)), y=np.arange(20) % 2)
        path = Path(config.path)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(SpecError, match=r"vectors\.npz: not a readable \.npz file"):
            contents(config)

    def test_the_example_runs_on_ones_own_file(self, tmp_path: Path) -> None:
        config = self.save(tmp_path, x=np.zeros((500, 8), np.float32), y=np.arange(500) % 5)
        spec = load_spec("features_example.yaml", [f"dataset.path={config.path}"])
        assert spec.facts.num_classes == 5
        assert len(plan(spec)["trials"]) == 27


def test_a_folder_is_counted(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count + (name == "dog")):
                (tmp_path / split / name / f"{i}.png").touch()
    found = contents(Folder(path=str(tmp_path)))
    assert (
        found.num_classes,
        found.train_items,
        found.test_items,
        found.smallest_class,
    ) == (2, 7, 5, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sweep of two trials that share their first stage."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_data(folder / "features.npz")
        (folder / "spec.yaml").write_text(SPEC)
        assert cli.main(["sweep", "spec.yaml", "--engine", "inline", "--out", "done"]) == 0
        yield folder


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_sweep_like_one_that_was_trained_takes_as_long_for_each_seed(
    trained: Path, seeds: int
) -> None:
    sweep = load(SweepLayout.at("done"))
    records = [record for trial in sweep.trials for record in trial.records if record.trained]
    spec = load_spec(
        "spec.yaml",
        [f"seeds={list(range(seeds))}", "resources.price_per_hour=7", "resources.workers=2"],
    )
    training = plan(spec, like="done")["training"]
    expected = seeds * sum(record.seconds for record in records) / 3600
    assert training["hours"] == pytest.approx(expected)
    assert training["price"] == pytest.approx(expected * 2 * 7)
    assert training["trainings"] == len(records) < sum(len(trial.records) for trial in sweep.trials)
    assert plan(spec)["training"] is None


def test_a_sweep_that_has_trained_nothing_shows_no_times(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained / "done", copy)
    for stages in copy.glob("trials/*/stages"):
        shutil.rmtree(stages)
    assert cli.main(["plan", "spec.yaml", "--like", str(copy)]) == 2
    assert f"--like {copy}: no stage has been trained there" in capsys.readouterr().err
    assert cli.main(["plan", "spec.yaml", "--like", "done"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stage training(s) on record in done" in said
    assert "not said (resources.price_per_hour)" in said
