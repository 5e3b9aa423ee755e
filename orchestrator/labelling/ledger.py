"""The record of everything bought in a trial: numbered Parquet segments, each carrying the checksum
of the one before.

The bytes of a segment are a pure function of its content, so equal runs have equal ledgers. Any
Parquet reader opens them:

- kind `labels`, which ends round 0: id, label, role (`initial`; `initial_validation`: bought inside
  the budget, held out; `split_validation`: priced beside it). The first segment, unless labels were
  waited for.
- kinds `label_plan` (id, role) and `label_answers` (id, label, answer: 1 given, -1 skipped), before
  it, where labels were waited for: which images are to be labelled, and what has come.
- kind `plan`, one a round: id, guess, confidence. What will be asked; 1 bit each, once answered.
  Where rounds buy labels, the images that will be labelled, with the model's guess; `label_answers`
  of that round, at the price of a label each, in the place of `answers`.
- kind `answers`, one or more a round: id, guess, answer (1 yes, 0 no, -1 skipped and not charged).
  Together they cover the plan.

`label` and `guess` are one class an image; where one of a segment's labels is a set of classes, or
a question is about several, they are lists of classes, and the segment is of format 2.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.labelling.facts import class_type
from orchestrator.labelling.questions import ClassSets
from orchestrator.storage.segments import Segments
from trainers.errors import UserError

FORMATS: Final = ("1", "2")

Kind = Literal["label_plan", "label_answers", "labels", "plan", "answers"]
Columns = Mapping[str, "npt.NDArray[Any] | ClassSets"]

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "label_plan": ("id", "role"),
    "label_answers": ("id", "label", "answer"),
    "labels": ("id", "label", "role"),
    "plan": ("id", "guess", "confidence"),
    "answers": ("id", "guess", "answer"),
}

ROLES: Final = ("initial", "initial_validation", "split_validation")

_NAME: Final = re.compile(r"(\d{4,})\.parquet")


class LedgerError(UserError):
    """A ledger is damaged, incomplete, or belongs to other settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One committed segment, decoded and checked."""

    number: int
    kind: Kind
    trial: str
    round: int
    """0 for the labels."""
    terms: dict[str, Any]
    """The terms of the trial, in the segments of round 0; else empty."""
    previous: str
    """Hex SHA-256 of the bytes of the segment before; "" for the first."""
    digest: str
    """Hex SHA-256 of this segment's bytes."""
    columns: Mapping[str, Any]
    """By COLUMNS: integer arrays, or ClassSets; `role` as an index into ROLES."""
    place: str
    """Where it lies, for messages."""

    def __len__(self) -> int:
        return len(self.columns["id"])


def segment_name(number: int) -> str:
    return f"{number:04d}.parquet"


class Ledger:
    """A reader and writer of one trial's segments. Any number may be at work at once; each sees the
    same committed sequence.
    """

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._next = 0
        self._previous = ""

    @property
    def location(self) -> str:
        return self._segments.location

    @property
    def head(self) -> tuple[int, str]:
        """How many segments this object has seen, and the hex SHA-256 of the last of them."""
        return self._next, self._previous

    def read(self) -> tuple[Segment, ...]:
        """Reads every segment and verifies their chain.

        Raises:
            LedgerError: naming the first segment that is missing or damaged.
        """
        self._next, self._previous = 0, ""
        segments = self.news()
        while later := [
            name
            for name in self._segments.names()
            if (match := _NAME.fullmatch(name)) and int(match[1]) >= self._next
        ]:
            # Segments are put in order, so what stands before a listed one can be fetched: others
            # were at work meanwhile, or it is lost.
            more = self.news()
            if not more:
                raise LedgerError(
                    f"{self.location}/{segment_name(self._next)}: missing, while {max(later)} is"
                    " there; restore it from a copy, or remove the trial's folder and run the"
                    " trial again"
                )
            segments += more
        return segments

    def news(self) -> tuple[Segment, ...]:
        """Reads the segments that anyone has committed since this object last looked or wrote."""
        seen = self._next, self._previous
        segments: list[Segment] = []
        try:
            # By name, one after the other: a listing taken while others write may show a segment
            # and not the one before it.
            while True:
                try:
                    data = self._segments.get(segment_name(self._next))
                except FileNotFoundError:
                    return tuple(segments)
                segments.append(self._advance(self._decode(self._next, data)))
        except UserError:
            # A segment that could not be fetched is news again the next time, and those before it
            # too.
            self._next, self._previous = seen
            raise

    def append(
        self,
        kind: Kind,
        *,
        trial: str,
        round: int,
        columns: Columns,
        terms: Mapping[str, Any] | None = None,
    ) -> Segment:
        """Commits the next segment and returns it; if another process was first, returns theirs."""
        data = encode(
            kind,
            trial=trial,
            round=round,
            columns=columns,
            terms=terms or {},
            previous=self._previous,
        )
        # Read back before it is put: what is committed can never be changed.
        ours = self._decode(self._next, data)
        if not self._segments.put_if_absent(segment_name(self._next), data):
            ours = self._decode(self._next, self._segments.get(segment_name(self._next)))
        return self._advance(ours)

    def _decode(self, number: int, data: bytes) -> Segment:
        place = f"{self.location}/{segment_name(number)}"
        segment = decode(data, number=number, place=place)
        if segment.previous != self._previous:
            before = segment_name(number - 1) if number else "an empty ledger"
            raise LedgerError(
                f"{place}: does not follow {before}: one of the two was changed; restore both from"
                " a copy"
            )
        return segment

    def _advance(self, segment: Segment) -> Segment:
        self._next, self._previous = segment.number + 1, segment.digest
        return segment


def encode(
    kind: Kind, *, trial: str, round: int, columns: Columns, terms: Mapping[str, Any], previous: str
) -> bytes:
    """The segment as a Parquet file, byte for byte the same for the same content."""
    plain = all(_is_plain(values) for values in columns.values())
    meta = {
        "format": "1" if plain and kind in ("labels", "plan", "answers") else "2",
        "kind": kind,
        "trial": trial,
        "round": str(round),
        "terms": json.dumps(terms, sort_keys=True),
        "previous": previous,
    }
    meta["content"] = _content_digest(meta, columns)
    arrays = {name: _to_arrow(columns[name]) for name in COLUMNS[kind]}
    if "role" in arrays:
        arrays["role"] = _ROLE_NAMES.take(arrays["role"])
    table = pa.table(arrays)
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        store_schema=False,
        use_dictionary=[
            name
            for name in COLUMNS[kind]
            if name in ("label", "role", "guess", "answer") and _is_plain(columns[name])
        ],
        column_encoding={"id": "DELTA_BINARY_PACKED"},
        # Damaged pages are then refused before they are unpacked, here and by any other reader.
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(meta)
    return sink.getvalue()


def decode(data: bytes, *, number: int, place: str) -> Segment:
    """Raises LedgerError where `data` is not a whole, unchanged segment."""
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        meta = {
            key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()
        }
        table = file.read(use_threads=False)
        kind = meta["kind"]
        if meta["format"] not in FORMATS or kind not in get_args(Kind):
            raise LedgerError(
                f"{place}: a {kind!r} segment of format {meta['format']!r}, which this version does"
                " not know; install the version that wrote it"
            )
        arrays = {name: table.column(name).combine_chunks() for name in COLUMNS[kind]}
        if "role" in arrays:
            arrays["role"] = _role_index(arrays["role"])
        columns = {name: _from_arrow(array) for name, array in arrays.items()}
        if meta.pop("content") != _content_digest(
            {key: meta[key] for key in ("format", "kind", "trial", "round", "terms", "previous")},
            columns,
        ):
            raise ValueError("its content does not match its checksum")
        terms = json.loads(meta["terms"])
    # Damaged bytes make the reader fail in many ways.
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError, MemoryError) as error:
        raise LedgerError(
            f"{place}: damaged ({error}); restore it from a copy, or remove the trial's folder and"
            " run the trial again"
        ) from error
    return Segment(
        number=number,
        kind=kind,
        trial=meta["trial"],
        round=int(meta["round"]),
        terms=terms,
        previous=meta["previous"],
        digest=hashlib.sha256(data).hexdigest(),
        columns=columns,
        place=place,
    )


# pyarrow.array and to_numpy would load pandas, half a second and 50 MB in every pool's process;
# buffers and DLPack do not.
def _to_arrow(array: npt.NDArray[Any] | ClassSets) -> Any:
    if isinstance(array, ClassSets):
        if not array.single:
            starts = _to_arrow(array.starts.astype(np.int32))
            return pa.ListArray.from_arrays(starts, _to_arrow(array.classes))
        array = array.classes
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(array.dtype),
        len(array),
        [None, pa.py_buffer(np.ascontiguousarray(array))],
    )


def _from_arrow(array: Any) -> npt.NDArray[Any] | ClassSets:
    if not pa.types.is_list(array.type):
        return np.from_dlpack(array)
    starts = np.from_dlpack(array.offsets).astype(np.int64)
    return ClassSets(starts - starts[0], np.from_dlpack(array.flatten()).astype(np.int32))


def _is_plain(values: npt.NDArray[Any] | ClassSets) -> bool:
    return not isinstance(values, ClassSets) or values.single


def as_sets(column: npt.NDArray[Any] | ClassSets) -> ClassSets:
    """Returns the sets of classes that a column `label` or `guess` holds."""
    return column if isinstance(column, ClassSets) else ClassSets.singles(column)


def as_column(sets: ClassSets, num_classes: int) -> npt.NDArray[Any] | ClassSets:
    """Returns the column that holds these sets: one class a row where that is all there is."""
    narrow = class_type(num_classes)
    return sets.classes.astype(narrow) if sets.single else sets


def _strings(values: tuple[str, ...]) -> Any:
    ends = np.cumsum([0, *(len(value.encode()) for value in values)], dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(values), [None, pa.py_buffer(ends), pa.py_buffer("".join(values).encode())]
    )


_ROLE_NAMES: Final = _strings(ROLES)


def _role_index(roles: Any) -> Any:
    encoded = roles.dictionary_encode()
    codes = np.array([ROLES.index(role) for role in encoded.dictionary.to_pylist()], np.int8)
    return _to_arrow(codes[np.from_dlpack(encoded.indices)])


def _content_digest(meta: Mapping[str, str], columns: Columns) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(meta.items()))).encode())
    for name in sorted(columns):
        values = columns[name]
        if isinstance(values, ClassSets):
            digest.update(f"{name}:list:{len(values)}".encode())
            digest.update(values.starts.tobytes() + values.classes.tobytes())
            continue
        array = np.ascontiguousarray(values)
        digest.update(f"{name}:{array.dtype.str}:{array.size}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
