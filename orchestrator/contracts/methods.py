"""The laws of training methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from orchestrator.contracts.plugins import PluginContract, loaded_by
from orchestrator.contracts.stages import CLASSES, TEST, committed, some_inputs, write_cache
from trainers.artefacts import StageFiles
from trainers.method import Method, StagePlan, as_planned, keeps_state
from trainers.metrics import TOP1, Metric
from trainers.stage import EXTRA_ARRAYS, POOL_ARRAYS, StageInputs, StageOutcome, StageRequest

Arrays = dict[str, npt.NDArray[Any]]

_ROUNDS = 2


class MethodContract(PluginContract):
    """A training method. `make` gives one that trains in a moment, in two epochs or more a
    stage where it knows more than one.

    Most laws train on 120 small images of four classes, on the CPU.
    """

    kind: ClassVar[str] = "images"
    """What it is trained on: `images` of 8 x 8 pixels, or `features`."""
    prior: ClassVar[bool] = False
    """Whether the data has prior scores."""
    metric: ClassVar[Metric] = TOP1
    """What it is judged by."""
    one_epoch: ClassVar[bool] = False
    """Whether a stage is one epoch, whatever the settings."""
    ranks_differ_by: ClassVar[float | None] = None
    """How far scores of two ranks may be from those of one; None: nothing is promised."""

    def test_it_says_what_it_is(self) -> None:
        method: Any = self.make()
        assert isinstance(method.version, int)
        for names in (method.tasks, method.offers):
            assert names and all(isinstance(name, str) for name in names)
        module, _, cls = method.trainer.partition(":")
        assert module and cls, "`trainer` is module:Class"
        if "multiclass" in method.tasks:
            assert set(POOL_ARRAYS) <= set(method.offers), "strategies rank by any of these"
        assert self.metric.array in method.offers

    def test_its_plans_need_no_torch(self) -> None:
        heavy = ("torch", "torchvision", "ray")
        assert loaded_by(self.make(), "stage(1, 2, has_negatives=True)", heavy) == []

    def test_a_plan_follows_from_its_arguments_alone(self) -> None:
        method: Any = self.make()
        for rounds in (0, 1, 3):
            before: StagePlan | None = None
            for number in range(rounds + 1):
                for negatives in (False, True):
                    plan = method.stage(number, rounds, has_negatives=negatives)
                    assert plan == self.make().stage(number, rounds, has_negatives=negatives)
                    json.dumps(dict(plan.settings), allow_nan=False)
                first, stop = plan.epochs
                assert 0 <= first <= stop
                assert set(plan.reads) <= {"model", "state", "scores"}
                assert number or not plan.reads, "there is no stage before stage 0"
                if "state" in plan.reads:
                    assert keeps_state(method), "a state that is read must be kept"
                    assert before is not None and first == before.epochs[1], (
                        "it goes on where the stage before stopped"
                    )
                before = plan

    def test_a_stage_is_a_function_of_its_request(self, tmp_path: Path) -> None:
        world = self._world(tmp_path)
        for number in (0, 1):
            first, second = (world.train(number, name) for name in ("a", "b"))
            assert first == second, "the same request gave other bytes"

    def test_what_a_plan_leaves_out_is_not_read(self, tmp_path: Path) -> None:
        method: Any = self.make()
        needed = {
            item.name: getattr(method, item.name)
            for item in fields(method)
            if item.default is MISSING and item.default_factory is MISSING
        }
        plain, world = type(method)(**needed), self._world(tmp_path)
        for number in (0, 1):
            plan = world.plan(number)
            bare = as_planned(plain, plan)
            assert world.train(number, "a") == world.train(number, "b", method=bare), (
                "a setting that is not in the plan had an effect"
            )

    def test_killed_after_any_epoch_it_ends_as_if_it_had_not_been(self, tmp_path: Path) -> None:
        world = self._world(tmp_path)
        for number in (0, 1):
            whole = world.train(number, "whole")
            first, stop = world.plan(number).epochs
            assert self.one_epoch or stop - first > 1, "`make` needs two epochs or more in a stage"
            for epoch in range(first, stop):
                assert world.killed(number, f"killed-{epoch}", epoch) == whole

    def test_what_it_offers_it_gives(self, tmp_path: Path) -> None:
        world = self._world(tmp_path)
        offers = world.method.offers
        arrays, inputs = world.arrays(0, "all", wants=world.extras), world.inputs(0)
        pool, judged = len(inputs.pool_ids), self.metric.array
        assert np.array_equal(arrays["item_ids"], inputs.pool_ids)
        for name in offers:
            array = arrays[name]
            assert len(array) == pool, f"{name}: a row for each image of the pool"
            if name in POOL_ARRAYS:
                assert array.shape == (pool,)
            if name.endswith("guess"):
                assert array.dtype == np.int32 and array.min() >= 0 and array.max() < CLASSES
            elif name in (*POOL_ARRAYS, *EXTRA_ARRAYS):
                assert array.dtype == np.float32, f"{name} is {array.dtype}"
            assert np.isfinite(array).all()
        if "probabilities" in offers:
            assert arrays["probabilities"].shape == (pool, CLASSES)
            assert arrays["probabilities"].min() >= 0 and arrays["probabilities"].max() <= 1
        for name in ("last", "best_val"):
            assert len(arrays[f"test_{judged}_{name}"]) == TEST
        assert len(arrays[f"val_{judged}_last"]) == len(inputs.validation_ids)

    def test_refused_classes_are_not_guessed(self, tmp_path: Path) -> None:
        world = self._world(tmp_path)
        if "guess" not in world.method.offers:
            return
        arrays, inputs = world.arrays(1, "refused"), world.inputs(1)
        at = np.searchsorted(arrays["item_ids"], inputs.negative_ids)
        assert (arrays["guess"][at] != inputs.negative_classes).all()
        free = ~np.isin(arrays["item_ids"], inputs.negative_ids)
        for name in (name for name in POOL_ARRAYS if not name.startswith("raw_")):
            assert np.array_equal(arrays[name][free], arrays[f"raw_{name}"][free])

    def test_a_trained_stage_says_again_what_it_said(self, tmp_path: Path) -> None:
        world = self._world(tmp_path)
        for number in (0, 1):
            offers = world.method.offers
            arrays = world.arrays(number, "wanted", wants=world.extras)
            again = world.scored_again(number, "wanted", offers)
            for name in offers:
                assert again[name].tobytes() == arrays[name].tobytes(), name

    def test_a_training_in_parts_is_the_training_at_once(self, tmp_path: Path) -> None:
        world = self._world(tmp_path)
        plan = world.plan(1)
        if "state" not in plan.reads:
            return
        inputs = world.inputs(1)
        parts = world.arrays(1, "parts", inputs=inputs, before=inputs)
        whole = StagePlan(plan.settings, (0, plan.epochs[1]))
        at_once = world.arrays(0, "whole", plan=whole, inputs=inputs)
        for name in at_once:
            if not name.endswith("best_val"):
                assert parts[name].tobytes() == at_once[name].tobytes(), name

    def test_two_ranks_train_what_one_trains(self, tmp_path: Path) -> None:
        if self.ranks_differ_by is None:
            return
        from orchestrator.engines.launch import LocalLauncher

        world = self._world(tmp_path)
        alone = world.arrays(0, "alone")
        request = world.request(0, "together")
        files = committed(request, LocalLauncher("cpu", 2).train(request))
        for name, array in files.scores().items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(array, alone[name], atol=self.ranks_differ_by)
            elif self.ranks_differ_by == 0:
                assert np.array_equal(array, alone[name]), name

    def _world(self, folder: Path) -> _World:
        return _World(self.make(), folder, self.kind, self.metric, prior=self.prior)


class _Killed(BaseException):
    pass


class _World:
    """Two stages of one method: the first knows some labels, the second also refused classes."""

    def __init__(
        self, method: Method, folder: Path, kind: str, metric: Metric, *, prior: bool
    ) -> None:
        self.method, self.folder, self.metric = method, folder, metric
        self.data, self.truth = write_cache(folder / "cache", kind=kind, prior=prior)
        self.parents: dict[str, StageFiles] = {}
        self.extras = tuple(name for name in method.offers if name not in POOL_ARRAYS)

    def plan(self, number: int) -> StagePlan:
        return self.method.stage(number, _ROUNDS, has_negatives=number > 0)

    def inputs(self, number: int) -> StageInputs:
        return some_inputs(self.truth, labelled=16 + 8 * number, refused=40 * number)

    def request(
        self, number: int, name: str, before: StageInputs | None = None, **changes: Any
    ) -> StageRequest:
        work_dir = self.folder / f"{name}-{number}"
        work_dir.mkdir(exist_ok=True)
        request = StageRequest(
            key=f"{name}-{number}",
            stage=number,
            seed=3,
            draw=number,
            method=self.method,
            plan=self.plan(number),
            data_dir=self.data,
            inputs=self.inputs(number),
            work_dir=work_dir,
            attempt="a",
            checkpoint_seconds=0,
            metric=self.metric,
        )
        request = replace(request, **changes)
        if request.plan.reads:
            request = replace(request, parent=self._parent(before or self.inputs(0)))
        return request

    def arrays(self, number: int, name: str, **changes: Any) -> Arrays:
        return dict(self._trained(self.request(number, name, **changes)).scores())

    def train(self, number: int, name: str, **changes: Any) -> dict[str, bytes]:
        """Bytes of every file that the stage leaves."""
        return _contents(self._trained(self.request(number, name, **changes)))

    def killed(self, number: int, name: str, epoch: int) -> dict[str, bytes]:
        """The same of a stage that died after this epoch and was begun again."""

        def die(entry: dict[str, Any]) -> None:
            if entry["epoch"] == epoch:
                raise _Killed

        request = self.request(number, name)
        try:
            self._trained(request, die)
        except _Killed:
            return _contents(self._trained(replace(request, attempt="b")))
        raise AssertionError(f"epoch {epoch} was not trained")

    def scored_again(self, number: int, name: str, names: tuple[str, ...]) -> Arrays:
        from trainers.run import run_stage

        request = self.request(number, name)
        outcome = StageOutcome(files={"model": "model-a.pt"}, metrics={})
        again = replace(request, attempt="b", wants=names, committed=committed(request, outcome))
        return dict(committed(again, run_stage(again)).scores())

    def _trained(
        self, request: StageRequest, on_epoch: Callable[[dict[str, Any]], None] | None = None
    ) -> StageFiles:
        from trainers.run import run_stage

        return committed(request, run_stage(request, on_epoch=on_epoch))

    def _parent(self, inputs: StageInputs) -> StageFiles:
        name = f"parent-{inputs.digest()}"
        if name not in self.parents:
            self.parents[name] = self._trained(self.request(0, name, inputs=inputs))
        return self.parents[name]


def _contents(files: StageFiles) -> dict[str, bytes]:
    return {role: files.read(role) for role in sorted(files.files)}
