"""Prepared data in a store is a data set of its own, for machines that have no raw data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.catalogue import load_spec
from orchestrator.data.locate import contents
from orchestrator.data.prepare import prepare
from orchestrator.data.publish import put_data, put_spec_data
from orchestrator.data.references import Reference, parse_reference
from orchestrator.data.shelf import BESIDE, VARIABLE, shelf_of
from orchestrator.data.sources.digits import Digits
from orchestrator.data.sources.folders import Folder
from orchestrator.storage.folder import FolderStore
from orchestrator.storage.opening import open_store
from tests.helpers.dataset_files import write_image_folder
from tests.helpers.photos import SPEC
from tests.helpers.s3_server import BUCKET
from trainers.errors import DataError, UserError


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, server_in_use: str, tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}" if request.param == "s3" else str(tmp_path / "store")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "mine"))
    return Folder(path=str(write_image_folder(tmp_path / "photos")), image_size=6)


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this is a machine that has neither the raw data nor anything decoded."""
    monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "other"))
    shutil.rmtree(tmp_path / "mine")
    shutil.rmtree(tmp_path / "photos")


def named(reference: Reference) -> Folder:
    return Folder(path=reference.address, image_size=6)


def test_another_machine_has_the_same_data(
    photos: Folder, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, said = prepare(photos), contents(photos)
    files = {path.name: path.read_bytes() for path in mine.labels_dir.iterdir()}
    reference = put_data(photos, place)
    (parsed,) = filter(None, [parse_reference(reference.address)])
    assert (parsed.address, parsed.file) == (reference.address, reference.file)
    elsewhere(tmp_path, monkeypatch)
    assert contents(named(reference)) == said
    theirs = prepare(named(reference))
    assert (theirs.fingerprint, theirs.labelled_fingerprint, theirs.facts, theirs.notes) == (
        mine.fingerprint,
        mine.labelled_fingerprint,
        mine.facts,
        mine.notes,
    )
    assert {path.name: path.read_bytes() for path in theirs.labels_dir.iterdir()} == files
    assert theirs.images_dir.is_relative_to(tmp_path / "other")


def test_who_only_schedules_fetches_the_labels_alone(
    photos: Folder, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = put_data(photos, place)
    elsewhere(tmp_path, monkeypatch)
    prepare(named(reference), images=False)
    assert not (tmp_path / "other/images").exists() and (tmp_path / "other/labels").exists()


def test_it_is_put_once_and_found_by_all(photos: Folder, place: str) -> None:
    first = put_data(photos, place)
    names = first.shelf.store.names()
    again = put_data(named(first), place)
    assert again.address == first.address and first.shelf.store.names() == names
    # Of other labels or settings it is another one beside it.
    other = put_data(Folder(path=photos.path, image_size=4), place)
    assert other.address != first.address
    assert len(first.shelf.store.names("sets")) == 2


def test_the_door_takes_a_spec(
    photos: Folder, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    address = put_spec_data(load_spec("spec.yaml"), place)
    assert address is not None and address.startswith(f"{place}/sets/folder-")
    without = SPEC.replace("folder, path: photos,", "digits,").replace("bits: 30", "bits: 99")
    (tmp_path / "spec.yaml").write_text(without)
    assert put_spec_data(load_spec("spec.yaml"), place) is None
    with pytest.raises(DataError, match=r"digits: has no dataset\.path"):
        put_data(Digits(), place)


def _remove(part: str) -> Callable[[Reference], None]:
    return lambda reference: reference.shelf.store.remove(reference.shelf.name(part))


def _damage(reference: Reference) -> None:
    name = reference.shelf.name("sets", reference.file)
    said = json.loads(reference.shelf.store.get(name))
    reference.shelf.store.put(name, json.dumps(said | {"notes": ["x"]}).encode(), replace=True)


def _format(reference: Reference) -> None:
    from orchestrator.data.references import _checksum

    name = reference.shelf.name("sets", reference.file)
    said = json.loads(reference.shelf.store.get(name)) | {"format": 1}
    said["checksum"] = _checksum(said)
    reference.shelf.store.put(name, json.dumps(said).encode(), replace=True)


def _labels(reference: Reference) -> None:
    """Labels of other data under the name of these."""
    store = reference.shelf.store
    (mine,) = store.folders("labels")
    other = write_image_folder(Path(f"{mine.replace('/', '-')}"), train=4)
    put_data(Folder(path=str(other.absolute()), image_size=6), store.location)
    (theirs,) = set(store.folders("labels")) - {mine}
    for name in store.names(mine):
        store.put(name, store.get(name.replace(mine, theirs)), replace=True)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_remove("sets"), "no prepared data is there. Put it there from a machine that has it"),
        (_remove("images"), "the data is not there whole"),
        (_remove("labels"), "the data is not there whole"),
        (_damage, "damaged"),
        (_format, "by another version of orchestrate"),
        (_labels, "are not those that it names"),
    ],
)
def test_what_is_not_there_or_not_what_was_put_is_said_in_a_line(
    photos: Folder,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Reference], None],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = put_data(photos, place)
    harm(reference)
    elsewhere(tmp_path, monkeypatch)
    with pytest.raises(UserError) as raised:
        prepare(named(reference))
    text = str(raised.value)
    assert said in text and place in text and "\n" not in text and raised.value.exit_status == 2


def test_a_spec_that_says_other_settings_is_refused(photos: Folder, place: str) -> None:
    reference = put_data(photos, place)
    with pytest.raises(DataError, match="was prepared as folder image_size=6, and the spec says"):
        contents(Folder(path=reference.address))


def test_damage_in_the_cache_is_mended_where_every_byte_is_looked_at(
    photos: Folder, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = put_data(photos, place)
    elsewhere(tmp_path, monkeypatch)
    file = prepare(named(reference)).images_dir / "train.npy"
    good = file.read_bytes()
    file.unlink()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert prepare(named(reference), verify=True).images_dir == file.parent
    assert file.read_bytes() == good


@pytest.mark.parametrize(
    ("out", "shelf"),
    [
        ("s3://bucket/sweeps/mine", f"s3://bucket/sweeps/{BESIDE}"),
        ("s3://bucket/mine", f"s3://bucket/{BESIDE}"),
        ("s3://bucket", "s3://bucket/data"),
    ],
)
def test_sweeps_of_one_prefix_share_what_lies_beside_them(out: str, shelf: str) -> None:
    assert shelf_of(open_store(out), None).location == shelf


def test_the_records_hold_over_the_rule_and_the_environment_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FolderStore(tmp_path / "sweep")
    assert shelf_of(own, None).location == str(tmp_path / "sweep" / "data")
    assert shelf_of(own, "s3://bucket/there").location == "s3://bucket/there"
    monkeypatch.setenv(VARIABLE, "here")
    monkeypatch.chdir(tmp_path)
    assert shelf_of(own, "s3://bucket/there").location == str(tmp_path / "here")
    monkeypatch.setenv(VARIABLE, "gs://bucket")
    with pytest.raises(UserError, match=f"^{VARIABLE}: 'gs://bucket' is an address"):
        shelf_of(own, None)


def test_a_path_that_only_looks_like_one_is_a_path() -> None:
    for text in ("sets/x.json", "a/sets/photos.json", "s3://b/p/images/folder-0123.json"):
        assert parse_reference(text) is None
