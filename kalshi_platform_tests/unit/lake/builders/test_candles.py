from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lake.builders import candles
from kalshi_platform_tests.unit.lake.builders.frames import (
    BASE,
    TICKERS,
    TIME,
    Quote,
    Trade,
    change_frame,
    quote_frame,
    ticker_frame,
    trade_frame,
)

MINUTE = candles.MINUTE_US
BEFORE: dict[str, pl.DataType | type[pl.DataType]] = {
    "ticker": TICKERS,
    "price_before": pl.Int64,
    "interest_before": pl.Int64,
}
NOTHING_BEFORE = pl.DataFrame(schema=BEFORE)


def ranges(*covered: tuple[str, int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(covered), {"ticker": TICKERS, "from_us": pl.Int64, "to_us": pl.Int64}, orient="row")


def made(
    period: int = 1,
    *,
    quotes: list[Quote] = [],  # noqa: B006 - never written
    changes: list[tuple[str, int]] | None = None,
    trades: list[Trade] = [],  # noqa: B006 - never written
    tickers: list[tuple[str, int, int]] = [],  # noqa: B006 - never written
    coverage: pl.DataFrame | None = None,
    before: pl.DataFrame = NOTHING_BEFORE,
) -> list[dict[str, Any]]:
    parts = [
        candles.change_part(change_frame([(q.ticker, q.us) for q in quotes] if changes is None else changes)),
        candles.quote_part(quote_frame(quotes)),
        candles.trade_part(trade_frame(trades)),
        candles.interest_part(ticker_frame(tickers)),
    ]
    return candles.candles_of(parts, before, ranges() if coverage is None else coverage, period).to_dicts()


def ends(found: list[dict[str, Any]]) -> list[int]:
    return [round((each["end_period_ts"].timestamp() * 1_000_000 - BASE) / MINUTE) for each in found]


def test_the_end_of_a_period_belongs_to_it() -> None:
    found = made(
        trades=[Trade("A", BASE, 4_000, 100), Trade("A", BASE + 1, 5_000, 300)],
        quotes=[Quote("A", BASE + MINUTE, 10, 20), Quote("A", BASE + MINUTE + 1, 11, 20)],
    )
    assert ends(found) == [0, 1, 2]
    assert [each["price_close_dollars"] for each in found] == [4_000, 5_000, None]
    assert [each["price_previous_dollars"] for each in found] == [None, 4_000, 5_000]
    assert [each["yes_bid_close_dollars"] for each in found] == [None, 10, 11]
    assert ends(made(60, trades=[Trade("A", BASE, 4_000, 100), Trade("A", BASE + 1, 5_000, 300)])) == [0, 60]


def test_a_trade_is_dated_by_the_listing_where_it_was_read() -> None:
    late = made(trades=[Trade("A", BASE + 400, 4_000, 100)])
    unread = made(trades=[Trade("A", BASE + 400, 4_000, 100, is_confirmed=False)])
    assert (ends(late), ends(unread)) == ([1], [0])


def test_a_period_without_a_trade_has_no_prices_but_the_one_before() -> None:
    [first, second] = made(trades=[Trade("A", BASE + 1, 4_000, 100)], changes=[("A", BASE + MINUTE + 1)])
    assert first["price_previous_dollars"] is None
    prices = {name: value for name, value in second.items() if name.startswith("price")}
    assert {name for name, value in prices.items() if value is not None} == {"price_previous_dollars"}
    assert (second["volume_contracts"], second["trades"], second["price_previous_dollars"]) == (0, 0, 4_000)


def test_what_tickers_tell_before_the_first_trade_held_before_them() -> None:
    # The last is of the trade's own millisecond, and tells of the trade.
    told = [(1, 0, None), (2, 3_000, 70), (BASE + 4_000, 3_100, 80), (BASE + 5_000, 4_000, 99)]
    tickers = pl.DataFrame(
        [("A", *each) for each in told],
        {"ticker": TICKERS, "exchange_ts": TIME, "price_e4": pl.Int32, "open_interest_e2": pl.Int64},
        orient="row",
    )
    trades = [Trade("A", BASE + 5_003, 4_000, 100)]
    parts = [
        candles.told_part(tickers[:2], trade_frame([])),
        candles.told_part(tickers[2:], trade_frame(trades)),
        candles.told_part(tickers[3:], trade_frame([])),
    ]
    before = candles.told_before(parts)
    assert before.rows() == [("A", 3_100, 70)]
    found = made(trades=trades, changes=[("B", BASE + 5), ("A", BASE + MINUTE + 1), ("A", BASE)], before=before)
    assert [(each["ticker"], each["price_previous_dollars"], each["open_interest_contracts"]) for each in found] == [
        ("A", 3_100, 70),
        ("A", 3_100, 70),
        ("A", 4_000, 70),
        ("B", None, None),
    ]


def test_an_empty_side_shows_nought_or_a_dollar() -> None:
    [found] = made(quotes=[Quote("A", BASE + 1, None, None), Quote("A", BASE + 2, 4_000, None)])
    assert [found[f"yes_bid_{name}_dollars"] for name in ("open", "low", "high", "close")] == [0, 0, 4_000, 4_000]
    assert [found[f"yes_ask_{name}_dollars"] for name in ("open", "low", "high", "close")] == [10_000] * 4


def test_quotes_are_of_the_time_when_the_book_is_known() -> None:
    found = made(
        quotes=[
            Quote("A", BASE + 1, 4_000, 6_000),
            Quote("A", BASE + MINUTE + 5, None, None, is_known=False),
            Quote("A", BASE + 3 * MINUTE + 5, 4_500, 5_500),
        ],
        changes=[("A", BASE + minute * MINUTE + 1) for minute in range(4)],
    )
    assert [each["yes_bid_open_dollars"] for each in found] == [4_000, 4_000, None, 4_500]
    assert [each["yes_bid_close_dollars"] for each in found] == [4_000, 4_000, None, 4_500]
    assert [each["yes_ask_high_dollars"] for each in found] == [6_000, 6_000, None, 5_500]


def test_a_change_below_the_best_price_makes_a_candle_and_a_ticker_alone_none() -> None:
    found = made(
        quotes=[Quote("A", BASE + 1, 4_000, 6_000)],
        changes=[("A", BASE + 1), ("A", BASE + 3 * MINUTE + 1)],
        tickers=[("A", BASE + 2, 500), ("A", BASE + 2 * MINUTE, 700), ("A", BASE + 9 * MINUTE, 900)],
    )
    assert ends(found) == [1, 4]
    assert [each["open_interest_contracts"] for each in found] == [500, 700]
    assert found[1]["yes_bid_open_dollars"] == found[1]["yes_bid_high_dollars"] == 4_000


def test_block_trades_count_and_are_counted_apart() -> None:
    [found] = made(trades=[Trade("A", BASE + 1, 4_000, 100), Trade("A", BASE + 2, 9_000, 50, is_block=True)])
    assert (found["price_close_dollars"], found["volume_contracts"], found["trades"]) == (9_000, 150, 2)
    assert (found["block_volume_contracts"], found["block_trades"]) == (50, 1)


@pytest.mark.parametrize(("first", "second", "mean"), [(5_700, 5_701, 5_701), (5_700, 5_700, 5_700), (1, 2, 2)])
def test_the_mean_is_weighted_and_rounded_half_up(first: int, second: int, mean: int) -> None:
    [found] = made(trades=[Trade("A", BASE + 1, first, 100), Trade("A", BASE + 2, second, 100)])
    assert found["price_mean_dollars"] == mean


@pytest.mark.parametrize(
    ("covered", "is_complete"),
    [
        ([(1, MINUTE + 1)], True),
        ([(0, 500), (500, 2 * MINUTE)], True),
        ([(-5 * MINUTE, 500), (400, 2 * MINUTE)], True),
        ([(2, 2 * MINUTE)], False),
        ([(1, MINUTE)], False),
        ([(0, 500), (501, 2 * MINUTE)], False),
        ([], False),
    ],
)
def test_a_candle_is_complete_where_coverage_holds_the_whole_period(
    covered: list[tuple[int, int]], is_complete: bool
) -> None:
    coverage = ranges(("B", BASE, BASE + MINUTE), *(("A", BASE + low, BASE + high) for low, high in covered))
    [found] = made(quotes=[Quote("A", BASE, 1, 2)], changes=[("A", BASE + 7)], coverage=coverage)
    assert found["is_complete"] is is_complete


def test_a_candle_is_not_complete_while_its_book_is_not_known_yet() -> None:
    coverage = ranges(("A", BASE, BASE + 5 * MINUTE))
    quotes = [Quote("A", BASE, None, None, is_known=False), Quote("A", BASE + 5, 1, 2)]
    found = made(quotes=quotes, changes=[("A", BASE + 7), ("A", BASE + MINUTE + 1)], coverage=coverage)
    assert [each["is_complete"] for each in found] == [False, True]


def test_a_candle_with_a_trade_that_no_listing_confirms_is_not_complete() -> None:
    coverage = ranges(("A", BASE, BASE + 5 * MINUTE))
    found = made(
        trades=[Trade("A", BASE + 1_000, 1, 1, is_confirmed=False), Trade("A", BASE + MINUTE + 1, 1, 1)],
        quotes=[Quote("A", BASE, 1, 2)],
        changes=[],
        coverage=coverage,
    )
    assert [each["is_complete"] for each in found] == [False, True]


TIMES = st.integers(0, 8).map(lambda step: BASE + step * MINUTE // 2) | st.integers(BASE, BASE + 4 * MINUTE)
NAMES = st.sampled_from(["A", "B"])
PRICES = st.none() | st.integers(1, 9_999)
QUOTES = st.lists(st.tuples(NAMES, TIMES, PRICES, PRICES, st.booleans()).map(lambda row: Quote(*row)), max_size=12)
TRADES = st.lists(
    st.tuples(NAMES, TIMES, st.integers(1, 9_999), st.integers(1, 500)).map(lambda row: Trade(*row)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(
    quotes=QUOTES,
    trades=TRADES,
    changes=st.lists(st.tuples(NAMES, TIMES), max_size=6),
    period=st.sampled_from([1, 2, 3]),
)
def test_candles_are_those_of_a_slow_walk_through_all_rows(
    quotes: list[Quote], trades: list[Trade], changes: list[tuple[str, int]], period: int
) -> None:
    quotes = list({(each.ticker, each.us): each for each in quotes}.values())
    ordered = sorted(quotes, key=lambda each: (each.ticker, each.us))
    tape = sorted(trades, key=lambda each: (each.ticker, each.us))
    moved = [*changes, *((each.ticker, each.us) for each in quotes)]
    found = {
        (each["ticker"], each["end_period_ts"]): (
            *(
                each[f"yes_{side}_{name}_dollars"]
                for side in ("bid", "ask")
                for name in ("open", "low", "high", "close")
            ),
            *(each[f"price_{name}_dollars"] for name in ("open", "low", "high", "close", "previous")),
            each["volume_contracts"],
        )
        for each in made(period, quotes=ordered, trades=tape, changes=moved)
    }
    wanted = _slow(ordered, tape, moved, period * MINUTE)
    assert {(ticker, round(end.timestamp() * 1_000_000)): value for (ticker, end), value in found.items()} == wanted


def _slow(quotes: list[Quote], trades: list[Trade], moved: list[tuple[str, int]], period: int) -> dict[Any, Any]:
    found = {}
    for ticker, end in {
        (ticker, -(-us // period) * period) for ticker, us in [*moved, *((t.ticker, t.us) for t in trades)]
    }:
        mine = [each for each in quotes if each.ticker == ticker and each.us <= end]
        before = [each for each in mine if each.us <= end - period][-1:]
        inside = [each for each in mine if each.us > end - period]
        known = [each for each in [*before, *inside] if each.is_known]
        row: list[int | None] = []
        for side in ([each.bid or 0 for each in known], [each.ask or 10_000 for each in known]):
            row += [side[0], min(side), max(side), side[-1]] if side else [None] * 4
        earlier = [each for each in trades if each.ticker == ticker and each.us <= end - period]
        tape = [each.price for each in trades if each.ticker == ticker and end - period < each.us <= end]
        row += [tape[0], min(tape), max(tape), tape[-1]] if tape else [None] * 4
        row.append(earlier[-1].price if earlier else None)
        row.append(sum(each.count_e2 for each in trades if each.ticker == ticker and end - period < each.us <= end))
        found[ticker, end] = tuple(row)
    return found
