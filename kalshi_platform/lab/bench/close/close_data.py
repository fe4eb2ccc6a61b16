"""An ended hour in gatherers' databases and in production, as the close finds it: ledgers, snapshots, deltas.

Seeded. Each gatherer loses its connections for a while in the middle of the hour: of the rows of that time one gatherer
has each, of all others all have every one. A stream begins with a snapshot of every market. Production has all rows, as
the live merge leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.delta_data import TIME, Ints, delta_content, levels_of, market_names, markets_of
from kalshi_platform.market.tables import GATHERER_TABLES, PRODUCTION_TABLES, Table
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, datetime_from_us
from kalshi_platform.storage import queries
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database, Transaction

BATCH_ROWS = 50_000
_FIRST_US = 10 * US_PER_S
_BOOKS_AT_ONCE = 1_000
# Of every level before the hour, in 1/100 contract: more than an hour takes away.
_BASE_E2 = 1_000_000_000
_PRICES = np.arange(100, 9_900, 100, dtype=np.int64)


@dataclass(frozen=True)
class Stream:
    """One stream of a gatherer: the rows [first, last) of the hour, numbered from the number of markets on."""

    stream_id: int
    first: int
    last: int


@dataclass(frozen=True)
class CloseData:
    """`truth` distinct deltas of the hour that begins at `hour_us`; `overlap`: the share that every gatherer holds."""

    truth: int
    gatherers: int
    overlap: float
    markets: int
    hour_us: int

    def times(self, rows: Ints) -> Ints:
        """When the exchange published each row (µs): evenly over the hour."""
        found: Ints = self.hour_us + _FIRST_US + rows * (US_PER_HOUR - 2 * _FIRST_US) // self.truth
        return found

    def streams(self, gatherer: int) -> list[Stream]:
        """The streams of a gatherer (0 …)."""
        lost, low = self.truth * (1 - self.overlap), self.truth * self.overlap / 2
        if self.gatherers == 1 or not lost:
            return [Stream(1, 0, self.truth)]
        mine = [low + lost * part / self.gatherers for part in (gatherer, gatherer + 1)]
        edges = [(0, low), (mine[0], mine[1]), (low + lost, self.truth)]
        if gatherer == 0:
            edges = [(0, mine[1]), edges[2]]
        elif gatherer == self.gatherers - 1:
            edges = [edges[0], (mine[0], self.truth)]
        return [Stream(number, round(first), round(last)) for number, (first, last) in enumerate(edges, start=1)]

    def rows(self, gatherer: int) -> int:
        """How many deltas a gatherer holds."""
        return sum(stream.last - stream.first for stream in self.streams(gatherer))

    def fill_gatherer(self, gatherer: int, url: str, clock: Clock) -> None:
        """Put a gatherer's rows and its ledger into its (migrated, empty) database."""
        with _Filled(url, f"g{gatherer + 1}", clock, self.hour_us) as filled:
            for stream in self.streams(gatherer):
                self._open_stream(filled, gatherer, stream)
                for rows in _batches(stream.first, stream.last):
                    self._commit_deltas(filled, gatherer, stream, rows)
            filled.end()

    def fill_production(self, url: str, clock: Clock, missing: float = 0.0) -> None:
        """Put what all gatherers hold into production; of `missing` of the deltas nothing."""
        with _Filled(url, "production", clock, self.hour_us) as filled:
            for gatherer in range(self.gatherers):
                for stream in self.streams(gatherer):
                    for books in self._snapshots(gatherer, stream):
                        filled.insert("orderbook_snapshots", books.append_column("gatherer", _names(books, gatherer))
                                      .append_column("source_gatherer", _names(books, gatherer)))  # fmt: skip
            for rows in _batches(0, round(self.truth * (1 - missing))):
                holder, stream = self._holder(rows)
                filled.insert("orderbook_deltas", self._deltas(holder, stream, rows)
                              .append_column("gatherer", pa.array([f"g{holder + 1}"] * len(rows))))  # fmt: skip
            filled.end()

    def _holder(self, rows: Ints) -> tuple[int, Stream]:
        """The first gatherer that holds the first of these rows, and the stream."""
        return next(
            (gatherer, stream)
            for gatherer in range(self.gatherers)
            for stream in self.streams(gatherer)
            if stream.first <= rows[0] < stream.last
        )

    def _deltas(self, gatherer: int, stream: Stream, rows: Ints) -> pa.Table:
        times = self.times(rows)
        return (
            delta_content(rows, times, self.markets)
            .append_column("stream_id", pa.array(np.full(len(rows), self._stream_id(gatherer, stream))))
            .append_column("seq", pa.array(rows - stream.first + self.markets + 1))
            .append_column("received_at", pa.array(times + 5_000 + 700 * gatherer, TIME))
        )

    def _stream_id(self, gatherer: int, stream: Stream) -> int:
        return gatherer * 100 + stream.stream_id

    def _open_stream(self, filled: _Filled, gatherer: int, stream: Stream) -> None:
        stream_id, sql = self._stream_id(gatherer, stream), queries.load("gatherer")
        opened = datetime_from_us(int(self.times(np.array([stream.first]))[0]) - US_PER_S)
        last_seq = self.markets + stream.last - stream.first
        with filled.batch() as (transaction, number):
            transaction.execute_values(
                sql["sessions_opened"], [(stream_id, f"g{gatherer + 1}", "books", "wss://bench", False, opened)]
            )
            transaction.execute_values(sql["streams_opened"], [(stream_id, stream_id, 1, "orderbook_delta", opened)])
            rows = 0
            for books in self._snapshots(gatherer, stream):
                rows += transaction.insert_new(*_numbered("orderbook_snapshots", books, number), likely_new=True)
            transaction.execute_values(sql["batches"], [(number, "orderbook_snapshots", rows, opened, opened, None)])
            transaction.execute_values(sql["segments"], [(stream_id, 1, self.markets, None, None, number)])
            transaction.execute_values(
                sql["book_subscriptions"],
                [
                    (stream_id, ticker, seq, last_seq, "closed", 0, number)
                    for seq, ticker in enumerate(market_names(self.markets), start=1)
                ],
            )

    def _commit_deltas(self, filled: _Filled, gatherer: int, stream: Stream, rows: Ints) -> None:
        sql = queries.load("gatherer")
        data = self._deltas(gatherer, stream, rows)
        times = [data.column("exchange_ts")[place].as_py() for place in (0, -1)]
        seqs = [data.column("seq")[place].as_py() for place in (0, -1)]
        with filled.batch() as (transaction, number):
            transaction.insert_new(*_numbered("orderbook_deltas", data, number), likely_new=True)
            transaction.execute_values(sql["batches"], [(number, "orderbook_deltas", len(rows), *times, data.nbytes)])
            transaction.execute_values(sql["segments"], [(self._stream_id(gatherer, stream), *seqs, *times, number)])

    def _snapshots(self, gatherer: int, stream: Stream) -> Iterator[pa.Table]:
        """The books of all markets before a stream's first delta."""
        sums = np.full((self.markets, 2, len(_PRICES)), _BASE_E2, dtype=np.int64)
        for rows in _batches(0, stream.first):
            is_yes, prices, sizes = levels_of(rows)
            np.add.at(sums, (markets_of(rows, self.markets), (~is_yes).astype(int), prices // 100 - 1), sizes)
        at = datetime_from_us(int(self.times(np.array([stream.first]))[0]) - US_PER_S)
        grid = [_PRICES.tolist()]
        for low in range(0, self.markets, _BOOKS_AT_ONCE):
            high = min(low + _BOOKS_AT_ONCE, self.markets)
            books = pl.DataFrame(
                {
                    "ticker": market_names(self.markets)[low:high],
                    "seq": np.arange(low + 1, high + 1),
                    "yes_price_e4": grid * (high - low), "yes_count_e2": sums[low:high, 0].tolist(),
                    "no_price_e4": grid * (high - low), "no_count_e2": sums[low:high, 1].tolist(),
                }
            )  # fmt: skip
            moment = pl.lit(at).dt.cast_time_unit("us")
            yield books.with_columns(
                moment.alias("snapshot_ts"), moment.alias("received_at"), source=pl.lit("ws"),
                stream_id=pl.lit(self._stream_id(gatherer, stream), pl.Int64),
                requested_at=pl.lit(None, pl.Datetime("us", "UTC")),
            ).to_arrow(compat_level=pl.CompatLevel.oldest())  # fmt: skip


class _Filled:
    """A database that is filled; a context manager."""

    def __init__(self, url: str, name: str, clock: Clock, hour_us: int) -> None:
        self._database = Database(url, name=name)
        self._keeper = PartitionKeeper(self._database, PartitionBounds(), clock)
        self._hour_us = hour_us

    def __enter__(self) -> Self:
        for table in ("orderbook_deltas", "orderbook_snapshots"):
            self._keeper.ensure_hours(table, [self._hour_us - 1, self._hour_us, self._hour_us + US_PER_HOUR])
        return self

    def __exit__(self, *_exc: object) -> None:
        self._database.dispose()

    @contextmanager
    def batch(self) -> Iterator[tuple[Transaction, int]]:
        """A transaction of a gatherer, and its batch number."""
        with self._database.transaction() as transaction:
            row = transaction.fetch_one(queries.load("gatherer")["next_batch"])
            assert row is not None  # noqa: S101 - the migration inserts the counter's only row
            yield transaction, int(row[0])

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows into production."""
        made = PRODUCTION_TABLES[table]
        with self._database.transaction() as transaction:
            transaction.insert_new(made, rows.select(list(made.names)).cast(arrow_schema(made)), likely_new=True)

    def end(self) -> None:
        """Bring the statistics of the tables up to date, as autovacuum does."""
        with self._database.transaction() as transaction:
            transaction.execute("ANALYZE orderbook_deltas, orderbook_snapshots")


def _numbered(table: str, rows: pa.Table, number: int) -> tuple[Table, pa.Table]:
    made = GATHERER_TABLES[table]
    numbered = rows.append_column("batch_no", pa.array(np.full(rows.num_rows, number)))
    return made, numbered.select(list(made.names)).cast(arrow_schema(made))


def _names(rows: pa.Table, gatherer: int) -> pa.Array:
    return pa.array([f"g{gatherer + 1}"] * rows.num_rows)


def _batches(first: int, last: int) -> Iterator[Ints]:
    for low in range(first, last, BATCH_ROWS):
        yield np.arange(low, min(low + BATCH_ROWS, last), dtype=np.int64)
