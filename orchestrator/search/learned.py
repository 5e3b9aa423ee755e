"""A search that learns: Optuna suggests, our own records remember."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

import optuna

from orchestrator.search.values import value_of
from orchestrator.sweeps.candidates import Candidate, is_failed, put_candidates
from orchestrator.sweeps.layout import SweepLayout
from search_spaces.reading.assemble import number_of_stages
from search_spaces.reading.config import Spec
from search_spaces.reading.errors import SpecError
from search_spaces.reading.suggest import Parameter, flatten, numbers_of
from search_spaces.reading.trials import candidate_settings, make_trial, with_seed

MOST_REPEATS = 100
"""Suggestions in a row that may repeat a known candidate before the search ends early: the space is
then as good as exhausted.
"""


def _has_failed(layout: SweepLayout, candidate: Candidate) -> bool:
    return any(is_failed(layout, trial) for trial in candidate.trials)


@dataclass(slots=True)
class OptunaSource:
    """Candidates of an adaptive search. Sees validation accuracies and nothing of the test set.

    The sampler is seeded from (search.seed, number of candidates told at the start), so that a
    resumed search neither repeats its first suggestions nor needs the dead sampler's state.
    """

    spec: Spec
    layout: SweepLayout
    candidates: list[Candidate]
    """All so far, in order; grows as candidates are drawn."""
    _left: deque[Candidate] = field(init=False)
    _study: optuna.Study = field(init=False)
    _open: dict[str, optuna.trial.Trial] = field(default_factory=dict)
    _values: dict[str, float] = field(default_factory=dict)
    """Candidate -> what it reached, of those that have finished: read once, and told since."""
    _drawn: set[str] = field(init=False)
    """Ids of all candidates."""

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._drawn = {candidate.id for candidate in self.candidates}
        there = SweepLayout(self.layout.store.view())
        failed = {c.id for c in self.candidates if _has_failed(there, c)}
        known = [(c, value_of(there, c)) for c in self.candidates if c.id not in failed]
        told = [(candidate, value) for candidate, value in known if value is not None]
        self._values = {candidate.id: value for candidate, value in told}
        self._left = deque(candidate for candidate, value in known if value is None)
        seed = int.from_bytes(
            hashlib.sha256(f"{self.spec.search.seed}/{len(told)}".encode()).digest()[:4], "big"
        )
        # constant_liar: candidates run side by side, and a suggestion should not repeat one that is
        # still running.
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True),
        )
        for candidate, value in told:
            self._study.add_trial(self._past(candidate, value))

    def _past(self, candidate: Candidate, value: float) -> optuna.trial.FrozenTrial:
        numbers = numbers_of(self.spec.vary, candidate.settings)
        parameters = {p.name: p for p in flatten(self.spec.vary, self._stages())}
        params = {
            name: int(number) if parameters[name].kind != "float" else float(number)
            for name, number in numbers.items()
        }
        return optuna.trial.create_trial(
            params=params,
            distributions={name: _distribution(parameters[name]) for name in params},
            value=value,
        )

    def _stages(self) -> int | None:
        return number_of_stages(self.spec.base)

    def next(self) -> Candidate | None:
        """Returns the next unfinished or new candidate; None once search.num_candidates have been
        drawn.
        """
        if self._left:
            return self._left.popleft()
        if len(self.candidates) >= (self.spec.search.num_candidates or 0):
            return None
        for _ in range(MOST_REPEATS):
            suggested = self._study.ask()
            try:
                candidate = self._candidate(suggested)
            except SpecError:
                # The ends of every domain were checked with the spec; a combination between them
                # may still ask more than the pool can give. Pruned, not failed: the sampler counts
                # it among the worst and turns elsewhere.
                self._study.tell(suggested, state=optuna.trial.TrialState.PRUNED)
                continue
            if candidate.id not in self._drawn:
                self._open[candidate.id] = suggested
                # On record before it runs: its trials' folders must have a name in the sweep.
                put_candidates(
                    self.layout,
                    [candidate],
                    first=len(self.candidates),
                    catalogue=self.spec.keys.catalogue,
                )
                self.candidates.append(candidate)
                self._drawn.add(candidate.id)
                return candidate
            known = self._values.get(candidate.id)
            self._study.tell(
                suggested, known, state=None if known is not None else optuna.trial.TrialState.FAIL
            )
        return None

    def _candidate(self, suggested: optuna.trial.Trial) -> Candidate:
        settings = candidate_settings(self.spec, lambda parameter: _suggest(suggested, parameter))
        first = make_trial(self.spec, settings, self.spec.seeds[0])
        return Candidate(
            first.candidate, (), settings, tuple(with_seed(first, seed) for seed in self.spec.seeds)
        )

    def tell(self, candidate: Candidate, value: float | None) -> None:
        """Passes on to the sampler what the candidate reached."""
        if value is not None:
            self._values[candidate.id] = value
        suggested = self._open.pop(candidate.id, None)
        if suggested is None:
            if value is not None:
                self._study.add_trial(self._past(candidate, value))
        elif value is None:
            self._study.tell(suggested, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(suggested, value)


def _suggest(suggested: optuna.trial.Trial, parameter: Parameter) -> float:
    match parameter.kind:
        case "float":
            return float(
                suggested.suggest_float(
                    parameter.name, parameter.low, parameter.high, log=parameter.log
                )
            )
        case "int":
            return int(
                suggested.suggest_int(parameter.name, int(parameter.low), int(parameter.high))
            )
        case "category":
            return int(
                suggested.suggest_categorical(parameter.name, list(range(int(parameter.high) + 1)))
            )


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    match parameter.kind:
        case "float":
            return optuna.distributions.FloatDistribution(
                parameter.low, parameter.high, log=parameter.log
            )
        case "int":
            return optuna.distributions.IntDistribution(int(parameter.low), int(parameter.high))
        case "category":
            return optuna.distributions.CategoricalDistribution(
                list(range(int(parameter.high) + 1))
            )
