"""Results and settlement values of the markets that were settled in a day, in processed/markets."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from kalshi_platform.lab.proof.comparison.truth import Truth
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.lab.proof.simulated.plain import scan
from kalshi_platform.market.times import us_from_datetime

NEWS = timedelta(minutes=15)
"""Of the simulated day: what was settled so shortly before midnight may be known only after it."""


def compare_settlements(lake_folder: Path, truth: Truth, day: datetime) -> Compared:
    """Compare the result and the value of every market that was settled in the day, as any program reads them."""
    low, high = us_from_datetime(day), us_from_datetime(day + timedelta(days=1) - NEWS)
    settled = (
        truth.lifecycle.filter((pl.col("event_type") == "settled") & pl.col("at_us").is_between(low, high))
        .select("ticker")
        .unique()
        .join(truth.markets_at_end.select("ticker", "result", "settlement_value_e6"), on="ticker")
    )
    value = (pl.col("settlement_value_dollars").cast(pl.Decimal(38, 6)) * 1_000_000).cast(pl.Int64)
    stored = (
        scan(lake_folder, "processed/markets", day)
        .select("ticker", "status", pl.col("result").alias("stored_result"), value.alias("stored_e6"))
        .collect()
    )
    joined = settled.join(stored, on="ticker", how="left")
    wrong = joined.filter(
        pl.col("result").ne_missing(pl.col("stored_result"))
        | pl.col("settlement_value_e6").ne_missing(pl.col("stored_e6"))
    )
    problems = []
    if wrong.height:
        problems.append(
            f"{wrong.height} of {settled.height} settled markets have another result or value in processed/markets,"
            f" the first is {wrong.row(0, named=True)}"
        )
    if settled.is_empty():
        problems.append("no market was settled in the day")
    figures = {"settled markets": settled.height, "markets of the day": stored.height}
    return Compared("results and settlement values in processed/markets", figures, tuple(problems))
