"""What the reader of specs must know of plug-ins: which kinds there are, where their names stand,
and who finds their classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from search_spaces.reading.config import Contents

Kind = Literal["method", "start", "query", "oracle", "source", "search", "task"]

KINDS: Final[tuple[Kind, ...]] = (
    "method",
    "start",
    "query",
    "oracle",
    "source",
    "search",
    "task",
)


class Catalogue(Protocol):
    """Finds the class of a plug-in by its name.

    The class is a frozen dataclass with `name: ClassVar[str]`. Its fields are the settings: each
    has a type with its limits (`Annotated[float, Interval(ge=0, le=1)]`), and a default unless it
    must be given.
    """

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Every name of a kind, those that ship with this program first. Loads no class."""
        ...

    def own(self, kind: Kind) -> tuple[str, ...]:
        """The names that ship with this program or were handed over in Python, whose classes are
        loaded at little risk and cost.
        """
        ...

    def default(self, kind: Kind) -> str | None:
        """The name of a kind where a spec gives none; None where it must be given."""
        ...

    def load(self, kind: Kind, name: str) -> type[Any]:
        """The class of that name.

        Raises:
            KeyError: there is no such name.
            SpecError: the package that has it is broken; says which package. Without a key.
        """
        ...

    def contents(self, source: Any) -> Contents:
        """What a data source says that it holds, wherever its data lies.

        Raises:
            DataError, OSError: the data is not there or not what it should be.
        """
        ...
