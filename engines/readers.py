"""One reader per engine: a data set of the lake, as plain Parquet files or as an Iceberg table, into Arrow.

Each reads with the engine's own Parquet reader, and computes with the engine itself where it is asked for sums.
"""

from __future__ import annotations

import functools
import importlib.resources
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Sums = dict[str, tuple[Any, ...]]
"""Ticker → rows, and the sum of each number, the smallest and largest of each time."""


class Unavailable(Exception):
    """The engine cannot read this here, and why."""


class Reader:
    """What engines share."""

    has_null_lists = True


class Source:
    """Where a data set lies. `sums`: columns to add up; `times`: columns whose span is wanted."""

    def __init__(self, folder: Path, described: dict[str, str]) -> None:
        self.key = described["key"]
        self.group = described["group"]
        self.time_column = described["time_column"]
        self.boundary = described["boundary"]
        self.root = folder / "my lake"
        self.glob = f"{self.root}/{self.key}/**/*.parquet"
        self.files = sorted(str(path) for path in (self.root / self.key).rglob("*.parquet"))
        self.table_folder = f"{self.root}/_iceberg/{self.key}"
        hint = (Path(self.table_folder) / "metadata" / "version-hint.text").read_text(encoding="utf-8")
        self.metadata_file = f"{self.table_folder}/metadata/{hint}.metadata.json"
        schema = pq.read_schema(self.files[0])
        self.sums = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_decimal(f.type)]
        self.times = [f.name for f in schema if pa.types.is_timestamp(f.type)]

    def arrow(self) -> pa.Table:
        """All rows, by pyarrow."""
        return pa.concat_tables([pq.ParquetFile(file).read() for file in self.files])

    def iceberg(self) -> Any:
        """The table, by pyiceberg, without a catalog."""
        from pyiceberg.table import StaticTable

        return StaticTable.from_metadata(self.metadata_file)


def sums_by_sql(source: Source, columns: str = "sum({0})") -> str:
    """The expressions of a SELECT for `Sums`, after the ticker."""
    parts = ["count(*)", *(columns.format(f'"{name}"') for name in source.sums)]
    parts += [f'{how}("{name}")' for name in source.times for how in ("min", "max")]
    return ", ".join(parts)


class Arrow(Reader):
    """What the others are compared with."""

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        return source.iceberg().scan().to_arrow() if as_table else source.arrow()

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        table = self.rows(source, as_table=as_table)
        # A sum of decimals keeps their precision here, and would overflow.
        for name in source.sums:
            if pa.types.is_decimal(table[name].type):
                at = table.column_names.index(name)
                table = table.set_column(at, name, table[name].cast(pa.decimal128(38, table[name].type.scale)))
        wanted: list[Any] = [([], "count_all"), *((name, "sum") for name in source.sums)]
        wanted += [(name, how) for name in source.times for how in ("min", "max")]
        found = table.group_by(source.group).aggregate(wanted)
        names = ["count_all", *(f"{name}_sum" for name in source.sums)]
        names += [f"{name}_{how}" for name in source.times for how in ("min", "max")]
        return {row[source.group]: tuple(row[name] for name in names) for row in found.to_pylist()}

    def before(self, source: Source) -> int:
        """How many rows of the table lie before the boundary, by a filter that the engine pushes down."""
        table = source.arrow()
        return int(pc.sum(pc.less(table[source.time_column], pa.scalar(_moment(source)))).as_py())


class DuckDb(Reader):
    """Its Iceberg extension comes as a Python package; elsewhere `INSTALL iceberg` fetches it."""

    def __init__(self) -> None:
        import duckdb

        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")

    def _from(self, source: Source, *, as_table: bool) -> str:
        if not as_table:
            return f"read_parquet('{source.glob}', hive_partitioning = false)"
        for name in ("avro", "iceberg"):
            self._connection.execute(f"LOAD '{_extension(name)}'")
        return f"iceberg_scan('{source.metadata_file}')"

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        found = self._connection.sql(f"SELECT * FROM {self._from(source, as_table=as_table)}").arrow()
        return found.read_all() if hasattr(found, "read_all") else found

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        place = self._from(source, as_table=as_table)
        return _by_group(
            self._connection.sql(f'SELECT "{source.group}", {sums_by_sql(source)} FROM {place} GROUP BY 1').fetchall()
        )

    def before(self, source: Source) -> int:
        place = self._from(source, as_table=True)
        condition = f"\"{source.time_column}\" < TIMESTAMPTZ '{source.boundary}'"
        return int(self._connection.sql(f"SELECT count(*) FROM {place} WHERE {condition}").fetchall()[0][0])


class Polars(Reader):
    """Lazy scans of files, and of the table by its metadata file."""

    def _scan(self, source: Source, *, as_table: bool) -> Any:
        import polars as pl

        if as_table:
            os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"
            return pl.scan_iceberg(source.metadata_file)
        return pl.scan_parquet(source.glob, hive_partitioning=False)

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        return self._scan(source, as_table=as_table).collect().to_arrow()

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        import polars as pl

        spans = [getattr(pl.col(name), how)().alias(f"{name} {how}") for name in source.times for how in ("min", "max")]
        # Integers of 64 bits and decimals of 18 digits are added up in wider ones.
        wide = [pl.col(name).sum() for name in source.sums]
        found = self._scan(source, as_table=as_table).group_by(source.group).agg(pl.len(), *wide, *spans).collect()
        return _by_group(found.rows())

    def before(self, source: Source) -> int:
        import polars as pl

        earlier = self._scan(source, as_table=True).filter(pl.col(source.time_column) < _moment(source))
        return int(earlier.select(pl.len()).collect().item())


class Pandas(Reader):
    """With Arrow's types: in its own, decimals are objects and times lose their zone."""

    def _frame(self, source: Source, *, as_table: bool) -> Any:
        import pandas as pd

        if as_table:
            return source.iceberg().scan().to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
        return pd.concat([pd.read_parquet(file, dtype_backend="pyarrow", partitioning=None) for file in source.files])

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        return pa.Table.from_pandas(self._frame(source, as_table=as_table), preserve_index=False)

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        found = {}
        for ticker, group in self._frame(source, as_table=as_table).groupby(source.group):
            parts: list[Any] = [len(group)]
            parts += [sum(group[name].dropna()) for name in source.sums]
            parts += [getattr(group[name], how)() for name in source.times for how in ("min", "max")]
            found[str(ticker)] = tuple(parts)
        return found

    def before(self, source: Source) -> int:
        from pyiceberg.expressions import LessThan

        scan = source.iceberg().scan(row_filter=LessThan(source.time_column, source.boundary))
        return len(scan.to_arrow().to_pandas())


class Daft(Reader):
    """Files by a glob, the table through pyiceberg's metadata."""

    def _frame(self, source: Source, *, as_table: bool) -> Any:
        import daft

        return daft.read_iceberg(source.iceberg()) if as_table else daft.read_parquet(source.glob)

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        return self._frame(source, as_table=as_table).to_arrow()

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        from daft import col

        frame = self._frame(source, as_table=as_table)
        wanted = [
            col(source.group).count().alias("rows"),
            *(col(name).sum().alias(f"{name} sum") for name in source.sums),
        ]
        wanted += [getattr(col(name), how)().alias(f"{name} {how}") for name in source.times for how in ("min", "max")]
        found = frame.groupby(source.group).agg(*wanted).to_arrow().to_pylist()
        return {row.pop(source.group): tuple(row.values()) for row in found}

    def before(self, source: Source) -> int:
        import daft

        frame = self._frame(source, as_table=True)
        return int(frame.where(daft.col(source.time_column) < _moment(source)).count_rows())


class ClickHouse(Reader):
    """ClickHouse inside Python (chDB); `icebergLocal` reads the table by its folder.

    It has no arrays that are null: such a list is read as an empty one.
    """

    has_null_lists = False

    def __init__(self) -> None:
        import chdb

        os.chdir("/")  # a table must lie below the working folder (a server: below `user_files_path`)
        self._connection = chdb.connect(":memory:")

    def _query(self, statement: str) -> pa.Table:
        # Without the columns `date` and `hour` of the path, which others do not read either.
        settings = "output_format_arrow_string_as_string = 1, session_timezone = 'UTC', use_hive_partitioning = 0"
        result = self._connection.query(f"{statement} SETTINGS {settings}", "Arrow")
        return pa.ipc.open_file(pa.py_buffer(result.bytes())).read_all()

    def _from(self, source: Source, *, as_table: bool) -> str:
        return f"icebergLocal('{source.table_folder}', Parquet)" if as_table else f"file('{source.glob}', Parquet)"

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        return self._query(f"SELECT * FROM {self._from(source, as_table=as_table)}")

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        place = self._from(source, as_table=as_table)
        wanted = sums_by_sql(source)
        found = self._query(f'SELECT "{source.group}", {wanted} FROM {place} GROUP BY 1')
        return _by_group(list(zip(*(column.to_pylist() for column in found.columns), strict=True)))

    def before(self, source: Source) -> int:
        place = self._from(source, as_table=True)
        moment = f"parseDateTime64BestEffort('{source.boundary}', 6, 'UTC')"
        found = self._query(f'SELECT count() AS n FROM {place} WHERE "{source.time_column}" < {moment}')
        return int(found["n"][0].as_py())


class Spark(Reader):
    """PySpark on this machine: files alone, because Iceberg's jar for it comes from Maven."""

    @functools.cached_property
    def _session(self) -> Any:
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        for name, value in {
            "spark.sql.session.timeZone": "UTC",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            "spark.log.level": "ERROR",
        }.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()

    def _frame(self, source: Source, *, as_table: bool) -> Any:
        if as_table:
            raise Unavailable("needs Iceberg's jar, which only Maven has")
        return self._session.read.parquet(*source.files)

    def rows(self, source: Source, *, as_table: bool) -> pa.Table:
        return self._frame(source, as_table=as_table).toArrow()

    def sums(self, source: Source, *, as_table: bool) -> Sums:
        self._frame(source, as_table=as_table).createOrReplaceTempView("wanted")
        wanted = sums_by_sql(source).replace('"', "`")
        found = self._session.sql(f"SELECT `{source.group}`, {wanted} FROM wanted GROUP BY 1").toArrow()
        return _by_group(list(zip(*(column.to_pylist() for column in found.columns), strict=True)))

    def before(self, source: Source) -> int:
        raise Unavailable("needs Iceberg's jar, which only Maven has")


READERS: dict[str, type[Any]] = {
    "pyarrow": Arrow,
    "duckdb": DuckDb,
    "polars": Polars,
    "pandas": Pandas,
    "daft": Daft,
    "chdb": ClickHouse,
    "pyspark": Spark,
}


def _moment(source: Source) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(source.boundary)


def _by_group(rows: list[tuple[Any, ...]]) -> Sums:
    return {row[0]: tuple(row[1:]) for row in rows}


def _extension(name: str) -> str:
    folder = importlib.resources.files(f"duckdb_extension_{name}")
    (found,) = Path(str(folder)).rglob(f"{name}.duckdb_extension")
    return str(found)


if __name__ == "__main__":
    sys.exit("run: make engines")
