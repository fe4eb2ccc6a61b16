"""Describes a Parquet file of the lake as a data file of an Iceberg table, from its footer alone."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import compute_statistics_plan, data_file_statistics_from_parquet_metadata
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.iceberg.file_io import root_address
from kalshi_platform.lake.iceberg.schema import ids_by_path, partition_value
from kalshi_platform.lake.layout import Partition
from kalshi_platform.lake.store.objects import ObjectStore


def data_file(store: ObjectStore, table: Table, partition: Partition, path: str) -> DataFile:
    """The file at `path` as the table is to hold it, with the smallest and largest value of each column.

    pyiceberg's own `add_files` does the same, but refuses files of earlier versions of a data set, whose columns have
    former names. Raises LakeCorrupt (the file is missing, no Parquet, or has columns of another type), LakeArchived.
    """
    stream = store.open(path)
    if stream is None:
        raise LakeCorrupt(f"{path} is missing")
    with stream:
        try:
            footer = pq.read_metadata(stream)
            size_bytes = stream.seek(0, 2)
        except (pa.ArrowInvalid, OSError) as error:
            raise LakeCorrupt(f"{path} is not Parquet ({error})") from error
    data, schema = partition.dataset, table.schema()
    ids = ids_by_path(data, footer.schema.to_arrow_schema())
    if ids is None:
        raise LakeCorrupt(f"{path} has columns of another version: export the partition again")
    statistics = data_file_statistics_from_parquet_metadata(
        parquet_metadata=footer,
        stats_columns=compute_statistics_plan(schema, table.properties),
        parquet_column_mapping=ids,
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"{root_address(store)}/{path}",
        file_format=FileFormat.PARQUET,
        partition=partition_value(data, table.spec(), partition.start),
        file_size_in_bytes=size_bytes,
        sort_order_id=None,
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
