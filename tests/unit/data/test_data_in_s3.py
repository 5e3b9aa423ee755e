"""Raw data in S3 is brought to this machine once, whole or not at all, and is then what the same
data in a local folder is.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data import download
from orchestrator.data.cache import PreparedData
from orchestrator.data.prepare import list_data, prepare
from orchestrator.data.sources.cifar import Cifar10
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder
from orchestrator.data.unpack import unpack
from orchestrator.storage import outages
from orchestrator.storage.files import StorageLost
from orchestrator.storage.s3_objects import Body, S3Object
from orchestrator.sweeps.folder import located
from search_spaces.reading.datasets import contents
from tests.helpers.dataset_files import write_features, write_image_folder
from tests.helpers.photos import SPEC
from tests.helpers.ports import free_port
from tests.helpers.s3_server import BUCKET, Fault, Proxy, client, use
from trainers.errors import DataError, UserError


@pytest.fixture
def place(server: str, proxy: Proxy) -> str:
    """A prefix of this test's own."""
    return uuid.uuid4().hex[:12]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(server: str, key: str, data: bytes | Path) -> str:
    client(server).put_object(
        Bucket=BUCKET, Key=key, Body=data if isinstance(data, bytes) else data.read_bytes()
    )
    return f"s3://{BUCKET}/{key}"


def put_folder(server: str, prefix: str, folder: Path) -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(server, f"{prefix}/{path.relative_to(folder).as_posix()}", path)
    return f"s3://{BUCKET}/{prefix}"


def tar_of(folder: Path, top: str, format: int = tarfile.PAX_FORMAT) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=format) as archive:
        archive.add(folder, top)
    return held.getvalue()


def fingerprints(data: PreparedData) -> tuple[str, str, Any]:
    return data.fingerprint, data.labelled_fingerprint, data.facts


def reads(proxy: Proxy) -> list[str]:
    """Objects that were read since it last forgot."""
    return [
        path
        for verb, path in proxy.seen
        if verb == "GET" and "list-type" not in path.partition("?")[2]
    ]


@pytest.mark.parametrize(
    "form", ["prefix", "prefix/", "tar", "tar of a folder", "./ tar", "gnu tar"]
)
def test_a_folder_in_s3_is_the_folder(server: str, place: str, tmp_path: Path, form: str) -> None:
    folder = write_image_folder(tmp_path / "my photos")
    local = prepare(Folder(path=str(folder), image_size=4))
    if form.startswith("prefix"):
        address = put_folder(server, f"{place}/my photos", folder) + form[6:]
        put(server, f"{place}/my photos/", b"")
    else:
        top = {"tar of a folder": "photos", "gnu tar": "photos"}.get(form, ".")
        kind = tarfile.GNU_FORMAT if form == "gnu tar" else tarfile.PAX_FORMAT
        address = put(server, f"{place}/photos.TAR", tar_of(folder, top, kind))
    afar = Folder(path=address, image_size=4)
    assert contents(afar, _ask) == contents(Folder(path=str(folder), image_size=4))
    assert fingerprints(prepare(afar)) == fingerprints(local)


def _ask(source: Any) -> Any:
    from orchestrator.catalogue import INSTALLED

    return INSTALLED.contents(source)


def test_a_feature_file_in_s3_is_the_file(server: str, place: str, tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.npz")
    afar = Features(path=put(server, f"{place}/a.npz", path))
    assert fingerprints(prepare(afar)) == fingerprints(prepare(Features(path=str(path))))


def test_a_place_for_all_data_may_be_in_s3(
    server: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATE_DATA", f"s3://{BUCKET}/{place}/")
    with pytest.raises(DataError, match=f"s3://{BUCKET}/{place}/cifar10: nothing is there"):
        prepare(Cifar10())


def test_what_is_here_is_not_fetched_again_until_it_is_exchanged(
    server: str, proxy: Proxy, place: str, tmp_path: Path, cache: Path
) -> None:
    folder = write_image_folder(tmp_path / "photos")
    source = Folder(path=put_folder(server, place, folder))
    first = prepare(source)
    assert len(reads(proxy)) == 21
    proxy.forget()
    assert prepare(source) == first and not reads(proxy)
    # Once it is decoded the copy may go.
    shutil.rmtree(cache / download.REMOTE)
    assert prepare(source) == first and not reads(proxy)
    other = next(folder.glob("train/cat/*"))
    shutil.copyfile(next(folder.glob("train/dog/*")), other)
    put(server, f"{place}/{other.relative_to(folder)}", other)
    changed = prepare(source)
    assert len(reads(proxy)) == 21
    assert fingerprints(changed) == fingerprints(prepare(Folder(path=str(folder))))
    assert changed.fingerprint != first.fingerprint
    assert {row.path for row in list_data()} >= {source.path, str(folder)}


def test_killed_while_it_is_fetched_nothing_is_there_and_the_next_run_has_it_whole(
    server: str, proxy: Proxy, place: str, tmp_path: Path, cache: Path
) -> None:
    folder = write_image_folder(tmp_path / "photos")
    address = put_folder(server, place, folder)
    words = [sys.executable, "-m", "orchestrator", "data", "prepare", "folder", "--path", address]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(method: str, path: str, headers: dict[str, str]) -> str | None:
        if len(reads(proxy)) > 9:
            os.kill(child.pid, signal.SIGKILL)
        return None

    proxy.decide = kill
    assert child.wait() == -signal.SIGKILL
    proxy.decide = lambda method, path, headers: None
    assert not (cache / download.REMOTE).exists() and list((cache / "building").glob("remote_*-*"))
    assert fingerprints(prepare(Folder(path=address))) == fingerprints(
        prepare(Folder(path=str(folder)))
    )
    assert not list((cache / "building").glob("remote_*-*"))


def test_outages_and_lost_answers_change_nothing(
    server: str, proxy: Proxy, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "_LONGEST_PAUSE", 0.05)
    folder = write_image_folder(tmp_path / "photos")
    address, number = put_folder(server, place, folder), [0]

    def away(method: str, path: str, headers: dict[str, str]) -> str | None:
        number[0] += 1
        return (Fault.CLOSE, None, Fault.BUSY, Fault.DONE_AND_CLOSE, None)[number[0] % 5]

    proxy.decide = away
    assert fingerprints(prepare(Folder(path=address))) == fingerprints(
        prepare(Folder(path=str(folder)))
    )


def test_a_server_that_stays_away_ends_with_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(outages.VARIABLE, "0.2")
    with use(f"http://127.0.0.1:{free_port()}"), pytest.raises(StorageLost) as raised:
        _ask(Folder(path=f"s3://{BUCKET}/photos"))
    assert raised.value.exit_status == 5


def test_an_object_is_read_on_from_where_the_connection_broke() -> None:
    data, asked = bytes(range(256)) * 40, list[str]()

    class Breaking:
        def __init__(self, rest: bytes) -> None:
            self.rest = io.BytesIO(rest[:1500])

        def read(self, size: int) -> bytes:
            piece = self.rest.read(size)
            if len(piece) < size:
                raise ConnectionError
            return piece

    class Server:
        def client(self) -> Server:
            return self

        def get_object(self, **asked_for: str) -> dict[str, Any]:
            asked.append(asked_for.get("Range", ""))
            start = int(asked[-1][6:-1] or 0)
            return {"ETag": '"t"', "Body": Breaking(data[start:])}

        def call(self, key: str, act: Callable[[], bytes], *, action: str) -> bytes:
            while True:
                try:
                    return act()
                except ConnectionError:
                    continue

    server: Any = Server()
    body, found = Body(server, "bucket", S3Object("key", len(data), '"t"')), b""
    while piece := body.read(1000):
        found += piece
    assert found == data and asked[:3] == ["", "bytes=1000-", "bytes=2000-"]


def _cut(server: str, place: str, tmp_path: Path) -> Any:
    data = tar_of(write_image_folder(tmp_path / "photos"), "photos")
    return Folder(path=put(server, f"{place}/a.tar", data[: len(data) // 2]))


def _no_tar(server: str, place: str, tmp_path: Path) -> Any:
    return Folder(path=put(server, f"{place}/a.tar", b"no tar" * 999))


def _both(server: str, place: str, tmp_path: Path) -> Any:
    put(server, f"{place}/x/train", b"an object")
    return Folder(
        path=put(server, f"{place}/x/train/cat/1.png", b"another")[: -len("/train/cat/1.png")]
    )


def _upwards(server: str, place: str, tmp_path: Path) -> Any:
    put(server, f"{place}/x/train//1.png", b"")
    return Folder(path=f"s3://{BUCKET}/{place}/x")


def _no_image(server: str, place: str, tmp_path: Path) -> Any:
    folder = write_image_folder(tmp_path / "photos")
    (folder / "train" / "cat" / "cat-0.png").write_bytes(b"no image")
    return Folder(path=put_folder(server, f"{place}/photos", folder))


BAD: dict[str, tuple[Callable[[str, str, Path], Any], str]] = {
    "no bucket": (lambda *_: Folder(path="s3://nobody-has-this/x"), "no bucket 'nobody-has-this'"),
    "nothing": (lambda s, p, _: Folder(path=f"s3://{BUCKET}/{p}/x"), "nothing is there"),
    "an empty prefix": (
        lambda s, p, _: Folder(path=put(s, f"{p}/x/", b"").rstrip("/")),
        "nothing is there",
    ),
    "neither": (
        lambda s, p, _: Folder(path=put(s, f"{p}/a.zip", b"zip")),
        "is an object of 3 bytes, and a .tar of the class folders, or a prefix",
    ),
    "no .npz": (
        lambda s, p, _: Features(path=put(s, f"{p}/a.csv", b"1,2")),
        "is an object of 3 bytes, and one .npz object is needed",
    ),
    "a prefix of files": (
        lambda s, p, _: Features(path=put(s, f"{p}/a/b.npz", b"1")[:-6]),
        "is a prefix of 1 objects, and one .npz object is needed",
    ),
    "cut short": (_cut, "cut short"),
    "no tar": (_no_tar, "cannot be read as a tar"),
    "file and folder": (_both, "x/train: is an object, and a prefix of others"),
    "no path": (_upwards, "has a key that cannot be the path of a file"),
    "no image": (_no_image, "photos/train/cat/cat-0.png"),
    "no address": (lambda *_: Folder(path="s3:/bucket/x"), "is no place in S3"),
    "another scheme": (lambda *_: Folder(path="gs://bucket/x"), "is an address"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_line_that_names_the_place(
    server: str, proxy: Proxy, place: str, tmp_path: Path, cache: Path, name: str
) -> None:
    make, said = BAD[name]
    source = make(server, place, tmp_path)
    with pytest.raises(UserError) as raised:
        prepare(source)
    text = str(raised.value)
    assert said in text and "\n" not in text and raised.value.exit_status == 2
    assert str(cache) not in text
    assert not list((cache / "building").glob("remote_*-*"))
    if name not in ("no image",):
        assert not (cache / download.REMOTE).exists()


def test_who_may_not_read_is_told_which_right_it_takes(
    server: str, proxy: Proxy, place: str, tmp_path: Path
) -> None:
    address = put_folder(server, place, write_image_folder(tmp_path / "photos"))
    proxy.decide = lambda method, path, headers: Fault.REFUSED
    with pytest.raises(DataError, match=r"s3:ListBucket on the bucket and s3:GetObject") as raised:
        prepare(Folder(path=address))
    assert "PutObject" not in str(raised.value)


@pytest.mark.parametrize("change", ["gone", "exchanged"])
def test_an_object_that_is_not_the_one_that_was_listed_is_named(
    server: str, proxy: Proxy, place: str, tmp_path: Path, change: str
) -> None:
    address = put_folder(server, place, write_image_folder(tmp_path / "photos"))
    key, s3 = f"{place}/train/emu/emu-4.png", client(server)

    def meddle(method: str, path: str, headers: dict[str, str]) -> str | None:
        if method == "GET" and path.endswith("emu-4.png"):
            if change == "gone":
                s3.delete_object(Bucket=BUCKET, Key=key)
            else:
                s3.put_object(Bucket=BUCKET, Key=key, Body=b"another")
        return None

    proxy.decide = meddle
    with pytest.raises(DataError, match=f"^s3://{BUCKET}/{key}: .*listed.*nothing does"):
        prepare(Folder(path=address))


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    server: str, proxy: Proxy, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = put(server, f"{place}/a.npz", write_features(tmp_path / "a.npz"))
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1)
    )
    with pytest.raises(DataError, match=r"free\. Set ORCHESTRATE_CACHE"):
        prepare(Features(path=address))
    assert not reads(proxy)


# Tars of others.


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return io.BytesIO(held.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, to, 0o000 if kind == tarfile.REGTYPE else 0o755
    return made


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (member("../out"), "leads out of the folder"),
        (member("a/../../out"), "leads out of the folder"),
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (member("link", tarfile.LNKTYPE, "fine"), "is a link"),
        (member("pipe", tarfile.FIFOTYPE), "is a device or a pipe"),
        (member("null", tarfile.CHRTYPE), "is a device or a pipe"),
    ],
)
def test_nothing_of_a_tar_leads_out_of_its_folder(
    tmp_path: Path, made: tarfile.TarInfo, said: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=said):
        unpack(packed((member("fine"), b"1"), (made, b"")), "s3://b/a.tar", tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_absolute_name_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    unpack(packed((member(str(tmp_path / "out")), b"1")), "s3://b/a.tar", tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_tar_that_is_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    whole = tar_of(write_image_folder(tmp_path / "photos", train=2, test=1), "photos")
    files = {p.name: p.read_bytes() for p in (tmp_path / "photos").rglob("*.png")}
    kept = 0
    for size in (*range(0, len(whole), 512), *range(1, len(whole), 4099), len(whole)):
        folder = tmp_path / f"{size}"
        folder.mkdir()
        try:
            unpack(io.BytesIO(whole[:size]), "s3://b/a.tar", folder)
        except DataError as error:
            assert "s3://b/a.tar" in str(error)
        else:
            kept += 1
            assert {p.name: p.read_bytes() for p in folder.rglob("*.png")} == files
    assert kept


def test_an_address_is_never_made_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import dataclass, field

    @dataclass
    class Said:
        base: dict[str, Any] = field(default_factory=lambda: {"dataset.path": "s3://bucket/a b"})

    monkeypatch.chdir(tmp_path)
    spec: Any = Said()
    assert located(spec).base == {"dataset.path": "s3://bucket/a b"}


def test_a_head_fetches_for_itself_what_lies_in_s3(tmp_path: Path) -> None:
    """Nothing of it is looked at, or brought there, by the machine that submits the sweep."""
    from orchestrator.commands.data_for_cluster import checked, destination

    (tmp_path / "spec.yaml").write_text(SPEC)
    cluster: Any = None
    where = f"s3://{BUCKET}/photos.tar"
    gathered, spec = checked(str(tmp_path / "spec.yaml"), [f"dataset.path={where}"])
    assert gathered.data == where
    assert destination(cluster, "/srv/sweeps", gathered, spec) is None
