"""A table's columns as Arrow: the types that COPY is encoded from and that Parquet files carry, and structs as columns.

Times are `timestamp[us, UTC]`; Arrow arrays of such a column may be made straight from integers of microseconds.
jsonb travels as text and is cast by the statement that inserts it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_platform.market.tables import Column, SqlType, Table

ARROW_TYPES: Mapping[SqlType, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
    "uuid": pa.binary(16),
    "integer[]": pa.list_(pa.int32()),
    "bigint[]": pa.list_(pa.int64()),
    "text[]": pa.list_(pa.string()),
    "numeric(9,4)": pa.decimal128(9, 4),
    "numeric(18,2)": pa.decimal128(18, 2),
    "numeric(18,6)": pa.decimal128(18, 6),
    "numeric(9,4)[]": pa.list_(pa.decimal128(9, 4)),
    "numeric(18,2)[]": pa.list_(pa.decimal128(18, 2)),
}
"""Types that rows travel in; intervals are only made and read inside the database."""


@cache
def arrow_schema(table: Table, *without: str) -> pa.Schema:
    """The schema of `table.names`, fewer the columns `without`: what its Arrow data has and COPY carries."""
    return pa.schema(
        [(column.name, ARROW_TYPES[column.type]) for column in table.written if column.name not in without]
    )


Derived: TypeAlias = Mapping[str, tuple[tuple[str, ...], Callable[..., Any]]]
"""Columns that no field of their name fills: the fields that a function makes the value from, and the function."""
_Rows: TypeAlias = Sequence[msgspec.Struct]
_NS_PER_US = 1_000
_NOTHING_DERIVED: Derived = MappingProxyType({})


class ArrowBuilder:
    """Makes Arrow tables of structs of one type, in the columns of `table`, fewer those of `without`.

    A column is filled from the field of its name; a time from the field with the unit `_us` or `_ns`. That is settled
    when the builder is made, so that no row costs a look-up. A column that came later and may be null is null until the
    struct has its field; any other without one raises KeyError.
    """

    def __init__(
        self,
        kind: type[msgspec.Struct],
        table: Table,
        derived: Derived = _NOTHING_DERIVED,
        *,
        without: tuple[str, ...] = (),
    ) -> None:
        self.schema = arrow_schema(table, *without)
        self._arrays = [
            _array_maker(kind, table, column, derived) for column in table.written if column.name not in without
        ]

    def __call__(self, rows: _Rows) -> pa.Table:
        """The table of `rows`."""
        return pa.Table.from_arrays([array(rows) for array in self._arrays], schema=self.schema)


def _array_maker(
    kind: type[msgspec.Struct], table: Table, column: Column, derived: Derived
) -> Callable[[_Rows], pa.Array]:
    arrow_type = ARROW_TYPES[column.type]
    if column.name in derived:
        names, value = derived[column.name]
        readers = [_reader(name) for name in names]
        return lambda rows: pa.array(list(map(value, *(read(rows) for read in readers))), arrow_type)
    field = column.struct_field(kind.__struct_fields__)
    if field is None and column.nullable and column.since > 1:
        return lambda rows: pa.nulls(len(rows), arrow_type)
    if field is None:
        raise KeyError(f"no field of {kind.__name__} fills {table.name}.{column.name}")
    read = _reader(field)
    if field.endswith("_ns"):
        return lambda rows: pc.divide(pa.array(read(rows), pa.int64()), _NS_PER_US).view(arrow_type)
    if column.type == "timestamptz":
        return lambda rows: pa.array(read(rows), pa.int64()).view(arrow_type)
    return lambda rows: pa.array(read(rows), arrow_type)


def _reader(field: str) -> Callable[[_Rows], list[Any]]:
    """Make a function that lists one field of structs.

    It is compiled from a text, because every recorded row passes here: a table of 100,000 deltas takes 53 ms of CPU,
    and with attrgetter, getattr or astuple 61, 67 or 75 ms. The text holds nothing but the name of a field of a struct,
    which the assertion keeps true.
    """
    assert field.isidentifier(), field  # noqa: S101 - names of fields come from the code alone
    made: Callable[[_Rows], list[Any]] = eval(f"lambda rows: [row.{field} for row in rows]")  # noqa: S307 - see above
    return made
