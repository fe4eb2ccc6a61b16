"""Rows that were dropped: recorded by the one function that drops them, and noticed where somebody went around it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from kalshi_platform.market.times import HOUR, us_from_datetime
from kalshi_platform_tests.fixtures.exchange import eventually
from kalshi_platform_tests.fixtures.postgres import ALL_ON_TIMESCALE
from kalshi_platform_tests.fixtures.production import (  # noqa: F401 - fixtures
    Production,
    production,
    production_template,
)

H4 = datetime(2026, 11, 20, 4, tzinfo=UTC)
TICKER = "KXRAINNYC-26NOV20-T0.25"
GONE = "SELECT hour, rows, is_gone, dropped_at IS NOT NULL FROM closed_rows(%s, %s, %s)"


def record(production: Production, *hours: datetime) -> None:  # noqa: F811
    """A delta and a trade in each hour, closed as they are."""
    for hour in hours:
        moment = hour + timedelta(minutes=10)
        change = {"side": "yes", "price_e4": 5600, "delta_e2": 100}
        production.insert("orderbook_deltas", [{"exchange_ts": moment, "ticker": TICKER, **change}])
        production.insert("trades", [{"exchange_ts": moment, "ticker": TICKER, "trade_id": f"{hour}"}])
        production.close_hour(hour)
    production.execute("UPDATE hour_closes SET rows = %s", json.dumps({"orderbook_deltas": 1, "trades": 1}))


def checkpointed(production: Production) -> None:  # noqa: F811
    """A book at 04:05, and everything of the two hours after it covered."""
    at = H4 + timedelta(minutes=5)
    book = {"yes_price_e4": [5600], "yes_count_e2": [1200]}
    production.insert("book_checkpoints", [{"checkpoint_ts": at - timedelta(microseconds=1), "ticker": TICKER, **book}])
    for low, high in ((at, H4 + HOUR), (H4 + HOUR, H4 + 2 * HOUR)):
        production.keeper.ensure_hours("coverage", [us_from_datetime(low)])
        production.execute(
            "INSERT INTO coverage VALUES (%s, %s, %s, date_trunc('hour', %s, 'UTC'), '{g1}', '{1}')",
            TICKER, low, high, low,
        )  # fmt: skip


def book_state(production: Production, moment: datetime) -> set[tuple[Any, ...]]:  # noqa: F811
    return set(production.rows("SELECT state, count_e2 FROM book_at(%s, %s)", TICKER, moment))


def gone(production: Production, table: str = "orderbook_deltas") -> list[tuple[Any, ...]]:  # noqa: F811
    return production.rows(GONE, table, H4, H4 + 3 * HOUR)


def test_a_drop_is_recorded_and_distinguished_from_an_hour_without_rows(production: Production) -> None:  # noqa: F811
    record(production, H4, H4 + HOUR)
    production.keeper.ensure_hours("orderbook_deltas", [us_from_datetime(H4 - HOUR)])
    assert [row[1:] for row in gone(production)] == [(1, False, False)] * 2
    partitions = 1 if ALL_ON_TIMESCALE else 2  # there an hour without a row has none
    assert production.rows("SELECT drop_partitions_before('orderbook_deltas', %s)", H4 + HOUR) == [(partitions,)]
    assert gone(production) == [(H4, 1, True, True), (H4 + HOUR, 1, False, False)]
    assert production.rows("SELECT table_name, hour FROM dropped_hours") == [("orderbook_deltas", H4)], "one was empty"
    assert [row[2] for row in gone(production, "trades")] == [False, False]
    production.execute("SELECT drop_partitions_before('trades', %s)", H4 + timedelta(days=1))
    assert [row[2] for row in gone(production, "trades")] == [True, True], "a partition of a day is 24 hours"


@pytest.mark.usefixtures("native_partitions")
def test_a_drop_that_waits_for_the_table_blocks_no_reader_of_a_partition(
    production: Production,  # noqa: F811
) -> None:
    record(production, H4, H4 + HOUR)
    one_hour = "SELECT count(*) FROM orderbook_deltas WHERE exchange_ts >= %s AND exchange_ts < %s"
    with ThreadPoolExecutor(1) as pool:
        with production.database.transaction() as transaction:
            assert transaction.fetch_one(one_hour, (H4 + HOUR, H4 + 2 * HOUR)) == (1,)
            drop = pool.submit(production.rows, "SELECT drop_partitions_before('orderbook_deltas', %s)", H4 + HOUR)
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            eventually(lambda: production.rows(waits) != [(0,)], what="a drop that waits")
            transaction.execute("SET LOCAL lock_timeout = '300ms'")
            assert transaction.fetch_one(one_hour, (H4, H4 + HOUR)) == (1,)
        drop.result()


@pytest.mark.parametrize(
    "by_hand",
    ["SELECT drop_chunks('orderbook_deltas', older_than => TIMESTAMPTZ '2026-11-20 05:00+00')"]
    if ALL_ON_TIMESCALE
    else [
        "DROP TABLE orderbook_deltas_p2026112004",
        "ALTER TABLE orderbook_deltas DETACH PARTITION orderbook_deltas_p2026112004",
        "TRUNCATE orderbook_deltas_p2026112004",
    ],
)
def test_a_partition_that_was_taken_away_by_hand_is_missed(production: Production, by_hand: str) -> None:  # noqa: F811
    record(production, H4, H4 + HOUR)
    checkpointed(production)
    production.execute(by_hand)
    assert gone(production) == [(H4, 1, True, False), (H4 + HOUR, 1, False, False)]
    assert book_state(production, H4 + timedelta(minutes=50)) == {("approximate", 1200)}


def test_a_book_is_not_proven_by_rows_that_were_dropped(production: Production) -> None:  # noqa: F811
    record(production, H4, H4 + HOUR)
    checkpointed(production)
    moment = H4 + timedelta(minutes=50)
    assert book_state(production, moment) == {("proven", 1300)}
    production.execute("SELECT drop_partitions_before('orderbook_deltas', %s)", H4 + HOUR)
    assert book_state(production, moment) == {("approximate", 1200)}
    later = H4 + HOUR + timedelta(minutes=30)
    assert book_state(production, later) == {("approximate", 1300)}, "its checkpoint lies before what is gone"
    holes = "SELECT * FROM coverage_holes_explained(%s, %s, %s)"
    assert production.rows(holes, TICKER, H4, H4 + 3 * HOUR) == [
        (H4, H4 + timedelta(minutes=5), "not covered"),
        (H4 + timedelta(minutes=5), H4 + HOUR, "dropped"),
        (H4 + 2 * HOUR, H4 + 3 * HOUR, "not covered"),
    ]
    joined = production.rows("SELECT * FROM coverage_holes(%s, %s, %s)", TICKER, H4, H4 + 3 * HOUR)
    assert joined == [(H4, H4 + HOUR), (H4 + 2 * HOUR, H4 + 3 * HOUR)]
    production.execute("DELETE FROM hour_closes WHERE hour = %s", H4)  # covered by a close that was not final
    assert [row[2] for row in production.rows(holes, TICKER, H4 + timedelta(minutes=5), H4 + HOUR)] == ["dropped"]


def test_the_share_of_an_hour_that_was_dropped_is_the_one_of_its_close(production: Production) -> None:  # noqa: F811
    record(production, H4)
    checkpointed(production)
    moment = {"exchange_ts": H4, "side": "yes", "price_e4": 5600, "delta_e2": 1}
    production.insert("orderbook_deltas", [{**moment, "ticker": "KXB-2"}])  # recorded, and not covered
    share = "SELECT * FROM hour_coverage_share(%s)"
    minute = 60_000_000
    ((*figures, is_recorded),) = production.rows(share, H4)
    assert (figures, is_recorded) == ([2, 120 * minute, 55 * minute, 55 / 120], False)
    production.execute("UPDATE hour_closes SET markets = 2, open_us = %s, covered_us = %s", 120 * minute, 55 * minute)
    production.execute("SELECT drop_partitions_before('orderbook_deltas', %s)", H4 + HOUR)
    assert production.rows(share, H4) == [(*figures, True)], "not 55 of 60 minutes, of the market that coverage knows"
    production.execute("UPDATE hour_closes SET open_us = NULL")  # closed by an older version
    assert [row[3:] for row in production.rows(share, H4)] == [(None, True)]


def test_a_markets_hour_is_a_share_of_its_open_time_and_dropped_trades_are_unknown(
    production: Production,  # noqa: F811
) -> None:
    record(production, H4)
    checkpointed(production)
    hours = "SELECT covered_share, trades, contracts FROM market_hours(%s, %s, %s)"
    assert production.rows(hours, TICKER, H4, H4 + HOUR) == [(round(Decimal(55) / 60, 6), 1, Decimal("12.50"))]
    production.execute(
        "INSERT INTO markets (ticker, event_ticker, status, open_time, close_time, payload, fingerprint, first_seen_at,"
        " known_at) VALUES (%s, 'E', 'active', %s, %s, '{}', 0, now(), now())",
        TICKER, H4 + timedelta(minutes=5), H4 + HOUR,
    )  # fmt: skip
    production.execute("SELECT drop_partitions_before('trades', %s)", H4 + timedelta(days=1))
    found = production.rows(hours, TICKER, H4, H4 + 3 * HOUR)
    assert found == [(1, None, None), (1, 0, 0), (None, 0, 0)], "it was not open in the last one"
