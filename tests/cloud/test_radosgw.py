"""S3 by a real server that is killed: Ceph's RADOS gateway. `make test-cluster` runs it, not `make
test`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.contracts.stores import Opens, StoreContract
from orchestrator.storage.files import StorageError
from orchestrator.storage.opening import open_store
from orchestrator.storage.s3 import S3Store
from orchestrator.sweeps.layout import SweepLayout
from tests.helpers import ceph
from tests.helpers.dying import run_cli
from tests.helpers.s3_server import BUCKET, KEY, SECRET, make_bucket, objects, use
from tests.helpers.small_sweep import SPEC, write_data
from tests.helpers.sweeps import outcome_of

pytestmark = [
    pytest.mark.skipif(
        bool(ceph.missing_programs()),
        reason=f"{', '.join(ceph.missing_programs())} missing: {ceph.INSTALL}",
    ),
    pytest.mark.timeout(900),
]

WRITERS = 8
KILLS = (("rgw",), (), ("rgw",))
"""Which daemons are killed, one time after another; (): all of them."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ceph.Ceph]:
    found = ceph.Ceph(tmp_path_factory.mktemp("ceph"))
    try:
        found.start()
        make_bucket(found.endpoint)
        with use(found.endpoint):
            yield found
    finally:
        found.kill()


@pytest.fixture
def place(gateway: ceph.Ceph) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}/deep"


@pytest.mark.lane
class TestS3StoreOnRadosgw(StoreContract):
    @pytest.fixture
    def opens(self, place: str) -> Opens:
        return lambda: open_store(place)


def test_of_many_writers_one_wins_every_time(place: str) -> None:
    stores, rounds = [S3Store(place) for _ in range(16)], 50
    start, won = threading.Barrier(16), [[False] * 16 for _ in range(rounds)]

    def race(mine: int) -> None:
        for number in range(rounds):
            start.wait()
            won[number][mine] = stores[mine].put(f"{number:04d}", f"{mine}".encode() * 50)

    threads = [threading.Thread(target=race, args=(mine,), daemon=True) for mine in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(each) for each in won] == [1] * rounds
    for number, each in enumerate(won):
        assert stores[0].get(f"{number:04d}") == f"{each.index(True)}".encode() * 50


def test_nothing_acknowledged_is_lost_over_sigkill(gateway: ceph.Ceph, place: str) -> None:
    """Writers race through numbered names while the server is killed and started again."""
    ended, lock = threading.Event(), threading.Lock()
    acknowledged: dict[str, bytes] = {}
    twice: list[str] = []
    failed: list[StorageError] = []

    def race(who: int) -> None:
        store, number = S3Store(place), 0
        while not ended.is_set():
            name, data = f"{number:06d}", f"{who}:{number} ".encode() * 20
            try:
                ours = store.put(name, data)
            except StorageError as error:
                failed.append(error)
                return
            if ours:
                with lock:
                    twice.extend([name] * (name in acknowledged))
                    acknowledged[name] = data
            number += 1

    writers = [threading.Thread(target=race, args=(who,), daemon=True) for who in range(WRITERS)]
    for writer in writers:
        writer.start()
    for names in KILLS:
        before = len(acknowledged)
        _until(lambda before=before: len(acknowledged) > before + 100)
        gateway.kill(*names)
        gateway.start()
    before = len(acknowledged)
    _until(lambda: len(acknowledged) > before + 100)
    ended.set()
    for writer in writers:
        writer.join()
    assert not failed, failed[0]
    assert not twice, twice
    store = S3Store(place)
    assert [name for name, data in acknowledged.items() if store.get(name) != data] == []
    assert set(acknowledged) <= set(store.names())
    print(f"{len(acknowledged)} acknowledged, none lost, none twice, {len(KILLS)} kills")


def _until(holds: object) -> None:
    deadline = time.monotonic() + 300
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_sweep_over_a_killed_server_and_a_killed_driver_ends_equal(
    gateway: ceph.Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, words = f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}", ["--engine", "inline", "--out"]
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "features.npz")
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert run_cli(["sweep", "spec.yaml", *words, "out"], tmp_path) == 0
    codes: list[int] = []

    def drive() -> None:
        codes.append(run_cli(["sweep", "spec.yaml", *words, address], tmp_path))

    driver = threading.Thread(target=drive, daemon=True)
    driver.start()
    store = SweepLayout.at(address).store
    _until(lambda: any("/ledger/" in name for name in store.names("trials")))
    gateway.kill("rgw")
    # Long enough that the driver has met it; how long does not matter.
    time.sleep(2)
    gateway.start()
    driver.join()
    assert codes == [0], (tmp_path / "log").read_text()
    assert outcome_of(address) == outcome_of("out")
    other = f"{address}-killed"
    killed = run_cli(["sweep", "spec.yaml", *words, other], tmp_path, kill_after=4)
    assert killed in (0, -signal.SIGKILL)
    for verb in (["resume", other] if killed else ["report", other], ["ledger", "verify", other]):
        if verb[0] == "resume" and not SweepLayout.at(other).store.has("resolved.yaml"):
            verb = ["sweep", "spec.yaml", *words, other]
        assert run_cli(verb, tmp_path) == 0, (tmp_path / "log").read_text()
    assert outcome_of(other) == outcome_of("out")
    written = [*objects(gateway.endpoint).values()]
    written += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (KEY, SECRET):
        assert not [data for data in written if secret.encode() in data]


def test_a_wrong_secret_is_said(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"does not accept these credentials|not allowed") as no:
        S3Store(place).put("a", b"x")
    assert "wrong" not in str(no.value) and os.environ["AWS_ACCESS_KEY_ID"] not in str(no.value)
