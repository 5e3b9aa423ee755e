"""What dies is started again for as long as it gets further, and only so often in vain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines.patience import Deaths
from orchestrator.engines.ray.restarts import Restarts
from orchestrator.sweeps.candidates import group_candidates
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import epochs_done
from tests.helpers.on_disk import disk
from tests.helpers.sweep_folder import ABLATIONS, trial_of
from trainers.checkpoint import save_epoch


def test_deaths_in_a_row_without_progress_are_counted_and_others_are_not() -> None:
    deaths = Deaths(2, 0)
    assert [deaths.too_many(reached) for reached in (0, 0, 1, 1, 1, 5, 5, 5, 5)] == [False] * 8 + [
        True
    ]


def test_nothing_is_forgiven_where_no_failure_is_allowed_but_what_came_after_progress() -> None:
    assert Deaths(0, 3).too_many(3)
    deaths = Deaths(0, 3)
    assert not deaths.too_many(4)
    assert deaths.too_many(4)


def test_the_newest_checkpoint_is_found_as_the_trainers_name_it(tmp_path: Path) -> None:
    assert epochs_done(tmp_path / "missing") == 0
    for attempt, epoch in (("a", 3), ("a", 11), ("b", 9)):
        save_epoch(tmp_path, attempt, epoch, {"key": "k"})
    (tmp_path / "epoch-00099-c.ckpt.tmp").write_bytes(b"torn")
    assert epochs_done(tmp_path) == 11


@dataclass
class TuneTrial:
    """As much of one as decides whether Tune starts it again."""

    config: dict[str, Any]
    max_failures: int
    trial_id: str = "t"
    status: str = "RUNNING"
    num_failures: int = 0

    def die(self) -> bool:
        """Tune's rule. Whether it is started again."""
        self.num_failures += 1
        return self.num_failures <= self.max_failures


@pytest.mark.parametrize("limit", [0, 2])
def test_a_candidate_is_started_again_while_its_trials_get_further(
    tmp_path: Path, limit: int
) -> None:
    layout = SweepLayout.at(tmp_path)
    [candidate] = group_candidates([trial_of(ABLATIONS[4], 0)])
    trial = TuneTrial({"candidate": candidate}, limit)
    restarts = Restarts(layout, limit)
    restarts.on_trial_start(1, [trial], trial)

    def look() -> None:
        restarts._looked = 0.0
        restarts.on_step_begin(1, [trial])

    look()
    for number in range(20):
        layout.store.put(f"{layout.trial(candidate.trials[0].id).root}/{number}", b"record")
        look()
        assert trial.die()
        restarts.on_trial_recover(1, [trial], trial)
    # What a killed writer left aside is no progress.
    (disk(layout.trial(candidate.trials[0].id)).root / ".aside-1-2").write_bytes(b"torn")
    for number in range(limit):
        look()
        assert trial.die(), number
        restarts.on_trial_recover(1, [trial], trial)
    look()
    assert not trial.die()
