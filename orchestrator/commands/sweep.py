"""The verbs that run a sweep: `sweep`, `resume`, `retry`, `extend`. Each ends with the report and
an exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator import driver
from orchestrator.commands.report import write_and_show
from orchestrator.driver import Ended, Engine
from orchestrator.reporting import results, status
from orchestrator.sweeps.stage_store import LimitReached
from search_spaces.reading.config import Spec


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
    price = status.price(results.load(ended.layout, ended.candidates), ended.resources)
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
        print(
            f"{len(outcome.failed)} trial(s) failed; run them again with: orchestrate retry"
            f" {location}",
            file=sys.stderr,
        )
    if outcome.limit is not None:
        return LimitReached.exit_status
    if outcome.waiting:
        return 1
    return 0 if accept_failures else code
