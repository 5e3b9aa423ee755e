"""Names of plug-ins and where their classes are: those of this program, and those of installed
packages.

A package offers a plug-in by an entry point, for example in its pyproject.toml

    [project.entry-points."orchestrate.queries"]
    coreset = "my_package.coreset:Coreset"

A spec then writes `query.strategy: coreset`. Only names are looked up: a spec cannot name code. A
class is imported when a spec uses it, so that a broken package spoils no spec but those that use
it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from search_spaces.reading.errors import SpecError
from search_spaces.reading.plugins import Kind
from trainers.errors import one_line

if TYPE_CHECKING:
    from search_spaces.reading.config import Contents, Extended, Spec

BUILT_IN: Final[Mapping[Kind, Mapping[str, str]]] = {
    "method": {
        "mean_teacher": "trainers.mean_teacher.settings:MeanTeacherConfig",
        "prior": "trainers.prior.settings:PriorScores",
        "head": "trainers.head.settings:Head",
        "prototypes": "trainers.prototypes.settings:Prototypes",
        "spml": "trainers.spml.settings:Spml",
        "obcp": "trainers.obcp.settings:ObcpConfig",
    },
    "start": {
        "method": "trainers.start:ByMethod",
        "prior": "trainers.prior.settings:PriorScores",
    },
    "query": {
        "random": "orchestrator.labelling.queries.chance:Random",
        "easy": "orchestrator.labelling.queries.confidence:Easy",
        "hard": "orchestrator.labelling.queries.confidence:Hard",
        "margin": "orchestrator.labelling.queries.confidence:Margin",
        "entropy": "orchestrator.labelling.queries.confidence:Entropy",
        "class_balanced": "orchestrator.labelling.queries.chance:ClassBalanced",
        "even_odds": "orchestrator.labelling.queries.answers:EvenOdds",
        "answer_entropy": "orchestrator.labelling.queries.answers:AnswerEntropy",
        "uncertainty": "orchestrator.labelling.queries.history:Uncertainty",
        "mixed": "orchestrator.labelling.queries.confidence:Mixed",
        "typiclust": "orchestrator.labelling.queries.typical:TypiClust",
        "probcover": "orchestrator.labelling.queries.covering:ProbCover",
        "max_herding": "orchestrator.labelling.queries.covering:MaxHerding",
        "uherding": "orchestrator.labelling.queries.covering:UHerding",
        "margin_diverse": "orchestrator.labelling.queries.diverse:MarginDiverse",
        "badge": "orchestrator.labelling.queries.diverse:Badge",
        "dropquery": "orchestrator.labelling.queries.dropout:DropQuery",
    },
    "oracle": {
        "labels": "orchestrator.labelling.oracles.simulated:Labels",
        "noisy": "orchestrator.labelling.oracles.simulated:Noisy",
    },
    "source": {
        "digits": "orchestrator.data.sources.digits:Digits",
        "digits_features": "orchestrator.data.sources.digits:DigitsFeatures",
        "digits_canvas": "orchestrator.data.sources.digits_canvas:DigitsCanvas",
        "digits_canvas_features": ("orchestrator.data.sources.digits_canvas:DigitsCanvasFeatures"),
        "cifar10": "orchestrator.data.sources.cifar:Cifar10",
        "cifar100": "orchestrator.data.sources.cifar:Cifar100",
        "mini_imagenet": "orchestrator.data.sources.folders:MiniImagenet",
        "imagenet": "orchestrator.data.sources.folders:Imagenet",
        "folder": "orchestrator.data.sources.folders:Folder",
        "voc12": "orchestrator.data.sources.listed:Voc12",
        "coco14": "orchestrator.data.sources.listed:Coco14",
        "nuswide": "orchestrator.data.sources.listed:NusWide",
        "cub_attributes": "orchestrator.data.sources.listed:CubAttributes",
        "features": "orchestrator.data.sources.features:Features",
    },
    "search": {
        "grid": "orchestrator.search.algorithms:Grid",
        "random": "orchestrator.search.algorithms:Random",
        "tpe": "orchestrator.search.algorithms:Tpe",
    },
    "task": {
        "multiclass": "orchestrator.labelling.tasks.multiclass:MultiClass",
        "multiclass_sets": "orchestrator.labelling.tasks.multiclass_sets:MultiClassSets",
        "multilabel": "orchestrator.labelling.tasks.multilabel:MultiLabel",
    },
}
"""Kind -> name -> module:Class."""

DEFAULTS: Final[Mapping[Kind, str]] = {
    "start": "method",
    "query": "random",
    "oracle": "labels",
    "search": "grid",
    "task": "multiclass",
}
"""Kind -> the name that counts where a spec gives none. A default never changes: ids of trials
depend on it.
"""

LOCATE: Final = "orchestrator.data.locate"
"""The module that knows where the data of a source lies."""

GROUPS: Final[Mapping[Kind, str]] = {
    "method": "orchestrate.methods",
    "start": "orchestrate.starts",
    "query": "orchestrate.queries",
    "oracle": "orchestrate.oracles",
    "source": "orchestrate.sources",
    "search": "orchestrate.searches",
    "task": "orchestrate.tasks",
}
"""Kind -> group of its entry points."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Finds plug-ins by name: classes handed over in Python first, then built-in ones, then those
    of installed packages.
    """

    built_in: Mapping[Kind, Mapping[str, str]] = field(default_factory=lambda: BUILT_IN)
    added: Mapping[tuple[Kind, str], type[Any]] = field(default_factory=dict)
    """(kind, name) -> a class that was handed over in Python."""
    installed: bool = True
    """Whether entry points of installed packages count."""

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Every name of a kind, built-in ones first. Loads no class."""
        mine = dict.fromkeys(self.built_in.get(kind, {}))
        mine |= dict.fromkeys(name for known, name in self.added if known == kind)
        return tuple(mine | dict.fromkeys(sorted(self._offered(kind))))

    def own(self, kind: Kind) -> tuple[str, ...]:
        """The built-in names of a kind, and those of classes that were handed over: what can be
        loaded at little risk.
        """
        return tuple(
            dict.fromkeys(
                (
                    *self.built_in.get(kind, {}),
                    *(name for known, name in self.added if known == kind),
                )
            )
        )

    def default(self, kind: Kind) -> str | None:
        """The name of a kind where a spec gives none; None where it must be given."""
        return DEFAULTS.get(kind)

    def load(self, kind: Kind, name: str) -> type[Any]:
        """The class of that name.

        Raises:
            KeyError: there is no such name.
            SpecError: the package that has it is broken, or several have it. Names them. Without a
                key.
        """
        if (kind, name) in self.added:
            return self.added[kind, name]
        if name in self.built_in.get(kind, {}):
            module, _, attribute = self.built_in[kind][name].partition(":")
            loaded: type[Any] = getattr(importlib.import_module(module), attribute)
            return loaded
        points = self._offered(kind)[name]
        if len(points) > 1:
            owners = ", ".join(sorted(_package(point) for point in points))
            raise SpecError(
                f"{kind} {name} is offered by several packages: {owners}",
                hint="uninstall all but one of them",
            )
        return _import(kind, name, points[0])

    def contents(self, source: Any) -> Contents:
        """What a data source says that it holds, wherever its data lies.

        Raises:
            DataError, OSError: the data is not there or not what it should be.
            StorageError: it lies in S3, which does not answer.
        """
        # Named by a string, as every plug-in: what brings data stands above this module.
        found: Contents = importlib.import_module(LOCATE).contents(source)
        return found

    def adding(self, kind: Kind, *classes: type[Any]) -> Catalogue:
        """Returns the same catalogue with these classes too, each by its `name`."""
        return replace(self, added={**self.added, **{(kind, cls.name): cls for cls in classes}})

    def _offered(self, kind: Kind) -> Mapping[str, list[EntryPoint]]:
        return _entry_points(tuple(sys.path)).get(kind, {}) if self.installed else {}


@lru_cache(maxsize=4)
def _entry_points(path: tuple[str, ...]) -> Mapping[Kind, Mapping[str, list[EntryPoint]]]:
    """Kind -> name -> entry points of the packages on `path`, which is sys.path: it is the key of
    the cache.
    """
    points: dict[Kind, dict[str, list[EntryPoint]]] = {}
    everything = entry_points()
    for kind, group in GROUPS.items():
        for point in everything.select(group=group):
            same = points.setdefault(kind, {}).setdefault(point.name, [])
            # A package that is installed twice on the path, as in development, is one package.
            if point.value not in (other.value for other in same):
                same.append(point)
    return points


def _import(kind: Kind, name: str, point: EntryPoint) -> type[Any]:
    try:
        plugin = point.load()
    except Exception as error:
        problem = (
            f"{kind} {name} of the installed package {_package(point)} cannot be loaded"
            f" ({type(error).__name__}: {one_line(str(error), 200)})"
        )
        raise SpecError(
            problem, hint="fix or uninstall that package, or write another name"
        ) from error
    if (
        not isinstance(plugin, type)
        or not is_dataclass(plugin)
        or getattr(plugin, "name", None) != name
    ):
        problem = (
            f"{kind} {name} of the installed package {_package(point)}: {point.value} is not a"
            f" dataclass whose `name` is {name!r}"
        )
        raise SpecError(problem, hint="fix or uninstall that package, or write another name")
    return plugin


def _package(point: EntryPoint) -> str:
    return (
        f"{point.dist.name} {point.dist.version}"
        if point.dist is not None
        else point.value.partition(":")[0]
    )


INSTALLED: Final = Catalogue()
"""What this program has, and what is installed beside it."""


def load_spec(
    path_or_name: str,
    overrides: Sequence[str] = (),
    *,
    recorded: bool = False,
    extended: Sequence[Extended] = (),
    catalogue: Catalogue = INSTALLED,
) -> Spec:
    """The checked spec of a file, with the plug-ins that are installed; arguments and errors are
    those of search_spaces.reading.spec.load_spec.
    """
    from search_spaces.reading import spec as specs

    return specs.load_spec(path_or_name, overrides, catalogue, recorded=recorded, extended=extended)
