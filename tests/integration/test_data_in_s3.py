"""Sweeps whose raw data lies in S3, through the command line: they are the sweeps of the same data
in a folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from orchestrator.storage import outages
from tests.helpers.photos import SPEC, put_photos, write_photos
from tests.helpers.s3_server import BUCKET, KEY, SECRET, Fault, Proxy, objects
from tests.helpers.small_sweep import SPEC as FEATURES
from tests.helpers.small_sweep import Run, files, write_data
from tests.helpers.sweeps import outcome_of

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, server: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the data here and in the bucket."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path)
    put_photos(server, tmp_path, "raw")
    return tmp_path


def sweep(run: Run, out: str, path: str | None = None) -> str:
    words = ["sweep", "spec.yaml", "--engine", "inline", "--out", out]
    code, said, err = run(*words, *([] if path is None else ["--set", f"dataset.path={path}"]))
    assert code == 0, err
    return said + err


def ledgers(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(out / "trials").items() if "/ledger/" in name}


@pytest.mark.parametrize("name", ["photos", "photos/", "photos.tar"])
def test_a_sweep_of_images_in_s3_has_the_ids_and_ledgers_of_the_folder(
    world: Path, run: Run, server: str, proxy: Proxy, name: str
) -> None:
    sweep(run, "local")
    # What was decoded of the folder is of no help.
    shutil.rmtree(world / "cache")
    path = f"s3://{BUCKET}/raw/{name}"
    said = [sweep(run, "afar", path)]
    assert ledgers(world / "afar") == ledgers(world / "local") != {}
    assert outcome_of("afar") == outcome_of("local")
    plans = [
        run("plan", "spec.yaml", "--json", "--set", f"dataset.path={at}") for at in (path, "photos")
    ]
    assert plans[0][0] == plans[1][0] == 0
    ids = [[trial["id"] for trial in yaml.safe_load(out)["trials"]] for _, out, _ in plans]
    assert ids[0] == ids[1]
    recorded = [yaml.safe_load(Path(at, "resolved.yaml").read_text()) for at in ("afar", "local")]
    assert recorded[0]["data"]["path"] == path
    assert recorded[0]["data"]["fingerprint"] == recorded[1]["data"]["fingerprint"]
    proxy.forget()
    for words in (["resume", "afar"], ["data", "prepare", "folder", "--path", path]):
        code, out, err = run(*words)
        assert code == 0, err
        said += [out, err]
    assert not [at for _, at in proxy.seen if ".png" in at or (".tar" in at and "GET" in _)], "once"
    for words in (["data", "list"], ["doctor", "--no-ray"]):
        _, out, err = run(*words)
        assert path.rstrip("/") in out
        said += [out, err]
    assert not (world / "s3:").exists()
    written = [path.read_bytes() for path in world.rglob("*") if path.is_file()]
    for secret in (KEY, SECRET):
        assert not [text for text in said if secret in text]
        assert not [data for data in written if secret.encode() in data]


def test_a_sweep_of_features_in_s3_has_the_ids_and_ledgers_of_the_file(
    world: Path, run: Run, server: str
) -> None:
    from tests.helpers.s3_server import client

    write_data(world / "features.npz")
    client(server).upload_file("features.npz", BUCKET, "raw/a b/features.npz")
    (world / "spec.yaml").write_text(FEATURES)
    sweep(run, "local")
    shutil.rmtree(world / "cache")
    sweep(run, "afar", f"s3://{BUCKET}/raw/a b/features.npz")
    assert ledgers(world / "afar") == ledgers(world / "local") != {}


def test_data_that_moved_into_s3_goes_on_there_and_exchanged_data_is_refused(
    world: Path, run: Run, server: str
) -> None:
    from tests.helpers.s3_server import client

    sweep(run, "out")
    before = ledgers(world / "out")
    (world / "photos").rename(world / "gone")
    where = f"--set=dataset.path=s3://{BUCKET}/raw/photos"
    code, _, err = run("resume", "out", where)
    assert code == 0, err
    assert ledgers(world / "out") == before
    other = (world / "gone/train/dog/dog-0.png").read_bytes()
    client(server).put_object(Bucket=BUCKET, Key="raw/photos/train/cat/cat-0.png", Body=other)
    code, _, err = run("resume", "out")
    assert code == 2 and "is not what this sweep was begun with" in err
    assert f"s3://{BUCKET}/raw/photos" in err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://nobody-has-this/x", "there is no bucket 'nobody-has-this'"),
        (f"s3://{BUCKET}/nothing", "nothing is there"),
        (f"s3://{BUCKET}/raw/photos/train/cat/cat-0.png", "is an object of"),
        (f"s3://{KEY}:{SECRET}@{BUCKET}/raw", "is no place in S3"),
    ],
)
def test_a_place_that_holds_no_data_is_refused_in_a_line_and_changes_nothing(
    world: Path, run: Run, server: str, path: str, said: str
) -> None:
    before = objects(server)
    for words in (["plan"], ["sweep", "--engine", "inline", "--out", "out"]):
        code, out, err = run(words[0], "spec.yaml", *words[1:], "--set", f"dataset.path={path}")
        (line,) = err.strip().splitlines()
        assert code == 2 and said in line and not out
        assert KEY not in line and SECRET not in line
    code, _, err = run("data", "prepare", "folder", "--path", path)
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1
    assert SECRET not in err
    assert objects(server) == before and not (world / "out").exists()


def test_a_server_that_is_away_ends_with_5_and_one_that_refuses_with_2(
    world: Path, run: Run, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "spec.yaml").write_text(SPEC.replace("photos,", f"s3://{BUCKET}/raw/photos.tar,", 1))
    for fault, status, said in (
        (Fault.CLOSE, 5, "did not answer for 0.3 s"),
        (Fault.REFUSED, 2, "s3:GetObject"),
    ):
        monkeypatch.setenv(outages.VARIABLE, "0.3")
        proxy.decide = lambda method, path, headers, fault=fault: fault  # type: ignore[misc]
        for words in (["plan", "spec.yaml"], ["sweep", "spec.yaml", "--engine", "inline"]):
            code, _, err = run(*words)
            assert (code, said in err) == (status, True), err
            assert f"s3://{BUCKET}/raw/photos.tar" in err
    assert not (world / "runs").exists()
