"""Runs a sweep on Ray: Tune schedules candidates, a broker owns the worker groups that train, an
actor per trial holds its pool.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from orchestrator.data import delivery
from orchestrator.data.delivery import Part
from orchestrator.data.prepare import PreparedData
from orchestrator.data.shelf import VARIABLE, Shelf
from orchestrator.engines.inline import Outcome, outcome_on_record
from orchestrator.engines.limits import Limits
from orchestrator.engines.progress import Progress
from orchestrator.engines.ray.candidate import ASKED, FATAL, LIMIT, CandidateTrainable, SweepContext
from orchestrator.engines.ray.capacity import awaited, groups_that_fit
from orchestrator.engines.ray.cluster import Cluster
from orchestrator.engines.ray.events import EventReader
from orchestrator.engines.ray.node import WANTED, Token
from orchestrator.engines.ray.restarts import Restarts
from orchestrator.engines.ray.scratch import scratch_folder
from orchestrator.engines.ray.searcher import SourceSearcher
from orchestrator.engines.ray.watch import leave, services, watched
from orchestrator.engines.ray.worker_group import HEAD, BrokerActor, first_line, new_name
from orchestrator.search.source import Source
from orchestrator.storage.files import StorageLost
from orchestrator.storage.locks import TakenOver
from orchestrator.sweeps.candidates import Candidate
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import ClusterLost, SweepStopped
from search_spaces.reading.config import ResourcesConfig
from trainers.errors import UserError

# Tune would copy these of the driver's environment into the runtime environment of each candidate,
# which Ray keeps, shows and logs. Every machine finds its own.
ENV_VARS_TO_PROPAGATE.difference_update(
    {name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
)

HELD_SECONDS = 10.0
"""Between two looks whether another driver has taken over."""
CANDIDATES_PER_GROUP = 2
"""Candidates at work for each worker group: their seeds run side by side, so that one that waits
for a shared stage leaves no worker group idle.
"""


def run_on_ray(
    layout: SweepLayout,
    source: Source,
    candidates: Sequence[Candidate],
    num_candidates: int,
    data: PreparedData,
    resources: ResourcesConfig,
    device: str,
    cluster: Cluster,
    token: Token,
    progress: Progress,
    estimate: Callable[[], int] | None = None,
    limits: Limits | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Runs every candidate of the source until it is finished or failed. Returns how it ended and
    how busy the worker groups were.

    Args:
        candidates: all of the sweep, finished ones too; grows while a search draws.
        token: what machines show that join later (orchestrator.engines.ray.node).
        estimate: how many stage trainings a search will come to, by the candidates drawn so far.
        limits: what this run may use; None: no end.

    Raises:
        SweepStopped: nothing can be trained or recorded any more; the message says why.
        ClusterLost: Ray failed.
    """
    groups = groups_that_fit(cluster, resources)
    waiting_for = awaited(cluster, resources, groups)
    if waiting_for is not None:
        progress.note(waiting_for)
    on_the_head: Any = BrokerActor.options(resources=HEAD)  # type: ignore[attr-defined]
    limits = limits or Limits()
    broker = on_the_head.remote(
        new_name(), layout.store, groups, resources, device, limits, data, token
    )
    context = SweepContext(
        layout=layout, data=data, resources=resources, device=device, broker=broker
    )
    fatal, restarts = Fatal(broker, layout), Restarts(layout, resources.max_failures)
    supply = DataSupply(data, progress, fatal)
    go_on = (
        f"Everything recorded so far is kept; continue with: orchestrate resume {layout.location}"
    )

    def lost(name: str) -> None:
        leave(
            f"{name} has died, and the sweep with it. {go_on}",
            lambda: _clear(scratch, progress),
            status=ClusterLost.exit_status,
        )

    guard = watched(services(ray, cluster.address), lost, embedded=cluster.is_embedded)
    try:
        # Tune insists on a folder of its own; nothing in it is ever read back.
        with (
            scratch_folder() as scratch,
            guard,
            _shown(broker, progress, estimate, restarts, supply),
        ):
            ended = _tuner(context, source, num_candidates, groups, scratch, fatal, restarts).fit()
        if fatal.taken_over is not None:
            raise fatal.taken_over
        if fatal.message is not None:
            stopped = SweepStopped(fatal.message)
            stopped.exit_status = fatal.status
            raise stopped
        for error in ended.errors:
            # A failure of a trial itself is on its record; this is one that could not be recorded,
            # such as one process too many that died.
            progress.note(f"a candidate was given up: {str(error).strip().splitlines()[-1]}")
        use = _close(broker)
        limits.gpu_seconds = use.get("gpu_seconds", limits.gpu_seconds)
    except KeyboardInterrupt:
        progress.note(
            "interrupted; stopping (again: ends at once). Continue with: orchestrate resume"
            f" {layout.location}"
        )
        raise
    # An error of Ray or Tune is not to blame on a trial: those record their own failures. Ray
    # ends a process that has lost its cluster by SystemExit.
    except (RayError, TuneError, SystemExit) as error:
        raise ClusterLost(
            f"Ray failed while the sweep ran ({type(error).__name__}: {first_line(error)}). {go_on}"
        ) from error
    finally:
        with suppress(Exception):
            ray.kill(broker, no_restart=True)
    return replace(outcome_on_record(layout, candidates), limit=fatal.limit), use


def _clear(scratch: Path, progress: Progress) -> None:
    """Restores the terminal and removes temporary files."""
    progress.stop()
    shutil.rmtree(scratch, ignore_errors=True)


def _close(broker: Any) -> dict[str, Any]:
    """Stops all worker groups. Returns how busy they were: incomplete after a broker's restart."""
    try:
        use: dict[str, Any] = ray.get(broker.use.remote())
        ray.get(broker.close.remote())
    except RayError:
        return {}
    return use


@dataclass(slots=True)
class DataSupply:
    """Puts data that a machine lacks onto its shelf, once each part, beside the display."""

    data: PreparedData
    progress: Progress
    fatal: Fatal
    _begun: set[str] = field(default_factory=set)

    def put(self, part: Part, host: str) -> None:
        """Begins to put a part, unless it has begun."""
        if part in self._begun:
            return
        self._begun.add(part)
        assert self.data.shelf is not None, "data of a sweep has one"
        shelf = self.data.shelf
        self.progress.note(
            f"{host} has not the {part} of {self.data.name}; sending them by way of"
            f" {shelf.location}"
        )
        threading.Thread(target=self._put, args=(shelf, part), name="data", daemon=True).start()

    def _put(self, shelf: Shelf, part: Part) -> None:
        try:
            delivery.put(shelf, self.data, part, say=self.progress.note)
        except (UserError, OSError) as error:
            self.fatal.end(
                f"{part} of {self.data.name} cannot be sent to the cluster: {error}"
                f" ({VARIABLE}=PLACE names another place for data)",
                error.exit_status if isinstance(error, UserError) else SweepStopped.exit_status,
            )


class Fatal(tune.Stopper):  # type: ignore[misc]  # Ray has no types
    """Ends the sweep when a candidate reports that nothing can go on, rather than let every
    candidate find out and be restarted for it. Of a limit that is reached it only takes note: who
    trains is left to end.
    """

    def __init__(self, broker: Any, layout: SweepLayout) -> None:
        self._broker = broker
        self._layout = layout
        self._looked = time.monotonic()
        self.message: str | None = None
        self.status = SweepStopped.exit_status
        self.taken_over: TakenOver | None = None
        self.limit: str | None = None
        """The sweep's own limit, once a candidate has come to it."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if FATAL in result:
            self.end(*result[FATAL])
        self.limit = result.get(LIMIT) or self.limit
        return FATAL in result

    def end(self, message: str, status: int = SweepStopped.exit_status) -> None:
        """Ends the sweep at Tune's next look; candidates that wait for a stage are let go."""
        if self.message is None:
            self.message, self.status = message, status
            self._broker.close.remote()

    def stop_all(self) -> bool:
        if time.monotonic() - self._looked > HELD_SECONDS:
            self.check_held()
        return self.message is not None or self.taken_over is not None

    def may_draw(self) -> bool:
        """Returns whether another candidate is to be begun."""
        return self.limit is None and self.check_held()

    def check_held(self) -> bool:
        """Returns whether this driver still has the sweep; where another has taken it over, nothing
        goes on here.
        """
        self._looked = time.monotonic()
        try:
            if self.taken_over is None:
                self._layout.store.check_held(self._layout.lock)
        except TakenOver as error:
            self.taken_over = error
            self._broker.close.remote()
        except StorageLost as error:
            self.end(str(error), error.exit_status)
        return self.taken_over is None and self.message is None


def _tuner(
    context: SweepContext,
    source: Source,
    num_candidates: int,
    groups: int,
    scratch: Path,
    fatal: Fatal,
    restarts: Restarts,
) -> tune.Tuner:
    # 0.1 CPU for a candidate would keep a 2-CPU worker group off 2 cores.
    trainable = tune.with_resources(
        tune.with_parameters(CandidateTrainable, context=context),
        tune.PlacementGroupFactory([HEAD]),
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=SourceSearcher(source, fatal.may_draw),
            num_samples=max(1, num_candidates),
            max_concurrent_trials=CANDIDATES_PER_GROUP * groups,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            stop=fatal,
            callbacks=[restarts],
            failure_config=tune.FailureConfig(max_failures=context.resources.max_failures),
        ),
    )


@contextmanager
def _shown(
    broker: Any,
    progress: Progress,
    estimate: Callable[[], int] | None,
    restarts: Restarts,
    supply: DataSupply,
) -> Iterator[None]:
    """Events of the trials reach the display, and the count of restarts, while the block runs."""
    stop, reader = threading.Event(), EventReader()

    def drain(*, last: bool = False) -> None:
        try:
            reply = broker.take_events.remote(reader.name, reader.seen, last=last)
            events = reader.fresh(ray.get(reply, timeout=5))
        except Exception:
            # The broker is being restarted, and what it had to say is lost with it; or Ray is slow
            # or going down, and says it the next time.
            return
        if events and estimate is not None:
            progress.set_total(estimate())
        for kind, whose, value in events:
            if kind == ASKED:
                restarts.training[whose] = value
                continue
            if kind == WANTED:
                supply.put(whose, value)
                continue
            getattr(progress, kind)(whose, value)

    def loop() -> None:
        while not stop.wait(0.3):
            drain()

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=6)
        drain(last=True)
