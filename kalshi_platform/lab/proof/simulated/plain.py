"""Reads data sets of the lake as a person with Polars would: a glob over the partition's folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl


def scan(lake_folder: Path, key: str, day: datetime) -> pl.LazyFrame:
    """Scan a day of a data set, `processed/trades` say."""
    return pl.scan_parquet(lake_folder / key / f"date={day:%Y-%m-%d}" / "*.parquet", hive_partitioning=False)
