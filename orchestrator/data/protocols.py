"""What a data source is, on one page.

A source is a frozen dataclass: its fields are the settings that a spec writes under `dataset`,
their limits beside them, and its methods are in two groups. `contents` is what `plan` and every
check of a spec ask; it is cheap and loads neither torch nor a decoder. `signature` and `load` are
what preparing the data asks, once on a machine: what `load` writes is checked, given a fingerprint
and kept in the cache by orchestrator.data.prepare, the labels apart from the rest.

A setting `path` says where the data lies, and is no part of what a trial is. Where it may be None,
the data is then looked for in $ORCHESTRATE_DATA/<name>. A source whose every setting has a default
stands in `orchestrate data list` before it was ever prepared.

The laws are tests: orchestrator.contracts.SourceContract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from orchestrator.data.arrays import Labels
from search_spaces.reading.config import Contents, DataKind

Progress = Callable[[int, int], None]
"""Called with (images or rows done, of how many)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A data set whose `train.npy` and `test.npy` have been written, and its prior scores if it has
    some; the labels are returned, and are stored where no trainer reads.
    """

    kind: DataKind
    labels: dict[str, Labels]
    """Split -> the class of each item, 0..C-1, [n]; or, where an item may be of several classes,
    [n, C] with 1 for those that it has and 0 for the others. int32.
    """
    class_names: tuple[str, ...]
    augment: dict[str, Any] = field(default_factory=dict)
    """How a training view is made: fields of trainers.data.augment.Recipe."""
    crop: int | None = None
    """Height and width of a view, where the images are kept larger."""
    mean: tuple[float, ...] | None = None
    """Per channel, on the 0..1 scale; None: computed from the training images."""
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    """What the user should know of how the source was read: a line each, with numbers and names."""


class Source(Protocol):
    """One data set where it lies, not yet decoded. Making one opens nothing."""

    name: ClassVar[str]
    """As a spec names it: `dataset: {name: NAME}`."""

    def contents(self) -> Contents:
        """Returns what the data holds: constants of a published set, counted files, a header. What
        `load` then finds must agree with it.

        Raises:
            DataError: the data is not there or not what it should be; names the file. The spec's
                line is added where it is shown.
        """
        ...

    def signature(self) -> str:
        """Returns a text that differs whenever files were added, removed, renamed, resized or
        touched, or `load` makes something else of them; reads no file's content.

        Raises:
            DataError, OSError: a file cannot be looked at.
        """
        ...

    def load(self, folder: Path, on_progress: Progress) -> Loaded:
        """Writes `train.npy` and `test.npy` (uint8 [N, H, W, C] or float32 [N, D]) into `folder`,
        and no label. The same data gives the same bytes on every machine.

        Where `contents` says `prior`, also `train_scores.npy` and `test_scores.npy`, float32 of a
        number for each item and class, of which a softmax makes probabilities.

        Raises:
            DataError: the data is not what its layout promises; names the file.
        """
        ...
