"""What a data set of the lake is: its columns, order, partitions, and how it is made.

Every field of a schema carries `unit` and `description` as metadata, in the files too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import pyarrow as pa

from kalshi_platform.market.tables import Column, Table
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.arrow import ARROW_TYPES

if TYPE_CHECKING:
    from kalshi_platform.lake.builders.builder import Builder

Layer: TypeAlias = Literal["raw", "processed", "aggregates"]
Kind: TypeAlias = Literal["hourly", "daily"]

LAYERS: tuple[Layer, ...] = ("raw", "processed", "aggregates")
DAY = timedelta(days=1)
IN_STREAM = ("gatherer", "stream_id", "seq")
"""What puts rows of one market and moment into the order in which one stream sent them."""

_FIELD_ID = "PARQUET:field_id"  # where Arrow's writer takes the id of a column from


class FieldId(NamedTuple):
    """The id of a column, and that of its elements where it is a list."""

    column: int
    element: int | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """One data set; `key` is `<layer>/<name>`.

    A raw one is a table of production; any other is made from production by a `statement`, or from raw hours of the
    lake by a `builder`.

    No two rows have the same `identity`; it is empty where the columns do not tell all rows apart. Rows are sorted by
    `order`; of one market and moment they stand in the order in which they happened, as far as it is known. `source`:
    the table of production that it is made from; `statement` and `<statement>_expected`: the statements of
    `lake/queries/` that give its rows and their number.
    Values of `plain` hardly repeat, so they get no dictionary; those of `growing` grow from row to row, as times do.
    `rows_per_group` is what the reader of one market reads at least, and bounds the memory of an export; rows that hold
    whole books or messages are far bigger than others. `formerly`: its name before, below which older partitions lie.
    `made_by_close`: each close of an hour makes its rows anew, and may make fewer. `readable_since`: the first version
    whose rows mean what today's do; partitions of one before are exported again and not read.
    `builder` makes what computes the rows (it imports that only then: Polars is heavy); `inputs` names the raw data
    sets that it reads and their columns, `ticker` first. `hours_before` and `hours_after`: how many hours around the
    day it reads too; they are hours of the partition like its own. Its rows of some markets take at most `growth` times
    the memory of the rows that they are made from.
    Compared by identity; sorted by key.
    """

    layer: Layer
    name: str
    description: str
    columns: tuple[Column, ...]
    time_column: str
    identity: tuple[str, ...]
    order: tuple[str, ...]
    source: str = ""
    statement: str = ""
    plain: frozenset[str] = frozenset()
    growing: frozenset[str] = frozenset()
    rows_per_group: int = 64 * 1024
    formerly: str | None = None
    made_by_close: bool = False
    readable_since: int = 1
    builder: Callable[[], Builder] | None = None
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hours_before: int = 0
    hours_after: int = 0
    growth: float = 1.0

    def __lt__(self, other: Dataset) -> bool:
        return self.key < other.key

    @cached_property
    def key(self) -> str:
        """`<layer>/<name>`."""
        return f"{self.layer}/{self.name}"

    @property
    def kind(self) -> Kind:
        """How long a partition is: a UTC hour of a raw table, a UTC day of anything else."""
        return "hourly" if self.layer == "raw" else "daily"

    @property
    def span(self) -> timedelta:
        """The length of one partition."""
        return HOUR if self.kind == "hourly" else DAY

    @cached_property
    def version(self) -> int:
        """The version of the columns: that of the newest."""
        return max(column.since for column in self.columns)

    @cached_property
    def first_versions(self) -> Mapping[str, int]:
        """Column → the version in which it came; a renamed one was there from the beginning."""
        return {column.name: 1 if column.formerly else column.since for column in self.columns}

    @cached_property
    def field_ids(self) -> Mapping[str, FieldId]:
        """Column → its ids in Iceberg tables, which the files name too.

        They follow from the order in which columns came, version by version, so that none is ever given twice: a column
        that is added gets the next ones. A renamed column keeps its own.
        """
        since = self.first_versions
        first = min(since.values())
        numbers = itertools.count(1)
        lists = {column.name for column in self.columns if pa.types.is_list(ARROW_TYPES[column.type])}
        # Iceberg numbers all columns of a new table before what is inside them.
        of_first = {column.name: next(numbers) for column in self.columns if since[column.name] == first}
        found = {name: FieldId(number, next(numbers) if name in lists else None) for name, number in of_first.items()}
        later = [name for name in since if name not in found]
        for name in sorted(later, key=lambda name: since[name]):
            found[name] = FieldId(next(numbers), next(numbers) if name in lists else None)
        return found

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns as Arrow, in the order of the files."""
        fields = [self._field(column) for column in self.columns]
        return pa.schema(fields, metadata={"kalshi.dataset": self.key, "kalshi.schema_version": str(self.version)})

    def _field(self, column: Column) -> pa.Field:
        field_id, kind = self.field_ids[column.name], ARROW_TYPES[column.type]
        if field_id.element is not None:
            element = {_FIELD_ID: str(field_id.element)}
            kind = pa.list_(pa.field("element", kind.value_type, metadata=element))
        metadata = {"unit": column.unit, "description": column.meaning, _FIELD_ID: str(field_id.column)}
        return pa.field(column.name, kind, nullable=column.nullable, metadata=metadata)

    def names_in(self, version: int) -> Mapping[str, str | None] | None:
        """What files of a version call today's columns, None where they lack one; None where they cannot be read."""
        if not self.readable_since <= version <= self.version:
            return None
        return {column.name: column.name if column.since <= version else column.formerly for column in self.columns}


TRADE_ID = (
    Column(
        "trade_id",
        "uuid",
        "The exchange's identifier of the trade, its 16 bytes; NULL where it is no UUID, see trade_id_text.",
        nullable=True,
        since=2,
    ),
    Column(
        "trade_id_text",
        "text",
        "The exchange's identifier of the trade where it is no UUID.",
        nullable=True,
        since=2,
        formerly="trade_id",
    ),
)
"""An identifier of a trade, which is a text in production: random, so that it takes half of a trade's bytes."""


def raw_dataset(
    table: Table,
    *,
    columns: tuple[Column, ...] = (),
    order: tuple[str, ...] = (),
    plain: frozenset[str] = frozenset(),
    growing: frozenset[str] = frozenset(),
    rows_per_group: int = Dataset.rows_per_group,
    formerly: str | None = None,
    made_by_close: bool = False,
) -> Dataset:
    """A table of production, column by column unless `columns` are given, hour by hour; sorted by its identity too."""
    identity = ("ticker", *(name for name in table.key if name != "ticker"))
    return Dataset(
        "raw",
        table.name,
        table.meaning,
        columns or table.written,
        table.time_column,
        identity,
        order or identity,
        source=table.name,
        plain=plain,
        growing=growing | ({"seq"} & set(table.names)),
        rows_per_group=rows_per_group,
        formerly=formerly,
        made_by_close=made_by_close,
    )


def catalog_dataset(table: Table, description: str, columns: tuple[Column, ...]) -> Dataset:
    """Objects of the catalog, day by day, as this platform knew them at the day's end; a statement gives them."""
    return Dataset(
        "processed",
        table.name,
        description,
        (
            table["ticker"],
            Column(
                "as_of", "timestamptz", "The moment as of which it was known, by this platform's clock: the day's end."
            ),
            *columns,
            Column("known_from", "timestamptz", "This platform's clock when it was first known to be so."),
        ),
        time_column="as_of",
        identity=("ticker",),
        order=("ticker", "as_of"),
        source=table.name,
        statement=f"processed_{table.name}",
        rows_per_group=16 * 1024,
        # What gatherers tell later of the day can end an object before it.
        made_by_close=True,
    )
