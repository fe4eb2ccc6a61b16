"""Ranges as lazy frames over the files that the manifests name: Polars reads what a query needs, when it is collected.

The files are those of the moment of the scan. One that is replaced before the frame is collected is gone, and Polars
says so: scan again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

import polars as pl

from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.layout import find_dataset
from kalshi_platform.lake.reader.coverage import require_whole
from kalshi_platform.lake.reader.frames import OF_BOOKS, require_partitions, text_of_trade_id
from kalshi_platform.lake.reader.source import AbsentPartition, Published, Selection, Source, make_source, names_of
from kalshi_platform.lake.reader.unknown_books import find_lacking
from kalshi_platform.lake.store import Lake
from kalshi_platform.lake.store.objects import ObjectStore

ScanHoles: TypeAlias = Literal["raise", "allow"]


def scan(
    lake: Lake | Source,
    dataset: str,
    start: datetime,
    end: datetime,
    tickers: Sequence[str] | None = None,
    *,
    holes: ScanHoles = "raise",
    open: bool = False,
) -> pl.LazyFrame:
    """Scan [start, end) of any data set, `layer/name`; rows come partition by partition, each in the set's order.

    Raises MissingPartition and, for data sets of books, HoleInRange; with `holes="allow"` neither (see `holes()` for
    what is missing). Raises LakeCorrupt for files of a version that cannot be read, LakeUnavailable, and
    ConfigurationError for S3 with certificate authorities that Polars does not trust.
    """
    data, source = find_dataset(dataset), make_source(lake, open=open)
    with source.session():
        found = list(source.find(data, start, end))
        if holes == "raise":
            require_partitions(data, [each for each in found if isinstance(each, AbsentPartition)])
            if data.key in OF_BOOKS:
                lost = find_lacking(source, data, start, end, tickers)
                require_whole(lost, f"{data.key} has holes", allow_unclosed=source.takes_unclosed)
    rows = Selection(start, end, None if tickers is None else tuple(tickers))
    frame = _scan_files(source.store, data, [each for each in found if isinstance(each, Published)], rows)
    wanted = (pl.col(data.time_column) >= start) & (pl.col(data.time_column) < end)
    if tickers is not None and "ticker" in data.schema.names:
        wanted = wanted & pl.col("ticker").is_in(list(tickers))
    frame = frame.filter(wanted)
    shown = text_of_trade_id(frame.collect_schema())
    return frame if shown is None else frame.with_columns(shown).drop("trade_id_text", strict=False)


def _scan_files(store: ObjectStore, data: Dataset, partitions: Sequence[Published], rows: Selection) -> pl.LazyFrame:
    """The files that may hold wanted rows, in today's columns."""
    today = pl.DataFrame(data.schema.empty_table()).schema
    # Neighbouring partitions of one version are one scan.
    scans: list[tuple[Mapping[str, str | None], list[str]]] = []
    for published in partitions:
        names = names_of(published)
        paths = [
            store.address(f"{published.path}/{file.name}")
            for file in published.manifest.files
            if file.rows and rows.may_be_in(file.ticker_min, file.ticker_max)
        ]
        if scans and scans[-1][0] == names:
            scans[-1][1].extend(paths)
        else:
            scans.append((names, paths))
    frames = [
        _scan(store, paths).select(
            (pl.lit(None) if names[name] is None else pl.col(names[name] or name)).cast(kind).alias(name)
            for name, kind in today.items()
        )
        for names, paths in scans
        if paths
    ]
    return pl.concat(frames) if frames else pl.LazyFrame(schema=today)


def _scan(store: ObjectStore, paths: list[str]) -> pl.LazyFrame:
    options = dict(store.scan_options)
    how: dict[str, Any] = {"storage_options": options} if options else {}
    if "aws_access_key_id" in options:
        how["credential_provider"] = None
    return pl.scan_parquet(paths, glob=False, hive_partitioning=False, **how)
