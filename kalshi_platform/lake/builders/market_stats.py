"""How one market's book and trading was on one day: spread, depth, activity, delays. Pure.

Means are weighted by time, over the time in which the book is known: a hole counts for nothing, an empty side for depth
0 and for no spread. Sums are kept in 128 bits, so that they do not depend on how the day was cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from kalshi_platform.lake.builders.book_fold import BookFold, Folded, Ints, split_places
from kalshi_platform.lake.builders.book_inputs import DELTAS
from kalshi_platform.lake.builders.builder import HourRows
from kalshi_platform.lake.builders.daily_volume import traded_part
from kalshi_platform.lake.builders.quotes import Quotes
from kalshi_platform.market.fold import Changes, books_at
from kalshi_platform.market.times import US_PER_DAY

LATENCY_STEP_US = 100
"""Delays are told to this many microseconds: so few different ones are kept, however many changes a day has."""
NEAR_E4 = 500
"""How far from the best price a level may be to count as near: 5 cents."""
_MINUTE_US = 60_000_000
NO, YES = 0, 1
"""Sides of a fold's books; bids on no are the offers."""
_KEY = "ticker"


class QuoteTimes:
    """Sums quotes of one day, each by the time in which it was in force.

    `add` takes rows of processed/quotes, in order of time.
    """

    def __init__(self) -> None:
        self._sums: list[pl.DataFrame] = []
        self._last: pl.DataFrame | None = None

    def add(self, quotes: pl.DataFrame, day_us: int) -> None:
        """Take the next quotes; `day_us` is where the day starts."""
        rows = quotes.with_columns(
            pl.col("exchange_ts").dt.epoch("us").alias("us"), (pl.col("event") != "hole").alias("is_known")
        )
        if self._last is not None:
            rows = pl.concat([self._last, rows.select(self._last.columns)]).sort(_KEY, maintain_order=True)
        until = pl.col("us").shift(-1).over(_KEY)
        self._sums.append(_weighted(rows.with_columns(until.alias("until")).drop_nulls("until"), day_us))
        self._last = rows.group_by(_KEY, maintain_order=True).last()

    def finish(self, day_us: int) -> pl.DataFrame:
        """Return ticker, known_us, two_sided_us, quote_changes, first_us, last_us, spread, bid_size and ask_size.

        The latter three are sums of value times microseconds.
        """
        if self._last is not None:
            self._sums.append(_weighted(self._last.with_columns(until=pl.lit(day_us + US_PER_DAY)), day_us))
            self._last = None
        names = ("known_us", "two_sided_us", "quote_changes", "spread", "bid_size", "ask_size")
        return (
            pl.concat(self._sums)
            .group_by(_KEY)
            .agg(pl.col(*names).sum(), pl.col("first_us").min(), pl.col("last_us").max())
        )


def _weighted(rows: pl.DataFrame, day_us: int) -> pl.DataFrame:
    low, high = pl.max_horizontal("us", pl.lit(day_us)), pl.min_horizontal("until", pl.lit(day_us + US_PER_DAY))
    spent = pl.when("is_known").then((high - low).clip(0)).otherwise(0)
    two_sided = pl.col("bid_dollars").is_not_null() & pl.col("ask_dollars").is_not_null()
    is_in_day = (pl.col("us") >= day_us) & (pl.col("us") < day_us + US_PER_DAY)
    seen = pl.col("us").filter(is_in_day & (pl.col("event") == "change"))
    wide = pl.col("spent").cast(pl.Int128)
    return (
        rows.with_columns(spent.alias("spent"))
        .group_by(_KEY)
        .agg(
            pl.col("spent").sum().alias("known_us"),
            pl.col("spent").filter(two_sided).sum().alias("two_sided_us"),
            seen.len().cast(pl.Int64).alias("quote_changes"),
            seen.min().alias("first_us"),
            seen.max().alias("last_us"),
            ((pl.col("ask_dollars") - pl.col("bid_dollars")) * wide).sum().alias("spread"),
            *((pl.col(f"{side}_contracts").fill_null(0) * wide).sum().alias(f"{side}_size") for side in ("bid", "ask")),
        )
    )


def latency_part(deltas: pl.DataFrame) -> pl.DataFrame:
    """How often each delay from the exchange's time to ours came: ticker, latency (in LATENCY_STEP_US), changes."""
    delay = (pl.col("received_at") - pl.col("exchange_ts")).dt.total_microseconds()
    return (
        deltas.group_by(_KEY, (delay // LATENCY_STEP_US).alias("latency"))
        .agg(pl.len().cast(pl.Int64).alias("changes"))
        .sort(_KEY, "latency")
    )


def latencies(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The number of changes, and the delays that half and 99 of 100 of them did not exceed, in microseconds."""
    counted = (
        pl.concat(parts).group_by(_KEY, "latency").agg(pl.col("changes").sum()).sort(_KEY, "latency")
    ).with_columns(
        pl.col("changes").cum_sum().over(_KEY).alias("reached"), pl.col("changes").sum().over(_KEY).alias("all")
    )
    return counted.group_by(_KEY).agg(
        pl.col("all").first().alias("book_changes"),
        *(
            (
                pl.col("latency").filter(pl.col("reached") * 100 >= pl.col("all") * percent).first() * LATENCY_STEP_US
            ).alias(name)
            for name, percent in (("latency_median_us", 50), ("latency_p99_us", 99))
        ),
    )


class NearDepth:
    """Sums how many contracts stand within 5 cents of the best price, at the end of each minute of the day."""

    def __init__(self) -> None:
        self._sums = np.zeros((2, 0), np.int64)
        self._minutes = np.zeros(0, np.int64)

    def add(self, folded: Folded) -> None:
        """Take the books of the next piece of time; a minute ends with what came in its last microsecond."""
        lines = len(folded.known_before)
        if not len(self._minutes):
            self._sums, self._minutes = np.zeros((2, lines), np.int64), np.zeros(lines, np.int64)
        first = -folded.start_us % _MINUTE_US
        ends = np.arange(first, folded.length_us, _MINUTE_US)
        if not len(ends):
            return
        is_known = _known_at(folded, ends)
        rows = folded.rows
        start = Changes(*split_places(folded.levels.place), folded.levels.size_e2)
        changes = Changes(rows.line, rows.side, rows.price_e4, rows.delta_e2)
        table = books_at(start, changes, rows.time_us, ends)
        self._minutes += is_known.sum(axis=0)
        if not len(table.line):
            return
        book = table.line * 2 + table.side
        begins = np.flatnonzero(np.r_[True, book[1:] != book[:-1]])
        number = np.cumsum(np.r_[False, book[1:] != book[:-1]])
        is_there = table.sizes > 0
        best = np.maximum.reduceat(np.where(is_there, table.price_e4, -1), begins, axis=1)
        is_near = is_there & (table.price_e4 >= best[:, number] - NEAR_E4)
        near = np.add.reduceat(np.where(is_near, table.sizes, 0), begins, axis=1)
        line, side = table.line[begins], table.side[begins]
        np.add.at(self._sums, (side, line), np.where(is_known[:, line], near, 0).sum(axis=0))

    def finish(self, markets: pl.DataType) -> pl.DataFrame:
        """Return ticker, minutes (ends of minutes at which the book is known), bid_near and ask_near."""
        numbers = pl.Series(np.arange(len(self._minutes), dtype=np.uint32))
        return pl.DataFrame(
            {
                _KEY: numbers.cat.to(markets),
                "minutes": self._minutes,
                "bid_near": self._sums[YES],
                "ask_near": self._sums[NO],
            }
        )


def _known_at(folded: Folded, times_us: Ints) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Whether each line's book is known at each of some times: an array of (time, line)."""
    known = folded.known
    steps = np.zeros((len(times_us) + 1, len(folded.known_before)), np.int64)
    np.add.at(steps, (np.searchsorted(times_us, known.from_us), known.line), 1)
    np.add.at(steps, (np.searchsorted(times_us, known.to_us), known.line), -1)
    return np.cumsum(steps, axis=0)[:-1] > 0


class MarketStatsBuilder:
    """Makes one row per market that had a known book, a change of its book or a trade in the day."""

    def __init__(self) -> None:
        self._quotes, self._fold = Quotes(), BookFold()
        self._times, self._near = QuoteTimes(), NearDepth()
        self._latencies: list[pl.DataFrame] = []
        self._traded: list[pl.DataFrame] = []
        self._day_us: int | None = None
        self._markets: pl.DataType = pl.String()

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Take the rows of an hour, or of a part of one."""
        quotes, folded = self._quotes.add(hour), self._fold.add(hour)
        if folded is not None:
            if self._day_us is None:
                self._day_us, self._markets = hour.start_us, hour.rows[DELTAS].schema[_KEY]
            self._times.add(quotes, self._day_us)
            self._near.add(folded)
            self._latencies.append(latency_part(hour.rows[DELTAS]))
            self._traded.append(traded_part(hour.rows["raw/trades"]))
        return pl.DataFrame()

    def finish(self) -> pl.DataFrame:
        """Return the rows, sorted by market."""
        if self._day_us is None:
            return pl.DataFrame()
        known, changes = pl.col("known_us").fill_null(0), pl.col("book_changes").fill_null(0)
        quote_changes = pl.col("quote_changes").fill_null(0)
        traded = (
            pl.concat(self._traded)
            .group_by(_KEY)
            .agg(
                pl.col("trades", "volume", "block_trades", "block_volume", "paid_e6").sum(),
                pl.col("high").max(),
                pl.col("low").min(),
            )
        )
        return (
            self._near.finish(self._markets)
            .join(self._times.finish(self._day_us), on=_KEY, how="left", maintain_order="left")
            .join(latencies(self._latencies), on=_KEY, how="left", maintain_order="left")
            .join(traded, on=_KEY, how="left", maintain_order="left")
            .filter((known > 0) | (changes > 0) | (pl.col("trades").fill_null(0) > 0))
            .select(
                _KEY,
                pl.lit(self._day_us, pl.Int64).cast(pl.Datetime("us", "UTC")).alias("day"),
                *(
                    pl.col(f"{name}_us").cast(pl.Datetime("us", "UTC")).alias(f"{name}_quote_ts")
                    for name in ("first", "last")
                ),
                (known / US_PER_DAY).alias("coverage_share"),
                pl.when(known > 0).then(pl.col("two_sided_us") / known).alias("two_sided_share"),
                _mean("spread", "two_sided_us").alias("spread_mean_dollars"),
                *(_mean(f"{side}_size", "known_us").alias(f"{side}_depth_mean_contracts") for side in ("bid", "ask")),
                *(_mean(f"{side}_near", "minutes").alias(f"{side}_depth_5c_mean_contracts") for side in ("bid", "ask")),
                changes.alias("book_changes"),
                quote_changes.alias("quote_changes"),
                pl.col("trades").fill_null(0),
                pl.col("volume").fill_null(0).alias("volume_contracts"),
                pl.col("block_trades").fill_null(0),
                pl.col("block_volume").fill_null(0).alias("block_volume_contracts"),
                _mean("paid_e6", "volume").alias("vwap_dollars"),
                pl.col("high").alias("high_dollars"),
                pl.col("low").alias("low_dollars"),
                "latency_median_us",
                "latency_p99_us",
            )
        )


def _mean(total: str, weight: str) -> pl.Expr:
    """Half a unit is rounded up; null where nothing has weight."""
    by = pl.col(weight).cast(pl.Int128)
    return pl.when(by > 0).then((2 * pl.col(total).cast(pl.Int128) + by) // (2 * by)).cast(pl.Int64)
