"""Search algorithms as a spec names them: `search: {algorithm: NAME}`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from orchestrator.search.source import Source
    from orchestrator.sweeps.candidates import Candidate
    from orchestrator.sweeps.layout import SweepLayout
    from search_spaces.reading.config import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every case and every combination of the varied values."""

    name: ClassVar[str] = "grid"
    adaptive: ClassVar[bool] = False
    """Whether the next candidate depends on the results of earlier ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Candidates drawn at random from the domains."""

    name: ClassVar[str] = "random"
    adaptive: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpe:
    """Candidates that a Tree-structured Parzen Estimator suggests (Bergstra et al. 2011;
    Optuna's).
    """

    name: ClassVar[str] = "tpe"
    adaptive: ClassVar[bool] = True

    def source(self, spec: Spec, layout: SweepLayout, candidates: list[Candidate]) -> Source:
        """Returns where the candidates come from. It goes on with `candidates`, all so far in
        order, and appends those that it draws.
        """
        from orchestrator.search.learned import OptunaSource

        return OptunaSource(spec, layout, candidates)
