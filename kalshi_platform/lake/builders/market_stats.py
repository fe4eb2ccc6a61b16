"""How one market's book and trading was on one day: spread, depth, activity, delays. Pure.

Means are weighted by time, over the time in which the book is known: a hole counts for nothing, an empty side for depth
0 and for no spread. Sums are kept in 128 bits, so that they do not depend on how the day was cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

LATENCY_STEP_US = 100
"""Delays are told to this many microseconds: so few different ones are kept, however many changes a day has."""
_DAY_US = 86_400_000_000
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
            self._sums.append(_weighted(self._last.with_columns(until=pl.lit(day_us + _DAY_US)), day_us))
            self._last = None
        names = ("known_us", "two_sided_us", "quote_changes", "spread", "bid_size", "ask_size")
        return (
            pl.concat(self._sums)
            .group_by(_KEY)
            .agg(pl.col(*names).sum(), pl.col("first_us").min(), pl.col("last_us").max())
        )


def _weighted(rows: pl.DataFrame, day_us: int) -> pl.DataFrame:
    low, high = pl.max_horizontal("us", pl.lit(day_us)), pl.min_horizontal("until", pl.lit(day_us + _DAY_US))
    spent = pl.when("is_known").then((high - low).clip(0)).otherwise(0)
    two_sided = pl.col("bid_dollars").is_not_null() & pl.col("ask_dollars").is_not_null()
    seen = pl.col("us").filter((pl.col("us") >= day_us) & (pl.col("us") < day_us + _DAY_US) & pl.col("is_known"))
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
