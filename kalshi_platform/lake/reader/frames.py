"""Rows of a range as one frame, in the order of the data set; holes of the wanted markets are refused or marked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

import polars as pl
import pyarrow as pa

from kalshi_platform.errors import MissingPartition
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.reader.coverage import mark_segments, require_whole
from kalshi_platform.lake.reader.source import AbsentPartition, Holes, Selection, Source, make_source
from kalshi_platform.lake.reader.unknown_books import find_lacking
from kalshi_platform.lake.store import Lake

OF_BOOKS = frozenset({
    "raw/orderbook_deltas", "processed/book_deltas", "processed/quotes", "processed/book_1s", "processed/book_1m",
})  # fmt: skip
"""Data sets that lack changes of a market where its coverage has a hole; those made of books, longer."""


def missing_partitions(
    lake: Lake | Source, data: Dataset, start: datetime, end: datetime, *, open: bool = False
) -> list[AbsentPartition]:
    """The partitions that a data set lacks in [start, end), ascending."""
    source = make_source(lake, open=open)
    return [each for each in source.find(data, start, end) if isinstance(each, AbsentPartition)]


def read_rows(
    lake: Lake | Source,
    data: Dataset,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None,
    *,
    holes: Holes = "raise",
    open: bool = False,
    production_url: str | None = None,
) -> pl.DataFrame:
    """The rows of [start, end) in the order of the data set.

    Raises HoleInRange, MissingPartition, LakeCorrupt, LakeUnavailable. With `holes="mark"` it raises neither of the
    first two, and the frame has the column `segment`, and `in_hole` where coverage speaks of the data set.
    """
    with make_source(lake, open=open, production_url=production_url).session() as source:
        return _read_rows(source, data, start, end, tickers, holes)


def _read_rows(
    source: Source, data: Dataset, start: datetime, end: datetime, tickers: Sequence[str] | None, holes: Holes
) -> pl.DataFrame:
    found = list(source.find(data, start, end))
    if holes == "raise":
        require_partitions(data, [each for each in found if isinstance(each, AbsentPartition)])
    lost = []
    if data.key in OF_BOOKS:
        # Before the rows: what is covered is there by then.
        lost = find_lacking(source, data, start, end, tickers)
        if holes == "raise":
            require_whole(lost, f"{data.key} has holes", allow_unclosed=source.takes_unclosed)
    rows = Selection(start, end, None if tickers is None else tuple(tickers))
    frames, segment, after_hole = [to_frame(data.schema.empty_table(), 0)], 0, False
    for each in found:
        if isinstance(each, AbsentPartition):
            after_hole = True
            continue
        segment, after_hole = segment + after_hole, False
        content, _ = source.read(each, rows)
        frames.append(to_frame(content, segment))
    # Stable: what a data set does not show (the place in a stream) has put the rows of a file in order.
    frame = pl.concat(frames).sort(list(data.order), nulls_last=True, maintain_order=True)
    if holes == "raise":
        return as_text(frame.drop("segment"))
    if data.key in OF_BOOKS:
        frame = mark_segments(frame.drop("segment"), lost, data.time_column)
    return as_text(frame)


def read_partitions(source: Source, data: Dataset, rows: Selection) -> pl.DataFrame:
    """Rows of a range in the order of their time, from the partitions that are there; those of a moment as stored."""
    frames = [to_frame(data.schema.empty_table(), 0)]
    for each in list(source.find(data, rows.start, rows.end)):
        if not isinstance(each, AbsentPartition):
            content, _ = source.read(each, rows)
            frames.append(to_frame(content, 0))
    return as_text(pl.concat(frames).drop("segment").sort(data.time_column, maintain_order=True))


def require_partitions(data: Dataset, absent: Sequence[AbsentPartition]) -> None:
    """Raise MissingPartition where partitions are absent."""
    if absent:
        names = ", ".join(f"{each.partition.key} ({each.reason})" for each in absent[:5])
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise MissingPartition(
            f'{data.key} lacks {names}{more}; export them, or read with holes="mark"',
            missing=[each.partition.key for each in absent],
        )


def to_frame(table: pa.Table, segment: int) -> pl.DataFrame:
    """A table as a frame, with the column `segment`."""
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    return frame.with_columns(segment=pl.lit(segment, pl.Int32))


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Show an identifier of a trade as text, as the exchange writes it, however files hold it."""
    shown = text_of_trade_id(frame.schema)
    return frame if shown is None else frame.with_columns(shown).drop("trade_id_text", strict=False)


def text_of_trade_id(schema: pl.Schema) -> pl.Expr | None:
    """The expression of a trade's identifier as text; None where it is text already, or there is none."""
    if schema.get("trade_id") != pl.Binary:
        return None
    digits = pl.col("trade_id").bin.encode("hex")
    places = ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))
    uuid = pl.concat_str([digits.str.slice(start, length) for start, length in places], separator="-")
    if "trade_id_text" not in schema:
        return uuid.alias("trade_id")
    return pl.coalesce(uuid, pl.col("trade_id_text")).alias("trade_id")
