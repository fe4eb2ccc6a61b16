"""Candles of one market and period, as Kalshi's candlesticks define them, from books, trades and tickers. Pure.

A candle of length p that ends at E covers (E − p, E], by the exchange's time. It is there where the book changed or a
trade came. Quotes count after all deltas of one exchange time; the open is the level in force at the period's start,
which high and low count too. Trades are dated by `created_time`, which has microseconds, where the close has read it.

Everything is first gathered by minute, in *parts*: frames of ticker, minute (its number: it ends that many minutes
after the epoch) and what one kind of row says of it, in the order of time. Hours and days are whole minutes, so that
their candles are made from the same parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kalshi_platform.lake.builders.builder import HourRows
from kalshi_platform.lake.builders.quotes import Quotes
from kalshi_platform.market.times import US_PER_DAY
from kalshi_platform.market.units import PRICE_E4_MAX

MINUTE_US = 60_000_000
HOLE_EVENT = "hole"
_UNKNOWN = -1
"""State of a quote while nobody knows it; an empty side is 0 or 1 dollar."""
_SIDES = ("bid", "ask")
_MARKET = "ticker"
_SUMS = ("changes", "paid", "volume", "trades", "block_trades", "block_volume", "unconfirmed")
_FIRST = ("bid_first", "ask_first", "price_open")
_LAST = ("bid_last", "bid_state", "ask_last", "ask_state", "price_close", "open_interest")
_HIGH, _LOW = ("bid_high", "ask_high", "price_high"), ("bid_low", "ask_low", "price_low")
_PART = {name: pl.Int64() for name in ("minute", *_SUMS, *_FIRST, *_LAST, *_HIGH, *_LOW)}
"""What a part may have besides the ticker."""


def change_part(deltas: pl.DataFrame) -> pl.DataFrame:
    """How many changes the books had, by minute. `deltas`: ticker, exchange_ts."""
    return _by_minute(deltas, _microseconds("exchange_ts")).agg(pl.len().cast(pl.Int64).alias("changes"))


def quote_part(quotes: pl.DataFrame) -> pl.DataFrame:
    """What the best prices were, by minute.

    `quotes`: rows of processed/quotes. A price is null where its side is empty, and in a hole, where nobody knows it.
    """
    known = quotes.select(
        _MARKET,
        "exchange_ts",
        *(
            pl.when(pl.col("event") != HOLE_EVENT)
            .then(pl.col(f"{side}_dollars").cast(pl.Int64).fill_null(empty))
            .alias(side)
            for side, empty in zip(_SIDES, (0, PRICE_E4_MAX), strict=True)
        ),
    )
    return _by_minute(known, _microseconds("exchange_ts")).agg(
        expression
        for side in _SIDES
        for expression in (
            pl.col(side).drop_nulls().first().alias(f"{side}_first"),
            pl.col(side).max().alias(f"{side}_high"),
            pl.col(side).min().alias(f"{side}_low"),
            pl.col(side).drop_nulls().last().alias(f"{side}_last"),
            pl.col(side).fill_null(_UNKNOWN).last().alias(f"{side}_state"),
        )
    )


def trade_part(trades: pl.DataFrame) -> pl.DataFrame:
    """What was traded, by minute, block trades included.

    `trades`: ticker, exchange_ts, created_time, yes_price_e4, count_e2, is_block_trade, in the order of the stream.
    """
    price, count = pl.col("yes_price_e4").cast(pl.Int64), pl.col("count_e2")
    is_block = pl.col("is_block_trade")
    return _by_minute(trades, trade_us()).agg(
        price.first().alias("price_open"),
        price.max().alias("price_high"),
        price.min().alias("price_low"),
        price.last().alias("price_close"),
        (price * count).sum().alias("paid"),
        count.sum().alias("volume"),
        pl.len().cast(pl.Int64).alias("trades"),
        is_block.sum().cast(pl.Int64).alias("block_trades"),
        count.filter(is_block).sum().alias("block_volume"),
        pl.col("created_time").null_count().cast(pl.Int64).alias("unconfirmed"),
    )


def interest_part(tickers: pl.DataFrame) -> pl.DataFrame:
    """What open interest was last, by minute. `tickers`: ticker, exchange_ts, open_interest_e2, in order of time."""
    said = tickers.filter(pl.col("open_interest_e2").is_not_null())
    return _by_minute(said, _microseconds("exchange_ts")).agg(pl.col("open_interest_e2").last().alias("open_interest"))


def told_part(tickers: pl.DataFrame, trades: pl.DataFrame) -> pl.DataFrame:
    """What tickers tell before the first trade: ticker, price_before, interest_before, is_traded.

    Neither changes without a trade, so that it was the same before the ticker. `tickers`: ticker, exchange_ts, price_e4
    (0 or null before a market's first trade), open_interest_e2.
    """
    first = trades.group_by(_MARKET).agg(trade_us().min().alias("first"))
    told = (
        tickers.join(first, on=_MARKET, how="left", maintain_order="left")
        # Tickers have milliseconds: one of the trade's own may come of the trade.
        .filter(pl.col("first").is_null() | (_microseconds("exchange_ts") < pl.col("first") // 1_000 * 1_000))
        .group_by(_MARKET)
        .agg(
            pl.col("price_e4").filter(pl.col("price_e4") > 0).last().cast(pl.Int64).alias("price_before"),
            pl.col("open_interest_e2").drop_nulls().first().alias("interest_before"),
        )
    )
    traded = first.select(_MARKET, pl.lit(value=True).alias("is_traded"))
    return told.join(traded, on=_MARKET, how="full", coalesce=True).with_columns(
        pl.col("is_traded").fill_null(value=False)
    )


def told_before(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return ticker, price_before and interest_before, before the first trade of all parts of `told_part`."""
    earlier = pl.col("is_traded").cast(pl.Int64).cum_sum().shift(1, fill_value=0).over(_MARKET)
    return (
        pl.concat(parts)
        .filter(earlier == 0)
        .group_by(_MARKET)
        .agg(pl.col("price_before").drop_nulls().last(), pl.col("interest_before").drop_nulls().first())
    )


def trade_us() -> pl.Expr:
    """When a trade was made, in microseconds: exact where the exchange's listing was read, else to the millisecond."""
    return pl.coalesce("created_time", "exchange_ts").dt.epoch("us")


def join_parts(parts: Sequence[pl.DataFrame], period_minutes: int) -> pl.DataFrame:
    """Join parts, in the order of time, to the periods that hold their minutes: one row per market and period, sorted.

    The column `minute` then is the number of the period's last minute.
    """
    ends = -(-pl.col("minute") // period_minutes) * period_minutes
    whole = pl.DataFrame(schema={_MARKET: parts[0].schema[_MARKET], **_PART})
    return (
        pl.concat([whole, *parts], how="diagonal")
        .with_columns(ends.alias("minute"))
        .group_by(_MARKET, "minute", maintain_order=True)
        .agg(
            pl.col(*_FIRST).drop_nulls().first(),
            pl.col(*_LAST).drop_nulls().last(),
            pl.col(*_HIGH).max(),
            pl.col(*_LOW).min(),
            pl.col(*_SUMS).sum(),
        )
        .sort(_MARKET, "minute")
    )


def candles_of(
    parts: Sequence[pl.DataFrame], before: pl.DataFrame, coverage: pl.DataFrame, period_minutes: int
) -> pl.DataFrame:
    """Return the candles of all periods that the parts hold anything of, in the columns of aggregates/candles_*.

    `before`: what `told_before` gives. `coverage`: ticker, from_us, to_us, when all changes of a market's book are
    there.
    """
    joined = join_parts(parts, period_minutes).join(before, on=_MARKET, how="left", maintain_order="left")
    traded, weight = pl.col("trades") > 0, pl.col("volume")
    found = (
        joined.with_columns(*(pl.col(f"{side}_state").forward_fill().over(_MARKET) for side in _SIDES))
        .with_columns(
            *(_known(pl.col(f"{side}_state").shift(1).over(_MARKET)).alias(f"{side}_before") for side in _SIDES),
            pl.coalesce(pl.col("price_close").forward_fill().shift(1).over(_MARKET), "price_before").alias("previous"),
            pl.coalesce(pl.col("open_interest").forward_fill().over(_MARKET), "interest_before").alias("open_interest"),
        )
        .filter((pl.col("changes") > 0) | traded)
    )
    return is_complete(found, coverage, period_minutes).select(
        _MARKET,
        _moment(pl.col("minute") - period_minutes).alias("start_period_ts"),
        _moment(pl.col("minute")).alias("end_period_ts"),
        *(expression for side in _SIDES for expression in _quote_columns(side)),
        *(pl.col(f"price_{name}").alias(f"price_{name}_dollars") for name in ("open", "low", "high", "close")),
        # Half a unit is rounded up.
        pl.when(weight > 0).then((2 * pl.col("paid") + weight) // (2 * weight)).alias("price_mean_dollars"),
        pl.col("previous").alias("price_previous_dollars"),
        weight.alias("volume_contracts"),
        pl.col("open_interest").alias("open_interest_contracts"),
        "trades",
        "block_trades",
        pl.col("block_volume").alias("block_volume_contracts"),
        "is_complete",
    )


def is_complete(found: pl.DataFrame, coverage: pl.DataFrame, period_minutes: int) -> pl.DataFrame:
    """Add `is_complete`: the book is known at the period's start, coverage holds the whole of it, and so on.

    The exchange's listing holds every trade of it, too. A book is not known before its first checkpoint after a hole.
    """
    end_us = pl.col("minute") * MINUTE_US
    asked = found.with_columns((end_us - period_minutes * MINUTE_US + 1).alias("_low"))
    # Both are sorted by market and time.
    return asked.join_asof(
        join_ranges(coverage),
        left_on="_low",
        right_on="from_us",
        by=_MARKET,
        strategy="backward",
        check_sortedness=False,
    ).with_columns(
        (
            (pl.col("to_us") > end_us).fill_null(value=False)
            & pl.col("bid_before").is_not_null()
            & (pl.col("unconfirmed") == 0)
        ).alias("is_complete")
    )


def join_ranges(coverage: pl.DataFrame) -> pl.DataFrame:
    """Return ranges (ticker, from_us, to_us) sorted and disjoint: those of one market that touch are one."""
    ordered = coverage.sort(_MARKET, "from_us")
    reached = pl.col("to_us").cum_max().shift(1).over(_MARKET)
    return (
        ordered.with_columns((reached.is_null() | (pl.col("from_us") > reached)).cum_sum().alias("_range"))
        .group_by(_MARKET, "_range", maintain_order=True)
        .agg(pl.col("from_us").min(), pl.col("to_us").max())
        .drop("_range")
    )


def _quote_columns(side: str) -> tuple[pl.Expr, ...]:
    """The columns of one side's best price. Where it is not known all the time, they speak of when it is."""
    before, first, last = pl.col(f"{side}_before"), pl.col(f"{side}_first"), pl.col(f"{side}_last")
    name = f"yes_{side}_{{}}_dollars".format
    return (
        pl.coalesce(before, first).alias(name("open")),
        pl.min_horizontal(before, f"{side}_low").alias(name("low")),
        pl.max_horizontal(before, f"{side}_high").alias(name("high")),
        pl.coalesce(_known(pl.col(f"{side}_state")), last, before).alias(name("close")),
    )


def _moment(minute: pl.Expr) -> pl.Expr:
    return (minute * MINUTE_US).cast(pl.Datetime("us", "UTC"))


def _known(state: pl.Expr) -> pl.Expr:
    return pl.when(state != _UNKNOWN).then(state)


def _microseconds(column: str) -> pl.Expr:
    return pl.col(column).dt.epoch("us")


def _by_minute(rows: pl.DataFrame, us: pl.Expr) -> pl.dataframe.group_by.GroupBy:
    minute = (-(-us // MINUTE_US)).alias("minute")
    return rows.with_columns(minute).group_by(_MARKET, "minute", maintain_order=True)


def first_moment(hour: HourRows) -> HourRows:
    """Return what of an hour after the day belongs to its start: the last moment of periods that end then."""
    columns = {
        "raw/orderbook_deltas": _microseconds("exchange_ts"),
        "raw/book_checkpoints": _microseconds("checkpoint_ts"),
        "raw/coverage": _microseconds("from_ts"),
        "raw/trades": trade_us(),
        "raw/tickers": _microseconds("exchange_ts"),
    }
    rows = {key: frame.filter(columns[key] <= hour.start_us) for key, frame in hour.rows.items()}
    # The books go on as in the day.
    return HourRows(hour.start_us, hour.start_us + 1, in_day=True, rows=rows)


class CandlesBuilder:
    """Makes the candles of one period that start in the day.

    The hour before the day tells what was traded last, and what was held; of the hour after it, the first moment is the
    last one of the day's last candle.
    """

    def __init__(self, period_minutes: int) -> None:
        self._period_minutes = period_minutes
        self._quotes = Quotes()
        self._day_us: int | None = None
        self._is_over = False
        self._parts: list[pl.DataFrame] = []
        self._told: list[pl.DataFrame] = []
        self._coverage: list[pl.DataFrame] = []

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Take the rows of an hour, or of a part of one."""
        if hour.in_day and self._day_us is None:
            self._day_us = hour.start_us
        if self._day_us is not None and not hour.in_day:
            if not self._is_over:
                self._take(first_moment(hour))
            self._is_over = True
        else:
            self._take(hour)
        return pl.DataFrame()

    def _take(self, hour: HourRows) -> None:
        trades, tickers = hour.rows["raw/trades"], hour.rows["raw/tickers"]
        quotes = self._quotes.add(hour)
        parts = [trade_part(trades), interest_part(tickers)]
        if hour.in_day:
            parts.append(change_part(hour.rows["raw/orderbook_deltas"]))
        if quotes.height:
            parts.append(quote_part(quotes))
        self._parts += [part for part in parts if part.height]
        self._told.append(told_part(tickers, trades))
        self._coverage.append(
            hour.rows["raw/coverage"].select(
                _MARKET, _microseconds("from_ts").alias("from_us"), _microseconds("to_ts").alias("to_us")
            )
        )

    def finish(self) -> pl.DataFrame:
        """Return the candles, sorted by market and time."""
        if not self._parts or self._day_us is None:
            return pl.DataFrame()
        found = candles_of(self._parts, told_before(self._told), pl.concat(self._coverage), self._period_minutes)
        start_us = _microseconds("start_period_ts")
        return found.filter((start_us >= self._day_us) & (start_us < self._day_us + US_PER_DAY))
