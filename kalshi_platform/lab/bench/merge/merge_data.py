"""Gatherers' databases full of order-book deltas, as `bench merge` finds them: most rows in all, some in one only.

Seeded: numbers alone decide what is in them. Rows come in batches, as a gatherer commits them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.delta_data import TIME, Ints, delta_content
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.market.times import US_PER_S, datetime_from_us, us_from_datetime
from kalshi_platform.storage import queries
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database

TABLE = "orderbook_deltas"
BATCH_ROWS = 20_000
SPACING_US = 500
"""Between two rows; so a row's time tells its number."""


@dataclass(frozen=True)
class MergeData:
    """Rows for gatherers that overlap: `truth` distinct ones from `start_us` on.

    Each of `gatherers` holds `overlap` of them with all others, and an equal part of the rest alone.
    """

    truth: int
    gatherers: int
    overlap: float
    markets: int
    start_us: int
    seed: int = 1

    def numbers(self, gatherer: int) -> Ints:
        """Which of the distinct rows a gatherer (0 …) holds, ascending."""
        rows = np.arange(self.truth, dtype=np.int64)
        draw = np.random.default_rng(self.seed).random(self.truth)
        alone = np.floor((draw - self.overlap) / max(1e-12, 1 - self.overlap) * self.gatherers).astype(np.int64)
        mine: Ints = rows[(draw < self.overlap) | (alone == gatherer)]
        return mine

    def batches(self, gatherer: int) -> Iterator[pa.Table]:
        """The gatherer's rows, in the order and size of its commits, without batch numbers."""
        mine = self.numbers(gatherer)
        for low in range(0, len(mine), BATCH_ROWS):
            rows = mine[low : low + BATCH_ROWS]
            content = self.content(rows)
            times_us = content.column("exchange_ts").cast(pa.int64()).to_numpy()
            yield (
                content.append_column("stream_id", pa.array(np.full(len(rows), gatherer + 1)))
                .append_column("seq", pa.array(np.arange(low + 1, low + len(rows) + 1)))
                .append_column("received_at", pa.array(times_us + 5_000 + 700 * gatherer, TIME))
            )

    def content(self, rows: Ints) -> pa.Table:
        """What the exchange sent under these numbers: the columns that all gatherers agree on."""
        return delta_content(rows, self.start_us + rows * SPACING_US, self.markets)

    @property
    def end_us(self) -> int:
        """The time of the row after the last."""
        return self.start_us + self.truth * SPACING_US

    def fill(self, gatherer: int, url: str, clock: Clock) -> int:
        """Put the gatherer's rows into its (migrated, empty) database; return how many."""
        database = Database(url, name=f"g{gatherer + 1}")
        keeper = PartitionKeeper(database, PartitionBounds(), clock)
        stream, sql = GATHERER_TABLES[TABLE], queries.load("gatherer")
        filled = 0
        try:
            for batch in self.batches(gatherer):
                edges = [us_from_datetime(batch.column("exchange_ts")[place].as_py()) for place in (0, -1)]
                keeper.ensure_hours(TABLE, edges)
                with database.transaction() as transaction:
                    row = transaction.fetch_one(sql["next_batch"])
                    assert row is not None  # noqa: S101 - the migration inserts the counter's only row
                    number = int(row[0])
                    numbered = batch.append_column("batch_no", pa.array(np.full(batch.num_rows, number)))
                    data = numbered.select(list(stream.names)).cast(arrow_schema(stream))
                    filled += transaction.insert_new(stream, data)
                    transaction.execute_values(
                        sql["batches"], [(number, TABLE, batch.num_rows, *map(datetime_from_us, edges), batch.nbytes)]
                    )
            with database.transaction() as transaction:
                transaction.execute("ANALYZE orderbook_deltas")
        finally:
            database.dispose()
        return filled


def first_hour_before(clock: Clock, rows: int) -> int:
    """A time (µs) from which `rows` rows end before now and lie within the partitions' bounds."""
    now_us = clock.now_ns() // 1_000
    return now_us - rows * SPACING_US - 60 * US_PER_S


def shown_span(data: MergeData) -> str:
    """What exchange time the rows cover, for people."""
    return f"{datetime_from_us(data.start_us):%Y-%m-%d %H:%M} to {datetime_from_us(data.end_us):%H:%M} UTC"
