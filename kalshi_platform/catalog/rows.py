"""Converts catalog structs to rows of `sql/catalog` and back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from kalshi_platform.catalog.fingerprints import event_fingerprint, market_fingerprint, series_fingerprint
from kalshi_platform.market.catalog import EventInfo, MarketInfo, SeriesInfo
from kalshi_platform.market.tables import CATALOG_TABLES, Column, Table
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.arrow import arrow_schema

Row: TypeAlias = tuple[Any, ...]
_FIRST_US = us_from_datetime(datetime.min.replace(tzinfo=UTC))
_END_US = us_from_datetime(datetime.max.replace(tzinfo=UTC)) + 1
InfoT = TypeVar("InfoT", bound=MarketInfo | EventInfo | SeriesInfo)


@dataclass(frozen=True)
class CatalogTable(Generic[InfoT]):
    """Describes one of the three tables; `ticker` is the attribute that names an object."""

    name: str
    ticker: str
    info: type[InfoT]
    fingerprint: Callable[[InfoT], int]
    updated: str
    """The column with the time at which the exchange last changed the object."""

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns that a struct fills, apart from the payload; the platform fills the others."""
        own = ("payload", "fingerprint", "first_seen_at", "known_at")
        return tuple(column for column in CATALOG_TABLES[self.name].written if column.name not in own)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of `columns`."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def staged(self) -> Table:
        """Return the shape of `arrow`: `columns`, payload, fingerprint, known_at."""
        table = CATALOG_TABLES[self.name]
        columns = (*self.columns, *(table[name] for name in ("payload", "fingerprint", "known_at")))
        return Table(f"catalog_{self.name}", table.meaning, columns)

    @cached_property
    def _attributes(self) -> tuple[str, ...]:
        """Return the attribute of the struct that fills each of `columns`. Raises KeyError where there is none."""
        fields = self.info.__struct_fields__
        named = {"ticker": self.ticker} | _ATTRIBUTES | {self.updated: _UPDATED}
        found = {column.name: named.get(column.name) or column.struct_field(fields) for column in self.columns}
        missing = [name for name, attribute in found.items() if attribute not in fields]
        if missing:
            raise KeyError(f"no field of {self.info.__name__} fills {self.name}.{', '.join(missing)}")
        return tuple(str(attribute) for attribute in found.values())

    def row(self, info: InfoT) -> Row:
        """Return the values of `columns` (times in µs), then payload and fingerprint.

        Raises ValueError for a time that no database and no datetime can hold.
        """
        values = [
            _checked(getattr(info, attribute), column.type)
            for column, attribute in zip(self.columns, self._attributes, strict=True)
        ]
        return (*values, info.payload, self.fingerprint(info))

    def arrow(self, rows: Sequence[Row], known_at: datetime) -> pa.Table:
        """Return rows as a table of the shape `staged`. Raises ValueError or OverflowError for values out of range."""
        schema = arrow_schema(self.staged)
        columns = [*zip(*rows, strict=True), [us_from_datetime(known_at)] * len(rows)]
        return pa.table(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )

    def struct(self, row: Sequence[Any], payload: str = "") -> InfoT:
        """Return a struct made from the values of `columns`."""
        values = {attribute: _from_sql(value) for attribute, value in zip(self._attributes, row, strict=True)}
        return self.info(**values, payload=payload)


_UPDATED = "updated_us"
# Structs of REST answers keep the exchange's names, the tables ours.
_ATTRIBUTES = {
    "expected_expiration_time": "expected_expiration_us",
    "created_time": "created_us",
    "settlement_time": "settlement_ts_us",
}

MARKETS: CatalogTable[MarketInfo] = CatalogTable("markets", "ticker", MarketInfo, market_fingerprint, "updated_time")
EVENTS: CatalogTable[EventInfo] = CatalogTable("events", "event_ticker", EventInfo, event_fingerprint, "last_updated")
SERIES: CatalogTable[SeriesInfo] = CatalogTable("series", "ticker", SeriesInfo, series_fingerprint, "last_updated")


def _checked(value: Any, sql_type: str) -> Any:
    if sql_type == "timestamptz" and value is not None and not _FIRST_US <= value < _END_US:
        raise ValueError(f"{value} µs is no time between the years 1 and 9999")
    return value


def _from_sql(value: Any) -> Any:
    return us_from_datetime(value) if isinstance(value, datetime) else value
