"""A gatherer's database and production, as dicts: the same keys and the same rules as `sql/` and the statements have.

The keys are read from `sql/`. That the rest agrees with the real databases is shown by an integration test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from pathlib import Path

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.merge.cursor import Batch, ReadPlan, plan_read
from kalshi_platform.deduplicator.merge.deduplicate import deduplicate
from kalshi_platform.gatherer.ingest.columns import tables_of
from kalshi_platform.gatherer.ingest.ledger import BookSubscription, Ledger, Segment, fold
from kalshi_platform.gatherer.ingest.open_streams import OpenStream
from kalshi_platform.market.identity import DELTA_KEY
from kalshi_platform.market.records import BookDelta, BookSnapshot, Record, StreamOpened, UnknownFrame
from kalshi_platform.market.times import datetime_from_us

DELTAS = "orderbook_deltas"
Key = tuple[object, ...]
_SQL = Path(__file__).resolve().parents[3] / "sql"
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@cache
def primary_key(file: str, table: str) -> tuple[str, ...]:
    """The columns of a table's primary key, from its statement in `sql/`."""
    text = (_SQL / file).read_text()
    found = re.search(rf"create_series_table\('{table}'.*?PRIMARY KEY \(([^)]*)\)", text, re.DOTALL)
    assert found is not None, f"{file} defines no key of {table}"
    return tuple(name.strip() for name in found.group(1).split(","))


class GathererTables:
    """What the commits of one gatherer left."""

    def __init__(self, key: Sequence[str] | None = None) -> None:
        names = key or primary_key("timeseries/100_streams.sql", DELTAS)
        self._key_of = attrgetter(*("exchange_ts_us" if name == "exchange_ts" else name for name in names))
        self.deltas: dict[Key, tuple[BookDelta, int]] = {}
        self.snapshots: dict[tuple[int, int], BookSnapshot] = {}
        self.segments: dict[tuple[int, int], Segment] = {}
        self.book_subscriptions: dict[tuple[int, str, int], BookSubscription] = {}
        self.unknown: dict[tuple[int, int], UnknownFrame] = {}
        self.batches: list[Batch] = []
        self.last_batch_no = 0
        self.history: list[Sequence[Record]] = []
        """Commits."""
        self.position = 0
        """How many parts of the journal are committed."""
        self._sessions: dict[int, int] = {}
        self._over: set[int] = set()
        self._streams: dict[int, StreamOpened] = {}

    def commit(self, records: Sequence[Record], position: int | None = None) -> None:
        """Rows, ledger, position and batch number of one transaction; without `position` a part of a batch."""
        if position is not None:
            self.position = position
        self.history.append(records)
        self.last_batch_no += 1
        times = [record.exchange_ts_us for record in records if type(record) is BookDelta]
        new = 0
        for record in records:
            if type(record) is BookDelta:
                key = self._key_of(record)
                if key not in self.deltas:
                    self.deltas[key] = record, self.last_batch_no
                    new += 1
            elif type(record) is BookSnapshot:
                self.snapshots.setdefault((record.stream_id, record.seq), record)
        if new:
            low, high = datetime_from_us(min(times)), datetime_from_us(max(times))
            self.batches.append(Batch(self.last_batch_no, DELTAS, new, low, high, _EPOCH))
        else:
            self.batches.append(Batch(self.last_batch_no, "ledger", 0, _EPOCH, _EPOCH, _EPOCH))
        self._write(fold(records))

    def opened(self) -> tuple[dict[int, int], list[OpenStream]]:
        """Open sessions and streams with their open books, as a process that begins reads them."""
        last: dict[int, int] = {}
        for segment in self.segments.values():
            last[segment.stream_id] = max(segment.seq_to, last.get(segment.stream_id, 0))
        books: dict[int, dict[str, int]] = {}
        for each in self.book_subscriptions.values():
            if each.seq_to is None:
                books.setdefault(each.stream_id, {})[each.ticker] = each.seq_from
        streams = [
            OpenStream(
                each.stream_id, each.session_id, each.sid, each.channel,
                last.get(each.stream_id, 0), books.get(each.stream_id, {}),
            )
            for each in self._streams.values() if each.stream_id not in self._over
        ]  # fmt: skip
        return {each: at_ns for each, at_ns in self._sessions.items() if each not in self._over}, streams

    def read_new(self, after: int, rows_per_pass: int) -> tuple[ReadPlan, pa.Table | None]:
        """The next rows after a cursor, as the live merge reads them."""
        lines = [line for line in self.batches if line.batch_no > after]
        planned = plan_read(lines, after, rows_per_pass)
        windows = planned.windows.get(DELTAS, ())
        rows = [
            row
            for row, number in self.deltas.values()
            if after < number <= planned.until
            and any(low <= datetime_from_us(row.exchange_ts_us) <= high for low, high in windows)
        ]
        return planned, arrow(rows)

    def read_all(self) -> pa.Table | None:
        """All rows whatever brought them, as the close of an hour reads them."""
        return arrow([row for row, _ in self.deltas.values()])

    def _write(self, ledger: Ledger) -> None:
        for session in ledger.sessions_opened:
            self._sessions.setdefault(session.session_id, session.opened_at_ns)
        for opened in ledger.streams_opened:
            self._streams.setdefault(opened.stream_id, opened)
        self._over |= {each.stream_id for each in ledger.streams_ended}
        self._over |= {each.session_id for each in ledger.sessions_closed}
        for segment in ledger.segments:
            held = self.segments.get((segment.stream_id, segment.seq_from))
            if held is None or segment.seq_to > held.seq_to:
                self.segments[segment.stream_id, segment.seq_from] = segment
        for frame in ledger.unknown_frames:
            self.unknown.setdefault((frame.stream_id, frame.seq), frame)
        for each in ledger.book_subscriptions:
            known = self.book_subscriptions.setdefault((each.stream_id, each.ticker, each.seq_from), each)
            if known.seq_to is None:
                known.seq_to = each.seq_to
        for ending in ledger.endings:
            for book_subscription in self.book_subscriptions.values():
                if (
                    (book_subscription.stream_id, book_subscription.ticker) == (ending.stream_id, ending.ticker)
                    and book_subscription.seq_to is None
                    and book_subscription.seq_from < ending.before
                ):
                    book_subscription.seq_to = ending.seq_to


class Production:
    """Deltas of production and the cursors of its gatherers."""

    def __init__(self) -> None:
        assert primary_key("production/300_streams.sql", DELTAS) == DELTA_KEY
        self.rows: set[Key] = set()
        self.cursors: dict[str, int] = {}

    def insert(self, parts: dict[str, pa.Table]) -> int:
        """Unite what gatherers gave and insert what is new; return how many rows that were."""
        if not parts:
            return 0
        united = deduplicate(DELTAS, parts)
        before = len(self.rows)
        keys = united.select(pl.col("exchange_ts").dt.epoch("us"), *DELTA_KEY[1:]).rows()
        assert len(set(keys)) == len(keys), "one insert holds a key twice"
        self.rows.update(keys)
        return len(self.rows) - before


def arrow(rows: Sequence[BookDelta]) -> pa.Table | None:
    return tables_of(rows)[DELTAS] if rows else None
