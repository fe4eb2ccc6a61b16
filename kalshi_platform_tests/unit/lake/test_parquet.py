"""Rows → files: the same rows give the same bytes, whatever batches they came in."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.export.parquet import decimals, regroup, to_schema, write_parts
from kalshi_platform.lake.layout import part_name
from kalshi_platform.storage.arrow import ARROW_TYPES
from kalshi_platform_tests.fixtures.lake import HOUR, row

TIMES = st.integers(0, 86_400_000_000).map(lambda us: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        return st.lists(values(kind.value_type), max_size=3)
    if pa.types.is_decimal(kind):
        return st.integers(-(10**8), 10**8).map(lambda units: Decimal(units).scaleb(-kind.scale))
    if pa.types.is_timestamp(kind):
        return TIMES
    if pa.types.is_string(kind):
        return st.sampled_from(["", "KXA-1", "KXB-2", "ü"])
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False)
    bits = 31 if kind == pa.int32() else 63
    return st.integers(-(2**bits), 2**bits - 1)


def rows_of(data: Dataset) -> st.SearchStrategy[pa.RecordBatch]:
    columns = {
        field.name: values(field.type) | st.none() if field.nullable else values(field.type) for field in data.schema
    }
    return st.lists(st.fixed_dictionaries(columns), max_size=20).map(
        lambda rows: pa.RecordBatch.from_pylist(rows, schema=data.schema)
    )


def cut(batch: pa.RecordBatch, places: list[int]) -> list[pa.RecordBatch]:
    edges = [0, *sorted(place % (batch.num_rows + 1) for place in places), batch.num_rows]
    return [batch.slice(low, high - low) for low, high in itertools.pairwise(edges)]


def written(batches: list[pa.RecordBatch], data: Dataset) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        parts = write_parts(batches, data, Path(folder), groups_per_file=2)
        contents = [file.path.read_bytes() for file in parts.files]
        assert [file.sha256 for file in parts.files] == [hashlib.sha256(content).hexdigest() for content in contents]
        assert [file.bytes for file in parts.files] == [len(content) for content in contents]
        return contents


@pytest.mark.parametrize("key", sorted(DATASETS))
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_split_into_batches_gives_identical_bytes(key: str, draw: st.DataObject) -> None:
    data = replace(DATASETS[key], rows_per_group=3)
    batch = draw.draw(rows_of(data))
    whole = written([batch], data)
    # Copies of the pieces have buffers of their own, as batches from a driver do; slices share them.
    pieces = cut(batch, draw.draw(st.lists(st.integers(0, 1000), max_size=6)))
    copies = [pa.RecordBatch.from_pylist(piece.to_pylist(), schema=data.schema) for piece in pieces]
    assert written(pieces, data) == whole
    assert written(copies, data) == whole


@pytest.mark.parametrize("key", sorted(DATASETS))
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_what_was_written_is_read_back(key: str, draw: st.DataObject) -> None:
    data = replace(DATASETS[key], rows_per_group=3)
    batch = draw.draw(rows_of(data))
    with tempfile.TemporaryDirectory() as folder:
        parts = write_parts([batch], data, Path(folder), groups_per_file=2)
        assert parts.rows == batch.num_rows
        # From 6 rows on there are several files.
        assert len(parts.files) == max(1, -(-batch.num_rows // 6))
        back = pa.concat_tables([pq.read_table(file.path) for file in parts.files])
        assert back.cast(data.schema).to_pylist() == batch.to_pylist()
        times = [moment for moment in batch.column(data.time_column).to_pylist() if moment is not None]
        assert (parts.time_min, parts.time_max) == (min(times, default=None), max(times, default=None))


def test_each_file_tells_the_span_of_its_tickers(tmp_path: Path) -> None:
    data = replace(DATASETS["raw/orderbook_deltas"], rows_per_group=2)
    tickers = ["KXA", "KXB", "KXB", "kxa", "ü", "字"]
    rows = [row(data, HOUR, ticker=ticker) for ticker in tickers]
    parts = write_parts([pa.RecordBatch.from_pylist(rows, schema=data.schema)], data, tmp_path, groups_per_file=1)
    assert [(file.ticker_min, file.ticker_max) for file in parts.files] == [("KXA", "KXB"), ("KXB", "kxa"), ("ü", "字")]
    (empty,) = write_parts([], data, tmp_path).files
    assert (empty.ticker_min, empty.ticker_max) == (None, None)


def test_a_changed_row_changes_the_bytes() -> None:
    data = DATASETS["aggregates/daily_volume"]
    one: dict[str, object] = {field.name: None if field.nullable else 0 for field in data.schema}
    one |= {"ticker": "A", "event_ticker": "A", "series_ticker": "A", "day": datetime(2026, 1, 1, tzinfo=UTC)}
    first = pa.RecordBatch.from_pylist([one], schema=data.schema)
    second = pa.RecordBatch.from_pylist([one | {"trades": 1}], schema=data.schema)
    assert written([first], data) != written([second], data)


@pytest.mark.parametrize("key", sorted(DATASETS))
def test_an_empty_partition_is_one_file_that_duckdb_and_polars_read(key: str, tmp_path: Path) -> None:
    data = DATASETS[key]
    parts = write_parts([], data, tmp_path)
    assert [file.path.name for file in parts.files] == [part_name(0, parts.files[0].sha256)]
    assert (parts.rows, parts.time_min, parts.time_max) == (0, None, None)
    assert pl.read_parquet(tmp_path / "*.parquet").columns == data.schema.names
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/*.parquet'").fetchall() == [(0,)]


def test_encodings_and_order_are_those_that_were_requested(tmp_path: Path) -> None:
    data = DATASETS["raw/orderbook_deltas"]
    row = {"exchange_ts": datetime(2026, 1, 1, tzinfo=UTC), "received_at": datetime(2026, 1, 1, tzinfo=UTC)}
    texts = {"ticker": "A", "side": "yes", "gatherer": "g1"}
    numbers = dict.fromkeys(("price_e4", "delta_e2", "occurrence", "stream_id", "seq"), 1)
    batch = pa.RecordBatch.from_pylist([row | texts | numbers] * 100, schema=data.schema)
    (file,) = write_parts([batch], data, tmp_path, about={"kalshi.state": "open"}).files
    assert pq.read_schema(file.path).metadata == {**data.schema.metadata, b"kalshi.state": b"open"}
    group = pq.read_metadata(file.path).row_group(0)
    for index, name in enumerate(data.schema.names):
        column = group.column(index)
        assert column.compression == "ZSTD"
        growing = name in {"exchange_ts", "received_at", "seq"}
        assert ("DELTA_BINARY_PACKED" if growing else "RLE_DICTIONARY") in column.encodings, name
        assert column.has_column_index, name
        assert column.has_offset_index, name
    order = [data.schema.names[column.column_index] for column in group.sorting_columns]
    assert order == list(data.order)


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 5))
def test_regrouping_keeps_rows_and_order(sizes: list[int], rows: int) -> None:
    schema = pa.schema([("n", pa.int64())])
    numbers = iter(range(1000))
    batches = [pa.RecordBatch.from_pydict({"n": [next(numbers) for _ in range(size)]}, schema) for size in sizes]
    groups = list(regroup(batches, schema, rows))
    assert [number for group in groups for number in group.column("n").to_pylist()] == list(range(sum(sizes)))
    assert all(group.num_rows == rows for group in groups[:-1])
    assert all(0 < group.num_rows <= rows for group in groups)


@given(st.lists(st.none() | st.integers(-(10**9) + 1, 10**9 - 1)), st.integers(0, 3))
def test_decimals_are_exact(units: list[int | None], skipped: int) -> None:
    array = pa.array(units, pa.int32()).slice(min(skipped, len(units)))
    expected = [None if unit is None else Decimal(unit).scaleb(-4) for unit in units[skipped:]]
    assert decimals(array, ARROW_TYPES["numeric(9,4)"]).to_pylist() == expected


def test_a_number_too_big_for_its_decimal_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        decimals(pa.array([10**18]), ARROW_TYPES["numeric(18,2)"])


def test_batches_take_the_names_and_types_of_the_data_set() -> None:
    data = DATASETS["aggregates/daily_volume"]
    day = datetime(2026, 1, 1, tzinfo=UTC)
    batch = pa.RecordBatch.from_pylist(
        [
            {
                "a": "K-X-A",
                "b": day,
                "e": "K-X",
                "s": "K",
                "t": 6,
                "v": 5,
                "d": 123,
                "u": 8,
                "w": 7,
                "h": 2,
                "l": None,
                "o": 4,
            }
        ]
    )
    batch = batch.set_column(10, "l", pa.array([None], pa.int32()))
    shaped = to_schema(batch, data)
    assert shaped.schema.equals(data.schema, check_metadata=True)
    assert list(shaped.to_pylist()[0].values()) == [
        "K-X-A",
        day,
        "K-X",
        "K",
        6,
        Decimal("0.05"),
        Decimal("0.000123"),
        8,
        Decimal("0.07"),
        Decimal("0.0002"),
        None,
        Decimal("0.04"),
    ]
