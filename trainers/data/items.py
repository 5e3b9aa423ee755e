"""The prepared data cache, and the part of it that lives where the training runs."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainers.data import augment
from trainers.data.augment import Recipe
from trainers.errors import DataError
from trainers.stage import Ids

VALUES_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Input values that are worked on in one go, by kind of device: what stays in a CPU's cache is too
little to fill a GPU.
"""

RESIDENT_SHARE = 0.5
"""Share of a GPU's free memory that images may fill; a larger set stays in host memory and its
batches travel.
"""


def holds_images(kind: str) -> bool:
    """Whether data of this kind are images; if not, they are feature vectors.

    Raises:
        DataError: it is a third kind, which nothing here may take for one of the two.
    """
    match kind:
        case "images":
            return True
        case "features":
            return False
        case _:
            raise DataError(f'kind: {kind!r}; expected "images" or "features"')


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageData:
    """A prepared data cache, opened: memory-mapped arrays and what meta.json says of them. There
    are no labels in it.
    """

    folder: Path
    name: str
    kind: Literal["images", "features"]
    num_classes: int
    train: npt.NDArray[Any]
    """uint8 [N, H', W', C] or float32 [N, D]; H' and W' are those of a view or, for views cut from
    larger images, more.
    """
    test: npt.NDArray[Any]
    """The same for the test set."""
    mean: tuple[float, ...]
    """Per channel on the 0..1 scale, or per feature."""
    std: tuple[float, ...]
    recipe: Recipe
    """How a training view is made of an image."""
    crop: int | None
    """Height and width of a view, for images that are kept larger; a test image is the middle of
    its own.
    """
    fingerprint: str
    class_names: tuple[str, ...]
    train_scores: npt.NDArray[Any] | None = None
    """float32 [N, classes] prior scores, of which a softmax makes probabilities; None: there are
    none.
    """
    test_scores: npt.NDArray[Any] | None = None
    """The same for the test set."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one item as a net sees it: (H, W, C) or (D,)."""
        if self.crop is not None:
            return self.crop, self.crop, int(self.train.shape[-1])
        return tuple(int(n) for n in self.train.shape[1:])


def open_data(images_dir: Path) -> StageData:
    """Opens the cache in this folder and checks it against its meta.json; once per process.

    Raises:
        DataError: a file is missing, cannot be read, or is not what meta.json says.
    """
    meta = Path(images_dir).resolve() / "meta.json"
    try:
        changed = meta.stat().st_mtime_ns
    except OSError as error:
        raise DataError(
            f"{meta}: cannot be read ({error.strerror}); expected a prepared data cache with"
            " meta.json, train.npy and test.npy"
        ) from None
    return _open(meta, changed)


@functools.lru_cache(maxsize=8)
def _open(meta_path: Path, changed: int) -> StageData:
    meta = _read_meta(meta_path)
    kind = meta["kind"]
    try:
        holds_images(kind)
    except DataError as error:
        raise DataError(f"{meta_path}: {error}") from None
    channels = int(meta["shape"][-1])
    mean, std = (tuple(float(v) for v in meta[name]) for name in ("mean", "std"))
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"{meta_path}: mean and std have {len(mean)} and {len(std)} values; expected"
            f" {channels}, one for each channel or feature"
        )
    folder = meta_path.parent
    prior = {
        f"{split}_scores": _open_array(
            folder / f"{split}_scores.npy",
            "features",
            int(meta[f"{split}_items"]),
            (int(meta["num_classes"]),),
        )
        for split in ("train", "test")
        if f"{split}_scores.npy" in meta.get("files", {})
    }
    return StageData(
        folder=folder,
        name=str(meta["name"]),
        kind=kind,
        num_classes=int(meta["num_classes"]),
        train=_open_array(
            folder / "train.npy", kind, int(meta["train_items"]), tuple(meta["shape"])
        ),
        test=_open_array(folder / "test.npy", kind, int(meta["test_items"]), tuple(meta["shape"])),
        mean=mean,
        std=std,
        recipe=_recipe(meta_path, meta.get("augment", {})),
        crop=None if meta.get("crop") is None else int(meta["crop"]),
        fingerprint=str(meta["fingerprint"]),
        class_names=tuple(str(n) for n in meta.get("class_names", ())),
        **prior,
    )


def _recipe(path: Path, recorded: dict[str, Any]) -> Recipe:
    unknown = sorted(set(recorded) - {field.name for field in fields(Recipe)})
    if unknown:
        raise DataError(
            f"{path}: augment: {', '.join(unknown)} is not known here; remove the folder and"
            " prepare the data again"
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()
    }
    return Recipe(**values)


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON ({error}); remove the folder and prepare the data"
            " again"
        ) from None
    needed = (
        "name",
        "kind",
        "num_classes",
        "train_items",
        "test_items",
        "shape",
        "mean",
        "std",
        "fingerprint",
    )
    missing = [name for name in needed if not isinstance(meta, dict) or name not in meta]
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; remove the folder and prepare the data again"
        )
    return dict(meta)


def _open_array(path: Path, kind: str, items: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    try:
        # Mode "c": torch wants writable memory, and nobody may change the file.
        array: npt.NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # a damaged header can fail anywhere in numpy's parser
        raise DataError(
            f"{path}: cannot be read as a .npy array ({error}); remove the folder and prepare the"
            " data again"
        ) from None
    dtype = np.dtype(np.uint8) if holds_images(kind) else np.dtype(np.float32)
    if array.shape != (items, *shape) or array.dtype != dtype:
        raise DataError(
            f"{path}: holds {array.dtype} {list(array.shape)}; meta.json says {dtype}"
            f" {[items, *shape]}; remove the folder and prepare the data again"
        )
    return array


class Items:
    """Items of one split: as they are, or as augmented views.

    Images come out [n, C, H, W] in channels-last order, features [n, D], normalised, in the `dtype`
    given, on the device.
    """

    def __init__(
        self,
        data: StageData,
        split: Literal["train", "test"],
        *,
        device: torch.device,
        dtype: torch.dtype,
        feature_noise: float,
    ) -> None:
        self.images, self.shape = holds_images(data.kind), data.shape
        self.recipe, self.feature_noise = data.recipe, feature_noise
        self.device, self.dtype = device, dtype
        self._host = torch.from_numpy(data.train if split == "train" else data.test)
        self._resident = self._host.to(device) if _fits(self._host, device) else None
        std = np.asarray(data.std, np.float64)
        # A constant feature or channel carries nothing: it becomes zero, noise included.
        inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
        unit = 255.0 if self.images else 1.0
        self._scale = torch.tensor(inverse / unit, dtype=dtype, device=device)
        self._offset = torch.tensor(
            -np.asarray(data.mean, np.float64) * inverse, dtype=dtype, device=device
        )
        self._varies = torch.tensor(std > 0, dtype=dtype, device=device)

    def __len__(self) -> int:
        return len(self._host)

    @property
    def at_once(self) -> int:
        """Items whose views or predictions are made in one go."""
        return max(VALUES_AT_ONCE[self.device.type] // math.prod(self.shape), 1)

    def rows(self, parts: Sequence[Ids]) -> Iterator[Tensor]:
        """The stored items of each part, in order, on the device; where they do not live there,
        worker processes read ahead and the copy does not wait.
        """
        if self._resident is not None:
            for ids in parts:
                yield self._resident.index_select(0, to_device(ids, self.device))
            return
        from torch.utils.data import DataLoader

        stored: Any = _Rows(self._host)
        loader = DataLoader(
            stored,
            batch_size=None,
            sampler=parts,
            # One core of this process's share drives the device.
            num_workers=max(1, torch.get_num_threads() - 1),
            pin_memory=self.device.type == "cuda",
        )
        for rows in loader:
            yield rows.to(self.device, non_blocking=True)

    def plain(self, rows: Tensor) -> Tensor:
        """Items of `rows`, not augmented."""
        return self._normalised(
            augment.centre(rows, (self.shape[0], self.shape[1])) if self.images else rows
        )

    def view(
        self, rows: Tensor, ids: Tensor, visits: Tensor, stream: int, recipe: Recipe | None = None
    ) -> Tensor:
        """One augmented view of each item of `rows`, a function of the item and (stream, id, visit)
        alone. ids, visits: int64 [n] on the device.

        Args:
            recipe: how, for images; None: as the data says.
        """
        if self.images:
            made = self.recipe if recipe is None else recipe
            return self._normalised(
                augment.view(rows, ids, visits, stream, made, (self.shape[0], self.shape[1]))
            )
        noise = augment.noise(ids, visits, stream, rows.shape[1]).to(self.dtype)
        return self._normalised(rows) + noise * (self.feature_noise * self._varies)

    def _normalised(self, rows: Tensor) -> Tensor:
        values = torch.addcmul(self._offset, rows.to(self.dtype), self._scale)
        return values.permute(0, 3, 1, 2) if self.images else values


class _Rows:
    """Rows of the array by lists of ids, as a DataLoader asks for them."""

    def __init__(self, host: Tensor) -> None:
        self._host = host

    def __getitem__(self, ids: Any) -> Tensor:
        return self._host.index_select(0, torch.as_tensor(ids))


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device; a copy to a GPU does not wait for the work that the GPU
    has.
    """
    tensor = torch.as_tensor(array)
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def _fits(rows: Tensor, device: torch.device) -> bool:
    """Whether the rows may live on the device. A CPU's memory maps them: the operating system keeps
    what it can.
    """
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return rows.nbytes <= RESIDENT_SHARE * free
