"""How much a range is before anything of it is read: files, rows and bytes, by the manifests alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import polars as pl

from kalshi_platform.lake.layout import Partition, find_dataset, partitions_between
from kalshi_platform.lake.manifest import find_manifest
from kalshi_platform.lake.reader.source import Selection, Source, make_source
from kalshi_platform.lake.store import Lake

# A request to a bucket is mostly waiting.
_AT_ONCE = 16
_SCHEMA = {
    "dataset": pl.String,
    "partitions": pl.Int64,
    "missing": pl.Int64,
    "files": pl.Int64,
    "rows": pl.Int64,
    "bytes": pl.Int64,
}


def estimate(
    lake: Lake | Source,
    datasets: str | Sequence[str],
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    open: bool = False,
) -> pl.DataFrame:
    """What reading [start, end) of some data sets takes at most: one row each, whole partitions counted.

    Columns: dataset, partitions, missing (partitions that are not there), files, rows, bytes. With `tickers` only
    files that may hold one of these markets count, with all their rows. Raises UnknownPartition, LakeUnavailable.
    """
    source = make_source(lake, open=open)
    rows = Selection(start, end, None if tickers is None else tuple(tickers))
    names = [datasets] if isinstance(datasets, str) else list(datasets)
    found = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name in names:
            data = find_dataset(name)
            partitions = list(partitions_between(data, start, end)) if start < end else []
            counts = list(pool.map(lambda each: _count(source, each, rows), partitions))
            there = [count for count in counts if count is not None]
            sums = (sum(count[place] for count in there) for place in range(3))
            found.append((data.key, len(there), len(counts) - len(there), *sums))
    return pl.DataFrame(found, schema=_SCHEMA, orient="row")


def _count(source: Source, partition: Partition, rows: Selection) -> tuple[int, int, int] | None:
    """Files, rows and bytes of a partition that may be wanted; None where it is not there."""
    published = find_manifest(source.store, partition)
    if published is None or (published[1].state == "open" and not source.open):
        return None
    wanted = [file for file in published[1].files if file.rows and rows.may_be_in(file.ticker_min, file.ticker_max)]
    return len(wanted), sum(file.rows for file in wanted), sum(file.bytes for file in wanted)
