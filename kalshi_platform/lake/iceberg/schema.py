"""A data set as an Iceberg table: its columns with ids and meanings, its partitions, and how its files are to be read.

Pure. The files carry no ids of columns: a name mapping in the table's properties says which column is which, former
names among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.name_mapping import MappedField, NameMapping
from pyiceberg.transforms import DayTransform, HourTransform, Transform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DecimalType,
    DoubleType,
    FixedType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.market.times import HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIMPLE: dict[pa.DataType, IcebergType] = {
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float64(): DoubleType(),
    pa.timestamp("us", tz="UTC"): TimestamptzType(),
}


def table_schema(data: Dataset) -> Schema:
    """The columns of a data set, in the order of the files."""
    ids = itertools.count(len(data.columns) + 1)
    fields = [
        NestedField(
            number, column.name, _iceberg_type(field.type, ids), required=not column.nullable, doc=column.comment
        )
        for number, (column, field) in enumerate(zip(data.columns, data.schema, strict=True), 1)
    ]
    return Schema(*fields)


def partition_spec(data: Dataset, schema: Schema) -> PartitionSpec:
    """How the table is partitioned: by hour (raw) or day of its time, where that is where its rows lie.

    The rows of a raw table lie in the hour of their partition, and what has an `exchange_ts` in its day. Other times
    (the end of a candle, the end of the day) may be the first moment after it: such tables are not partitioned, and
    engines pass over files by their smallest and largest time.
    """
    if data.layer != "raw" and data.time_column != "exchange_ts":
        return UNPARTITIONED_PARTITION_SPEC
    source = schema.find_field(data.time_column).field_id
    transform: Transform[int, int] = HourTransform() if data.kind == "hourly" else DayTransform()
    name = f"{data.time_column}_{'hour' if data.kind == 'hourly' else 'day'}"
    return PartitionSpec(PartitionField(source, 1000, transform, name))


def partition_value(data: Dataset, spec: PartitionSpec, start: datetime) -> Record:
    """The partition of a file whose rows lie in the partition that begins at `start`."""
    if spec.is_unpartitioned():
        return Record()
    return Record((start - _EPOCH) // HOUR if data.kind == "hourly" else (start - _EPOCH).days)


def name_mapping(data: Dataset, schema: Schema) -> NameMapping:
    """Which column of a file is which of the table, by today's name and those before."""
    former = {column.name: column.formerly for column in data.columns}
    fields = []
    for field in schema.fields:
        names = [field.name, *filter(None, [former.get(field.name)])]
        nested: list[MappedField] = []
        if isinstance(field.field_type, ListType):
            nested = [_mapped(field.field_type.element_id, ["element"])]
        fields.append(_mapped(field.field_id, names, nested))
    return NameMapping(fields)


def ids_by_path(data: Dataset, schema: Schema, parquet_schema: pa.Schema) -> dict[str, int] | None:
    """Path of a column in a file → id in the table; None where a column is missing, unknown, or of another type."""
    former = {column.formerly: column.name for column in data.columns if column.formerly}
    found: dict[str, int] = {}
    for field in parquet_schema:
        name = field.name if field.name in data.schema.names else former.get(field.name)
        if name is None or not field.type.equals(data.schema.field(name).type):
            return None
        column = schema.find_field(name)
        if isinstance(column.field_type, ListType):
            found[f"{field.name}.list.element"] = column.field_type.element_id
        else:
            found[field.name] = column.field_id
    present = set(parquet_schema.names) | {former.get(name, name) for name in parquet_schema.names}
    needed = {column.name for column in data.columns if not column.nullable}
    return found if needed <= present else None


def _mapped(field_id: int, names: list[str], fields: Sequence[MappedField] = ()) -> MappedField:
    return MappedField.model_validate({"field-id": field_id, "names": names, "fields": list(fields)})


def _iceberg_type(kind: pa.DataType, ids: itertools.count[int]) -> IcebergType:
    if pa.types.is_decimal(kind):
        return DecimalType(kind.precision, kind.scale)
    if pa.types.is_fixed_size_binary(kind):
        return FixedType(kind.byte_width)
    if pa.types.is_list(kind):
        return ListType(next(ids), _iceberg_type(kind.value_type, ids), element_required=False)
    return _SIMPLE[kind]
