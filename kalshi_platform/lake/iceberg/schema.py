"""A data set as an Iceberg table: its columns with ids and meanings, its partitions, and how its files are to be read.

Pure. The files name the ids of their columns. Those of earlier versions do not: for them a name mapping in the table's
properties says which column is which, by former names, too.
"""

from __future__ import annotations

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
from kalshi_platform.market.tables import Column
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
    """The columns of a data set by their ids, in the order in which they came."""
    fields = [
        NestedField(
            data.field_ids[column.name].column,
            column.name,
            _iceberg_type(field.type, data.field_ids[column.name].element),
            required=_is_required(data, column),
            doc=column.comment,
        )
        for column, field in zip(data.columns, data.schema, strict=True)
    ]
    return Schema(*sorted(fields, key=lambda field: field.field_id))


def steps(data: Dataset) -> list[Schema]:
    """The columns of each version: a catalog that takes these one after the other gives the ids of the data set."""
    schema = table_schema(data)
    versions = sorted(set(data.first_versions.values()))
    return [Schema(*(each for each in schema.fields if data.first_versions[each.name] <= last)) for last in versions]


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


def ids_by_path(data: Dataset, parquet_schema: pa.Schema) -> dict[str, int] | None:
    """Path of a column in a file → its id; None where one is missing, or another than the data set's.

    Files of earlier versions name no ids: their columns are known by today's name or the former one.
    """
    former = {column.formerly: column.name for column in data.columns if column.formerly}
    found: dict[str, int] = {}
    present = set()
    for field in parquet_schema:
        name = field.name if field.name in data.field_ids else former.get(field.name)
        if name is None or not field.type.equals(data.schema.field(name).type):
            return None
        present.add(name)
        ids = data.field_ids[name]
        if (field.metadata or {}).get(b"PARQUET:field_id", b"%d" % ids.column) != b"%d" % ids.column:
            return None
        found[field.name if ids.element is None else f"{field.name}.list.element"] = ids.element or ids.column
    needed = {column.name for column in data.columns if _is_required(data, column)}
    return found if needed <= present else None


def _is_required(data: Dataset, column: Column) -> bool:
    """Whether every file has a value of it, also those of versions before the column."""
    return not column.nullable and data.first_versions[column.name] == min(data.first_versions.values())


def _mapped(field_id: int, names: list[str], fields: Sequence[MappedField] = ()) -> MappedField:
    return MappedField.model_validate({"field-id": field_id, "names": names, "fields": list(fields)})


def _iceberg_type(kind: pa.DataType, element_id: int | None = None) -> IcebergType:
    if pa.types.is_decimal(kind):
        return DecimalType(kind.precision, kind.scale)
    if pa.types.is_fixed_size_binary(kind):
        return FixedType(kind.byte_width)
    if element_id is not None:
        return ListType(element_id, _iceberg_type(kind.value_type), element_required=False)
    return _SIMPLE[kind]
