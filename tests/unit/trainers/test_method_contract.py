"""Every training method keeps the contract of its kind, and each law is broken by some fake."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from orchestrator.catalogue import INSTALLED
from orchestrator.contracts import MethodContract
from tests.helpers.stage_world import QUICK
from tests.toys.continuous import Continuous
from tests.toys.softmax import Softmax
from tests.toys.softmax_trainer import SoftmaxTrainer
from tests.toys.student import Student
from trainers.head.settings import Head
from trainers.mean_teacher.settings import MeanTeacherConfig
from trainers.method import StagePlan
from trainers.metrics import MEAN_AVERAGE_PRECISION
from trainers.obcp.settings import ObcpConfig
from trainers.prior.settings import PriorScores
from trainers.prototypes.settings import Prototypes
from trainers.spml.settings import Spml

FAST = dataclasses.replace(
    QUICK, backbone="small_cnn_gn", precision="fp64", epochs=2, negative_weight=0.2
)
OBCP = ObcpConfig(
    backbone="small_cnn_gn",
    epochs=6,
    first_query_epoch=2,
    batch_size=40,
    queue_size=80,
    projection_dim=8,
    contrastive_weight=0.5,
    negative_weight=0.5,
    mean_epochs=5,
    recent_epochs=2,
    precision="fp64",
)


class TestMeanTeacher(MethodContract):
    ranks_differ_by = 1e-6

    def make(self) -> MeanTeacherConfig:
        return FAST


class TestMeanTeacherThatContinues(MethodContract):
    def make(self) -> MeanTeacherConfig:
        return dataclasses.replace(FAST, backbone="small_cnn", precision="fp32", init="continue")


class TestObcp(MethodContract):
    """Two ranks are held to one by test_obcp_ranks.py, queue and all."""

    def make(self) -> ObcpConfig:
        return OBCP


class TestObcpOnFeatures(MethodContract):
    """With what the other one leaves as it is."""

    kind = "features"

    def make(self) -> ObcpConfig:
        return ObcpConfig(
            epochs=8,
            batch_size=32,
            queue_size=64,
            projection="mlp",
            projection_dim=8,
            class_negatives=8,
            with_replacement=True,
            mask_same_class=True,
            confirmed_labels=False,
            predictions="online",
            mean_epochs=5,
            recent_epochs=3,
            precision="fp32",
        )


class TestHead(MethodContract):
    ranks_differ_by = 0.0
    one_epoch = True

    def make(self) -> Head:
        return Head(l2=0.01, scaling="each", negatives=False)


class TestHeadOnFeatures(TestHead):
    kind = "features"

    def make(self) -> Head:
        return Head()


class TestPrototypes(MethodContract):
    ranks_differ_by = 0.0
    one_epoch = True

    def make(self) -> Prototypes:
        return Prototypes()


class TestSpml(MethodContract):
    """A teacher whose loss is no mean over images, and its student."""

    metric = MEAN_AVERAGE_PRECISION
    ranks_differ_by = 1e-6

    def make(self) -> Spml:
        return Spml(
            loss="role",
            expected_positives=1.5,
            student="all",
            threshold=0.3,
            backbone="small_cnn_gn",
            precision="fp64",
            epochs=2,
            batch_size=8,
            learning_rate=0.01,
        )


class TestSpmlOnFeatures(TestSpml):
    """Soft labels, and two stages of teachers."""

    kind = "features"
    ranks_differ_by = None

    def make(self) -> Spml:
        return Spml(loss="em_apl", warmup_epochs=1, epochs=3, batch_size=8, patience=3)


class TestSoftmax(MethodContract):
    ranks_differ_by = 0.0

    def make(self) -> Softmax:
        return Softmax(epochs=3)


class TestContinuous(MethodContract):
    ranks_differ_by = 0.0

    def make(self) -> Continuous:
        return Continuous(epochs=8)


class TestStudentOnFeatures(MethodContract):
    kind = "features"

    def make(self) -> Student:
        return Student(epochs=2, sure=0.3)


class TestPriorScores(MethodContract):
    kind = "features"
    prior = True
    ranks_differ_by = 0.0
    one_epoch = True

    def make(self) -> PriorScores:
        return PriorScores(temperature=None)


def test_every_method_of_the_catalogue_is_here() -> None:
    tested = [cls().make().name for cls in MethodContract.__subclasses__()]
    assert set(INSTALLED.own("method")) <= set(tested)


MOMENT = itertools.count()
"""What differs from one run to the next, as a clock does."""


class Forgetful(SoftmaxTrainer):
    """Its state lacks the momentum."""

    def state(self) -> dict[str, Any]:
        return {name: value for name, value in super().state().items() if name != "velocity"}


class Hasty(SoftmaxTrainer):
    """Draws other numbers each time it is made."""

    def __init__(self, *args: Any, seed: int, **named: Any) -> None:
        super().__init__(*args, seed=seed + next(MOMENT), **named)


class Blind(SoftmaxTrainer):
    """Guesses refused classes."""

    def scores(self, split: Any, ids: Any, names: Any) -> Any:
        return super().scores("validation", ids, names)


class Moody(SoftmaxTrainer):
    """Its model file does not say all that scores depend on."""

    def scores(self, split: Any, ids: Any, names: Any) -> Any:
        shift = 0.1 * self.steps
        self.weight = self.weight + shift
        found = super().scores(split, ids, names)
        self.weight = self.weight - shift
        return found

    def predict_with(self, model: dict[str, Any]) -> None:
        self.weight = 2 * model["weight"]


class Wide(SoftmaxTrainer):
    """Its embeddings have 64 bits a number."""

    def scores(self, split: Any, ids: Any, names: Any) -> Any:
        found = super().scores(split, ids, names)
        return {n: a.astype("f8") if n == "embedding" else a for n, a in found.items()}


@dataclass(frozen=True, kw_only=True)
class Silent(Softmax):
    """Reads a setting that is not in its plan."""

    name: ClassVar[str] = "silent"

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        plan = super().stage(number, rounds, has_negatives=has_negatives)
        return dataclasses.replace(
            plan, settings={k: v for k, v in plan.settings.items() if k != "rate"}
        )


@dataclass(frozen=True, kw_only=True)
class Gap(Continuous):
    """Leaves out an epoch between two stages."""

    name: ClassVar[str] = "gap"

    def stage(self, number: int, rounds: int, *, has_negatives: bool) -> StagePlan:
        plan = super().stage(number, rounds, has_negatives=has_negatives)
        first, stop = plan.epochs
        return dataclasses.replace(plan, epochs=(first + 1 if number else 0, stop))


@dataclass(frozen=True, kw_only=True)
class Restless(Continuous):
    """Draws anew in each stage, so that the parts are not the whole."""

    name: ClassVar[str] = "restless"
    trainer: ClassVar[str] = f"{__name__}:DrawsAnew"


class DrawsAnew(SoftmaxTrainer):
    def load(self, state: dict[str, Any]) -> None:
        super().load({name: value for name, value in state.items() if name != "seed"})


def trained_by(trainer: type[SoftmaxTrainer]) -> Softmax:
    @dataclass(frozen=True, kw_only=True)
    class Fake(Softmax):
        name: ClassVar[str] = "fake"

    Fake.trainer = f"{__name__}:{trainer.__name__}"
    return Fake(epochs=3)


@pytest.mark.parametrize(
    ("method", "law"),
    [
        (trained_by(Forgetful), "test_killed_after_any_epoch_it_ends_as_if_it_had_not_been"),
        (trained_by(Hasty), "test_a_stage_is_a_function_of_its_request"),
        (trained_by(Blind), "test_refused_classes_are_not_guessed"),
        (trained_by(Moody), "test_a_trained_stage_says_again_what_it_said"),
        (trained_by(Wide), "test_what_it_offers_it_gives"),
        (Silent(rate=0.25), "test_what_a_plan_leaves_out_is_not_read"),
        (Gap(), "test_a_plan_follows_from_its_arguments_alone"),
        (Restless(), "test_a_training_in_parts_is_the_training_at_once"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_contract_catches_a_method_that_breaks_it(
    method: Any, law: str, tmp_path: Path
) -> None:
    class Contract(MethodContract):
        def make(self) -> Any:
            return method

    run = getattr(Contract(), law)
    arguments = [tmp_path] if "tmp_path" in inspect.signature(run).parameters else []
    with pytest.raises((AssertionError, KeyError)):
        run(*arguments)
