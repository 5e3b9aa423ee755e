"""The verbs that run a sweep: `sweep`, `resume`, `retry`, `extend`. Each ends with the report and
an exit status.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator import driver
from orchestrator.commands.report import write_and_show
from orchestrator.driver import Ended, Engine
from orchestrator.reporting import results, status
from orchestrator.sweeps import resolved
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import LimitReached
from search_spaces.reading.config import Spec
from trainers.stage import Diverged


def sweep(
    spec: Spec,
    engine: Engine,
    *,
    out: str | Path | None,
    as_json: bool,
    accept_failures: bool = False,
    retry_failed: int = 0,
) -> int:
    """Runs `spec`. Returns the exit status.

    Args:
        accept_failures: failed trials do not count in it.
        retry_failed: how often a failed trial is run again.
    """
    ended = driver.start(spec, engine, out=out, retry_failed=retry_failed)
    return _finish(ended, as_json=as_json, accept_failures=accept_failures)


def resume(
    location: str | Path,
    engine: Engine,
    overrides: Sequence[str] = (),
    *,
    as_json: bool,
    accept_failures: bool = False,
    retry_failed: int = 0,
) -> int:
    """Goes on with the sweep at `location`. Returns the exit status; as `sweep`."""
    ended = driver.resume(location, engine, overrides, retry_failed=retry_failed)
    return _finish(ended, as_json=as_json, accept_failures=accept_failures)


def retry(
    location: str | Path, engine: Engine, overrides: Sequence[str] = (), *, as_json: bool
) -> int:
    """Runs the failed trials again, and whatever else is unfinished. Returns the exit status."""
    return _finish(driver.retry(location, engine, overrides), as_json=as_json)


def extend(
    location: str | Path, more: int, engine: Engine, overrides: Sequence[str] = (), *, as_json: bool
) -> int:
    """Adds candidates to a search and runs them. Returns the exit status."""
    return _finish(driver.extend(location, more, engine, overrides), as_json=as_json)


def _finish(ended: Ended, *, as_json: bool, accept_failures: bool = False) -> int:
    code = write_and_show(ended.layout, ended.candidates, as_json=as_json)
    location, outcome = ended.layout.location, ended.outcome
    recorded = results.load(ended.layout, ended.candidates)
    price = status.price(recorded, ended.resources)
    if price is not None:
        print(price, file=sys.stderr)
    if outcome.limit is not None:
        left, total = ended.left
        print(
            f"stopped by {outcome.limit}: {left} of {total} stage trainings are left; continue"
            f" with: orchestrate resume {location}",
            file=sys.stderr,
        )
    elif outcome.waiting:
        print(
            f"{len(outcome.waiting)} trial(s) are unfinished; continue with: orchestrate resume"
            f" {location}",
            file=sys.stderr,
        )
    if outcome.failed:
        print(_of_failures(recorded, ended.layout), file=sys.stderr)
    if outcome.limit is not None:
        return LimitReached.exit_status
    if outcome.waiting:
        return 1
    return 0 if accept_failures else code


def _of_failures(recorded: results.SweepResults, layout: SweepLayout) -> str:
    """Returns what to do about failed trials: another try does not help those that diverged."""
    failed = [trial for trial in recorded.trials if trial.state == "failed"]
    diverged = sum(
        trial.failure is not None and trial.failure.kind == Diverged.__name__ for trial in failed
    )
    lines = []
    if diverged < len(failed):
        lines.append(
            f"{len(failed) - diverged} trial(s) failed; run them again with: orchestrate retry"
            f" {layout.location}"
        )
    if diverged:
        lines.append(
            f"{diverged} trial(s) diverged, and would again with the same settings, seed and data."
            f" Other settings are another sweep: {_with_other_settings(layout)}"
        )
    return "\n".join(lines)


def _with_other_settings(layout: SweepLayout) -> str:
    """Returns the command of this sweep with one more key to fill in."""
    begun = resolved.read(layout)
    words = ["orchestrate", "sweep", f"{layout.location}/{layout.spec}"]
    path = begun["data"]["path"]
    sets = [*begun["overrides"], *([] if path is None else [f"dataset.path={path}"])]
    words += [word for text in sets for word in ("--set", text)]
    return f"{shlex.join(words)} --set KEY=VALUE --out {shlex.quote(f'{layout.location}-again')}"
