"""How long a stage of a sweep trains, by what is on record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.reporting.results import SweepResults


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Mean seconds of training on record."""

    trainings: int
    overall: float
    by_place: dict[int, float]
    """Place in the schedule -> mean seconds of the stages there."""

    def of(self, places: Iterable[int]) -> float:
        """Returns the seconds of one training at each of these places."""
        return sum(self.by_place.get(place, self.overall) for place in places)


def stage_times(sweep: SweepResults) -> StageTimes | None:
    """Returns what the trainings of a sweep took; None before the first has ended."""
    by_place: dict[int, list[float]] = {}
    for result in sweep.trials:
        for record in result.records:
            if record.trained:
                by_place.setdefault(record.stage, []).append(record.seconds)
    times = [seconds for found in by_place.values() for seconds in found]
    if not times:
        return None
    return StageTimes(
        trainings=len(times),
        overall=sum(times) / len(times),
        by_place={place: sum(found) / len(found) for place, found in by_place.items()},
    )
