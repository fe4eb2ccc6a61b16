"""What was traded in each market on each day, to compare with the exchange's daily report of its markets. Pure."""

from __future__ import annotations

import polars as pl

from kalshi_platform.lake.builders.builder import HourRows

_SUMS = ("trades", "volume", "block_trades", "block_volume", "paid_e6")


class DailyVolumeBuilder:
    """Makes one row per market with a trade or a ticker in the day: rows with day ≤ exchange_ts < the next day."""

    def __init__(self) -> None:
        self._day_us: int | None = None
        self._parts: list[pl.DataFrame] = []

    def add(self, hour: HourRows) -> pl.DataFrame:
        """Take the trades and tickers of an hour."""
        if hour.in_day:
            self._day_us = hour.start_us if self._day_us is None else self._day_us
            self._parts += [traded_part(hour.rows["raw/trades"]), _interest(hour.rows["raw/tickers"])]
        return pl.DataFrame()

    def finish(self) -> pl.DataFrame:
        """Return a row per market."""
        if not self._parts:
            return pl.DataFrame()
        ticker = pl.col("ticker").cast(pl.String)
        return (
            pl.concat(self._parts, how="diagonal")
            .group_by("ticker")
            .agg(
                pl.col(*_SUMS).sum(),
                pl.col("high").max(),
                pl.col("low").min(),
                pl.col("open_interest").drop_nulls().last(),
            )
            .sort("ticker")
            .select(
                "ticker",
                pl.lit(self._day_us, pl.Int64).cast(pl.Datetime("us", "UTC")).alias("day"),
                ticker.str.replace("-[^-]*$", "").alias("event_ticker"),
                ticker.str.split("-").list.first().alias("series_ticker"),
                "trades",
                pl.col("volume").alias("volume_contracts"),
                pl.col("paid_e6").alias("turnover_dollars"),
                "block_trades",
                pl.col("block_volume").alias("block_volume_contracts"),
                pl.col("high").alias("high_dollars"),
                pl.col("low").alias("low_dollars"),
                pl.col("open_interest").alias("open_interest_contracts"),
            )
        )


def traded_part(trades: pl.DataFrame) -> pl.DataFrame:
    """What was traded in each market, block trades included; `paid_e6`: yes prices times contracts."""
    price, count = pl.col("yes_price_e4").cast(pl.Int64), pl.col("count_e2")
    is_block = pl.col("is_block_trade")
    return trades.group_by("ticker").agg(
        pl.len().cast(pl.Int64).alias("trades"),
        count.sum().alias("volume"),
        is_block.sum().cast(pl.Int64).alias("block_trades"),
        count.filter(is_block).sum().alias("block_volume"),
        # 1/10,000 dollar times 1/100 contract
        (price * count).sum().alias("paid_e6"),
        price.max().alias("high"),
        price.min().alias("low"),
    )


def _interest(tickers: pl.DataFrame) -> pl.DataFrame:
    return tickers.group_by("ticker").agg(pl.col("open_interest_e2").drop_nulls().last().alias("open_interest"))
