"""A whole sweep is kept in S3 as it is in a folder: swept, killed, resumed, reported and verified;
through an outage, and by one driver of two.
"""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path

import pytest

from orchestrator.storage import outages, terms
from orchestrator.storage.s3 import S3Store
from orchestrator.sweeps.layout import SweepLayout
from orchestrator.sweeps.stage_store import LockedStages
from tests.helpers.dying import run_cli
from tests.helpers.s3_server import BUCKET, KEY, SECRET, Decide, Fault, Proxy, objects
from tests.helpers.small_sweep import SPEC, Run, write_data
from tests.helpers.sweeps import outcome_of

pytestmark = pytest.mark.slow


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name[:60].strip('_')}/small"


@pytest.fixture
def world(tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """The working folder, with a spec, its data, and the sweep in the folder `out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)
    code, _, err = run("sweep", "spec.yaml", "--engine", "inline", "--out", "out")
    assert code == 0, err
    return tmp_path


def sweep_words(address: str) -> list[str]:
    return ["sweep", "spec.yaml", "--engine", "inline", "--out", address]


def plain(text: str) -> str:
    """A command's answer without times, and without where the sweep is."""
    return re.sub(r'"(seconds[a-z_]*|root)": [^,\n]+', r'"\1": 0', text)


def test_what_is_kept_and_said_is_what_a_folder_keeps_and_says(
    world: Path, address: str, run: Run, server: str
) -> None:
    code, out, err = run(*sweep_words(address))
    assert code == 0, err
    assert outcome_of(address) == outcome_of("out")
    said = [out, err]
    for words in (["report"], ["status"]):
        answers = [run(*words, place, "--json") for place in ("out", address)]
        assert [code for code, *_ in answers] == [0, 0], answers
        assert plain(answers[0][1]) == plain(answers[1][1])
        said += answers[1][1:]
    trial = SweepLayout.at(address).store.folders("trials")[0]
    for action in ("show", "replay", "verify"):
        one, two = (run("ledger", action, f"{at}/{trial}", "--json") for at in ("out", address))
        assert (one[0], two[0]) == (0, 0), two
        assert json.loads(one[1]) == json.loads(two[1])
    code, out, _ = run("ledger", "verify", address)
    assert code == 0 and out.startswith(f"{address}: whole; 2 trials")
    code, _, err = run("resume", address)
    assert code == 0, err
    said += [out, err]
    code, out, _ = run("doctor", "--no-ray", "--out", address)
    assert f"{address}: can be written" in out
    # The report lies here too, and nobody has made a folder of an address.
    here, kept = world / "runs/small/report", SweepLayout.at(address).store
    assert {f"report/{path.name}": path.read_bytes() for path in here.iterdir()} == {
        name: kept.get(name)
        for name in kept.names("report")
        # Of what the files were made: it stays where they were made.
        if name != "report/report.sha256.json"
    }
    assert not (world / "s3:").exists()
    # Credentials are nowhere.
    written = [*objects(server).values()]
    written += [path.read_bytes() for path in world.rglob("*") if path.is_file()]
    for secret in (KEY, SECRET):
        assert not [text for text in said if secret in text]
        assert not [data for data in written if secret.encode() in data]


def test_killed_at_any_put_it_goes_on_and_ends_equal(
    world: Path, address: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life makes a few more puts than the one before, until none is left."""
    deaths, allowed = 0, 4
    while True:
        stopped = threading.Event()
        proxy.decide = _deaf_after(allowed, stopped)
        killed = _run_until(stopped, sweep_words(address), world)
        proxy.decide = lambda method, path, headers: None
        if killed == 0:
            break
        assert killed == -signal.SIGKILL, (world / "log").read_text()
        deaths, allowed = deaths + 1, allowed + 9
    assert deaths > 2
    assert outcome_of(address) == outcome_of("out")
    assert run_cli(["ledger", "verify", address], world) == 0, (world / "log").read_text()


def _deaf_after(puts: int, stopped: threading.Event) -> Decide:
    """After so many puts the event is set, and nothing more is heard from the server."""
    left = [puts]

    def decide(method: str, path: str, headers: dict[str, str]) -> str | None:
        left[0] -= method == "PUT"
        if left[0] < 0:
            stopped.set()
        return Fault.CLOSE if stopped.is_set() else None

    return decide


def _run_until(stopped: threading.Event, words: list[str], folder: Path) -> int:
    """Exit status of the command, which is killed once the event is set."""
    from tests.helpers import dying

    child = dying._CONTEXT.Process(
        target=dying._child,
        args=(words, folder / "log", folder, dict(dying.os.environ), None, False),
    )
    child.start()
    while child.is_alive() and not stopped.wait(0.05):
        pass
    if stopped.is_set():
        child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def test_outages_in_the_middle_change_nothing(
    world: Path,
    address: str,
    proxy: Proxy,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every seven requests three meet a server that is down, or is busy, or does them and is
    down before it answers.
    """
    monkeypatch.setattr(outages, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(outages, "TELL_SECONDS", 0.0)
    number = [0]

    def away(method: str, path: str, headers: dict[str, str]) -> str | None:
        number[0] += 1
        return (Fault.CLOSE, None, None, Fault.BUSY, None, Fault.DONE_AND_CLOSE, None)[
            number[0] % 7
        ]

    proxy.decide = away
    code, _, err = run(*sweep_words(address))
    assert code == 0, err
    proxy.decide = lambda method, path, headers: None
    assert "does not answer" in err and "answers again" in err
    assert outcome_of(address) == outcome_of("out")
    assert run("ledger", "verify", address)[0] == 0


def test_a_server_that_stays_away_leaves_the_sweep_unfinished(
    world: Path, address: str, proxy: Proxy, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(method: str, path: str, headers: dict[str, str]) -> str | None:
        gone[0] = gone[0] or (method == "PUT" and "/ledger/0001" in path)
        return Fault.CLOSE if gone[0] else None

    gone = [False]
    proxy.decide = away
    monkeypatch.setenv(outages.VARIABLE, "0.5")
    monkeypatch.setattr(terms, "RELEASE_SECONDS", 0.1)
    code, _, err = run(*sweep_words(address))
    assert code == 5, err
    assert "did not answer for 0.5 s" in err and "failed" not in err
    monkeypatch.delenv(outages.VARIABLE)
    proxy.decide = lambda method, path, headers: None
    sweep = SweepLayout.at(address)
    assert not [name for name in sweep.store.names() if name.endswith("error.json")]
    # The end of the first driver's term could not be put, and its process lives: it is this one.
    monkeypatch.setattr(terms, "STILL_SECONDS", 0.5)
    monkeypatch.setattr(terms, "BEAT_SECONDS", 0.5)
    code, _, err = run("resume", address)
    assert code == 0, err
    assert outcome_of(address) == outcome_of("out")


def test_a_driver_at_work_is_left_alone(world: Path, address: str, run: Run) -> None:
    code, _, err = run(*sweep_words(address))
    assert code == 0, err
    with S3Store(address, beat_seconds=0.2).hold("driver.lock", wait=False):
        code, _, err = run("resume", address)
        assert code == 2 and f"{address}: in use by process" in err


def test_one_that_was_taken_over_stops_and_nothing_is_charged_twice(
    world: Path, address: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain, calls = LockedStages.obtain, [0]
    other = S3Store(address, still_seconds=0)
    lock = other.hold("driver.lock", wait=False)

    def deposed(self: LockedStages, request: object) -> object:
        calls[0] += 1
        artefact = obtain(self, request)  # type: ignore[arg-type]
        if calls[0] == 2:
            lock.__enter__()
        return artefact

    monkeypatch.setattr(LockedStages, "obtain", deposed)
    code, _, err = run(*sweep_words(address))
    assert code == 3, err
    assert f"{address}: taken over by process" in err
    assert calls[0] == 2, "another stage was trained by the deposed driver"
    lock.__exit__(None, None, None)
    assert not [name for name in other.names() if name.endswith("error.json")]
    code, _, err = run("resume", address)
    assert code == 0, err
    assert outcome_of(address) == outcome_of("out")
    assert run("ledger", "verify", address)[0] == 0


def test_how_many_requests_a_report_takes_does_not_grow_with_lists(
    world: Path, address: str, proxy: Proxy, run: Run
) -> None:
    assert run(*sweep_words(address))[0] == 0
    proxy.forget()
    assert run("status", address)[0] == 0
    lists = [path for method, path in proxy.seen if method == "GET" and "list-type=2" in path]
    assert len(lists) == 1
    assert len({path for _, path in proxy.seen}) == len(proxy.seen), "something was read twice"
    assert set(proxy.counts) == {"GET"}
