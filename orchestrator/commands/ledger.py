"""The verbs `ledger show`, `verify` and `replay`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.commands import replay as ledgers
from orchestrator.labelling.ledger import LedgerError
from orchestrator.reporting import results
from orchestrator.reporting.comparison import label
from orchestrator.reporting.results import printable
from orchestrator.storage.opening import open_inside
from orchestrator.storage.segments import Segments, StoredSegments
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.resolved import holds_sweep


def _ledger_of(location: str | Path) -> Segments:
    """Returns the ledger at a location: its own, or that of its trial."""
    store, folder = open_inside(location)
    below = f"{folder}/" if folder else ""
    for name in (f"{below}ledger", folder):
        # A folder under the name of a segment is damage, which its reader tells.
        if any(each.endswith(".parquet") for each in (*store.names(name), *store.folders(name))):
            return StoredSegments(store, name)
    raise LedgerError(
        f"{location}: holds no ledger. Name a trial's folder, runs/<sweep>/trials/<id>, which"
        " `orchestrate ledger show runs/<sweep>` lists; `verify` also takes the whole sweep's"
    )


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(
            name,
            justify="left" if name in ("file", "kind", "sha256", "answer") else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*[_text(name, value) for name, value in row.items()])
    return table


def _text(name: str, value: Any) -> str:
    if name == "sha256":
        return str(value)[:12]
    return (
        f"{value:.4g}"
        if isinstance(value, float) and name == "confidence"
        else f"{value:.1f}"
        if isinstance(value, float)
        else str(value)
    )


def _write(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")


def show(location: str | Path, *, as_json: bool) -> int:
    """Prints every segment and every question with its answer; of a whole sweep, where the ledger
    of each trial is.
    """
    store, inside = open_inside(location)
    if not inside and holds_sweep(sweep := SweepLayout(store)):
        return _show_sweep(sweep, as_json=as_json)
    place = _ledger_of(location)
    segments, questions = ledgers.show(place), ledgers.questions(place)
    if as_json:
        _write({"segments": segments, "questions": questions})
        return 0
    console = Console()
    shown = [{name: value for name, value in row.items() if name != "file"} for row in segments]
    console.print(_table(shown, f"{place.location}: segments"))
    console.print()
    what = "labels of rounds" if questions and "label" in questions[0] else "questions"
    console.print(_table(questions, f"{len(questions)} {what}"))
    return 0


def _show_sweep(sweep: SweepLayout, *, as_json: bool) -> int:
    trials = [
        {
            "trial": sweep.place(f"{sweep.trials}/{result.trial.id}"),
            "seed": result.trial.seed,
            "name": label(" = ".join(candidate.cases) or None, candidate.settings, number),
        }
        for number, candidate in enumerate(results.load(sweep).candidates, start=1)
        for result in candidate.trials
    ]
    if as_json:
        _write({"trials": trials})
        return 0
    for trial in trials:
        print(printable(f"{trial['trial']}  seed {trial['seed']}  {trial['name']}"))
    return 0


def verify(location: str | Path, *, as_json: bool) -> int:
    """Says that a trial's checksum chain is whole, or that everything in a sweep's folder fits
    together; else names each file that does not.
    """
    store, inside = open_inside(location)
    if not inside and holds_sweep(sweep := SweepLayout(store)):
        return _verify_sweep(sweep, as_json=as_json)
    checks = ledgers.verify(_ledger_of(location))
    if as_json:
        _write(checks)
    else:
        print(
            f"{location}: whole; {checks['segments']} segments, {checks['rows']} rows, sha256"
            f" {checks['sha256']}"
        )
    return 0


def _verify_sweep(sweep: SweepLayout, *, as_json: bool) -> int:
    from orchestrator.commands.verify import verify_sweep

    checks = verify_sweep(sweep)
    problems = checks["problems"]
    if as_json:
        _write(checks)
    elif not problems:
        print(
            f"{sweep.location}: whole; {checks['trials']} trials, {checks['segments']} segments,"
            f" {checks['questions']} questions, {checks['stages']} stages,"
            f" sha256 {checks['sha256']}"
        )
    for line in (*checks["gone"], *problems):
        print(printable(line), file=sys.stderr)
    if problems:
        print(f"{sweep.location}: damaged: {len(problems)} problem(s)", file=sys.stderr)
    return 2 if problems else 0


def replay(location: str | Path, *, as_json: bool) -> int:
    """Prints the state of the pool, rebuilt from the segments alone."""
    state = ledgers.replay(_ledger_of(location))
    counts = asdict(state.counts()) | {"state_sha256": state.digest()}
    if as_json:
        _write(counts)
    else:
        for name, value in counts.items():
            print(
                f"{name.replace('_', ' '):18} {value:.1f}"
                if isinstance(value, float)
                else f"{name.replace('_', ' '):18} {value}"
            )
    return 0
