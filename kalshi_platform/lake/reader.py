"""The lake as Polars frames.

All ranges are [start, end) in aware datetimes. A partition counts as there when its manifest says `closed`, or `open`
with `open=True`. A range in which one is not there raises LakeHole. With `holes="mark"` the frame comes with a column
`segment` instead: rows of different segments have missing time between them, so nothing may be carried from one to the
next; `holes()` lists what is missing. What was lost inside a published hour leaves no hole here: of an hour of deltas
the manifest's `coverage_share` says how much is known to be complete, and `book_at` calls no book exact without it.

A partition is read as one of its manifests says, never as files lie in the folder: one that is replaced while it is
read comes wholly from before or wholly from after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_platform.errors import LakeCorrupt, LakeHole, LakeUnavailable
from kalshi_platform.lake.layout import LakeTable, Partition, lake_table, partition_at, partitions_between
from kalshi_platform.lake.manifest import Manifest, find_manifest
from kalshi_platform.lake.schema import Dataset, dataset
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.fold import sum_levels
from kalshi_platform.market.times import HOUR

Holes: TypeAlias = Literal["raise", "mark"]
_US = timedelta(microseconds=1)
_MOST_REPLACEMENTS = 5


def deltas(
    lake: Lake,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    holes: Holes = "raise",
    open: bool = False,
) -> pl.DataFrame:
    """Order-book changes by exchange_ts, columns of raw/orderbook_deltas, sorted by market and time."""
    return _read(lake, lake_table("raw/orderbook_deltas"), start, end, tickers, holes=holes, open=open)


def trades(
    lake: Lake,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    layer: Literal["raw", "processed"] = "raw",
    holes: Holes = "raise",
    open: bool = False,
) -> pl.DataFrame:
    """Trades by exchange_ts: scaled integers with provenance (`raw`), or dollars and contracts (`processed`)."""
    return _read(lake, lake_table(f"{layer}/trades"), start, end, tickers, holes=holes, open=open)


def candles(
    lake: Lake,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    holes: Holes = "raise",
    open: bool = False,
) -> pl.DataFrame:
    """One-minute candles by the start of their minute; a minute without a trade has no row."""
    return _read(lake, lake_table("aggregates/candles_1m"), start, end, tickers, holes=holes, open=open)


def book_at(
    lake: Lake,
    ticker: str,
    at: datetime,
    *,
    holes: Holes = "raise",
    open: bool = False,
    look_back: timedelta = timedelta(hours=24),
) -> pl.DataFrame:
    """The book of one market at the end of `at`: one row per level, `side, price_e4, count_e2`, ascending.

    It is the newest checkpoint at or before `at` plus the later deltas; `checkpoint_ts` and `exact` come with every
    row. `exact`: every hour between the two is there, closed, and complete for all markets that were recorded in it
    (`coverage_share` 1), so that no delta can be missing. Where other markets have holes it is False although this one
    may have none: `book_at` of production looks at the market's own coverage. Raises LakeHole when there is no
    checkpoint within `look_back`, an hour between it and `at` is missing, or a level is below zero, which only a lost
    delta explains. With `holes="mark"` the latter two give `exact = False` instead.
    """
    store = open_store(lake)
    checkpoint, complete = _newest_checkpoint(store, ticker, at, holes=holes, open=open, look_back=look_back)
    table = lake_table("raw/orderbook_deltas")
    changes, hours = _read_as(
        store, table, checkpoint["checkpoint_ts"] + _US, at + _US, [ticker], holes=holes, open=open
    )
    complete = complete and all(manifest is not None and manifest.coverage_share == 1 for manifest in hours)
    levels = sum_levels(pl.concat([_levels(checkpoint), changes.select("side", "price_e4", count_e2="delta_e2")]), ())
    negative = levels.filter(pl.col("count_e2") < 0)
    if holes == "raise" and negative.height:
        side, price_e4, count_e2 = negative.row(0)
        raise LakeHole(
            f"the book of {ticker} at {at.isoformat()} lacks changes: its {side} level at {price_e4} is {count_e2}"
        )
    return levels.with_columns(
        checkpoint_ts=pl.lit(checkpoint["checkpoint_ts"], pl.Datetime("us", "UTC")),
        exact=pl.lit(complete and not negative.height),
    )


@dataclass(frozen=True)
class Hole:
    """A partition that a reader wanted and that is not there: `missing`, or `open` while only closed ones count."""

    partition: Partition
    reason: Literal["missing", "open"]


def hole_list(lake: Lake, table: LakeTable, start: datetime, end: datetime, *, open: bool = False) -> list[Hole]:
    """The holes of a table in [start, end), ascending."""
    return [found for found in _look(open_store(lake), table, start, end, open) if isinstance(found, Hole)]


def holes(lake: Lake, table: str, start: datetime, end: datetime, *, open: bool = False) -> pl.DataFrame:
    """The holes of a table in [start, end): one row per missing partition, `start, end, reason`."""
    found = hole_list(lake, lake_table(table), start, end, open=open)
    return pl.DataFrame(
        [(hole.partition.start, hole.partition.end, hole.reason) for hole in found],
        schema={"start": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC"), "reason": pl.String},
        orient="row",
    )


def _read(
    lake: Lake,
    table: LakeTable,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None,
    *,
    holes: Holes,
    open: bool,
) -> pl.DataFrame:
    return _read_as(lake, table, start, end, tickers, holes=holes, open=open)[0]


def _read_as(
    lake: Lake,
    table: LakeTable,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None,
    *,
    holes: Holes,
    open: bool,
) -> tuple[pl.DataFrame, list[Manifest | None]]:
    """The rows, and the manifest by which each partition was read; None for a hole."""
    store, data = open_store(lake), dataset(table)
    found = list(_look(store, table, start, end, open))
    missing = [item for item in found if isinstance(item, Hole)]
    if missing and holes == "raise":
        names = ", ".join(f"{hole.partition.key} ({hole.reason})" for hole in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise LakeHole(
            f'{table.key} lacks {names}{more}; export them, or read with holes="mark"',
            missing=[hole.partition.key for hole in missing],
        )
    rows = _Selection(start, end, None if tickers is None else pa.array(list(tickers), pa.string()))
    frames, segment, after_hole = [_frame(data.schema.empty_table(), 0)], 0, False
    manifests: list[Manifest | None] = []
    for item in found:
        if isinstance(item, Hole):
            after_hole = True
            manifests.append(None)
            continue
        segment, after_hole = segment + after_hole, False
        content, manifest = _settled(store, item, data, rows)
        frames.append(_frame(content, segment))
        manifests.append(manifest)
    # Stable: what a data set does not show (the place in a stream) has put the rows of a file in order.
    frame = pl.concat(frames).sort(list(data.order), nulls_last=True, maintain_order=True)
    return frame if holes == "mark" else frame.drop("segment"), manifests


@dataclass(frozen=True)
class _Found:
    """A published partition: the folder that it lies in, and its manifest."""

    partition: Partition
    path: str
    manifest: Manifest


@dataclass(frozen=True)
class _Selection:
    """Which rows are wanted: those of a range of time, of some markets or of all."""

    start: datetime
    end: datetime
    tickers: pa.Array | None

    def filter(self, time_column: str, kind: pa.DataType) -> pc.Expression:
        """The selection as a filter over Parquet, whose time column has this name and type."""
        time = pc.field(time_column)
        rows = (time >= pa.scalar(self.start, kind)) & (time < pa.scalar(self.end, kind))
        return rows if self.tickers is None else pc.field("ticker").isin(self.tickers) & rows


def _look(store: ObjectStore, table: LakeTable, start: datetime, end: datetime, open: bool) -> Iterator[_Found | Hole]:
    for partition in partitions_between(table, start, end):
        found = find_manifest(store, partition)
        if found is None:
            yield Hole(partition, "missing")
        elif found[1].state == "open" and not open:
            yield Hole(partition, "open")
        else:
            yield _Found(partition, *found)


def _settled(store: ObjectStore, found: _Found, data: Dataset, rows: _Selection) -> tuple[pa.Table, Manifest]:
    """Rows of a partition, and the manifest they are read by: another one when it is replaced meanwhile."""
    for _ in range(_MOST_REPLACEMENTS):
        try:
            return _partition_rows(store, found, data, rows), found.manifest
        except (LakeCorrupt, LakeUnavailable):
            current = find_manifest(store, found.partition)
            if current is None or current[1] == found.manifest:
                raise
            found = _Found(found.partition, *current)
    raise LakeUnavailable(f"{found.path} is replaced again and again while it is read; read again")


def _partition_rows(store: ObjectStore, found: _Found, data: Dataset, rows: _Selection) -> pa.Table:
    """Rows of a partition in today's columns, also where an earlier version called some of them otherwise."""
    version = found.manifest.schema_version
    names = data.columns_of(version)
    if names is None:
        raise LakeCorrupt(
            f"{found.path} has schema version {version}, this reader knows {data.version}; export it again"
        )
    time_column = next((former for former, name in names.items() if name == data.time_column), data.time_column)
    wanted = rows.filter(time_column, data.schema.field(data.time_column).type)
    tables = [data.schema.empty_table()]
    for file in found.manifest.files:
        path = f"{found.path}/{file.name}"
        stream = store.open(path)
        size = -1 if stream is None else stream.seek(0, 2)
        if stream is None or size != file.bytes:
            raise LakeCorrupt(f"{path} has {max(size, 0)} bytes; its manifest says {file.bytes}")
        with stream:
            stream.seek(0)
            try:
                content = pq.read_table(stream, filters=wanted)
                today = content.rename_columns([names.get(name, name) for name in content.column_names])
                tables.append(today.cast(data.schema))
            except (pa.ArrowInvalid, ValueError) as error:
                raise LakeCorrupt(f"{path} cannot be read: {error}") from error
    return pa.concat_tables(tables)


def _frame(table: pa.Table, segment: int) -> pl.DataFrame:
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    return frame.with_columns(segment=pl.lit(segment, pl.Int32))


def _newest_checkpoint(
    store: ObjectStore, ticker: str, at: datetime, *, holes: Holes, open: bool, look_back: timedelta
) -> tuple[dict[str, Any], bool]:
    """The last checkpoint at or before `at`, and whether every hour that was searched is there."""
    table, complete = lake_table("raw/book_checkpoints"), True
    last = partition_at(table, at)
    hour = last.start
    while hour > last.start - look_back:
        found = _read(store, table, hour, min(hour + HOUR, at + _US), [ticker], holes=holes, open=open)
        if found.height:
            newest = found.filter(pl.col("checkpoint_ts") == pl.col("checkpoint_ts").max())
            return newest.row(0, named=True), complete
        complete = complete and not hole_list(store, table, hour, hour + HOUR, open=open)
        hour -= HOUR
    raise LakeHole(f"{ticker} has no checkpoint in the {look_back} before {at.isoformat()}: its book is not known")


def _levels(checkpoint: dict[str, Any]) -> pl.DataFrame:
    rows = [
        (side, price_e4, count_e2)
        for side in ("yes", "no")
        for price_e4, count_e2 in zip(checkpoint[f"{side}_price_e4"], checkpoint[f"{side}_count_e2"], strict=True)
    ]
    return pl.DataFrame(rows, schema={"side": pl.String, "price_e4": pl.Int32, "count_e2": pl.Int64}, orient="row")
