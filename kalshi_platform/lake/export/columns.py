"""Record batches as the database gives them → record batches in a data set's schema. Pure, exact, no floats."""

from __future__ import annotations

import pyarrow as pa

from kalshi_platform.lake.datasets import Dataset


def to_schema(batch: pa.RecordBatch, data: Dataset) -> pa.RecordBatch:
    """Return `batch` in the schema of `data`, columns matched by position.

    A decimal column is made from the integer column of its smallest unit (`5600` in 1/10,000 dollar → `0.5600`).
    Raises pyarrow.ArrowInvalid when a value does not fit its column.
    """
    arrays = [_column(batch.column(index), field.type) for index, field in enumerate(data.schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=data.schema)


def decimals(units: pa.Array, kind: pa.Decimal128Type) -> pa.Array:
    """Integers of the smallest unit of `kind` → decimals."""
    # A decimal is an integer and a scale: the scale is put on without touching the digits.
    whole = units.cast(pa.int64()).cast(pa.decimal128(19, 0))
    scaled = pa.Array.from_buffers(kind, len(whole), whole.buffers(), offset=whole.offset)
    scaled.validate(full=True)
    return scaled


def _column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return decimals(column, kind)
    return column if column.type.equals(kind) else column.cast(kind)
