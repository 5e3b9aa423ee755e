"""The life of a sweep on Ray as its user sees it: search, extend, fail, retry, mend, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweeps.candidates import load_candidates
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers.on_disk import trial_in
from tests.helpers.real_sweep import BROKER, CANDIDATE, POOL, RANK, RealSweep
from tests.helpers.sweeps import TINY_SPEC, outcome_of, read_stages

# A machine that is busy with other things takes many times as long.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HEAD = (
    TINY_SPEC.partition("cases:")[0]
    .replace("epochs: 2", "epochs: 1")
    .replace("[0.5, 0.5]", "[1.0]")
)
RESOURCES = (
    "resources: {workers: 1, gpus_per_worker: 0, cpus_per_worker: 1, max_concurrent: 2,"
    " checkpoint_seconds: 0}\n"
)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def run(root: Path, temp: Path, *argv: str) -> tuple[int, str]:
    with RealSweep(root, temp, list(argv)) as sweep:
        sweep.log.write_text("")
        status = sweep.ended()
        sweep.assert_nothing_is_left()
        return status, sweep.said()


def candidates(root: Path) -> list[str]:
    return [candidate.id for candidate in load_candidates(SweepLayout.at(root))]


def finished(root: Path) -> dict[str, int]:
    return {
        path.parent.name: len(read_stages(trial_in(path.parent)))
        for path in root.glob("trials/*/stages")
    }


def test_a_search_is_run_extended_and_gone_on_with(temp: Path, tmp_path: Path) -> None:
    root = tmp_path / "search"
    spec = written(
        tmp_path / "search.yaml",
        HEAD + "vary:\n  schedule.initial_labels_per_class: {choice: [1, 2, 3]}\n "
        " method.consistency_weight: {loguniform: [1, 100]}\nseeds: [0, 1]\nsearch: {algorithm:"
        " tpe, num_candidates: 3, seed: 0}\n" + RESOURCES,
    )
    status, said = run(root, temp, "sweep", str(spec), "--local", "--out", str(root))
    assert status == 0, said
    first = candidates(root)
    assert len(set(first)) == 3
    assert list(finished(root).values()) == [2] * 6
    before = outcome_of(root)
    # Nothing is left to do: a resume trains nothing and changes nothing.
    status, said = run(root, temp, "resume", str(root), "--local")
    assert status == 0, said
    assert outcome_of(root) == before
    with RealSweep(root, temp, ["extend", str(root), "-n", "2", "--local"]) as sweep:
        sweep.until("a new candidate trains", lambda sweep: sweep.records() > 12)
        sweep.driver.kill()
    status, said = run(root, temp, "resume", str(root), "--local")
    assert status == 0, said
    assert len(set(candidates(root))) == 5
    assert candidates(root)[:3] == first
    assert list(finished(root).values()) == [2] * 10
    after = outcome_of(root)
    assert {trial: after[trial] for trial in before} == before
    status, said = run(root, temp, "report", str(root), "--json")
    assert status == 0
    assert [row["n"] for row in json.loads(said)["rows"]] == [2] * 5


def test_a_trial_that_fails_stops_no_other_and_runs_again_on_retry(
    temp: Path, tmp_path: Path
) -> None:
    root = tmp_path / "nan"
    spec = written(
        tmp_path / "nan.yaml",
        HEAD
        + "cases:\n  wild: {method.learning_rate: 1000, method.epochs: 4}\n  tame: {}\nseeds: [0]\n"
        + RESOURCES,
    )
    status, said = run(root, temp, "sweep", str(spec), "--local", "--out", str(root))
    assert status == 1, said
    assert "1 trial(s) diverged" in said
    [failure] = root.glob("trials/*/error.json")
    reason = json.loads(failure.read_text())
    assert reason["kind"] == "Diverged"
    assert "method.learning_rate" in reason["message"]
    assert "ray::" not in reason["message"]
    assert sorted(finished(root).values()) == [2]
    before, ledgers = (
        failure.stat().st_mtime_ns,
        {path: path.read_bytes() for path in root.rglob("*.parquet")},
    )
    # A resume leaves it alone.
    status, said = run(root, temp, "resume", str(root), "--local")
    assert status == 1, said
    assert failure.stat().st_mtime_ns == before
    status, said = run(root, temp, "retry", str(root), "--local")
    assert status == 1, said
    assert "1 failed trial(s) to run again; 1 of them diverged" in said
    assert failure.stat().st_mtime_ns > before
    assert {path: path.read_bytes() for path in root.rglob("*.parquet")} == ledgers, (
        "the failed trial paid again"
    )


def test_a_place_that_cannot_be_written_ends_the_sweep_with_one_message(
    temp: Path, tmp_path: Path
) -> None:
    """A trial's record cannot be written: no trial is to blame, nobody tries again in vain, and
    once mended the sweep goes on.
    """
    root = tmp_path / "unwritable"
    spec = written(
        tmp_path / "s.yaml",
        HEAD + "cases:\n  one: {}\n  other: {method.nls: false}\nseeds: [0]\n" + RESOURCES,
    )
    argv = ["sweep", str(spec), "--local", "--out", str(root)]
    with RealSweep(root, temp, argv) as sweep:
        # Before any trial has a record: the place of its folder is taken by a file.
        sweep.until(
            "a stage trains",
            lambda sweep: (
                bool(sweep.processes(RANK)) and bool(list(sweep.root.glob("trials/*/ledger")))
            ),
        )
        blocked = [folder / "stages" for folder in root.glob("trials/*")]
        for path in blocked:
            path.write_text("in the way")
        assert sweep.ended() == 2, sweep.said()
        sweep.assert_nothing_is_left()
        said = sweep.said()
    assert any(str(path) in said for path in blocked)
    assert "Traceback" not in said
    assert not list(root.glob("trials/*/error.json"))
    for path in blocked:
        path.unlink()
    status, said = run(root, temp, "resume", str(root), "--local")
    assert status == 0, said
    assert list(finished(root).values()) == [2, 2]


def test_only_ranks_load_torch(temp: Path, tmp_path: Path) -> None:
    root = tmp_path / "light"
    spec = written(
        tmp_path / "s.yaml",
        HEAD + "cases:\n  one: {}\n  other: {query.strategy: easy}\nseeds: [0]\n" + RESOURCES,
    )
    loaded: dict[str, bool] = {}

    def look(sweep: RealSweep) -> bool:
        found: list[tuple[str, Any]] = [("driver", sweep.driver.pid)]
        found += [
            (kind, process.pid)
            for kind in (BROKER, CANDIDATE, POOL, RANK)
            for process in sweep.processes(kind)
        ]
        for kind, pid in found:
            try:
                loaded[kind] = (
                    loaded.get(kind, False) or "libtorch" in Path(f"/proc/{pid}/maps").read_text()
                )
            except OSError:
                continue
        return sweep.records() == 4

    with RealSweep(root, temp, ["sweep", str(spec), "--local", "--out", str(root)]) as sweep:
        sweep.until("all is on record", look)
        assert sweep.ended() == 0, sweep.said()
    assert loaded == {"driver": False, BROKER: False, CANDIDATE: False, POOL: False, RANK: True}
