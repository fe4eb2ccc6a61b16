"""The picture of a market's day: what is held, what is not known, and days with little in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from kalshi_platform.plots.market_day import MarketDay, _depth_grid, _number, _price_range, _without_holes, market_day
from kalshi_platform.plots.timeline import png

START = datetime(2026, 11, 23, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
LISTS = {f"{side}_{what}": pl.List(pl.Float64) for side in ("bid", "ask") for what in ("dollars", "contracts")}


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def a_day(
    quotes: list[tuple[float, float | None, float | None]],
    books: list[dict[str, Any]] | None = None,
    trades: list[tuple[float, float, float, str | None]] | None = None,
    holes: list[tuple[float, float]] | None = None,
) -> MarketDay:
    return MarketDay(
        "KXA",
        "a day",
        START,
        at(24),
        pl.DataFrame(
            [(at(hour), bid, ask) for hour, bid, ask in quotes],
            schema={"exchange_ts": TIME, "bid_dollars": pl.Float64, "ask_dollars": pl.Float64},
            orient="row",
        ),
        pl.DataFrame(books or [], schema={"ts": TIME, **LISTS}),
        pl.DataFrame(
            [(at(hour), price, size, side) for hour, price, size, side in trades or []],
            schema={
                "exchange_ts": TIME,
                "yes_price_dollars": pl.Float64,
                "count_contracts": pl.Float64,
                "taker_side": pl.String,
            },
            orient="row",
        ),
        [(at(begin), at(end)) for begin, end in holes or []],
    )


def test_a_day_with_everything_and_an_empty_one_are_drawn() -> None:
    book = {
        "ts": at(1), "bid_dollars": [0.40, 0.39], "bid_contracts": [10.0, 5.0],
        "ask_dollars": [0.42], "ask_contracts": [7.0],
    }  # fmt: skip
    full = a_day(
        [(1, 0.40, 0.42), (5, 0.41, None)],
        [book],
        [(2, 0.42, 3, "yes"), (3, 0.40, 1, "no"), (4, 0.4, 1, None)],
        [(6, 7)],
    )
    for day in (full, a_day([]), a_day([(0, None, None)], holes=[(0, 24)])):
        assert png(market_day(day)).startswith(b"\x89PNG")


def test_quotes_within_a_hole_are_not_known_and_the_last_holds_to_the_end() -> None:
    found = _without_holes(a_day([(1, 0.4, 0.5), (3, 0.41, 0.5), (5, 0.42, 0.5)], holes=[(2, 4)]))
    assert [(time - START) / timedelta(hours=1) for time in found["exchange_ts"]] == [1, 2, 5, 24]
    assert found["bid_dollars"].to_list() == [0.4, None, 0.42, 0.42]


def test_a_book_holds_until_the_next_one_but_not_through_a_hole() -> None:
    book = {"bid_dollars": [0.40], "bid_contracts": [10.0], "ask_dollars": [], "ask_contracts": []}
    day = a_day([], [{"ts": at(1), **book}, {"ts": at(5), **(book | {"bid_contracts": [3.0]})}], holes=[(3, 4)])
    edges = [_number(at(hour)) for hour in range(8)]
    (row,) = _depth_grid(day, "bid", np.array(edges), np.array([0.395, 0.405]))
    assert row.tolist() == [10.0, 10.0, 10.0, 0.0, 3.0, 3.0, 3.0]


def test_the_range_of_prices_stays_within_a_dollar() -> None:
    assert _price_range(a_day([])) == (0.0, 1.0)
    low, high = _price_range(a_day([(1, 0.01, 0.99)]))
    assert (low, high) == (0.0, 1.0)
