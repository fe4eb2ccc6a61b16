"""Structs become Arrow tables in the columns of a table's definition."""

from __future__ import annotations

import msgspec
import pytest

from kalshi_platform.market.tables import DATABASES, Column, Table
from kalshi_platform.storage.arrow import ARROW_TYPES, ArrowBuilder, arrow_schema


class Sample(msgspec.Struct, frozen=True):
    at_us: int | None
    read_ns: int | None
    price_e4: int
    levels: tuple[tuple[int, int], ...] = ()


TABLE = Table(
    "samples",
    "One row per sample.",
    (
        Column("at", "timestamptz", "When.", nullable=True),
        Column("read", "timestamptz", "When it was read.", nullable=True),
        Column("price_e4", "integer", "Price."),
        Column("prices", "integer[]", "Prices."),
        Column("batch_no", "bigint", "Batch."),
        Column("sample_id", "bigint", "Number.", generated=True),
    ),
)


def test_fields_fill_the_columns_of_their_name_in_its_unit() -> None:
    build = ArrowBuilder(
        Sample, TABLE, {"prices": (("levels",), lambda levels: [price for price, _ in levels])}, without=("batch_no",)
    )
    made = build([Sample(7, 7_999, 5, ((1, 2), (3, 4))), Sample(None, None, 6)])
    assert made.schema == arrow_schema(TABLE, "batch_no")
    assert made.column("at").cast("int64").to_pylist() == [7, None]
    assert made.column("read").cast("int64").to_pylist() == [7, None]
    assert made.column("price_e4").to_pylist() == [5, 6]
    assert made.column("prices").to_pylist() == [[1, 3], []]


def test_a_column_without_a_field_is_refused_when_the_builder_is_made() -> None:
    with pytest.raises(KeyError, match=r"no field of Sample fills samples\.prices"):
        ArrowBuilder(Sample, TABLE, without=("batch_no",))


def test_a_column_that_came_later_is_null_until_the_struct_has_its_field() -> None:
    later = Table("samples", "One row per sample.", (*TABLE.columns[:3], Column("n", "text", "New.", True, since=2)))
    assert ArrowBuilder(Sample, later)([Sample(1, 2, 3)]).column("n").to_pylist() == [None]


def test_every_time_series_table_has_an_arrow_type_for_each_column_that_is_written() -> None:
    for tables in DATABASES.values():
        for table in tables.values():
            if table.time_column:
                assert arrow_schema(table).names == list(table.names)
                assert all(column.type in ARROW_TYPES for column in table.written)
