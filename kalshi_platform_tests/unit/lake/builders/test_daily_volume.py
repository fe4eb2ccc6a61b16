from __future__ import annotations

from decimal import Decimal

import polars as pl

from kalshi_platform.lake.builders.builder import HourRows
from kalshi_platform.lake.builders.daily_volume import DailyVolumeBuilder
from kalshi_platform_tests.unit.lake.builders.frames import BASE, Trade, ticker_frame, trade_frame

HOUR_US = 3_600_000_000


def hour(number: int, trades: list[Trade], tickers: list[tuple[str, int, int]] | None = None) -> HourRows:
    low = BASE + number * HOUR_US
    rows = {"raw/trades": trade_frame(trades), "raw/tickers": ticker_frame(tickers or [])}
    return HourRows(low, low + HOUR_US, True, rows)


def test_a_day_sums_trades_and_block_trades_and_ends_with_the_last_open_interest() -> None:
    builder = DailyVolumeBuilder()
    assert builder.add(
        hour(0, [Trade("A", BASE, 4_000, 150), Trade("A", BASE + 1, 6_000, 50, is_block=True)])
    ).is_empty()
    builder.add(hour(1, [Trade("A", BASE + HOUR_US, 5_000, 1)], [("A", BASE + HOUR_US, 700), ("B", BASE + HOUR_US, 3)]))
    builder.add(hour(2, []))
    rows = builder.finish().to_dicts()
    assert [row["ticker"] for row in rows] == ["A", "B"]
    first = rows[0]
    assert (first["trades"], first["volume_contracts"], first["block_trades"]) == (3, 201, 1)
    assert (first["block_volume_contracts"], first["open_interest_contracts"]) == (50, 700)
    assert (first["high_dollars"], first["low_dollars"]) == (6_000, 4_000)
    # 1.50 at 0.40, 0.50 at 0.60 and 0.01 at 0.50 dollars
    assert Decimal(first["turnover_dollars"]).scaleb(-6) == Decimal("0.905")
    assert (rows[1]["trades"], rows[1]["high_dollars"], rows[1]["open_interest_contracts"]) == (0, None, 3)


def test_event_and_series_follow_from_the_ticker() -> None:
    builder = DailyVolumeBuilder()
    names = ["KXRAIN-26NOV23-T0.25", "ONE"]
    trades = trade_frame([Trade("A", BASE, 1, 1), Trade("B", BASE, 1, 1)]).with_columns(
        pl.Series("ticker", names, pl.Enum(names))
    )
    builder.add(
        HourRows(
            BASE,
            BASE + HOUR_US,
            True,
            {"raw/trades": trades, "raw/tickers": ticker_frame([]).cast({"ticker": pl.Enum(names)})},
        )
    )
    found = builder.finish().select("event_ticker", "series_ticker").rows()
    assert found == [("KXRAIN-26NOV23", "KXRAIN"), ("ONE", "ONE")]
