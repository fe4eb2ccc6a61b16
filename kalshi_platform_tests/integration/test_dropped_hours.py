"""Rows that were dropped: recorded by the one function that drops them, and noticed where somebody went around it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kalshi_platform.market.times import HOUR, us_from_datetime
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


def gone(production: Production, table: str = "orderbook_deltas") -> list[tuple[Any, ...]]:  # noqa: F811
    return production.rows(GONE, table, H4, H4 + 3 * HOUR)


def test_a_drop_is_recorded_and_told_from_an_hour_without_rows(production: Production) -> None:  # noqa: F811
    record(production, H4, H4 + HOUR)
    production.keeper.ensure_hours("orderbook_deltas", [us_from_datetime(H4 - HOUR)])
    assert [row[1:] for row in gone(production)] == [(1, False, False)] * 2
    assert production.rows("SELECT drop_partitions_before('orderbook_deltas', %s)", H4 + HOUR) == [(2,)]
    assert gone(production) == [(H4, 1, True, True), (H4 + HOUR, 1, False, False)]
    assert production.rows("SELECT table_name, hour FROM dropped_hours") == [("orderbook_deltas", H4)], "one was empty"
    assert [row[2] for row in gone(production, "trades")] == [False, False]
    production.execute("SELECT drop_partitions_before('trades', %s)", H4 + timedelta(days=1))
    assert [row[2] for row in gone(production, "trades")] == [True, True], "a partition of a day is 24 hours"


@pytest.mark.parametrize(
    "by_hand",
    [
        "DROP TABLE orderbook_deltas_p2026112004",
        "ALTER TABLE orderbook_deltas DETACH PARTITION orderbook_deltas_p2026112004",
        "TRUNCATE orderbook_deltas_p2026112004",
    ],
)
def test_a_partition_that_was_taken_away_by_hand_is_missed(production: Production, by_hand: str) -> None:  # noqa: F811
    record(production, H4, H4 + HOUR)
    production.execute(by_hand)
    assert gone(production) == [(H4, 1, True, False), (H4 + HOUR, 1, False, False)]
