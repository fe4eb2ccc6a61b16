"""A ledger grows for months; who asks about an hour, or goes on from a batch, reads the lines of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.coverage.gatherer_hour import HourQuestion, read_gatherer_hour
from kalshi_platform.deduplicator.merge.cursor import Position, read_new_rows
from kalshi_platform.deduplicator.merge.hour_files import HourFiles
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.deduplicator.merge.source import estimate_rows
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.market.times import HOUR, US_PER_S, hour_of, us_from_datetime
from kalshi_platform.storage.literals import inlined
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot
from kalshi_platform_tests.fixtures.gatherer_hours import NO_SNAPSHOTS
from kalshi_platform_tests.fixtures.hand_filled_gatherer import GathererDatabase, delta_row, snapshot_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld

DAYS = 30
SEGMENTS = 800
"""Of each day's stream."""
NEWEST = hour_of(SYSTEM_CLOCK.now() - timedelta(days=1))
ASKED = NEWEST - timedelta(days=DAYS // 2)
LEDGER = ("batches", "stream_segments")

# A stream a day, of which each commit has a segment and a line for deltas and one for tickers.
_FILL = """
INSERT INTO sessions (session_id, gatherer, connection, url, use_yes_price, opened_at, closed_at)
  SELECT 100 + d, 'g1', 'c', 'u', false, %(first)s + d * interval '1 day', %(first)s + (d + 1) * interval '1 day'
  FROM generate_series(0, %(days)s - 1) AS d;
INSERT INTO streams (stream_id, session_id, sid, channel, opened_at, ended_at)
  SELECT session_id, session_id, 1, 'orderbook_delta', opened_at, closed_at FROM sessions;
INSERT INTO stream_segments
  SELECT stream_id, n * 10, n * 10 + 9, at, at + interval '1 second', (stream_id - 100) * %(segments)s + n + 1
  FROM streams, generate_series(0, %(segments)s - 1) AS n,
       LATERAL (SELECT opened_at + n * interval '1 day' / %(segments)s AS at) AS t;
INSERT INTO batches (batch_no, table_name, rows, time_min, time_max)
  SELECT batch_no, name, 5, exchange_ts_min, exchange_ts_max FROM stream_segments,
         unnest('{orderbook_deltas,tickers}'::text[]) AS name;
UPDATE batch_counter SET last_batch_no = (SELECT max(batch_no) FROM batches);
ANALYZE;
"""


class RowsRead:
    """How many rows of the ledger the statements looked at, by table."""

    def __init__(self) -> None:
        self.by_table: dict[str, int] = dict.fromkeys(LEDGER, 0)

    def add(self, plan: Mapping[str, Any]) -> None:
        table = plan.get("Relation Name")
        if table in self.by_table:
            removed = sum(plan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
            self.by_table[table] += round((plan["Actual Rows"] + removed) * plan["Actual Loops"])
        for child in plan.get("Plans", ()):
            self.add(child)


@pytest.fixture
def gatherer(merge_world: Callable[..., MergeWorld]) -> GathererDatabase:
    """A month of ledger without rows; an hour in their middle has rows as well."""
    made = merge_world(1).gatherers["g1"]
    values = {"first": NEWEST - timedelta(days=DAYS), "days": DAYS, "segments": SEGMENTS}
    with made.database.transaction() as transaction:
        transaction.execute(_FILL, values)
    start = us_from_datetime(ASKED) + 60 * US_PER_S
    deltas = [delta_row("A", ts_us=start + n * 2 * US_PER_S, seq=1 + n) for n in range(1, 21)]
    made.commit(
        orderbook_snapshots=[snapshot_row("A", received_us=start, seq=1)], orderbook_deltas=deltas[:10],
        segments=[(1, 1, 11)], book_subscriptions=[(1, "A", 1, None)],
    )  # fmt: skip
    again = snapshot_row("A", received_us=start + 45 * US_PER_S, seq=22, yes={5000: 2_000})
    made.commit(
        orderbook_snapshots=[again], orderbook_deltas=deltas[10:], segments=[(1, 12, 22)],
        book_subscriptions=[(1, "A", 1, 22), (1, "A", 22, None)],
    )  # fmt: skip
    return made


@pytest.fixture
def rows_read(gatherer: GathererDatabase, monkeypatch: pytest.MonkeyPatch) -> RowsRead:
    """Has the server explain every read."""
    found = RowsRead()
    table_of, batches_of = ArrowSnapshot.table, ArrowSnapshot.batches

    def explain(query: str, params: Sequence[Any]) -> None:
        with gatherer.database.transaction() as transaction:
            ((plan,),) = transaction.fetch_all(f"EXPLAIN (ANALYZE, FORMAT JSON) {inlined(query, params)}")
        found.add(plan[0]["Plan"])

    def table(snapshot: ArrowSnapshot, query: str, params: Sequence[Any] = ()) -> pa.Table:
        explain(query, params)
        return table_of(snapshot, query, params)

    def batches(snapshot: ArrowSnapshot, query: str, params: Sequence[Any] = (), **options: Any) -> Iterator[Any]:
        explain(query, params)
        yield from batches_of(snapshot, query, params, **options)

    monkeypatch.setattr(ArrowSnapshot, "table", table)
    monkeypatch.setattr(ArrowSnapshot, "batches", batches)
    return found


def test_a_close_reads_the_ledger_of_its_own_time(
    gatherer: GathererDatabase, rows_read: RowsRead, tmp_path: Path
) -> None:
    source = GathererSource("g1", gatherer.url, gatherer.url)
    low, high = us_from_datetime(ASKED), us_from_datetime(ASKED + HOUR)
    with arrow_snapshot(gatherer.url) as snapshot:
        weighed = estimate_rows(snapshot, ASKED, ASKED + HOUR)
    lines = SEGMENTS // 24 + 2
    assert 20 < weighed["orderbook_deltas"] <= 20 + 5 * lines
    with gatherer.database.transaction() as transaction:
        # A ledger that has recorded more rows than there are would not be asked about its books.
        hour_of_month = (ASKED, ASKED + HOUR, DAYS * SEGMENTS)
        transaction.execute(
            "UPDATE batches SET rows = 0 WHERE time_min >= %s AND time_max < %s AND batch_no <= %s", hour_of_month
        )
    markets = MarketBuckets()
    files = HourFiles(tmp_path / "g1", markets, (low, high))
    hour = read_gatherer_hour(source, HourQuestion((low, high), US_PER_S, markets, NO_SNAPSHOTS, 100_000), files)
    assert hour.claims["ticker"].to_list() == ["A"]
    assert files.checkpoints.rows(0) == 1
    files.close()
    # The lines of the hour and streams of two or three days, some times over; of all days it would be 24,000 at once.
    assert rows_read.by_table["batches"] <= 10 * lines
    assert rows_read.by_table["stream_segments"] <= 8 * SEGMENTS


def test_the_live_merge_reads_the_ledger_past_its_cursor(gatherer: GathererDatabase, rows_read: RowsRead) -> None:
    source = GathererSource("g1", gatherer.url, gatherer.url)
    first = read_new_rows(source, Position(), 10)
    assert first.plan.behind
    rows_read.by_table = dict.fromkeys(LEDGER, 0)
    last = gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=us_from_datetime(ASKED), seq=30)])
    with gatherer.database.transaction() as transaction:
        ((token,),) = transaction.fetch_all("SELECT DISTINCT token::text FROM batches WHERE batch_no = %s", (last - 1,))
    new = read_new_rows(source, Position(last - 1, token), 1_000)
    assert (new.rows, new.restarted) == (1, False)
    assert sum(rows_read.by_table.values()) <= 20


def test_what_a_gatherer_has_lost_is_reported_by_the_ledger_of_its_own_time(gatherer: GathererDatabase) -> None:
    low, high = ASKED, ASKED + HOUR
    with gatherer.database.transaction() as transaction:
        # The month has lines and no rows: of this hour only the two commits by hand have brought what they say.
        ((missing,),) = transaction.fetch_all("SELECT missing_rows('orderbook_deltas', %s, %s)", (low, high))
        hours = transaction.fetch_all("SELECT hours_gone('orderbook_deltas', %s, %s)", (low - 2 * HOUR, high))
        # Functions hide their statements from EXPLAIN.
        read = transaction.fetch_one(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'batches'"
        )
    lines = SEGMENTS // 24 + 2
    assert 0 < missing <= 5 * lines
    assert hours == [(low - 2 * HOUR,), (low - HOUR,)]
    assert read is not None
    assert read[0] <= 6 * lines
