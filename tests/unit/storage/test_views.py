"""The laws of a view of what S3 holds: it answers as the store would, and to ask for one folder
costs the same however many there are.
"""

from __future__ import annotations

from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.storage.s3 import S3Store, _View

PARTS = st.text("a0-._", min_size=1, max_size=2).filter(lambda part: part[0] != ".")
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


class Names(list[str]):
    """Names that count how many of them are looked at."""

    looked = 0

    def __getitem__(self, key: Any) -> Any:
        chosen = super().__getitem__(key)
        self.looked += len(chosen) if isinstance(key, slice) else 1
        return chosen

    def __iter__(self) -> Any:
        self.looked += len(self)
        return super().__iter__()


class Listed:
    """As much of a store as a view asks for at first."""

    def __init__(self, names: list[str]) -> None:
        self.listed = Names(sorted(names))

    def names(self) -> list[str]:
        return self.listed


def view_of(names: list[str]) -> tuple[_View, Names]:
    store = Listed(names)
    view = _View(cast(S3Store, store))
    store.listed.looked = 0
    return view, store.listed


@given(st.lists(NAMES, unique=True), NAMES)
@example(["a", "a-/b", "a./b", "a/b", "a/b/c", "a0/b", "aa/b"], "a")
def test_a_folder_holds_what_begins_with_its_name_and_a_slash(
    names: list[str], folder: str
) -> None:
    view, _ = view_of(names)
    assert view.names(folder) == [name for name in sorted(names) if name.startswith(f"{folder}/")]
    assert view.names() == sorted(names)


def test_to_ask_for_one_folder_looks_at_no_other() -> None:
    for trials in (100, 10_000):
        view, listed = view_of([f"trials/{n:06}/stages/{s}" for n in range(trials) for s in (0, 1)])
        assert len(view.names("trials/000050/stages")) == 2
        assert listed.looked <= 2 + 2 * (2 * trials).bit_length(), "more than two halvings"
