"""Feeds a day's raw hours to builders, some neighbouring markets at a time, and yields the rows of the data set.

Memory holds the raw rows of one *chunk* of markets over the whole day, which are read once, and works through it in
groups that may be smaller where a builder's rows take more memory than what they are made from. A market that is bigger
than a chunk goes through a builder of its own, an hour or a part of one at a time, and its rows are passed on at once.
How the markets are put together and the hours are cut leaves no trace in the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from kalshi_platform.errors import LakeCorrupt, StaleInput
from kalshi_platform.lake.builders.builder import Builder, HourRows
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.derive.raw_hours import RawHours, RawPartition
from kalshi_platform.lake.derive.raw_rows import RawRows
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.times import US_PER_HOUR, us_from_datetime

CHUNK_BYTES = 8 * 1024 * 1024
"""Raw rows held at once, as they lie in memory."""
PART_BYTES = 2 * 1024 * 1024
"""Raw rows of one big market that are given to its builder at once."""
_BATCHES_PER_GROUP = 4
"""Of a row group that is written: rows on their way there are few, where rows are big."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Hour:
    start_us: int
    in_day: bool
    inputs: Mapping[str, RawRows]


def derive_day(
    store: ObjectStore, raw: RawHours, folder: Path, *, chunk_bytes: int = CHUNK_BYTES, part_bytes: int = PART_BYTES
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a partition in its order, columns as its data set names them.

    The raw files are put into `folder` first, so that none is replaced while it is read. Raises StaleInput (one is
    replaced just then), LakeCorrupt, LakeArchived, LakeUnavailable.
    """
    data = raw.partition.dataset
    assert data.builder is not None, data.key  # noqa: S101 - the caller asks for what can be derived
    hours = _open_hours(store, raw, folder)
    tickers = _number_markets(hours)
    groups = _groups_of_markets(_bytes_by_market(hours, len(tickers)), chunk_bytes, data.growth)
    for chunk in groups:
        low, high = chunk[0][0], chunk[-1][1]
        if high - low == 1 and len(tickers):
            parts = _parts_of_market(hours, low, tickers[low], int(part_bytes / max(data.growth, 1)))
            yield from _batches(_run(data.builder(), parts), data)
            continue
        rows = [{key: each.read(low, high) for key, each in hour.inputs.items()} for hour in hours]
        for first, last in chunk:
            market_rows = _hours_of_markets(hours, rows, first, last, tickers[first:last])
            yield from _batches(_by_market(list(_run(data.builder(), market_rows)), data), data)


def _open_hours(store: ObjectStore, raw: RawHours, folder: Path) -> list[_Hour]:
    data, day = raw.partition.dataset, raw.partition
    hours = []
    for hour in raw.hours:
        inputs = {}
        for key, columns in data.inputs.items():
            published, files = raw.found[key].get(hour), []
            names: Mapping[str, str | None] = {column: column for column in columns}
            if published is not None:
                names, files = _names(published), _fetch(store, published, folder)
            inputs[key] = RawRows(DATASETS[key], columns, names, files)
        hours.append(_Hour(us_from_datetime(hour), day.start <= hour < day.end, inputs))
    return hours


def _names(published: RawPartition) -> Mapping[str, str | None]:
    data = published.partition.dataset
    names = data.names_in(published.manifest.schema_version)
    if names is None:
        raise LakeCorrupt(
            f"{published.path} has schema version {published.manifest.schema_version}, this version knows"
            f" {data.version}; export it again"
        )
    return names


def _fetch(store: ObjectStore, published: RawPartition, folder: Path) -> list[Path]:
    files = []
    for file in published.manifest.files:
        path = f"{published.path}/{file.name}"
        target = folder / path.replace("/", "_")
        if not store.fetch(path, target):
            raise StaleInput(
                f"{path} is gone: the hour is exported again just now, or was damaged; try again when that is done",
                missing=[f"{published.partition.dataset.key} {published.partition.key}"],
            )
        if target.stat().st_size != file.bytes:
            raise LakeCorrupt(f"{path} has {target.stat().st_size} bytes; its manifest says {file.bytes}")
        files.append(target)
    return files


def _number_markets(hours: Iterable[_Hour]) -> list[str]:
    """All markets, ascending by bytes, which Python's order of texts is too; each row group learns their numbers."""
    each_input = [rows for hour in hours for rows in hour.inputs.values()]
    tickers = sorted(set().union(*(rows.tickers() for rows in each_input)))
    codes = {ticker: code for code, ticker in enumerate(tickers)}
    for rows in each_input:
        rows.number(codes)
    return tickers


def _bytes_by_market(hours: Iterable[_Hour], markets: int) -> Ints:
    size = np.zeros(markets, np.int64)
    for hour in hours:
        for rows in hour.inputs.values():
            rows.add_bytes(size)
    return size


def _groups_of_markets(size: Ints, chunk_bytes: int, growth: float) -> Iterator[list[tuple[int, int]]]:
    """Cut the markets into chunks, and these into groups: ranges of numbers whose rows a builder gets at once.

    A market that is bigger than a group is a chunk of its own.
    """
    group_bytes = chunk_bytes / max(growth, 1)
    chunk: list[tuple[int, int]] = []
    first = in_chunk = in_group = 0
    for code, weight in enumerate(size.tolist()):
        is_big = weight > group_bytes
        ends_chunk = is_big or in_chunk + weight > chunk_bytes
        if first < code and (ends_chunk or in_group + weight > group_bytes):
            chunk.append((first, code))
            first, in_group = code, 0
        if ends_chunk and chunk:
            yield chunk
            chunk, in_chunk = [], 0
        if is_big:
            yield [(code, code + 1)]
            first = code + 1
            continue
        in_chunk += weight
        in_group += weight
    if first < len(size):
        chunk.append((first, len(size)))
    if chunk:
        yield chunk


def _hours_of_markets(
    hours: Iterable[_Hour],
    rows: Iterable[Mapping[str, tuple[Ints, pl.DataFrame]]],
    first: int,
    last: int,
    tickers: list[str],
) -> Iterator[HourRows]:
    markets = pl.Enum(tickers)
    for hour, of_hour in zip(hours, rows, strict=True):
        frames = {}
        for key, (codes, frame) in of_hour.items():
            low, high = np.searchsorted(codes, (first, last))
            frames[key] = _with_ticker(codes[low:high] - first, markets, frame[int(low) : int(high)])
        yield HourRows(hour.start_us, hour.start_us + US_PER_HOUR, hour.in_day, frames)


def _parts_of_market(hours: Iterable[_Hour], code: int, ticker: str, part_bytes: int) -> Iterator[HourRows]:
    market = pl.Enum([ticker])
    for hour in hours:
        biggest = max(hour.inputs.values(), key=lambda rows: rows.bytes_of(code))
        end_us = hour.start_us + US_PER_HOUR
        inner = [cut for cut in biggest.cuts(code, part_bytes) if hour.start_us < cut < end_us]
        for low, high in zip([hour.start_us, *inner], [*inner, end_us], strict=True):
            frames = {}
            for key, rows in hour.inputs.items():
                frame = rows.read_between(code, low, high)
                frames[key] = _with_ticker(np.zeros(frame.height, np.int64), market, frame)
            yield HourRows(low, high, hour.in_day, frames)


def _with_ticker(codes: Ints, markets: pl.Enum, frame: pl.DataFrame) -> pl.DataFrame:
    ticker = pl.Series("ticker", codes.astype(np.uint32)).cat.to(markets)
    return frame.insert_column(0, ticker) if frame.width else ticker.to_frame()


def _run(builder: Builder, hours: Iterator[HourRows]) -> Iterator[pl.DataFrame]:
    for hour in hours:
        rows = builder.add(hour)
        if rows.height:
            yield rows
    rows = builder.finish()
    if rows.height:
        yield rows


def _by_market(frames: list[pl.DataFrame], data: Dataset) -> Iterator[pl.DataFrame]:
    """Put the rows of several markets into the order of the markets, some at a time."""
    if not frames:
        return
    rows = pl.concat(frames, rechunk=True)
    frames.clear()
    # Stable: the rows of each market are in order already.
    order = np.argsort(rows.get_column("ticker").to_physical().to_numpy(), kind="stable")
    at_once = _rows_at_once(data)
    for low in range(0, len(order), at_once):
        yield rows[order[low : low + at_once]]


def _rows_at_once(data: Dataset) -> int:
    return max(1, data.rows_per_group // _BATCHES_PER_GROUP)


def _batches(frames: Iterable[pl.DataFrame], data: Dataset) -> Iterator[pa.RecordBatch]:
    columns = data.schema.names
    for frame in frames:
        chosen = frame.select(columns)
        for piece in chosen.iter_slices(_rows_at_once(data)):
            yield from piece.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()
