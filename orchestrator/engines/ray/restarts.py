"""How often a candidate whose process died is started again."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import StageStore

LOOK_SECONDS = 0.5
"""Between two looks at how far the candidates are."""
LOOK_SECONDS_AFAR = 15.0
"""The same where the sweep is kept in no folder."""


class Restarts(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Lets Tune start a candidate again for as long as its trials get further between two deaths of
    its process. (Tune counts over its whole life.)
    """

    def __init__(self, layout: SweepLayout, limit: int) -> None:
        self._layout = layout
        self._limit = limit
        self._died_at: dict[str, Any] = {}
        """Tune's trial -> how far it was when it first ran or last died."""
        self._begun: dict[str, Any] = {}
        """Tune's trials that have begun and not ended. Those that Tune hands over are all there
        ever were.
        """
        self._looked = 0.0
        self._pause = LOOK_SECONDS
        if layout.store.as_folder("") is None:
            # Each look costs requests.
            self._pause = LOOK_SECONDS_AFAR
        self.training: dict[str, str] = {}
        """Trial -> key of the stage that it waits for."""

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._looked < self._pause:
            return
        self._looked = time.monotonic()
        for trial in list(self._begun.values()):
            # Once granted, the allowance holds until the next death.
            allowed = self._limit + trial.num_failures + 1
            if trial.status == "RUNNING" and trial.max_failures < allowed:
                reached = self._reached(trial)
                if self._died_at.setdefault(trial.trial_id, reached) != reached:
                    trial.max_failures = allowed

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._begun[trial.trial_id] = trial

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._forget(trial)

    def _forget(self, trial: Any) -> None:
        self._begun.pop(trial.trial_id, None)
        self._died_at.pop(trial.trial_id, None)
        for seed in trial.config["candidate"].trials:
            self.training.pop(seed.id, None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._died_at[trial.trial_id] = self._reached(trial)

    def _reached(self, trial: Any) -> list[tuple[int, int]]:
        """Of each seed: how much is on record, and the checkpoint of the stage that is being
        trained.
        """
        reached = []
        for seed in trial.config["candidate"].trials:
            training = self.training.get(seed.id)
            reached.append(
                (
                    len(self._layout.store.names(self._layout.trial(seed.id).root)),
                    StageStore(self._layout.store).epochs_done(training)
                    if training is not None
                    else 0,
                )
            )
        return reached
