"""The book of each market at the end of an hour, as a checkpoint for the next one. Pure.

An undisturbed stream has one snapshot, so that folds would grow for as long as it lives. Where a checkpoint stands and
everything after it is covered up to the last microsecond of the hour, the checkpoint plus production's deltas is the
true book of that moment: a checkpoint like those of snapshots. Its gatherer is empty; stream_id and seq are those of
the snapshot that it descends from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from kalshi_platform.deduplicator.coverage.timeline import Covered
from kalshi_platform.market.fold import LEVEL_TYPES, BookTable, Changes, Ints, books_at, collect_levels, explode_levels

COLUMNS: dict[str, Any] = {"ticker": pl.String, "stream_id": pl.Int64, "seq": pl.Int64, **LEVEL_TYPES}


def derive_checkpoints(
    checkpoints: pl.DataFrame, covered: Covered, changes: Changes, exchange_us: Ints, at_us: int
) -> tuple[pl.DataFrame, list[str]]:
    """Return the books at the end of `at_us` (COLUMNS), and the markets whose book came out with a level below zero.

    `checkpoints`: market, us, ticker, stream_id, seq and the lists of levels, of times up to `at_us`; `changes`:
    deltas, `line` being the market.
    """
    last = checkpoints.filter(pl.col("us") <= at_us).sort("market", "us", "stream_id", "seq").group_by("market").last()
    last = last.sort("market")
    market, since = last["market"].to_numpy(), last["us"].to_numpy()
    last = last.filter(pl.Series(covered.holds(market, since + 1, np.full(len(since), at_us + 1)), dtype=pl.Boolean))
    last = last.with_row_index("line").with_columns(pl.col("line").cast(pl.Int64))
    if last.is_empty():
        return pl.DataFrame(schema=COLUMNS), []
    reach = int(max(changes.line.max(initial=0), last["market"].max())) + 1
    line_of = np.full(reach, -1, dtype=np.int64)
    line_of[last["market"].to_numpy()] = last["line"].to_numpy()
    lines = line_of[changes.line]
    later = (lines >= 0) & (exchange_us <= at_us)
    later &= exchange_us > last["us"].to_numpy()[np.maximum(lines, 0)]
    mine = Changes(lines, *changes[1:]).where(later)
    moments = np.array([at_us], dtype=np.int64)
    table = books_at(_levels_of(last), mine, np.zeros(len(mine.line), dtype=np.int64), moments)
    return _as_rows(last, table)


def _levels_of(checkpoints: pl.DataFrame) -> Changes:
    levels = explode_levels(checkpoints, ("line",)).select(
        "line", (pl.col("side") == "no").cast(pl.Int64), pl.col("price_e4").cast(pl.Int64), "count_e2"
    )
    return Changes(*(column.to_numpy() for column in levels.get_columns()))


def _as_rows(last: pl.DataFrame, table: BookTable) -> tuple[pl.DataFrame, list[str]]:
    levels = pl.DataFrame(
        {"line": table.line, "is_no": table.side == 1, "price_e4": table.price_e4, "count_e2": table.sizes[0]}
    )
    levels = levels.filter(pl.col("count_e2") != 0).select(
        pl.col("line").cast(pl.Int64),
        pl.when("is_no").then(pl.lit("no")).otherwise(pl.lit("yes")).alias("side"),
        "price_e4",
        "count_e2",
    )
    impossible = levels.filter(pl.col("count_e2") < 0).select("line").unique()
    found = last.select("line", "ticker", "stream_id", "seq")
    bad = found.join(impossible, on="line", how="semi")["ticker"].to_list()
    found = collect_levels(found.join(impossible, on="line", how="anti"), levels, ("line",))
    return found.sort("ticker").select(COLUMNS.keys()), sorted(bad)
