from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.commands import replay
from orchestrator.labelling.fold import fold
from orchestrator.labelling.ledger import Kind, Ledger, LedgerError, Segment, decode, encode
from orchestrator.labelling.questions import Questions
from orchestrator.labelling.terms import PoolTerms
from orchestrator.storage.segments import open_segments
from search_spaces.reading.config import ValidationConfig
from tests.helpers.pool_world import (
    MemorySegments,
    PeopleOracle,
    ask_round,
    finish,
    labels_oracle,
    open_pool,
    terms,
)


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    """The ledger of a finished trial."""
    segments = MemorySegments()
    finish(open_pool(terms(), segments))
    return segments.held


def _stored(held: dict[str, bytes]) -> MemorySegments:
    segments = MemorySegments()
    segments.held = dict(held)
    return segments


def _on_disk(held: dict[str, bytes], folder: Path) -> Path:
    for name, data in held.items():
        (folder / name).write_bytes(data)
    return folder


def test_equal_runs_write_equal_bytes(written: dict[str, bytes], tmp_path: Path) -> None:
    finish(open_pool(terms(), open_segments(tmp_path)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written


def test_segments_are_plain_parquet_that_says_what_it_holds(written: dict[str, bytes]) -> None:
    kinds = []
    for name in sorted(written):
        file = pq.ParquetFile(io.BytesIO(written[name]))
        meta = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
        assert meta["trial"] == terms().trial
        kinds.append((meta["kind"], meta["round"], file.read().column_names))
    assert kinds == [
        ("labels", "0", ["id", "label", "role"]),
        ("plan", "1", ["id", "guess", "confidence"]),
        ("answers", "1", ["id", "guess", "answer"]),
        ("plan", "2", ["id", "guess", "confidence"]),
        ("answers", "2", ["id", "guess", "answer"]),
    ]
    first = pq.ParquetFile(io.BytesIO(written["0000.parquet"]))
    begun_with = json.loads(first.metadata.metadata[b"terms"])
    assert PoolTerms.from_mapping(begun_with) == terms()
    roles = first.read().column("role").to_pylist()
    assert (roles.count("initial"), roles.count("split_validation")) == (8, 12)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_found_or_changes_nothing(
    written: dict[str, bytes], data: st.DataObject
) -> None:
    segments = _stored(written)
    name = data.draw(st.sampled_from(sorted(written)))
    at = data.draw(st.integers(0, len(written[name]) - 1))
    flipped = bytearray(written[name])
    flipped[at] ^= data.draw(st.integers(1, 255))
    segments.held[name] = bytes(flipped)
    try:
        state = fold(None, Ledger(segments).read())
    except LedgerError as error:
        assert ".parquet" in str(error)
        return
    # Only the last segment has no successor that vouches for every byte; its content has a checksum
    # of its own.
    assert name == max(written)
    whole = fold(None, Ledger(_stored(written)).read())
    assert state is not None
    assert whole is not None
    assert state.digest() == whole.digest()


def test_changed_terms_are_found_even_where_no_segment_follows(written: dict[str, bytes]) -> None:
    first = written["0000.parquet"]
    for before, after in (
        (b'"budget_bits": 66.0', b'"budget_bits": 96.0'),
        (b'"seed": 0', b'"seed": 1'),
        (b"0123456789ab", b"0123456789aa"),
    ):
        assert before in first
        with pytest.raises(LedgerError, match="does not match its checksum"):
            Ledger(_stored({"0000.parquet": first.replace(before, after)})).read()


@pytest.mark.parametrize("cut", [0, 1, 4, 100, -1])
def test_a_truncated_segment_is_named(written: dict[str, bytes], cut: int) -> None:
    for name in sorted(written):
        segments = _stored(written)
        segments.held[name] = written[name][:cut]
        with pytest.raises(LedgerError, match=f"memory/{name}: damaged"):
            Ledger(segments).read()


def test_a_missing_segment_is_named(written: dict[str, bytes]) -> None:
    for name in sorted(written)[:-1]:
        segments = _stored(written)
        del segments.held[name]
        with pytest.raises(LedgerError, match=f"memory/{name}: missing"):
            Ledger(segments).read()


def test_a_listing_torn_by_a_writer_is_not_taken_for_damage(written: dict[str, bytes]) -> None:
    class Torn(MemorySegments):
        """Lists entries made during the listing, and misses some made before them."""

        def names(self) -> list[str]:
            return [name for name in super().names() if name != "0003.parquet"]

        def get(self, name: str) -> bytes:
            # Two segments appear between the reader's last fetch and its listing.
            if name == "0003.parquet" and len(self.held) == 3:
                self.held = dict(written)
                raise FileNotFoundError(name)
            return super().get(name)

    segments = Torn()
    segments.held = {name: written[name] for name in sorted(written)[:3]}
    assert [segment.number for segment in Ledger(segments).read()] == [0, 1, 2, 3, 4]


def test_a_replaced_segment_breaks_the_chain(written: dict[str, bytes]) -> None:
    other = MemorySegments()
    finish(open_pool(terms(seed=1), other))
    for name in sorted(written)[:-1]:
        segments = _stored(written)
        segments.held[name] = other.held[name]
        with pytest.raises(LedgerError, match="does not follow"):
            Ledger(segments).read()


def _append(kind: Kind, number: int, **columns: Any) -> Callable[[Ledger], Segment]:
    types = {"confidence": np.float32, "answer": np.int8, "role": np.int8}
    arrays = {name: np.array(values, types.get(name, np.int32)) for name, values in columns.items()}
    return lambda ledger: ledger.append(kind, trial=terms().trial, round=number, columns=arrays)


@pytest.mark.parametrize(
    ("impossible", "message"),
    [
        (_append("plan", 3, id=[1], guess=[0], confidence=[0.5]), "out of turn"),
        (_append("plan", 1, id=[1], guess=[0], confidence=[0.5]), "out of turn"),
        (_append("answers", 1, id=[1], guess=[0], answer=[1]), "out of turn"),
        (_append("answers", 2, id=[119], guess=[0], answer=[1]), "was not asked"),
        (_append("labels", 0, id=[1], label=[0], role=[0]), "bought once"),
    ],
)
def test_a_segment_that_no_trial_can_have_written_is_refused(
    written: dict[str, bytes], impossible: Callable[[Ledger], Segment], message: str
) -> None:
    segments = _stored(written)
    ledger = Ledger(segments)
    ledger.read()
    impossible(ledger)
    with pytest.raises(LedgerError, match=f"0005.parquet: .*{message}"):
        fold(None, Ledger(segments).read())


def test_a_plan_beyond_the_budget_is_refused_even_in_a_ledger(written: dict[str, bytes]) -> None:
    segments = MemorySegments()
    pool = open_pool(terms(budget_bits=16.0 + 10), segments)
    ids = pool.eligible()[:11].tolist()
    ledger = Ledger(segments)
    ledger.read()
    _append("plan", 1, id=ids, guess=[0] * 11, confidence=[0.5] * 11)(ledger)
    with pytest.raises(LedgerError, match="more questions than quota and budget hold"):
        fold(None, Ledger(segments).read())


def test_labels_beyond_the_budget_are_refused_even_in_a_ledger() -> None:
    segments = MemorySegments()
    columns: dict[str, Any] = {
        "id": np.arange(8, dtype=np.int32),
        "label": np.zeros(8, np.int16),
        "role": np.zeros(8, np.int8),
    }
    Ledger(segments).append(
        "labels",
        trial=terms().trial,
        round=0,
        columns=columns,
        terms=terms(budget_bits=15.0).to_mapping(),
    )
    with pytest.raises(LedgerError, match=r"0000\.parquet: the labels cost more than the budget"):
        fold(None, Ledger(segments).read())


def test_an_answer_given_twice_is_refused() -> None:
    segments = MemorySegments()
    pool = open_pool(terms(), segments, PeopleOracle(labels_oracle(terms()), answered_share=0.5))
    ids = pool.eligible()[:20]
    asked = pool.ask(1, Questions.singles(ids, np.zeros(20, np.int32), np.zeros(20, np.float32)))
    answered = int(asked.ids[asked.answers >= 0][0])
    ledger = Ledger(segments)
    ledger.read()
    _append("answers", 1, id=[answered], guess=[0], answer=[1])(ledger)
    with pytest.raises(LedgerError, match="answers a question twice"):
        fold(None, Ledger(segments).read())


def test_an_unknown_format_is_named() -> None:
    columns: dict[str, Any] = {
        "id": np.zeros(0, np.int32),
        "guess": np.zeros(0, np.int16),
        "confidence": np.zeros(0, np.float32),
    }
    data = encode("plan", trial="t", round=1, columns=columns, terms={}, previous="")
    assert len(decode(data, number=0, place="x")) == 0
    with pytest.raises(LedgerError, match="format '3', which this version does not know"):
        decode(data.replace(b"format\x18\x011", b"format\x18\x013"), number=0, place="x")


def test_other_terms_on_the_same_ledger_are_refused() -> None:
    segments = MemorySegments()
    open_pool(terms(), segments)
    for changed in (
        terms(budget_bits=70.0),
        terms(quotas=(25, 25)),
        terms(validation=ValidationConfig(source="none")),
    ):
        with pytest.raises(LedgerError, match="was begun with"):
            open_pool(changed, segments)


class TestVerbs:
    def test_show_has_a_row_a_segment_whose_bits_are_the_bits_spent(
        self, written: dict[str, bytes], tmp_path: Path
    ) -> None:
        rows = replay.show(_on_disk(written, tmp_path))
        counts = replay.replay(tmp_path).counts()
        assert [row["kind"] for row in rows] == ["labels", "plan", "answers", "plan", "answers"]
        assert sum(row["bits"] for row in rows) == counts.label_bits + counts.question_bits == 66
        assert sum(row["yes"] for row in rows) == counts.yes
        json.dumps(rows)

    def test_questions_are_listed_with_their_answers(
        self, written: dict[str, bytes], tmp_path: Path
    ) -> None:
        rows = replay.questions(_on_disk(written, tmp_path))
        assert [row["round"] for row in rows] == [1] * 30 + [2] * 20
        assert replay.questions(tmp_path, round=2) == rows[30:]
        assert sum(row["answer"] == "yes" for row in rows) == replay.replay(tmp_path).counts().yes
        json.dumps(rows)

    def test_verify_says_what_stands_and_names_what_does_not(
        self, written: dict[str, bytes], tmp_path: Path
    ) -> None:
        assert replay.verify(_on_disk(written, tmp_path)) | {"sha256": ""} == {
            "segments": 5,
            "rows": 120,
            "sha256": "",
        }
        (tmp_path / "0003.parquet").write_bytes(b"PAR1")
        with pytest.raises(LedgerError, match=r"0003\.parquet: damaged"):
            replay.verify(tmp_path)

    def test_replay_gives_the_pool_after_any_round(
        self, written: dict[str, bytes], tmp_path: Path
    ) -> None:
        _on_disk(written, tmp_path)
        pool = open_pool(terms(), MemorySegments())
        for number in (0, 1, 2):
            if number:
                ask_round(pool, number)
            assert replay.replay(tmp_path, number).digest() == pool.state().digest()

    def test_no_ledger_is_said(self, tmp_path: Path) -> None:
        for verb in (replay.show, replay.verify, replay.replay, replay.questions):
            with pytest.raises(LedgerError, match=r"no ledger here; 0000\.parquet"):
                verb(tmp_path / "absent")
        assert not (tmp_path / "absent").exists()
