"""Makes a small lake with random rows in every data set, and registers it as Iceberg tables in a catalog in a file.

Run by `make engines` with the platform's own Python: `python engines/make_lake.py FOLDER`.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.iceberg.register import register
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform_tests.fixtures.lake import put_partition

FIRST = datetime(2026, 11, 20, tzinfo=UTC)
ROWS = 1_500
HOURS = 3
DAYS = 2


def main(folder: Path) -> None:
    """Make the lake below `folder`, whose name has a space, and say what is in it in `datasets.json`."""
    shutil.rmtree(folder, ignore_errors=True)
    store = open_store(LakeSettings((folder / "my lake").as_uri()))
    dice = random.Random(7)  # noqa: S311 - the same rows each time
    for data in DATASETS.values():
        for number in range(HOURS if data.kind == "hourly" else DAYS):
            partition = Partition(data, FIRST + number * data.span)
            put_partition(store, partition, [_rows(data, partition.start, dice)], rows_per_file=ROWS // 3)
    catalog = folder / "catalog.db"
    for done in register(store, IcebergSettings(catalog_uri=f"sqlite:///{catalog}"), DATASETS.values()):
        print(f"{done.dataset.key}: {done.files} files, {done.rows:,} rows")
        assert not done.skipped, done.skipped
    described = [
        {
            "key": data.key,
            "time_column": data.time_column,
            "boundary": (FIRST + data.span).isoformat(),
            "group": data.order[0],
        }
        for data in DATASETS.values()
    ]
    (folder / "datasets.json").write_text(json.dumps(described), encoding="utf-8")


def _rows(data: Dataset, start: datetime, dice: random.Random) -> pa.RecordBatch:
    """Random rows of a data set in its order; every column that may be null is so in some rows."""
    columns = [
        pa.array([_value(data, field, start, dice, number) for number in range(ROWS)], field.type)
        for field in data.schema
    ]
    table = pa.Table.from_arrays(columns, schema=data.schema)
    return table.sort_by([(name, "ascending") for name in data.order]).combine_chunks().to_batches()[0]


def _value(data: Dataset, field: pa.Field, start: datetime, dice: random.Random, number: int) -> Any:
    if field.name in ("ticker", "market_ticker"):
        return f"KXSOMESERIES-26NOV20-T{dice.randrange(40):02d}"
    if field.nullable and dice.random() < 0.1:
        return None
    if field.name == data.time_column:
        return start + timedelta(microseconds=dice.randrange(int(data.span.total_seconds() * 1e6)))
    if pa.types.is_list(field.type):
        return [_plain(field.type.value_type, start, dice, number) for _ in range(dice.randrange(11))]
    return _plain(field.type, start, dice, number)


def _plain(kind: pa.DataType, start: datetime, dice: random.Random, number: int) -> Any:
    if pa.types.is_decimal(kind):
        return Decimal(dice.randrange(-(10 ** (kind.precision - 2)), 10 ** (kind.precision - 2))).scaleb(-kind.scale)
    if pa.types.is_timestamp(kind):
        return start + timedelta(microseconds=dice.randrange(-(10**12), 10**12))
    if pa.types.is_boolean(kind):
        return dice.random() < 0.3
    if pa.types.is_integer(kind):
        return dice.randrange(10_001) if kind.bit_width <= 32 else dice.randrange(-(2**44), 2**44)
    if pa.types.is_floating(kind):
        return dice.randrange(10**6) / 8
    if pa.types.is_fixed_size_binary(kind):
        return dice.randbytes(kind.byte_width)
    if pa.types.is_binary(kind):
        return dice.randbytes(dice.randrange(20))
    return f"text {number} ü \N{BLACK SPADE SUIT} {dice.randrange(10**6)}"


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
