"""The record of everything bought in a trial: numbered Parquet segments, each carrying the checksum
of the one before.

The bytes of a segment are a pure function of its content, so equal runs have equal ledgers. Any
Parquet reader opens them:

- 0000, kind `labels`: id, label, role (`initial`; `initial_validation`: bought inside the budget,
  held out; `split_validation`: priced beside it).
- kind `plan`, one a round: id, guess, confidence. What will be asked; 1 bit each, once answered.
- kind `answers`, one or more a round: id, guess, answer (1 yes, 0 no, -1 skipped and not charged).
  Together they cover the plan.
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

from orchestrator.storage.segments import Segments
from trainers.errors import UserError

FORMAT: Final = "1"

Kind = Literal["labels", "plan", "answers"]
Columns = Mapping[str, npt.NDArray[Any]]

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
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
    """Of segment 0: the terms of the trial; else empty."""
    previous: str
    """Hex SHA-256 of the bytes of the segment before; "" for the first."""
    digest: str
    """Hex SHA-256 of this segment's bytes."""
    columns: Columns
    """Integer arrays by COLUMNS; `role` as an index into ROLES."""
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
        """Every segment, its chain verified.

        Raises:
            LedgerError: naming the first segment that is missing or damaged.
        """
        self._next, self._previous = 0, ""
        found = self.news()
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
            found += more
        return found

    def news(self) -> tuple[Segment, ...]:
        """The segments committed, by anyone, since this object last looked or wrote."""
        seen = self._next, self._previous
        found: list[Segment] = []
        try:
            # By name, one after the other: a listing taken while others write may show a segment
            # and not the one before it.
            while True:
                try:
                    data = self._segments.get(segment_name(self._next))
                except FileNotFoundError:
                    return tuple(found)
                found.append(self._advance(self._decode(self._next, data)))
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
        """The next segment is committed, and returned: ours, or that of whoever was first."""
        data = encode(
            kind,
            trial=trial,
            round=round,
            columns=columns,
            terms=terms or {},
            previous=self._previous,
        )
        # Read back before it is put: what is committed can never be mended.
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
    meta = {
        "format": FORMAT,
        "kind": kind,
        "trial": trial,
        "round": str(round),
        "terms": json.dumps(terms, sort_keys=True),
        "previous": previous,
    }
    meta["content"] = _content_digest(meta, columns)
    arrays = {name: _to_arrow(columns[name]) for name in COLUMNS[kind]}
    if kind == "labels":
        arrays["role"] = _ROLE_NAMES.take(arrays["role"])
    table = pa.table(arrays)
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        store_schema=False,
        use_dictionary=[
            name for name in COLUMNS[kind] if name in ("label", "role", "guess", "answer")
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
        if meta["format"] != FORMAT or kind not in get_args(Kind):
            raise LedgerError(
                f"{place}: a {kind!r} segment of format {meta['format']!r}, which this version does"
                " not know; install the version that wrote it"
            )
        arrays = {name: table.column(name).combine_chunks() for name in COLUMNS[kind]}
        if kind == "labels":
            arrays["role"] = _role_index(arrays["role"])
        columns = {name: np.from_dlpack(array) for name, array in arrays.items()}
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
def _to_arrow(array: npt.NDArray[Any]) -> Any:
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(array.dtype),
        len(array),
        [None, pa.py_buffer(np.ascontiguousarray(array))],
    )


def _strings(values: tuple[str, ...]) -> Any:
    ends = np.cumsum([0, *(len(value.encode()) for value in values)], dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(values), [None, pa.py_buffer(ends), pa.py_buffer("".join(values).encode())]
    )


_ROLE_NAMES: Final = _strings(ROLES)


def _role_index(roles: Any) -> Any:
    found = roles.dictionary_encode()
    codes = np.array([ROLES.index(role) for role in found.dictionary.to_pylist()], np.int8)
    return _to_arrow(codes[np.from_dlpack(found.indices)])


def _content_digest(meta: Mapping[str, str], columns: Columns) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(meta.items()))).encode())
    for name in sorted(columns):
        array = np.ascontiguousarray(columns[name])
        digest.update(f"{name}:{array.dtype.str}:{array.size}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
