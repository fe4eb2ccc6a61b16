"""Locates the checkpoints of one stream: books, and the exchange times at which they are valid. Pure.

A snapshot is the book at its place in the stream, which is no exchange time. It becomes valid at

    complete_from = earliest time of the feed after it + max_out_of_orderness,

and only if that lies before complete_until = latest time of the feed - max_out_of_orderness: then the stream has shown
that it went on beyond it. The feed is every delta of the stream with the market's exchange_index, the market's own
among them. max_out_of_orderness is how far back the times of later frames may go, those of one market too: its first
delta after the snapshot may be older than one that the snapshot holds. The book at the END of complete_from is the
snapshot plus the stream's own later deltas up to it. A snapshot without a complete_from is kept, but no checkpoint.

Reading on never changes a complete_from that was found: later frames carry later times, by the meaning of
max_out_of_orderness. So a window of the stream that is long enough for a snapshot gives the same checkpoint as all of
it. Why the rule is this one: docs/merge-model.md, decision 0005.

A *span* is a book subscription clipped to its run: ticker, exchange_index, seq (the snapshot's) and seq_end. Times are
integers of microseconds.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from kalshi_platform.market.fold import collect_levels, explode_levels, sum_levels


class Located(NamedTuple):
    """`found`: spans with their `complete_from_us`. `pending`: spans for which more of the stream must be read."""

    found: pl.DataFrame
    pending: pl.DataFrame


def watermarks(spans: pl.DataFrame, deltas: pl.DataFrame, read_to: int, max_out_of_orderness_us: int) -> pl.DataFrame:
    """Add `complete_from_us` and `complete_until_us` to spans of one stream, as the deltas up to `read_to` tell them.

    Arguments as for locate(). Null where nothing came after the snapshot. Only complete_from < complete_until shows
    anything.
    """
    bounded = spans.with_columns(_bound=pl.min_horizontal("seq_end", pl.lit(read_to)))
    return _with_feed_times(bounded, deltas).select(
        *spans.columns,
        (pl.col("_feed_min") + max_out_of_orderness_us).alias("complete_from_us"),
        (pl.col("_feed_max") - max_out_of_orderness_us).alias("complete_until_us"),
    )


def locate(spans: pl.DataFrame, deltas: pl.DataFrame, read_to: int, max_out_of_orderness_us: int) -> Located:
    """Find complete_from for snapshots of one stream.

    `spans`: ticker, exchange_index, seq (the snapshot's), seq_end. `deltas`: seq, exchange_us, ticker, exchange_index;
    all of the stream with (lowest seq of `spans`) < seq ≤ `read_to`, as far as a span has their exchange_index.
    """
    found = watermarks(spans, deltas, read_to, max_out_of_orderness_us)
    is_shown = (pl.col("complete_from_us") < pl.col("complete_until_us")).fill_null(value=False)
    columns = spans.columns
    return Located(
        found.filter(is_shown).select(*columns, "complete_from_us").sort("seq", "ticker"),
        found.filter(~is_shown & (pl.col("seq_end") > read_to)).select(columns).sort("seq", "ticker"),
    )


def fold_checkpoints(starts: pl.DataFrame, snapshots: pl.DataFrame, deltas: pl.DataFrame) -> pl.DataFrame:
    """Fold each snapshot up to the end of its complete_from.

    Returns ticker, seq, complete_from_us, and the four lists of levels.

    `starts`: spans with complete_from_us, as locate() finds them; `snapshots`: ticker, seq and the lists of levels;
    `deltas` as for locate(), with side, price_e4 and delta_e2. Snapshots that are missing, and books with a level below
    zero (a lost delta explains one, or times that go back), give no row.
    """
    key = ["ticker", "seq"]
    start = starts.select(*key, "seq_end", "complete_from_us")
    later = (
        start.join(deltas.rename({"seq": "_delta_seq"}).drop("exchange_index"), on="ticker")
        .filter(
            (pl.col("_delta_seq") > pl.col("seq"))
            & (pl.col("_delta_seq") <= pl.col("seq_end"))
            & (pl.col("exchange_us") <= pl.col("complete_from_us"))
        )
        .select(*key, "side", "price_e4", pl.col("delta_e2").alias("count_e2"))
    )
    held = snapshots.join(start.select(key), on=key, how="semi")
    levels = sum_levels(pl.concat([explode_levels(held, key), later]), key)
    impossible = levels.filter(pl.col("count_e2") < 0).select(key).unique()
    found = start.join(held.select(key), on=key, how="semi").join(impossible, on=key, how="anti")
    return collect_levels(found.select(*key, "complete_from_us"), levels, key).sort("seq", "ticker")


def range_min(values: pl.Series, low: pl.Series, high: pl.Series) -> pl.Series:
    """Return the least of values[low:high] for each pair of positions; null where that is empty."""
    widths = high - low
    result = pl.DataFrame({"_low": low, "_high": high, "_width": widths}).with_row_index("_row")
    parts: list[pl.DataFrame] = []
    table, width = values, 1
    while width <= max(len(values), 1):
        # `table[i]` is the least of values[i : i + width]; two overlapping windows cover any wider range.
        wide = result.filter((pl.col("_width") >= width) & (pl.col("_width") < 2 * width))
        if wide.height:
            left = table.gather(wide["_low"])
            right = table.gather(wide["_high"] - width)
            least = pl.select(pl.min_horizontal(left.alias("left"), right.alias("right"))).to_series()
            parts.append(wide.select("_row").with_columns(least.alias("_least")))
        table = pl.select(pl.min_horizontal(table.alias("a"), table.shift(-width).alias("b"))).to_series()
        width *= 2
    if not parts:
        return pl.Series("_least", [None] * len(low), dtype=values.dtype)
    return result.join(pl.concat(parts), on="_row", how="left", maintain_order="left")["_least"]


def _with_feed_times(spans: pl.DataFrame, deltas: pl.DataFrame) -> pl.DataFrame:
    """Add the least and greatest time of the feed between each snapshot and the end of its span."""
    parts = [pl.DataFrame(schema={**spans.schema, "_feed_min": pl.Int64, "_feed_max": pl.Int64})]
    for (index,), part in spans.group_by("exchange_index"):
        feed = deltas.filter(pl.col("exchange_index") == index).sort("seq")
        low = feed["seq"].search_sorted(part["seq"], side="right").cast(pl.Int64)
        high = feed["seq"].search_sorted(part["_bound"], side="right").cast(pl.Int64)
        times = feed["exchange_us"]
        parts.append(
            part.with_columns(
                range_min(times, low, high).alias("_feed_min"), (-range_min(-times, low, high)).alias("_feed_max")
            )
        )
    return pl.concat(parts)
