"""The checked objects that a spec file becomes. No field has two types; every instance is valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search_spaces.reading.errors import Place
from trainers.mean_teacher.settings import MethodConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    source: Literal["split", "initial_labels", "none"] = "split"
    """`split`: fixed images outside the pool; `initial_labels`: carved from D_S, inside the budget. Written `from:` in YAML."""
    per_class: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    name: str
    path: str | None = None
    """Folder or file, for the sets that are not built in."""
    image_size: int | None = None
    """Pixels: each image's shorter side is resized to this and its centre square kept. None: as they are (mini_imagenet: 84, imagenet: 224)."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetConfig:
    mode: Literal["exact", "table"] = "exact"
    bits: float | None = None
    full_labels: int | None = None
    questions: int | None = None
    """Only in mode `table`, where |D_S| and the questions are given and their price is the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    initial_labels_per_class: int
    split: tuple[float, ...]
    """Share of the questions in each round; empty: full labels only. As many rounds as shares."""
    initial_choice: Literal["random", "first", "uniform", "priced_balanced"] = "random"
    """Which images D_S takes. `random` and `first`: `initial_labels_per_class` of every class, keyed by the seed or the first ones of the data set (the
    published code); who finds them knows every label, which the budget does not pay for. `uniform`: as many images in all, drawn blindly; a class may be
    missing. `priced_balanced`: blind draws, each paid for and kept, until every class has its number; the rounds share what is left of the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryConfig:
    strategy: str = "random"
    easy_share: float = 0.5
    """Share of a quota that strategy `mixed` gives to the surest images; the rest goes to the least sure."""
    requery: Literal["pool", "never"] = "pool"
    mask_refused: bool = True
    """Refused classes are not guessed again. False is the published code's behaviour; repeats are then counted as wasted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleConfig:
    name: Literal["labels", "noisy"] = "labels"
    false_yes: float = 0.0
    false_no: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """One complete trial without its seed."""

    dataset: DatasetConfig
    budget: BudgetConfig
    method: MethodConfig
    schedule: ScheduleConfig
    query: QueryConfig = field(default_factory=QueryConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    algorithm: Literal["grid", "random", "tpe"] = "grid"
    num_candidates: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesConfig:
    workers: int = 1
    """DDP ranks of one stage training."""
    gpus_per_worker: float = 0
    cpus_per_worker: int = 1
    max_concurrent: int = 1
    """Stage trainings at once."""
    start_timeout: float = 300.0
    """Seconds to wait for resources that the cluster can grow to."""
    checkpoint_seconds: float = 5.0
    max_failures: int = 3
    """Restarts in a row of one candidate or stage whose process died, as long as it gets no further in between; others are not counted."""
    share_stages: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What arithmetic needs to know of a data set, without opening its images."""

    name: str
    num_classes: int
    train_items: int
    """Including validation images that a `split` takes out of the pool."""
    test_items: int
    kind: Literal["images", "features"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule in whole numbers."""

    initial_labels: int
    """|D_S|; of `priced_balanced` what is expected of it."""
    quotas: tuple[int, ...]
    """Questions in each round; of `priced_balanced` those that the expected |D_S| leaves. What a trial may really ask is in its ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate with one seed."""

    id: str
    """12 hex digits, a hash of the resolved settings and the seed."""
    candidate: str
    """12 hex digits, a hash of the resolved settings."""
    cases: tuple[str, ...]
    settings: dict[str, Any]
    """The varied keys and their values, where the sweep has `vary`; otherwise empty."""
    seed: int
    config: TrialConfig
    facts: DatasetFacts
    schedule: Schedule
    budget_bits: float
    bits: float
    """Price of the initial labels and all questions."""
    validation_bits: float
    """Price of the labels of a `split` validation set, beside the budget."""
    annotation_hours: float

    @property
    def questions(self) -> int:
        return sum(self.schedule.quotas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A whole spec file, checked."""

    name: str
    source: Path
    """The file it came from, for messages."""
    text: str
    """The file as given, byte for byte (UTF-8)."""
    overrides: tuple[str, ...]
    """`--set` strings, in order."""
    base: dict[str, Any]
    """Key path -> value of the complete base trial; the schedule as written, with `schedule.stages`, `schedule.split` or both."""
    cases: dict[str, dict[str, Any]]
    vary: dict[str, Any]
    """Key path -> domain (see search_spaces.reading.domains)."""
    seeds: tuple[int, ...]
    search: SearchConfig
    resources: ResourcesConfig
    facts: DatasetFacts
    baseline: str | None
    """Case that differences are taken to; None: the first case."""
    smallest_class: int
    """Training images of the class that has the fewest."""
    places: Mapping[tuple[str, ...], Place] = field(default_factory=dict)
    """("base", key), ("cases", name, key) or ("vary", key) -> where it was written; for messages."""
