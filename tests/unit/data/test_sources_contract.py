"""The laws of data sources hold for every source of the catalogue and for one in another file, and
each is broken by a source made to break it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.catalogue import BUILT_IN, INSTALLED
from orchestrator.contracts import SourceContract
from orchestrator.data.image_folders import train_and_test
from orchestrator.data.sources import folders
from orchestrator.data.sources.cifar import CIFAR100, BatchLayout, Cifar10, Cifar100
from orchestrator.data.sources.digits import Digits, DigitsFeatures
from orchestrator.data.sources.digits_canvas import DigitsCanvas, DigitsCanvasFeatures
from orchestrator.data.sources.features import Features
from orchestrator.data.sources.folders import Folder, Imagenet, MiniImagenet
from search_spaces.reading.config import Contents
from tests.helpers import label_lists
from tests.helpers.dataset_files import (
    SMALL_CIFAR,
    write_cifar,
    write_features,
    write_image_folder,
)
from tests.toys import broken_sources as broken
from tests.toys.blobs import Blobs

SMALL_CIFAR100 = replace(
    CIFAR100, batches={"train": {"train": 200}, "test": {"test": 100}}, num_classes=100
)
SMALL_FOLDER = Contents(
    kind="images", num_classes=3, train_items=15, test_items=6, smallest_class=5
)


def _cifar(cls: type[Cifar10], layout: BatchLayout) -> Callable[[Path], Any]:
    return lambda folder: cls(path=str(write_cifar(folder / "cifar", layout)))


def _photos(folder: Path) -> str:
    return str(write_image_folder(folder / "photos"))


def _listed(name: str) -> Callable[[Path], Any]:
    return lambda folder: INSTALLED.load("source", name)(
        path=str(label_lists.WRITERS[name](folder / name)), image_size=8
    )


MAKERS: dict[str, Callable[[Path], Any]] = {
    "digits": lambda folder: Digits(),
    "digits_features": lambda folder: DigitsFeatures(),
    "digits_canvas": lambda folder: DigitsCanvas(),
    "digits_canvas_features": lambda folder: DigitsCanvasFeatures(),
    "cifar10": _cifar(Cifar10, SMALL_CIFAR),
    "cifar100": _cifar(Cifar100, SMALL_CIFAR100),
    "mini_imagenet": lambda folder: MiniImagenet(path=_photos(folder), image_size=8),
    "imagenet": lambda folder: Imagenet(path=_photos(folder), image_size=7),
    "folder": lambda folder: Folder(path=_photos(folder)),
    "features": lambda folder: Features(path=str(write_features(folder / "a.npz"))),
    "features with prior scores": lambda folder: Features(
        path=str(write_features(folder / "a.npz", scores=np.eye(60, 3)))
    ),
    "features of several labels": lambda folder: Features(
        path=str(
            write_features(folder / "a.npz", y=np.random.default_rng(0).integers(0, 2, (60, 3)))
        )
    ),
    **{name: _listed(name) for name in label_lists.WRITERS},
    "blobs": lambda folder: Blobs(),
}


def test_every_source_of_the_catalogue_is_held_to_the_laws() -> None:
    assert {*BUILT_IN["source"], Blobs.name} <= set(MAKERS)


class TestSources(SourceContract):
    @pytest.fixture(autouse=True, params=sorted(MAKERS))
    def chosen(self, request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Each source in turn; published sets are too large for a test, and small ones stand in
        their place.
        """
        for cls, layout in ((Cifar10, SMALL_CIFAR), (Cifar100, SMALL_CIFAR100)):
            monkeypatch.setattr(cls, "layout", layout)
            monkeypatch.setattr(cls, "holds", layout.contents)
        for imagenet in (MiniImagenet, Imagenet):
            monkeypatch.setattr(imagenet, "holds", SMALL_FOLDER)
            monkeypatch.setattr(folders, imagenet.name, train_and_test)
        self.name = request.param
        yield

    def make(self, folder: Path) -> Any:
        return MAKERS[self.name](folder)


def broken_laws(make: Callable[[Path], Any], folder: Path) -> set[str]:
    """Names of the laws that a source breaks."""

    class Contract(SourceContract):
        def make(self, folder: Path) -> Any:
            return make(folder)

    contract, found = Contract(), set[str]()
    for number, (name, law) in enumerate(inspect.getmembers(contract, inspect.ismethod)):
        if not name.startswith("test_"):
            continue
        place = folder / str(number)
        place.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            takes = inspect.signature(law).parameters
            extra = {"monkeypatch": patch} if "monkeypatch" in takes else {}
            try:
                law(tmp_path=place, **extra)
            except Exception:
                found.add(name)
    return found


HOLDS, SAME, FOUND, LIGHT, SETTINGS, PLACE = (
    "test_what_it_holds_is_what_it_loads",
    "test_the_same_data_is_read_the_same",
    "test_prepared_data_is_found_again",
    "test_a_spec_is_checked_without_heavy_modules",
    "test_its_fields_are_the_settings_of_a_spec",
    "test_a_place_where_nothing_is_is_named",
)


BREAKS: list[tuple[type[Any], set[str]]] = [
    (broken.Broken, set()),
    (broken.KeepsLabels, {HOLDS, FOUND}),
    (broken.Miscounts, {HOLDS, FOUND}),
    (broken.LosesAClass, {HOLDS, FOUND}),
    (broken.OtherNames, {HOLDS, FOUND}),
    (broken.Doubles, {HOLDS, FOUND}),
    (broken.NeverTheSame, {SAME}),
    (broken.NeverFoundAgain, {SAME, FOUND}),
    (broken.LoadsADecoder, {LIGHT}),
    (broken.Forgets, {SETTINGS}),
    (broken.TripsOverAPlace, {PLACE}),
]


def test_every_law_is_broken_by_some_source() -> None:
    laws = {name for name in vars(SourceContract) if name.startswith("test_")}
    assert laws == set().union(*(broken for _, broken in BREAKS))


@pytest.mark.parametrize(("cls", "laws"), BREAKS)
def test_a_law_that_is_broken_is_told(cls: type[Any], laws: set[str], tmp_path: Path) -> None:
    def make(folder: Path) -> Any:
        return cls(path=str(folder)) if cls is broken.TripsOverAPlace else cls()

    assert broken_laws(make, tmp_path) == laws
