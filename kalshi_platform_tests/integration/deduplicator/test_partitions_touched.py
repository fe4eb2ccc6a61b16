"""After months of hourly partitions, a statement touches those of its time and no more.

A server's lock table is finite (6,400 places by default, two for every partition): statements that lock all partitions
work for months and then fail all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close import hour_summary as hour_figures
from kalshi_platform.deduplicator.close.close_alarms import read_worst_markets
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.deduplicator.trades.reconcile_trades import reconcile_trades
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.market.tables import CLOSE_TABLES, PRODUCTION_TABLES
from kalshi_platform.market.times import HOUR as ONE_HOUR
from kalshi_platform.market.times import US_PER_S, us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    GathererDatabase,
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)
from kalshi_platform_tests.fixtures.many_partitions import Touched, make_partitions, touched
from kalshi_platform_tests.fixtures.production import Production
from kalshi_platform_tests.integration.deduplicator.test_trade_parity import Lister
from kalshi_platform_tests.integration.storage.test_queries import DOCUMENT, EXAMPLE, H4, TICKER, fill

HOURS = 2_000
DAYS = 24
LAST = H4 + timedelta(days=4)
DAILY = sorted({*PRODUCTION_TABLES, *CLOSE_TABLES} - {"orderbook_deltas"})
GATHERER_DAILY = ["trades", "tickers", "orderbook_snapshots", "market_lifecycle", "dead_letters"]
# A question about an hour may need the one before and the one after.
MOST_HOURS, MOST_DAYS = 3, 3
# One worker: each would make the partitions for itself.
pytestmark = pytest.mark.xdist_group("partitions")


@pytest.fixture(scope="module")
def grown(postgres_server: PostgresServer, merge_templates: None) -> Iterator[Production]:
    """Production with 2,000 hours of partitions, made once: it takes seconds."""
    _copy(postgres_server, "template_production", "grown_production")
    url = postgres_server.url("grown_production")
    make_partitions(url, {"orderbook_deltas": HOURS, **dict.fromkeys(DAILY, DAYS)}, LAST)
    made = Production(url)
    fill(made)
    yield made
    made.database.dispose()


@pytest.fixture(scope="module")
def grown_gatherer(postgres_server: PostgresServer, merge_templates: None) -> Iterator[GathererDatabase]:
    _copy(postgres_server, "template_timeseries", "grown_gatherer")
    url = postgres_server.url("grown_gatherer")
    make_partitions(url, {"orderbook_deltas": 200, **dict.fromkeys(GATHERER_DAILY, DAYS)}, LAST)
    made = GathererDatabase(url, "g1")
    yield made
    made.dispose()


def _copy(server: PostgresServer, template: str, name: str) -> None:
    connection = psycopg2.connect(server.url("postgres"))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    finally:
        connection.close()


def test_every_question_of_the_documentation_touches_its_own_time(grown: Production) -> None:
    examples = [match["query"] for match in EXAMPLE.finditer(DOCUMENT.read_text(encoding="utf-8"))]
    assert len(examples) >= 12
    too_many = {}
    for query in [*examples, *_AWKWARD]:
        with grown.database.transaction() as transaction:
            assert transaction.fetch_all(query), query
            counts = touched(transaction)
        if counts.pop("orderbook_deltas", 0) > MOST_HOURS or max(counts.values(), default=0) > MOST_DAYS:
            too_many[query] = counts
    assert not too_many


# The moment comes from a row, or is bound to a plan that was made without it.
_AWKWARD = (
    f"SELECT b.* FROM (VALUES (timestamptz '{H4}' + interval '20 minutes')) AS v (at), book_at('{TICKER}', v.at) b",
    f"PREPARE book (timestamptz) AS SELECT * FROM yes_book_at('{TICKER}', $1);"
    f" SET LOCAL plan_cache_mode = force_generic_plan; EXECUTE book (timestamptz '{H4}' + interval '20 minutes')",
    f"SELECT f.* FROM (VALUES (timestamptz '{H4}')) AS v (hour), hour_coverage(v.hour) f",
    f"SELECT sum(covered_us) FROM hour_coverage('{H4}')",
    f"SELECT h.* FROM hour_closes c, coverage_holes('{TICKER}', c.hour, c.hour + interval '1 hour') h",
)


def test_the_merge_the_close_and_the_exports_of_an_hour_touch_its_own_time(
    grown: Production,
    grown_gatherer: GathererDatabase,
    merge_templates: None,
    postgres_server: PostgresServer,
    watched: Touched,
    tmp_path: Path,
) -> None:
    hour = H4 + 2 * ONE_HOUR
    _record(grown_gatherer, us_from_datetime(hour))
    source = GathererSource("g1", grown_gatherer.url, postgres_server.url("template_catalog"))
    settings = DeduplicatorSettings(production_url=grown.url, sources=(source,))
    merge_new(settings, SYSTEM_CLOCK)
    find_hours_to_close(grown.database, SYSTEM_CLOCK.now())
    for _ in range(2):
        closed = close_hour(settings, hour, SYSTEM_CLOCK, PartitionBounds(), rest=Lister())
        assert (closed.final, closed.gatherers_read, closed.rows["orderbook_deltas"]) == (True, ("g1",), 20)
    reconcile_trades(grown.database, None, hour, grown.keeper, SYSTEM_CLOCK)
    assert hour_figures.read_coverage(grown.database, [hour]).share
    hour_figures.read_proofs(grown.database, [hour])
    read_worst_markets(grown.database, [hour])
    lake = LakeSettings(f"file://{tmp_path}/lake")
    for table in RAW_TABLES:
        export_raw(lake, grown.url, table, hour, "closed")
    for data in ("processed/trades",):
        export_daily(lake, grown.url, data, hour.date(), "open")
    names = {urlsplit(url).path[1:] for url in (grown.url, grown_gatherer.url)}
    assert all(watched.transactions[name] > 5 for name in names)
    assert {("grown_production", "orderbook_deltas"), ("grown_gatherer", "orderbook_deltas")} <= watched.most.keys()
    most = {"orderbook_deltas": MOST_HOURS, **_LOOK_BACK_DAYS}
    too_many = {key: count for key, count in watched.most.items() if count > most.get(key[1], MOST_DAYS)}
    assert not too_many


_LOOK_BACK_DAYS = {"book_checkpoints": 15, "stream_claims": 8}
"""Checkpoints of a fortnight are known from close to close, and claims of a week may be withdrawn by a later one."""


def _record(gatherer: GathererDatabase, hour_us: int) -> None:
    start = hour_us + 60 * US_PER_S
    deltas = [delta_row("A", ts_us=start + n * 2 * US_PER_S, seq=1 + n) for n in range(1, 21)]
    gatherer.commit(
        orderbook_snapshots=[
            snapshot_row("A", received_us=start, seq=1, yes={5000: 1_000}),
            snapshot_row("A", received_us=start + 30 * US_PER_S, seq=0, source="rest", yes={5000: 2_500}),
        ],
        orderbook_deltas=deltas[:10], segments=[(1, 1, 11)], book_subscriptions=[(1, "A", 1, None)],
        trades=[trade_row("A", "t1", ts_us=start)], tickers=[ticker_row("A", ts_us=start)],
        market_lifecycle=[lifecycle_row("A", received_us=start)],
    )  # fmt: skip
    again = snapshot_row("A", received_us=start + 45 * US_PER_S, seq=22, yes={5000: 3_000})
    gatherer.commit(
        orderbook_snapshots=[again], orderbook_deltas=deltas[10:], segments=[(1, 12, 22)],
        book_subscriptions=[(1, "A", 1, 22), (1, "A", 22, None)],
    )  # fmt: skip
