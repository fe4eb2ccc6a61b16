"""Merges versions of catalog objects, as several gatherers learned them, into one history. Pure.

The newest knowledge wins: versions of all sources are put in the order in which they were learned, and one that equals
the version before it is no version of its own. A history made from parts of the sources becomes the full
one as soon as all of them are read.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

PRODUCTION = "~production"  # sorts after every gatherer, so that equal moments keep the gatherer's word
KEY = ("ticker", "valid_from")


class HistoryChanges(NamedTuple):
    """What turns production's history into the merged one.

    `write`: ticker, valid_from, valid_to, source; versions to take from `source`. `end`: ticker, valid_from, valid_to;
    versions that are there and end otherwise. `drop`: ticker, valid_from.
    """

    write: pl.DataFrame
    end: pl.DataFrame
    drop: pl.DataFrame


def merge_versions(versions: pl.DataFrame) -> pl.DataFrame:
    """Merge versions (ticker, valid_from, fingerprint, source) into one history: the same and valid_to."""
    ordered = versions.sort("ticker", "valid_from", "source").unique(subset=KEY, keep="first", maintain_order=True)
    before = pl.col("fingerprint").shift(1).over("ticker")
    kept = ordered.filter(before.is_null() | (before != pl.col("fingerprint")))
    return kept.with_columns(valid_to=pl.col("valid_from").shift(-1).over("ticker"))


def compare_histories(by_gatherer: dict[str, pl.DataFrame], production: pl.DataFrame) -> HistoryChanges:
    """Compare what gatherers learned (ticker, valid_from, fingerprint) with production (the same and valid_to)."""
    columns = ["ticker", "valid_from", "fingerprint"]
    sources = {**by_gatherer, PRODUCTION: production}
    versions = pl.concat([frame.select(columns).with_columns(source=pl.lit(name)) for name, frame in sources.items()])
    wanted = merge_versions(versions)
    there = production.select(*KEY, pl.col("fingerprint").alias("_is"), pl.col("valid_to").alias("_ends"))
    both = wanted.join(there, on=KEY, how="left")
    same = (pl.col("_is") == pl.col("fingerprint")).fill_null(value=False)
    return HistoryChanges(
        write=both.filter(~same).select(*KEY, "valid_to", "source"),
        end=both.filter(same & ~pl.col("valid_to").eq_missing(pl.col("_ends"))).select(*KEY, "valid_to"),
        drop=there.join(wanted, on=KEY, how="anti").select(KEY),
    )
