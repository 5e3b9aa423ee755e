"""The laws of data sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from orchestrator.catalogue import INSTALLED
from orchestrator.contracts.plugins import loaded_by
from orchestrator.data.arrays import SPLITS
from orchestrator.data.prepare import prepare
from orchestrator.data.protocols import Loaded, Source
from search_spaces.reading.assemble import source_of
from search_spaces.reading.datasets import contents
from search_spaces.reading.errors import SpecError
from search_spaces.reading.settings import Keys

_HEAVY: Final = ("torch", "torchvision", "ray", "sklearn", "PIL", "pyarrow", "pandas", "scipy")


class SourceContract(ABC):
    """A subclass gives `make`, which returns a small data set."""

    may_load: ClassVar[tuple[str, ...]] = ()
    """Heavy modules without which this source cannot say what it holds."""

    @abstractmethod
    def make(self, folder: Path) -> Source:
        """Returns the source; files that it reads may be written below `folder`."""

    def test_its_fields_are_the_settings_of_a_spec(self, tmp_path: Path) -> None:
        source: Any = self.make(tmp_path)
        cls = type(source)
        assert is_dataclass(cls) and hash(source) == hash(replace(source)), "not frozen"
        keys = Keys(INSTALLED.adding("source", cls))
        settings = {
            f"dataset.{item.name}": _as_yaml(getattr(source, item.name)) for item in fields(source)
        }
        assert source_of({"dataset.name": source.name} | settings, keys) == source

    def test_what_it_holds_is_what_it_loads(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        said, folder = contents(source), _folder(tmp_path, "loaded")
        loaded = source.load(folder, _quiet)
        prior = {"train": "train_scores.npy", "test": "test_scores.npy"} if said.prior else {}
        there = {path.name for path in folder.iterdir()}
        assert there == {"train.npy", "test.npy", *prior.values()}, (
            "the labels are kept apart, and nothing else is kept"
        )
        for split, name in prior.items():
            scores = np.load(folder / name, allow_pickle=False)
            assert scores.dtype == np.float32 and np.isfinite(scores).all()
            assert scores.shape == (len(loaded.labels[split]), said.num_classes)
        dtype, axes = {"images": (np.uint8, 4), "features": (np.float32, 2)}[loaded.kind]
        arrays = {split: np.load(folder / f"{split}.npy", allow_pickle=False) for split in SPLITS}
        for split, items in (("train", said.train_items), ("test", said.test_items)):
            array, labels = arrays[split], loaded.labels[split]
            assert array.dtype == dtype and array.ndim == axes
            assert array.shape == (items, *arrays["train"].shape[1:])
            assert np.isfinite(array).all()
            form = (items, said.num_classes) if said.several_labels else (items,)
            assert labels.dtype == np.int32 and labels.shape == form
            assert labels.min() >= 0
            assert labels.max() < (2 if said.several_labels else said.num_classes)
        assert loaded.kind == said.kind and len(loaded.class_names) == said.num_classes
        assert said.class_names in ((), loaded.class_names)
        if said.several_labels:
            assert said.smallest_class == said.train_items // said.num_classes
            return
        counts = np.bincount(loaded.labels["train"], minlength=said.num_classes)
        assert counts.min() >= said.smallest_class

    def test_the_same_data_is_read_the_same(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        signature, said = source.signature(), source.contents()
        assert isinstance(signature, str)
        first, second = (
            _bytes(folder, source.load(folder, _quiet))
            for folder in (_folder(tmp_path, "first"), _folder(tmp_path, "second"))
        )
        assert first == second
        assert (source.signature(), source.contents()) == (signature, said), (
            "reading the data changes nothing of it"
        )

    def test_prepared_data_is_found_again(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setenv("ORCHESTRATE_CACHE", str(tmp_path / "cache"))
        source = self.make(tmp_path)
        first, again = prepare(source), prepare(source)
        assert first.decoded_now and not again.decoded_now and first == again
        assert first.facts == contents(source).facts(source.name)
        assert prepare(source, verify=True).labelled_fingerprint == first.labelled_fingerprint

    def test_a_spec_is_checked_without_heavy_modules(self, tmp_path: Path) -> None:
        heavy = set(_HEAVY) - set(self.may_load)
        assert loaded_by(self.make(tmp_path), "contents()", heavy) == []

    def test_a_place_where_nothing_is_is_named(self, tmp_path: Path) -> None:
        source: Any = self.make(tmp_path)
        if all(item.name != "path" for item in fields(source)):
            return
        try:
            said = contents(replace(source, path=str(tmp_path / "nowhere")))
        except SpecError as error:
            assert "nowhere" in str(error)
        else:
            assert said == contents(source), "sizes that are known without looking"


def _quiet(done: int, total: int) -> None:
    pass


def _folder(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root / name


def _as_yaml(value: Any) -> Any:
    return [_as_yaml(item) for item in value] if isinstance(value, tuple) else value


def _bytes(folder: Path, loaded: Loaded) -> list[Any]:
    """Returns all that a source handed over."""
    return [
        *((folder / name).read_bytes() for name in sorted(path.name for path in folder.iterdir())),
        *(loaded.labels[split].tobytes() for split in SPLITS),
        replace(loaded, labels={}),
    ]
