"""The packaged tables and figures of the ObCP paper have its bits and questions, and a report finds
its numbers.
"""

from __future__ import annotations

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.commands.plan import plan
from orchestrator.reporting.published import budgets, matches, published
from search_spaces.reading.config import Trial
from search_spaces.reading.trials import enumerate_trials
from search_spaces.reading.yaml_source import PACKAGED

SPECS = (
    *("obcp_cifar10_figure4", "obcp_cifar100_figure4", "obcp_cifar100_figure5"),
    *("obcp_cifar100_table3", "obcp_imagenet_table2", "obcp_imagenet_table3"),
)
FOLDERS = ("obcp_imagenet100_table4", "obcp_imagenet100_figure6", "obcp_tiny100")
"""Of any folder of 100 classes: here their numbers on CIFAR-100."""


def trials_of(name: str, *overrides: str) -> dict[str, Trial]:
    found = enumerate_trials(load_spec(f"{name}.yaml", overrides)) or []
    return {case: trial for trial in found if trial.seed == 0 for case in trial.cases}


def test_every_table_and_figure_is_packaged() -> None:
    found = {path.stem for path in PACKAGED.glob("obcp_*_*.yaml")}
    assert set(SPECS) | {name for name in FOLDERS if "imagenet" in name} <= found


QUESTIONS = {
    "obcp_cifar10_figure4": [16_600, 24_900, 33_200, 41_500, 49_800],
    "obcp_cifar100_figure4": [33_200, 49_800, 66_400, 83_000, 99_700],
}
"""By labelled pool, as the paper's first table has the first of each, and its equation the rest."""


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_pools_of_figure_4_have_their_questions_and_bits(name: str) -> None:
    found = [row for row in plan(load_spec(f"{name}.yaml"))["trials"] if row["seed"] == 0]
    for row, questions, percent in zip(found, QUESTIONS[name], (20, 25, 30, 35, 40), strict=False):
        assert row["cases"] == [f"{percent}%"]
        assert row["schedule"]["initial_labels"] == 5000
        # The paper rounds to hundreds.
        assert row["questions"] == pytest.approx(questions, abs=60)
        quotas = row["schedule"]["quotas"]
        assert len(quotas) == 4 and max(quotas) - min(quotas) <= 1
        assert row["asked_again"] == max(0, row["questions"] - 45_000)
    assert any(row["asked_again"] for row in found)


@pytest.mark.parametrize("name", SPECS)
def test_a_row_that_is_published_finds_its_number_and_has_its_bits(name: str) -> None:
    trials = trials_of(name)
    data = next(iter(trials.values())).facts.name
    expected = {
        "obcp_cifar10_figure4": {"25%": [92.6], "40%": [94.1], "30%": []},
        "obcp_cifar100_figure4": {"35%": [68.0], "40%": [69.2], "20%": []},
        "obcp_cifar100_figure5": {"uncertainty": [], "max": []},
        "obcp_cifar100_table3": {"obcp": [62.1], "one-bit, NLS": [73.76, 59.5]},
        "obcp_imagenet_table2": {"vgg16": [61.3, 64.9], "resnet50": [61.3, 64.9]},
        "obcp_imagenet_table3": {"obcp": [63.8]},
    }[name]
    for case, numbers in expected.items():
        found = matches(trials[case])
        assert [entry.top1[-1] for entry in found] == numbers, case
        for entry in found:
            close = 0.5 if entry.kbits > 1000 else 0.06
            assert trials[case].bits / 1000 == pytest.approx(entry.kbits, abs=close)
    for trial in trials.values():
        for budget in budgets():
            asked = (budget.dataset, budget.labels) == (data, trial.schedule.initial_labels)
            if asked and abs(budget.questions - trial.questions) < 60:
                close = 0.5 if budget.kbits > 1000 else 0.05
                assert trial.bits / 1000 == pytest.approx(budget.kbits, abs=close)


def test_settings_of_published_rows_are_those_of_the_specs() -> None:
    rows = [entry for entry in published() if entry.source == "zhang2022"]
    assert len(rows) == 8
    for name in SPECS:
        for trial in trials_of(name).values():
            method = trial.config.method
            for entry in matches(trial):
                if entry.source == "zhang2022" and entry.backbone == method.backbone:
                    assert method.epochs == entry.epochs
                    for weight, value in entry.weights.items():
                        assert getattr(method, weight) == value


@pytest.mark.parametrize("name", FOLDERS)
def test_rows_of_a_folder_have_equal_bits(name: str) -> None:
    spec = load_spec(f"{name}.yaml", ["dataset.name=cifar100"])
    rows = [row for row in plan(spec)["trials"] if row["seed"] == 0]
    most = max(row["bits"] for row in rows)
    assert all(row["bits"] > most - 7 for row in rows)
    labels = 10_000 if name == "obcp_tiny100" else 12_800
    assert most == pytest.approx(labels * 6.643856, abs=1)
    rounds = {len(row["schedule"]["quotas"]) for row in rows}
    assert rounds == {"obcp_tiny100": {0, 4}, "obcp_imagenet100_figure6": {1, 2, 4, 8}}.get(
        name, {4}
    )
