"""Search algorithms as a spec names them: `search: {algorithm: NAME}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from search_spaces.reading.assemble import number_of_stages
from search_spaces.reading.domains import grid
from search_spaces.reading.suggest import keyed_ask, settings_from

if TYPE_CHECKING:
    from orchestrator.search.source import Source
    from orchestrator.sweeps.candidates import Candidate
    from orchestrator.sweeps.layout import SweepLayout
    from search_spaces.reading.config import Spec

Row = tuple[tuple[str, ...], dict[str, Any]]
"""Names of the cases that it comes from, and key path -> value over the spec's base."""


class Algorithm(Protocol):
    """Where the candidates of a sweep come from: a frozen dataclass whose fields are settings.

    One whose class attribute `draws` is False has all its candidates from cases and varied values,
    and takes no `num_candidates`; without the attribute so many are drawn.
    """

    name: ClassVar[str]
    adaptive: ClassVar[bool]
    """Whether the next candidate depends on the results of earlier ones. It then has a method
    `source(spec, layout, candidates)`, as Tpe has, in place of `candidates`.
    """

    def candidates(self, spec: Spec) -> Iterator[Row]:
        """Yields every candidate in order, as a function of the spec alone. Of a longer search the
        first ones are those of a shorter one.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every case and every combination of the varied values."""

    name: ClassVar[str] = "grid"
    adaptive: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def candidates(self, spec: Spec) -> Iterator[Row]:
        rows: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]] = [
            ((name,), case) for name, case in spec.cases.items()
        ] or [((), {})]
        for cases, case in rows:
            stages = number_of_stages(spec.keys.overlay(spec.base, case))
            for point in grid(spec.vary, stages):
                yield cases, {**case, **point}


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Candidates drawn at random from the domains. Each depends on search.seed and its number
    alone.
    """

    name: ClassVar[str] = "random"
    adaptive: ClassVar[bool] = False

    def candidates(self, spec: Spec) -> Iterator[Row]:
        stages = number_of_stages(spec.base)
        for number in range(spec.search.num_candidates or 0):
            yield (), settings_from(spec.vary, stages, keyed_ask(spec.search.seed, number))


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
