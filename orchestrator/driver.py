"""Runs a sweep from this process: what is refused is refused before anything is written; then the
lock, the engine, the seal.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestrator.catalogue import Catalogue
from orchestrator.data import prepare as datasets
from orchestrator.data.notes import print_notes
from orchestrator.data.references import parse_reference, reference_to
from orchestrator.data.shelf import shelf_of
from orchestrator.engines.inline import Outcome, outcome_on_record, run_inline
from orchestrator.engines.launch import check_cpus, choose_device
from orchestrator.engines.limits import Limits, limits_of
from orchestrator.engines.progress import OnStage, Progress
from orchestrator.reporting import results, status
from orchestrator.reporting.candidate_names import CandidateNames
from orchestrator.search.source import ListSource, Source
from orchestrator.storage.files import advice
from orchestrator.storage.opening import open_new
from orchestrator.sweeps import folder as sweeps
from orchestrator.sweeps import leftovers, resolved, seal
from orchestrator.sweeps.candidates import Candidate, is_failed, is_finished
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.resolved import SweepError
from orchestrator.sweeps.stage_records import stages_on_record
from orchestrator.sweeps.stage_store import ClusterLost
from orchestrator.sweeps.trainings import DistinctTrainings
from search_spaces.reading.config import ResourcesConfig, Spec
from search_spaces.reading.trials import make_trial
from trainers.stage import Diverged

if TYPE_CHECKING:
    from orchestrator.engines.ray.cluster import Cluster, Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where a sweep is to run."""

    name: str | None = "ray"
    """`ray` or `inline`; None: what the sweep was begun on, or `ray` where it is said which Ray."""
    address: str | None = None
    local: bool = False
    verbose: bool = False
    insecure: bool = False
    """Also on a Ray that asks for no access token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run of a sweep ended, and what it ran."""

    layout: SweepLayout
    candidates: list[Candidate]
    """All of the sweep, in order."""
    outcome: Outcome
    resources: ResourcesConfig
    """Of this run."""
    left: tuple[int, int] = (0, 0)
    """Stage trainings still to be done, and all of them, for the candidates drawn so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told how a sweep goes."""

    show: bool = True
    """Whether progress is shown on standard error."""
    on_stage: OnStage | None = None
    """Called in this process whenever a stage has finished. An error that it raises is raised again
    when the sweep has ended.
    """


SHOWS_PROGRESS = Listener()
"""Progress is shown, and nobody is called."""


def start(
    spec: Spec,
    engine: Engine,
    *,
    out: str | Path | None = None,
    listener: Listener = SHOWS_PROGRESS,
    retry_failed: int = 0,
) -> Ended:
    """Runs `spec` in its folder, or goes on with it if the folder holds this very sweep. What is
    refused is refused before anything is written there. A sweep that has nothing left to do starts
    no engine.

    Args:
        out: the sweep's folder, or the address of what else keeps it; None: runs/NAME.
        retry_failed: how often a failed trial is run again.
    """
    place = Path("runs") / spec.name if out is None else out
    layout, spec = SweepLayout(open_new(place)), sweeps.located(spec)
    device = _device(spec, engine)
    layout.store.check_writable()
    begun = sweeps.examine(spec, layout)
    _check_unlocked(layout)
    over = begun is not None and _is_over(
        _check_records(layout, (), spec.keys.catalogue), retry_failed
    )
    ray = _find_ray(engine, over=over)
    data = _prepare(spec, engine, layout, begun)
    if begun is not None:
        sweeps.check_data(layout, begun, data.labelled_fingerprint, spec)
    with _cluster(spec, engine, layout, ray) as cluster, _writing(layout, listener):
        candidates = sweeps.create(
            spec,
            layout,
            data=data.labelled_fingerprint,
            prepared=_prepared_at(spec, data, layout),
            engine=engine.name or "ray",
            device=device,
        )
        seal.write(layout)
        return _run(spec, layout, candidates, data, engine, cluster, listener, retry_failed)


def resume(
    location: str | Path,
    engine: Engine,
    overrides: Sequence[str] = (),
    *,
    listener: Listener = SHOWS_PROGRESS,
    plugins: Sequence[type[Any]] = (),
    retry_failed: int = 0,
) -> Ended:
    """Goes on with the sweep at `location` from its own records; `overrides` say where the data
    lies now, or are of resources that change no result. A sweep that has nothing left to do starts
    no engine.

    Args:
        retry_failed: how often a failed trial is run again.
    """
    return _go_on(
        SweepLayout.at(location),
        engine,
        overrides,
        lambda begun, spec, candidates: (spec, candidates),
        listener,
        plugins,
        is_over=lambda recorded: _is_over(recorded, retry_failed),
        retry_failed=retry_failed,
    )


def retry(
    location: str | Path,
    engine: Engine,
    overrides: Sequence[str] = (),
    *,
    listener: Listener = SHOWS_PROGRESS,
    plugins: Sequence[type[Any]] = (),
) -> Ended:
    """Runs the failed trials again, and whatever else is unfinished."""
    layout = SweepLayout.at(location)

    def forgiven(
        begun: dict[str, Any], spec: Spec, candidates: list[Candidate]
    ) -> tuple[Spec, list[Candidate]]:
        kinds = sweeps.clear_failures(layout, candidates)
        _say(listener, f"{len(kinds)} failed trial(s) to run again{_that_diverged(kinds)}")
        return spec, candidates

    return _go_on(
        layout,
        engine,
        overrides,
        forgiven,
        listener,
        plugins,
        is_over=lambda recorded: _is_over(recorded, 1),
    )


def extend(
    location: str | Path,
    more: int,
    engine: Engine,
    overrides: Sequence[str] = (),
    *,
    listener: Listener = SHOWS_PROGRESS,
    plugins: Sequence[type[Any]] = (),
) -> Ended:
    """Adds candidates to a search and runs them."""
    layout = SweepLayout.at(location)
    sweeps.check_extendable(layout, resolved.read(layout))
    return _go_on(
        layout,
        engine,
        overrides,
        lambda begun, spec, candidates: sweeps.extend(layout, begun, spec, candidates, more),
        listener,
        plugins,
    )


def _go_on(
    layout: SweepLayout,
    engine: Engine,
    overrides: Sequence[str],
    change: Callable[[dict[str, Any], Spec, list[Candidate]], tuple[Spec, list[Candidate]]],
    listener: Listener,
    plugins: Sequence[type[Any]],
    *,
    is_over: Callable[[results.SweepResults], bool] = lambda recorded: False,
    retry_failed: int = 0,
) -> Ended:
    """Runs what is left of the sweep after `change` has been made to its records. What is refused
    is refused before anything is changed.

    Args:
        is_over: whether nothing is left to do, by what is on record before the change.
    """
    spec, candidates, begun = sweeps.open_sweep(layout, overrides, plugins)
    engine = _chosen(engine, layout)
    _device(spec, engine)
    over = is_over(_check_records(layout, candidates, spec.keys.catalogue))
    _check_unlocked(layout)
    ray = _find_ray(engine, over=over)
    data = _prepare(spec, engine, layout, begun)
    sweeps.check_data(layout, begun, data.labelled_fingerprint, spec)
    with _cluster(spec, engine, layout, ray) as cluster, _writing(layout, listener):
        if not sweeps.is_as_read(layout, begun, candidates):
            # Another process went on with it before this one had the lock.
            spec, candidates, begun = sweeps.open_sweep(layout, overrides, plugins)
        begun = sweeps.relocate(layout, begun, spec, prepared=_prepared_at(spec, data, layout))
        seal.write(layout)
        spec, candidates = change(begun, spec, candidates)
        return _run(spec, layout, candidates, data, engine, cluster, listener, retry_failed)


def _chosen(engine: Engine, layout: SweepLayout) -> Engine:
    """Returns the engine with its name: the one that was asked for, else that of the sweep."""
    if engine.name is not None:
        return engine
    asked = engine.address is not None or engine.local
    return replace(engine, name="ray" if asked else sweeps.begun_on(layout))


def _say(listener: Listener, text: str) -> None:
    if listener.show:
        print(text, file=sys.stderr)


def _that_diverged(kinds: Sequence[str]) -> str:
    diverged = kinds.count(Diverged.__name__)
    if not diverged:
        return ""
    return (
        f"; {diverged} of them diverged, and training is a function of settings, seed and data:"
        " they diverge again unless the machine was at fault"
    )


def _check_records(
    layout: SweepLayout, candidates: Sequence[Candidate], catalogue: Catalogue
) -> results.SweepResults:
    """Returns what is on record; raises ResultsDamaged where records are not what was written, but
    for those that going on makes anew.
    """
    recorded = results.load(layout, candidates, catalogue)
    damaged = tuple(problem for problem in recorded.damaged if problem not in recorded.repairable)
    if damaged:
        raise results.ResultsDamaged(damaged)
    return recorded


def _is_over(recorded: results.SweepResults, retry_failed: int) -> bool:
    """Returns whether nothing is left to do: the records are the answer."""
    failed = any(trial.state == "failed" for trial in recorded.trials)
    return recorded.ended and not recorded.damaged and not (failed and retry_failed)


def _check_unlocked(layout: SweepLayout) -> None:
    """Raises LockHeld where another process runs the sweep, before data is decoded and a cluster
    started for nothing; makes no file.
    """
    if layout.store.is_held(layout.lock):
        with layout.store.hold(layout.lock, wait=False):
            pass


def _prepare(
    spec: Spec, engine: Engine, layout: SweepLayout, begun: dict[str, Any] | None
) -> datasets.PreparedData:
    """Returns the data, with where machines that lack it find it."""
    # On Ray, images that were prepared elsewhere go to the machines that train alone.
    data = datasets.prepare(_source(spec), images=engine.name == "inline")
    if data.decoded_now:
        print_notes(data)
    if data.shelf is not None:
        return data
    recorded = parse_reference(sweeps.prepared_at(begun) or "")
    shelf = shelf_of(layout.store, recorded.shelf.location if recorded is not None else None)
    return replace(data, shelf=shelf)


def _source(spec: Spec) -> Any:
    return make_trial(spec, {}, spec.seeds[0]).config.dataset.source


def _prepared_at(spec: Spec, data: datasets.PreparedData, layout: SweepLayout) -> str | None:
    """Returns the address that the data has, or would have, in a store that is not the sweep's
    own.
    """
    if data.shelf is None or data.shelf.store.location == layout.location:
        return None
    return reference_to(data, _source(spec), data.shelf).address


def _device(spec: Spec, engine: Engine) -> str:
    if engine.name == "inline":
        check_cpus(spec.resources)
        return choose_device(spec.resources)
    # Ray shows each rank its own GPUs alone, so the first of them is the rank's.
    return "cuda:0" if spec.resources.gpus_per_worker else "cpu"


@contextmanager
def _writing(layout: SweepLayout, listener: Listener) -> Iterator[None]:
    """This process alone writes the sweep; an interruption says how to go on."""
    layout.store.check_writable()
    try:
        with layout.store.hold(layout.lock, wait=False):
            leftovers.remove(layout)
            yield
    except KeyboardInterrupt:
        _say(listener, f"interrupted; continue with: orchestrate resume {layout.location}")
        raise
    except OSError as error:
        raise SweepError(
            f"{error.filename or layout.location}: {error.strerror or error}. Everything recorded"
            f" so far is kept; {advice(error)}, then run: orchestrate resume {layout.location}"
        ) from error


def _find_ray(engine: Engine, *, over: bool) -> Found | None:
    """Returns the Ray that the sweep runs on, before data is decoded for nothing; None for the
    inline engine, and where nothing is left to train.
    """
    if engine.name == "inline" or over:
        return None
    from orchestrator.engines.ray.cluster import find

    return find(address=engine.address, local=engine.local, insecure=engine.insecure)


@contextmanager
def _cluster(
    spec: Spec, engine: Engine, layout: SweepLayout, ray: Found | None
) -> Iterator[Cluster | None]:
    """Connects to the Ray that the sweep runs on and checks that it can train its stages; yields
    None where there is none.

    Raises:
        ClusterLost: Ray wanted to end this process, as it does when it has lost its node before the
            sweep is watched over.
    """
    if ray is None:
        yield None
        return
    from orchestrator.engines.ray.capacity import groups_that_fit
    from orchestrator.engines.ray.cluster import connect, quieten_ray

    quieten_ray(verbose=engine.verbose)
    try:
        with connect(verbose=engine.verbose, found=ray) as cluster:
            groups_that_fit(cluster, spec.resources)
            yield cluster
    except SystemExit as error:
        again = (
            f"continue with: orchestrate resume {layout.location}"
            if layout.store.has(layout.resolved)
            else "give the same command again"
        )
        raise ClusterLost(
            f"Ray has died under the sweep and wanted to end it with status {error.code}."
            f" Everything recorded so far is kept; {again}"
        ) from error


def _run(
    spec: Spec,
    layout: SweepLayout,
    candidates: list[Candidate],
    data: datasets.PreparedData,
    engine: Engine,
    cluster: Cluster | None,
    listener: Listener,
    retry_failed: int,
) -> Ended:
    """Runs what is left, then the trials that have failed, as often as `retry_failed` says."""
    outcome = outcome_on_record(layout, candidates)
    retries, limits = 0, limits_of(spec.resources)
    while True:
        layout.store.check_held(layout.lock)
        if _is_left(spec, candidates, outcome):
            if cluster is None and engine.name != "inline":
                raise SweepError(
                    f"{layout.location}: another process has changed it meanwhile, and there is"
                    " something left to do again. Give the same command again."
                )
            outcome = (
                _run_inline(spec, layout, candidates, data, engine, listener, limits)
                if cluster is None
                else _run_ray(spec, layout, candidates, data, engine, cluster, listener, limits)
            )
        elif not retries:
            _say(listener, f"nothing is left to run -> {layout.location}")
        if outcome.limit is not None or not outcome.failed or retries == retry_failed:
            break
        retries += 1
        kinds = sweeps.clear_failures(layout, candidates)
        _say(
            listener,
            f"{len(kinds)} failed trial(s) to run again ({retries} of"
            f" {retry_failed}){_that_diverged(kinds)}",
        )
        outcome = outcome_on_record(layout, candidates)
    layout.store.check_held(layout.lock)
    seal.write(layout)
    left = (0, 0)
    if outcome.limit is not None:
        recorded = results.load(layout, candidates, spec.keys.catalogue)
        to_do = status.remaining(recorded, spec.resources)
        left = to_do, max(to_do, DistinctTrainings(candidates).count())
    return Ended(
        layout=layout,
        candidates=candidates,
        outcome=outcome,
        resources=spec.resources,
        left=left,
    )


def _is_left(spec: Spec, candidates: Sequence[Candidate], outcome: Outcome) -> bool:
    """Returns whether a trial is unfinished, or a candidate still to be drawn."""
    wanted = spec.search.num_candidates if spec.search.algorithm.adaptive else None
    return bool(outcome.waiting) or (wanted is not None and len(candidates) < wanted)


def _announce(
    spec: Spec,
    layout: SweepLayout,
    candidates: list[Candidate],
    where: str,
    workers: int,
    listener: Listener,
) -> Progress:
    """Prints where the sweep runs and on what."""
    if spec.search.algorithm.adaptive:
        work, total = (
            f"{spec.search.num_candidates} candidates, {len(candidates)} of them drawn",
            None,
        )
    else:
        total = DistinctTrainings(candidates).count()
        work = f"{sum(len(c.trials) for c in candidates)} trials, {total} distinct stage trainings"
    _say(listener, f"{where}; {work} -> {layout.location}")
    quiet = None if listener.show else Console(quiet=True)
    return Progress(
        total,
        quiet,
        done=_done(layout, candidates),
        names=CandidateNames(candidates),
        workers=workers,
        on_stage=listener.on_stage,
    )


def _done(layout: SweepLayout, candidates: Sequence[Candidate]) -> set[str]:
    """Keys of the stages on record."""
    layout = SweepLayout(layout.store.view())
    layout.store.fetch(
        lambda names: (n for n in names if n.startswith(layout.trials) and "/stages/" in n)
    )
    return {
        record.key
        for candidate in candidates
        for trial in candidate.trials
        for record in stages_on_record(layout.trial(trial.id))
    }


def _source_of(
    spec: Spec, layout: SweepLayout, candidates: list[Candidate]
) -> tuple[Source, int, Callable[[], int] | None]:
    """Returns where the candidates that are left come from, how many there will be at most, and,
    for a search that learns, an estimate of its stage trainings.
    """
    if spec.search.algorithm.adaptive:
        number = spec.search.num_candidates or 0
        return (
            spec.search.algorithm.source(spec, layout, candidates),
            number,
            partial(DistinctTrainings(candidates).expected, number),
        )
    there = SweepLayout(layout.store.view())
    left = [
        c
        for c in candidates
        if not all(is_finished(there, t) or is_failed(there, t) for t in c.trials)
    ]
    return ListSource(deque(left)), len(left), None


def _run_inline(
    spec: Spec,
    layout: SweepLayout,
    candidates: list[Candidate],
    data: datasets.PreparedData,
    engine: Engine,
    listener: Listener,
    limits: Limits,
) -> Outcome:
    where = (
        f"inline: one process on this machine, {_device(spec, engine)},"
        f" {spec.resources.cpus_per_worker} thread(s) a stage"
    )
    source, _, estimate = _source_of(spec, layout, candidates)
    with _announce(spec, layout, candidates, where, 1, listener) as progress:
        outcome = run_inline(
            layout, source, candidates, data, spec.resources, progress, limits, estimate
        )
    return _after(outcome, progress)


def _after(outcome: Outcome, progress: Progress) -> Outcome:
    if progress.callback_error is not None:
        raise progress.callback_error
    return outcome


def _run_ray(
    spec: Spec,
    layout: SweepLayout,
    candidates: list[Candidate],
    data: datasets.PreparedData,
    engine: Engine,
    cluster: Cluster,
    listener: Listener,
    limits: Limits,
) -> Outcome:
    from orchestrator.engines.ray.capacity import groups_that_fit
    from orchestrator.engines.ray.engine import run_on_ray
    from orchestrator.engines.ray.node import proved_shared

    groups = groups_that_fit(cluster, spec.resources)
    source, number, estimate = _source_of(spec, layout, candidates)
    where = f"{cluster}; {groups} worker group(s) of {spec.resources.workers} rank(s)"
    with (
        _announce(spec, layout, candidates, where, groups, listener) as progress,
        proved_shared(layout.store) as token,
    ):
        outcome, use = run_on_ray(
            layout,
            source,
            candidates,
            number,
            data,
            spec.resources,
            _device(spec, engine),
            cluster,
            token,
            progress,
            estimate,
            limits,
        )
        if use.get("share") is not None:
            progress.note(
                f"worker groups were training {100 * use['share']:.0f}% of the time between the"
                " first stage's start and the last one's end"
            )
    return _after(outcome, progress)
