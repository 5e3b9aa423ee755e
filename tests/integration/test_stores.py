"""A whole sweep is kept by a store of another package as it is by a folder: swept, killed, resumed,
retried, reported and verified under an address.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
from pathlib import Path

import pytest

from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.records import encode_object, parse_object
from orchestrator.sweeps.stage_store import StageStore
from tests.helpers.dying import run_cli
from tests.helpers.packages import install
from tests.helpers.small_sweep import SPEC, Run, write_data
from tests.helpers.sweeps import outcome_of
from tests.helpers.toy_stores import DIES

POINTS = "[orchestrate.stores]\nsqlite = tests.helpers.toy_stores:SqliteStore\n"
ADDRESS = "sqlite://kept/sweep.db"


@pytest.fixture
def world(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working folder, with a spec and its data; a store is installed."""
    site = tmp_path_factory.mktemp("site")
    install(site, "toy_store", "", POINTS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def both(world: Path, run: Run) -> SweepLayout:
    """The sweep at the address; the same one is in the folder `out`."""
    for out in ("out", ADDRESS):
        code, _, err = run("sweep", "spec.yaml", "--engine", "inline", "--out", out)
        assert code == 0, err
    return SweepLayout.at(ADDRESS)


def kept_names(sweep: SweepLayout) -> set[str]:
    """Names of everything on record; what a try has made is named by it."""
    names = (re.sub(r"-[0-9a-f]{8}\.", "-ATTEMPT.", name) for name in sweep.store.names())
    return {name for name in names if not name.endswith("lock")}


def plain(text: str) -> str:
    """A command's answer without times, and without where the sweep is."""
    return re.sub(r'"(seconds[a-z_]*|root)": [^,\n]+', r'"\1": 0', text)


def test_what_is_kept_and_said_is_what_a_folder_keeps_and_says(
    both: SweepLayout, world: Path, run: Run
) -> None:
    assert outcome_of(ADDRESS) == outcome_of("out")
    assert kept_names(both) == kept_names(SweepLayout.at("out"))
    for words in (["report"], ["status"]):
        answers = [run(*words, place, "--json") for place in ("out", ADDRESS)]
        assert [code for code, *_ in answers] == [0, 0]
        assert plain(answers[0][1]) == plain(answers[1][1])
    trial = both.store.folders("trials")[0]
    for action in ("show", "replay", "verify"):
        for inside in (trial, f"{trial}/ledger", f"{trial}/"):
            (one, expected, _), (two, found, err) = (
                run("ledger", action, f"{place}/{inside}", "--json") for place in ("out", ADDRESS)
            )
            assert (one, two) == (0, 0), err
            assert json.loads(expected) == json.loads(found)
    code, out, _ = run("ledger", "verify", ADDRESS)
    assert code == 0 and out.startswith(f"{ADDRESS}: whole; 2 trials")
    # Nobody has made a folder of an address.
    assert sorted(path.name for path in world.iterdir() if path.is_dir()) == ["kept", "out", "runs"]


def test_the_report_is_kept_and_can_be_opened(both: SweepLayout, world: Path, run: Run) -> None:
    name = ADDRESS.rpartition("/")[2]
    folder = world / "runs" / name / "report"
    shown = {f"report/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert "report/report.html" in shown
    # Of what the files were made stays where they were made.
    kept = set(both.store.names("report")) - {"report/report.sha256.json"}
    assert shown == {name: both.store.get(name) for name in kept}
    _, out, _ = run("report", ADDRESS)
    assert f"runs/{name}/report/report.html" in "".join(out.split())


def test_killed_before_any_write_it_goes_on_and_ends_equal(
    both: SweepLayout, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life makes a few more writes than the one before, until none is left."""
    place = "sqlite://dying.db"
    deaths, lives = 0, itertools.count(1)
    while True:
        monkeypatch.setenv(DIES, str(next(lives) * 2))
        code = run_cli(["sweep", "spec.yaml", "--engine", "inline", "--out", place], world)
        if code == 0:
            break
        assert code == -signal.SIGKILL, (world / "log").read_text()
        deaths += 1
    assert deaths > 5
    assert outcome_of(place) == outcome_of("out")
    monkeypatch.delenv(DIES)
    assert run_cli(["ledger", "verify", place], world) == 0, (world / "log").read_text()


def test_what_failed_is_run_again_and_what_is_whole_is_left(both: SweepLayout, run: Run) -> None:
    before = {name: both.store.get(name) for name in both.store.names("trials")}
    trial = both.trial(both.store.folders("trials")[0].rpartition("/")[2])
    last = max(both.store.names(trial.stages))
    both.store.remove(last)
    both.store.put(trial.error, b'{"stage": 1, "message": "no memory"}')
    code, out, _ = run("status", ADDRESS)
    assert code == 2 and "missing; restore it from a copy" in " ".join(out.split())
    code, _, err = run("retry", ADDRESS, "--engine", "inline")
    assert code == 0, err
    assert "1 failed trial(s) to run again" in err
    assert {name: both.store.get(name) for name in both.store.names("trials")} == before
    code, _, err = run("extend", ADDRESS, "-n", "1", "--engine", "inline")
    assert code == 2 and f"{ADDRESS}: is a grid" in err


def test_damage_is_said_with_its_place_and_nothing_goes_on(both: SweepLayout, run: Run) -> None:
    name = both.candidate(1)
    content = parse_object(both.store.get(name))
    both.store.put(name, encode_object(content | {"number": 7}), replace=True)
    for words in (["report"], ["status"], ["ledger", "verify"], ["resume", "--engine", "inline"]):
        code, out, err = run(*words, ADDRESS)
        assert code == 2 and f"{ADDRESS}/{name}: " in " ".join((out + err).split())


def test_a_lost_stage_file_is_said_and_trained_again(both: SweepLayout, run: Run) -> None:
    stage = StageStore(both.store).find(both.store.folders("stages")[0].rpartition("/")[2])
    assert stage is not None
    both.store.remove(stage.name("model"))
    code, _, err = run("ledger", "verify", ADDRESS)
    assert code == 2 and f"{ADDRESS}/{stage.name('model')}: missing or damaged" in err


def test_another_spec_and_a_driver_at_work_are_refused(both: SweepLayout, run: Run) -> None:
    again = ["sweep", "spec.yaml", "--engine", "inline", "--out", ADDRESS]
    code, _, err = run(*again, "--set", "method.epochs=2")
    assert code == 2 and f"{ADDRESS}: already holds another sweep" in err
    with both.store.hold(both.lock, wait=False):
        code, _, err = run(*again)
        assert code == 2 and "in use by" in err


def test_an_address_that_is_known_is_told_for_one_that_is_not(
    world: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("sweep", "spec.yaml", "--engine", "inline", "--out", "redis://host/x")
    assert "addresses that can be used here begin with s3://, sqlite://" in capfd.readouterr().err
    assert run("doctor", "--no-ray", "--out", ADDRESS)[1].count(f"{ADDRESS}: can be written") == 1
