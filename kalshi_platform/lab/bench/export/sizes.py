"""Bytes a row of the lake's files, beside what the same rows take as plain libraries write them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_platform.lab.bench.result import table
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.export.parquet import writer_options
from kalshi_platform.lake.manifest import find_manifest, published
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore

MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Sizes:
    """Bytes a row of one data set. `rows`: how many of its rows were written anew for the comparison."""

    dataset: str
    rows: int
    lake: float
    pyarrow: float
    pyarrow_zstd: float
    polars: float
    columns: Mapping[str, float]
    """Ours, column by column."""


def measure_sizes(lake: Lake, most_rows: int = MOST_ROWS) -> list[Sizes]:
    """Compare each data set of a lake that has rows: up to `most_rows` of its latest partitions."""
    store = open_store(lake)
    measured = (_of_dataset(store, data, most_rows) for data in DATASETS.values())
    return [sizes for sizes in measured if sizes is not None]


def shown_sizes(sizes: Sequence[Sizes]) -> str:
    """The comparison as a table for people."""
    rows = [(each.dataset, each.rows, each.lake, each.polars, each.pyarrow_zstd, each.pyarrow) for each in sizes]
    return table(("bytes a row", "rows", "lake", "Polars", "pyarrow, zstd", "pyarrow"), rows)


def _of_dataset(store: ObjectStore, data: Dataset, most_rows: int) -> Sizes | None:
    pieces: list[pa.Table] = []
    rows = 0
    for piece in _latest(store, data):
        pieces.append(piece)
        rows += piece.num_rows
        if rows >= most_rows:
            break
    if not rows:
        return None
    content = pa.concat_tables(pieces).slice(0, most_rows).combine_chunks()
    rows = content.num_rows
    ours = _written(content, row_group_size=data.rows_per_group, **writer_options(data))
    return Sizes(
        data.key,
        rows,
        len(ours) / rows,
        len(_written(content)) / rows,
        len(_written(content, compression="zstd")) / rows,
        len(_by_polars(content)) / rows,
        _columns(ours, rows),
    )


def _latest(store: ObjectStore, data: Dataset) -> Iterator[pa.Table]:
    """The files of today's columns, those of the latest partition first."""
    for partition in sorted(published(store, data), reverse=True):
        found = find_manifest(store, partition)
        if found is None or found[1].schema_version != data.version:
            continue
        for file in found[1].files:
            with store.open(f"{found[0]}/{file.name}") or io.BytesIO() as stream:
                yield pq.read_table(stream).cast(data.schema)


def _written(content: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(content, buffer, **options)
    return buffer.getvalue()


def _by_polars(content: pa.Table) -> bytes:
    buffer = io.BytesIO()
    frame = pl.from_arrow(content)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - of a table
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _columns(file: bytes, rows: int) -> dict[str, float]:
    metadata = pq.read_metadata(io.BytesIO(file))
    found: dict[str, float] = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            name = column.path_in_schema.split(".")[0]
            found[name] = found.get(name, 0.0) + column.total_compressed_size / rows
    return {name: round(size, 3) for name, size in found.items()}
