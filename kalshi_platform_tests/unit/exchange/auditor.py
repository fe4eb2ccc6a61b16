"""Checks what a session gives while it gives it: claims rest on numbers that came, every record can be written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kalshi_platform.gatherer.ingest.columns import tables_of
from kalshi_platform.market.records import (
    NO_STREAM,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    DeadLettersCounted,
    Record,
    SequenceConsumed,
    SequenceGap,
    StreamEnded,
    StreamOpened,
    UnknownFrame,
)
from kalshi_platform_tests.fixtures.recording_session import Recorded

INT64_MAX = 2**63 - 1
INT32_MAX = 2**31 - 1


@dataclass
class _Stream:
    last: int = 0
    last_gave_a_row: bool = True
    gap_to: int | None = None
    broken: set[int] = field(default_factory=set)
    """Numbers before which frames are missing."""
    members: dict[str, int] = field(default_factory=dict)
    unnumbered: set[int] = field(default_factory=set)


class Auditor:
    """Takes every record of one session in order."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.last_command = 0
        self._open: dict[int, _Stream] = {}
        self._sids: dict[int, int] = {}
        self._seen_ids: set[int] = set()
        self._last_snapshot: BookSnapshot | None = None

    def check_output(self, received: Recorded) -> None:
        """Take what one call gave."""
        self.check_records(received.records)
        self.commands(received.commands)
        for alarm in received.alarms:
            assert alarm.kind.isidentifier()

    def commands(self, commands: Iterable[bytes]) -> None:
        """Commands are JSON, numbered upwards, and no larger than 500 tickers."""
        for command in commands:
            content = json.loads(command)
            assert content["id"] > self.last_command
            self.last_command = content["id"]
            assert len(content.get("params", {}).get("market_tickers", ())) <= 500

    def check_records(self, records: Sequence[Record]) -> None:
        """Check each record against what came before it."""
        self.records += records
        for record in records:
            if isinstance(record, StreamOpened):
                assert record.stream_id not in self._seen_ids
                assert 0 <= record.sid <= INT32_MAX
                assert record.sid not in self._sids.values(), "two open streams of one sid"
                self._seen_ids.add(record.stream_id)
                self._open[record.stream_id] = _Stream()
                self._sids[record.stream_id] = record.sid
            elif isinstance(record, StreamEnded):
                assert not self._open.pop(record.stream_id).members, "book_subscriptions outlive their stream"
                del self._sids[record.stream_id]
            elif isinstance(record, SequenceGap):
                stream = self._open[record.stream_id]
                assert record.seq_expected == stream.last + 1
                stream.gap_to = record.seq_seen
            elif isinstance(record, SequenceConsumed):
                self._number(record.stream_id, record.seq, is_row=False)
            elif isinstance(record, BookSubscriptionStarted):
                stream, snapshot = self._open[record.stream_id], self._last_snapshot
                assert snapshot is not None
                assert (snapshot.stream_id, snapshot.seq, snapshot.ticker) == (
                    record.stream_id, record.seq_from, record.ticker
                )  # fmt: skip
                assert record.ticker not in stream.members
                stream.members[record.ticker] = record.seq_from
            elif isinstance(record, BookSubscriptionEnded):
                stream = self._open[record.stream_id]
                seq_from = stream.members.pop(record.ticker)
                # A snapshot ends the book subscription at its own number, which its row takes right after.
                reach = stream.last + 1 if record.reason == "snapshot" else stream.last
                assert record.seq_to <= max(reach, seq_from), "a claim beyond the last number that came"
                covered = {number for number in stream.broken if seq_from < number <= record.seq_to}
                assert not covered, f"a claim over numbers that did not come, before {covered}"
            elif isinstance(record, UnknownFrame):
                stream = self._open[record.stream_id]
                assert record.seq >= stream.last, "what may have changed a book goes on record before its number"
                assert not record.ticker or record.ticker in stream.members
            elif isinstance(record, DeadLettersCounted):
                assert record.letters > 0
            elif isinstance(record, DeadLetter):
                assert record.stream_id == NO_STREAM or record.stream_id in self._open
                assert 0 <= record.seq <= INT64_MAX
            else:
                self._row(record)

    def finish(self, records: Sequence[Record]) -> None:
        """The session was closed: nothing stays open, and everything can be written to the database."""
        self.check_records(records)
        assert not self._open
        tables_of(self.records)

    def _row(self, record: Record) -> None:
        stream_id, seq = record.stream_id, record.seq  # type: ignore[union-attr]
        if seq < 0:
            numbers = self._open[stream_id].unnumbered
            assert seq not in numbers
            numbers.add(seq)
        else:
            self._number(stream_id, seq, is_row=True)
        if isinstance(record, BookSnapshot):
            self._last_snapshot = record
            for side in (record.yes, record.no):
                assert list(side) == sorted(side)
                assert all(0 <= price <= 10_000 and 0 < count <= INT64_MAX for price, count in side)

    def _number(self, stream_id: int, seq: int, *, is_row: bool) -> None:
        stream = self._open[stream_id]
        assert 1 <= seq <= INT64_MAX
        # An answer may share its number with the data frame after it.
        shared = seq == stream.last and is_row and not stream.last_gave_a_row
        assert seq > stream.last or shared, "a number was taken twice"
        stream.last_gave_a_row = is_row
        if shared:
            return
        if stream.last and seq != stream.last + 1:
            assert stream.gap_to == seq, f"{stream.last + 1}…{seq - 1} did not come and no gap says so"
            stream.broken.add(seq)
        stream.gap_to = None
        stream.last = seq
