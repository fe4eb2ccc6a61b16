"""Compares what gatherers brought, and whether they still agree on which messages are the same. Pure.

Comparable are deltas of moments and markets that their gatherer and another one claim, and of other tables the rows of
markets and minutes of which several gatherers stored some, and claimed books all through: what one did not follow, not
yet, or not as its shard, it need not have. Where gatherers see the same feed nearly all of these are shared; should the
exchange begin to send each connection a time or a text of its own, nothing would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.merge.deduplicate import LIFECYCLE_IDENTITY, PRODUCTION_KEYS, TRADE_IDENTITY
from kalshi_platform.market.identity import DELTA_KEY, TICKER_KEY
from kalshi_platform.market.tables import GATHERER_TABLES

FEWEST_ROWS = 100
"""Fewer comparable rows than this raise no alarm."""
STATISTICS = {
    "gatherer": pl.String, "table_name": pl.String, "seen": pl.Int64, "distinct_rows": pl.Int64,
    "unique_rows": pl.Int64, "first_observer": pl.Int64, "comparable": pl.Int64, "agreed": pl.Int64,
}  # fmt: skip
# Books carry their observer in the key: they are counted, never compared.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "orderbook_deltas": DELTA_KEY,
    "trades": TRADE_IDENTITY,
    "tickers": TICKER_KEY,
    "market_lifecycle": LIFECYCLE_IDENTITY,
}


def light_columns(table: str) -> list[str]:
    """Return the columns that decide which rows of a table are one message, and which of them is kept."""
    origin = ("received_at", "stream_id", "seq")
    time, key = GATHERER_TABLES[table].time_column, PRODUCTION_KEYS[table]
    names = dict.fromkeys([*key, *_KEYS.get(table, ()), time, *origin])
    return [name for name in names if name != "source_gatherer"]


def compare_gatherers(
    table: str,
    by_gatherer: Mapping[str, pa.Table],
    several: pl.Series | None = None,
    comparable: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> pl.DataFrame:
    """Compare rows of one table and stretch of time; gives the columns of STATISTICS, a row per gatherer.

    These are all rows that gatherers have of their markets; compared are markets and minutes of which several have
    some. `several`: the minutes that can be compared at all; None: each. `comparable` says it row by row instead.
    """
    seen = {name: rows.num_rows for name, rows in by_gatherer.items() if rows.num_rows}
    if not seen:
        return pl.DataFrame(schema=STATISTICS)
    counted = pl.DataFrame({"gatherer": list(seen), "seen": list(seen.values())})
    if table in _KEYS:
        counted = counted.join(_compare_messages(table, by_gatherer, several, comparable), on="gatherer", how="left")
    else:
        own = pl.col("seen")
        counted = counted.with_columns(distinct_rows=own, unique_rows=own, first_observer=own, comparable=0, agreed=0)
    return counted.with_columns(table_name=pl.lit(table)).select(
        pl.col(name).cast(kind) for name, kind in STATISTICS.items()
    )


def sum_statistics(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Statistics of several stretches as one, with `agreement`."""
    whole = pl.concat([pl.DataFrame(schema=STATISTICS), *parts])
    counts = [name for name in STATISTICS if name not in ("gatherer", "table_name")]
    return (
        whole.group_by("gatherer", "table_name")
        .agg(pl.col(counts).sum())
        .with_columns(agreement=pl.when(pl.col("comparable") > 0).then(pl.col("agreed") / pl.col("comparable")))
        .sort("table_name", "gatherer")
    )


def find_disagreements(statistics: pl.DataFrame, least: float) -> list[tuple[str, str, str]]:
    """Alarms (kind, subject, detail) of gatherers whose agreement fell below `least`."""
    low = statistics.filter((pl.col("agreement") < least) & (pl.col("comparable") >= FEWEST_ROWS))
    return [
        (
            "identity_agreement",
            f"{row['gatherer']} {row['table_name']}",
            f"another gatherer has only {row['agreed']} of {row['comparable']} rows ({row['agreement']:.1%})",
        )
        for row in low.iter_rows(named=True)
    ]


def _compare_messages(
    table: str,
    by_gatherer: Mapping[str, pa.Table],
    several: pl.Series | None,
    comparable: Mapping[str, npt.NDArray[np.bool_]] | None,
) -> pl.DataFrame:
    key, time = list(_KEYS[table]), GATHERER_TABLES[table].time_column
    columns = list(dict.fromkeys([*key, time, "received_at"]))
    rows = pl.concat(
        [
            pl.DataFrame(part.select(columns)).with_columns(
                gatherer=pl.lit(name), _comparable=pl.lit(True) if comparable is None else pl.Series(comparable[name])
            )
            for name, part in sorted(by_gatherer.items())
            if part.num_rows
        ]
    )
    own = rows.group_by(*key, "gatherer").agg(
        pl.col("received_at").min().alias("_received"),
        pl.col(time).min().dt.truncate("1m").alias("_minute"),
        pl.col("_comparable").any(),
    )
    # One line per message: who has it, and who had it first (names decide between equals).
    messages = own.group_by(key).agg(
        pl.col("gatherer"),
        pl.col("_minute"),
        pl.col("_comparable"),
        pl.col("gatherer").sort_by("_received", "gatherer").first().alias("_first"),
    )
    lines = messages.with_columns(_holders=pl.col("gatherer").list.len()).explode("gatherer", "_minute", "_comparable")
    if comparable is None:
        together = pl.col("gatherer").n_unique().over("ticker", "_minute") > 1
        compared = together if several is None else together & pl.col("_minute").is_in(several.implode())
        lines = lines.with_columns(_comparable=compared)
    return lines.group_by("gatherer").agg(
        pl.len().alias("distinct_rows"),
        (pl.col("_holders") == 1).sum().alias("unique_rows"),
        (pl.col("_first") == pl.col("gatherer")).sum().alias("first_observer"),
        pl.col("_comparable").sum().alias("comparable"),
        (pl.col("_comparable") & (pl.col("_holders") > 1)).sum().alias("agreed"),
    )
