"""A table's definition: its columns with type, unit, nullability, default and meaning, and its key.

Types are PostgreSQL's own names. What a driver or a file format calls them stands beside that driver or format
(`kalshi_platform.storage.arrow` for Arrow).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

SqlType: TypeAlias = Literal[
    "text",
    "integer",
    "bigint",
    "double precision",
    "boolean",
    "timestamptz",
    "interval",
    "jsonb",
    "uuid",
    "bytea",
    "integer[]",
    "bigint[]",
    "text[]",
    "numeric(9,4)",
    "numeric(18,2)",
    "numeric(18,6)",
    "numeric(9,4)[]",
    "numeric(18,2)[]",
]
Database: TypeAlias = Literal["timeseries", "catalog", "production"]

TIME_UNIT = "microseconds, UTC"
_UNITS = {
    "_e2": "1/100 contract",
    "_e4": "1/10,000 dollar",
    "_e6": "1/1,000,000 dollar",
    "_us": "microseconds",
    "_s": "seconds",
    "_dollars": "dollars",
    "_contracts": "contracts",
}


@dataclass(frozen=True)
class Column:
    """One column. `meaning` is one sentence; `unit` follows from the name's ending or the type unless it is given.

    `default` is an SQL expression as PostgreSQL prints it. `generated`: the database fills the column, no writer does.
    `since` is the version of the lake's data set that has it first, `formerly` its name there before; older files are
    read with the former name, or with nulls.
    """

    name: str
    type: SqlType
    meaning: str
    nullable: bool = False
    default: str | None = None
    unit: str = ""
    generated: bool = False
    since: int = 1
    formerly: str | None = None

    def __post_init__(self) -> None:
        if not self.unit:
            ending = next((ending for ending in _UNITS if self.name.endswith(ending)), None)
            unit = TIME_UNIT if self.type == "timestamptz" else _UNITS[ending] if ending is not None else ""
            object.__setattr__(self, "unit", unit)

    @property
    def comment(self) -> str:
        """The column's comment in the database; the type says the unit of a time."""
        return self.meaning if self.unit in ("", TIME_UNIT) else f"{self.meaning} In {self.unit}."

    def struct_field(self, fields: Collection[str]) -> str | None:
        """The field of a struct that fills the column: of the same name, for a time with the unit `_us` or `_ns`."""
        names = (f"{self.name}_us", f"{self.name}_ns") if self.type == "timestamptz" else (self.name,)
        return next((name for name in names if name in fields), None)


@dataclass(frozen=True, eq=False)
class Table:
    """One table. `time_column`: what a time-series table is partitioned by, "" for a plain table. Compared by identity.

    `is_view`: it is read and never written.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    time_column: str = ""
    is_view: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that a writer fills, in the order of COPY and of Arrow data."""
        return tuple(column.name for column in self.written)

    @cached_property
    def written(self) -> tuple[Column, ...]:
        """The columns that a writer fills."""
        return tuple(column for column in self.columns if not column.generated)

    def __getitem__(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name}")
