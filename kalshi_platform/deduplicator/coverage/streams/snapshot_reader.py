"""Reads snapshots of one stream and the deltas between them, to check them against each other (see check_snapshots)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from kalshi_platform.deduplicator.coverage.streams.check_snapshots import check_snapshots
from kalshi_platform.deduplicator.coverage.streams.stream_ledger import CLOCKS_APART
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.read import ArrowSnapshot


def read_checks(snapshot: ArrowSnapshot, stream_id: int, found: pl.DataFrame) -> pl.DataFrame:
    """Compare pairs of snapshots; gives the columns of check_snapshots.RUN_CHECKS. Raises DatabaseUnavailable.

    `found`: at least one, as pair_snapshots() gives them.
    """
    books = read_levels(snapshot, stream_id, _seqs_of_pairs(found))
    tickers = found["ticker"].cast(pl.String).unique().to_list()
    books = books.filter(pl.col("ticker").is_in(tickers))
    found = found.with_columns(pl.col("ticker").cast(pl.String))
    return check_snapshots(found, books, pl.concat(_deltas_of(snapshot, stream_id, found, tickers)))


def read_levels(snapshot: ArrowSnapshot, stream_id: int, starts: pl.DataFrame) -> pl.DataFrame:
    """The books of snapshots (`starts` has their seq): looked for where their commits put them, then in all of the
    stream's life."""
    seqs = starts["seq"].unique().sort().to_list()
    window = snapshot.table(
        "SELECT min(b.time_min) AS low, max(b.time_max) AS high FROM stream_segments g JOIN batches b USING (batch_no)"
        " WHERE b.table_name = 'orderbook_snapshots' AND g.stream_id = $1 AND g.seq_from <= $3 AND g.seq_to >= $2"
        " AND g.seq_from >= coalesce((SELECT max(f.seq_from) FROM stream_segments f"
        " WHERE f.stream_id = $1 AND f.seq_from <= $2), $2)",
        (stream_id, seqs[0], seqs[-1]),
    ).to_pylist()[0]
    query = (
        "SELECT ticker, seq, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2 FROM orderbook_snapshots"
        " WHERE source = 'ws' AND stream_id = $1 AND seq = ANY ($2)"
    )
    if window["low"] is not None:
        rows = snapshot.table(
            query + " AND snapshot_ts BETWEEN $3 AND $4", (stream_id, seqs, window["low"], window["high"])
        )
        if rows.num_rows >= len(seqs):
            return pl.DataFrame(pl.from_arrow(rows))
    # A commit that was repeated after an unknown outcome is numbered later than its rows.
    life = snapshot.table(
        "SELECT opened_at, coalesce(ended_at, now()) AS ended_at FROM streams WHERE stream_id = $1", (stream_id,)
    ).to_pylist()[0]
    span = (life["opened_at"] - CLOCKS_APART, life["ended_at"] + CLOCKS_APART)
    return pl.DataFrame(
        pl.from_arrow(snapshot.table(query + " AND snapshot_ts BETWEEN $3 AND $4", (stream_id, seqs, *span)))
    )


def _seqs_of_pairs(found: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([found.select("seq"), found.select(pl.col("next_seq").alias("seq"))]).unique()


def _deltas_of(
    snapshot: ArrowSnapshot, stream_id: int, found: pl.DataFrame, tickers: list[str]
) -> Iterator[pl.DataFrame]:
    low, high = found["low_us"].min(), found["high_us"].max()
    schema = {"seq": pl.Int64, "ticker": pl.String, "side": pl.String, "price_e4": pl.Int32, "delta_e2": pl.Int64}
    yield _empty(schema)
    batches = snapshot.batches(
        "SELECT seq, ticker, side, price_e4, delta_e2 FROM orderbook_deltas WHERE stream_id = $1"
        " AND exchange_ts BETWEEN $2 AND $3 AND seq BETWEEN $4 AND $5 AND ticker = ANY ($6)",
        (
            stream_id, datetime_from_us(low), datetime_from_us(high), found["seq"].min(), found["next_seq"].max(),  # type: ignore[arg-type]
            tickers,
        ),
    )  # fmt: skip
    for batch in batches:
        yield pl.DataFrame(batch).select(pl.col(name).cast(kind) for name, kind in schema.items())


def _empty(schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame(schema=schema)
