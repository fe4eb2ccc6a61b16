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
    "integer[]": pa.list_(pa.int32()),
    "bigint[]": pa.list_(pa.int64()),
    "text[]": pa.list_(pa.string()),
    "numeric(9,4)": pa.decimal128(9, 4),
    "numeric(18,2)": pa.decimal128(18, 2),
}
"""Types that rows travel in; intervals and uuids are only made and read inside the database."""


@cache
def arrow_schema(table: Table, *without: str) -> pa.Schema:
    """The schema of `table.names`, fewer the columns `without`: what its Arrow data has and COPY carries."""
    return pa.schema(
        [(column.name, ARROW_TYPES[column.type]) for column in table.written if column.name not in without]
    )


Derived: TypeAlias = Mapping[str, tuple[tuple[str, ...], Callable[..., Any]]]
"""Columns that no field of their name fills: the fields that a function makes the value from, and the function."""
_Fields: TypeAlias = Sequence[Sequence[Any]]
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
        fields = {field: place for place, field in enumerate(kind.__struct_fields__)}
        self._arrays = [
            _array_maker(kind, table, column, fields, derived) for column in table.written if column.name not in without
        ]

    def __call__(self, rows: Sequence[msgspec.Struct]) -> pa.Table:
        """The table of `rows`, of which there is at least one."""
        fields: _Fields = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        return pa.Table.from_arrays([array(fields) for array in self._arrays], schema=self.schema)


def _array_maker(
    kind: type[msgspec.Struct], table: Table, column: Column, fields: Mapping[str, int], derived: Derived
) -> Callable[[_Fields], pa.Array]:
    arrow_type = ARROW_TYPES[column.type]
    if column.name in derived:
        names, value = derived[column.name]
        places = [fields[name] for name in names]
        return lambda values: pa.array(list(map(value, *(values[place] for place in places))), arrow_type)
    field = column.struct_field(fields)
    if field is None and column.nullable and column.since > 1:
        return lambda values: pa.nulls(len(values[0]), arrow_type)
    if field is None:
        raise KeyError(f"no field of {kind.__name__} fills {table.name}.{column.name}")
    place = fields[field]
    if field.endswith("_ns"):
        return lambda values: pc.divide(pa.array(values[place], pa.int64()), _NS_PER_US).view(arrow_type)
    if column.type == "timestamptz":
        return lambda values: pa.array(values[place], pa.int64()).view(arrow_type)
    return lambda values: pa.array(values[place], arrow_type)
