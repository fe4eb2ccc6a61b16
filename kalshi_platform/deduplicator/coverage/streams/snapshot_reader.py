"""Reads snapshots of one stream and the deltas between them, to check them against each other (see check_snapshots)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from kalshi_platform.deduplicator.coverage.streams.check_snapshots import check_snapshots, hash_snapshots
from kalshi_platform.deduplicator.coverage.streams.stream_ledger import CLOCKS_APART
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")
_BOOKS_AT_ONCE = 1_000


def read_checks(snapshot: ArrowSnapshot, stream_id: int, found: pl.DataFrame) -> pl.DataFrame:
    """Compare pairs of snapshots; gives the columns of check_snapshots.RUN_CHECKS. Raises DatabaseUnavailable.

    `found`: at least one, as pair_snapshots() gives them.
    """
    tickers = found["ticker"].cast(pl.String).unique().to_list()
    hashes = pl.concat(
        hash_snapshots(read_levels(snapshot, stream_id, some).filter(pl.col("ticker").is_in(tickers)))
        for some in _seqs_of_pairs(found).iter_slices(_BOOKS_AT_ONCE)
    )
    found = found.with_columns(pl.col("ticker").cast(pl.String))
    return check_snapshots(found, hashes, _deltas_of(snapshot, stream_id, found, tickers))


def read_levels(snapshot: ArrowSnapshot, stream_id: int, starts: pl.DataFrame) -> pl.DataFrame:
    """Return the books of snapshots (`starts` has their seq).

    They are looked for where their commits put them, then in all of the stream's life.
    """
    seqs = starts["seq"].unique().sort().to_list()
    window = snapshot.table(_SQL["find_snapshot_times"], (stream_id, seqs[0], seqs[-1])).to_pylist()[0]
    if window["low"] is not None:
        rows = snapshot.table(_SQL["read_snapshots"], (stream_id, seqs, window["low"], window["high"]))
        if rows.num_rows >= len(seqs):
            return pl.DataFrame(pl.from_arrow(rows))
    # A commit that was repeated after an unknown outcome is numbered later than its rows.
    life = snapshot.table(_SQL["read_stream_life"], (stream_id,)).to_pylist()[0]
    span = (life["opened_at"] - CLOCKS_APART, life["ended_at"] + CLOCKS_APART)
    return pl.DataFrame(pl.from_arrow(snapshot.table(_SQL["read_snapshots"], (stream_id, seqs, *span))))


def _seqs_of_pairs(found: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([found.select("seq"), found.select(pl.col("next_seq").alias("seq"))]).unique().sort("seq")


def _deltas_of(
    snapshot: ArrowSnapshot, stream_id: int, found: pl.DataFrame, tickers: list[str]
) -> Iterator[pl.DataFrame]:
    low, high = found["low_us"].min(), found["high_us"].max()
    schema = {"seq": pl.Int64, "ticker": pl.String, "side": pl.String, "price_e4": pl.Int32, "delta_e2": pl.Int64}
    batches = snapshot.batches(
        _SQL["read_deltas_of_markets"],
        (
            stream_id, datetime_from_us(low), datetime_from_us(high), found["seq"].min(), found["next_seq"].max(),  # type: ignore[arg-type]
            tickers,
        ),
    )  # fmt: skip
    for batch in batches:
        yield pl.DataFrame(batch).select(pl.col(name).cast(kind) for name, kind in schema.items())
