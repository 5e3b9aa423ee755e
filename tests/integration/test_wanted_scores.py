"""Score arrays that a query asks for: kept where they are wanted, made later where they were not,
and no reason to train anything twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from orchestrator import api as oc
from search_spaces.reading.errors import SpecError
from tests.helpers.sweeps import ONE_TRIAL_SPEC, outcome_of
from tests.toys.k_centre import KCentre
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.stage import POOL_ARRAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(MeanTeacherConfig):
    """A method that tells nothing of what its network sees."""

    name: ClassVar[str] = "plain"
    offers: ClassVar[tuple[str, ...]] = POOL_ARRAYS


def spec(cases: dict[str, Any], **base: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ONE_TRIAL_SPEC)
    return {**found, "base": found["base"] | base, "cases": cases}


def test_a_stage_that_was_trained_without_is_asked_again_and_not_trained_again(
    tmp_path: Path,
) -> None:
    alone = oc.sweep(spec({"far": {"query.strategy": KCentre()}}), out=tmp_path / "a")
    # The random trial comes first, and trains stage 0 for both.
    cases = {"random": {}, "far": {"query.strategy": KCentre()}}
    both = oc.sweep(spec(cases), out=tmp_path / "b")
    stages = Path(both.location) / "stages"
    assert len(list(stages.glob("*/record.json"))) == 5
    added = list(stages.glob("*/added-embedding.json"))
    assert len(added) == 1 and len(list(added[0].parent.glob("scores-*.embedding.npy"))) == 1
    [far] = outcome_of(alone.location).items()
    assert outcome_of(both.location)[far[0]] == far[1]
    assert both.frame()["trained"].tolist().count(False) == 1


def test_a_method_that_does_not_offer_what_a_query_needs_is_refused_by_plan() -> None:
    with pytest.raises(SpecError) as caught:
        oc.plan(spec({"far": {}}, method=Plain(), query={"strategy": KCentre()}))
    said = str(caught.value)
    assert "query.strategy = 'k_centre': strategy k_centre of task multiclass needs" in said
    assert "the scores embedding" in said
    assert "which method plain does not offer" in said and said.startswith("spec:")
    oc.plan(spec({"far": {}}, query={"strategy": KCentre()}))
