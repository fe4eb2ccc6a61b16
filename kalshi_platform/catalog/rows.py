"""Catalog structs as rows of `sql/catalog` and back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from kalshi_platform.catalog.fingerprints import event_fingerprint, market_fingerprint, series_fingerprint
from kalshi_platform.market.catalog import EventInfo, MarketInfo, SeriesInfo
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.tables import BIG, FLAG, INT, TEXT, TIME, StreamTable

Row: TypeAlias = tuple[Any, ...]
_ARROW_TYPES = {
    "text": TEXT,
    "timestamptz": TIME,
    "bigint": BIG,
    "integer": INT,
    "boolean": FLAG,
    "float8": pa.float64(),
}
_FIRST_US = us_from_datetime(datetime.min.replace(tzinfo=UTC))
_END_US = us_from_datetime(datetime.max.replace(tzinfo=UTC)) + 1
InfoT = TypeVar("InfoT", bound=MarketInfo | EventInfo | SeriesInfo)


@dataclass(frozen=True)
class Column:
    """One column: its name and type in SQL, and the attribute of the struct that fills it."""

    name: str
    sql_type: str
    attribute: str


@dataclass(frozen=True)
class CatalogTable(Generic[InfoT]):
    """One of the three tables. `ticker` is the attribute that names an object."""

    name: str
    ticker: str
    info: Callable[..., InfoT]
    columns: tuple[Column, ...]
    fingerprint: Callable[[InfoT], int]
    updated: str
    """The column that says when the exchange last changed the object's description."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of `columns`."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def staged(self) -> StreamTable:
        """The shape of `arrow`: `columns`, payload, fingerprint, known_at."""
        types = [_ARROW_TYPES[column.sql_type] for column in self.columns]
        names = (*self.names, "payload", "fingerprint", "known_at")
        schema = pa.schema(list(zip(names, (*types, TEXT, BIG, TIME), strict=True)))
        return StreamTable(f"catalog_{self.name}", "known_at", schema, {"payload": "jsonb"})

    def row(self, info: InfoT) -> Row:
        """Values of `columns` (times in µs), then payload and fingerprint. Raises ValueError for a time that no
        database and no datetime holds."""
        values = [_checked(getattr(info, column.attribute), column.sql_type) for column in self.columns]
        return (*values, info.payload, self.fingerprint(info))

    def arrow(self, rows: Sequence[Row], known_at: datetime) -> pa.Table:
        """Rows as one table of the shape `staged`. Raises ValueError or OverflowError for values out of range."""
        schema = self.staged.schema
        columns = [*zip(*rows, strict=True), [us_from_datetime(known_at)] * len(rows)]
        return pa.table(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )

    def struct(self, row: Sequence[Any], payload: str = "") -> InfoT:
        """A struct from the values of `columns`."""
        values = {column.attribute: _from_sql(value) for column, value in zip(self.columns, row, strict=True)}
        return self.info(**values, payload=payload)


def _columns(**columns: str) -> tuple[Column, ...]:
    """`name="type"` or `name="type attribute"`."""
    made = []
    for name, spec in columns.items():
        sql_type, _, attribute = spec.partition(" ")
        made.append(Column(name, sql_type, attribute or name))
    return tuple(made)


MARKETS: CatalogTable[MarketInfo] = CatalogTable(
    "markets",
    "ticker",
    MarketInfo,
    _columns(
        ticker="text",
        event_ticker="text",
        series_ticker="text",
        market_type="text",
        status="text",
        title="text",
        open_time="timestamptz open_time_us",
        close_time="timestamptz close_time_us",
        expected_expiration_time="timestamptz expected_expiration_us",
        created_time="timestamptz created_us",
        updated_time="timestamptz updated_us",
        settlement_time="timestamptz settlement_ts_us",
        result="text",
        settlement_value_e6="bigint",
        can_close_early="boolean",
        is_provisional="boolean",
        mve_collection_ticker="text",
        exchange_index="integer",
        price_level_structure="text",
        price_ranges="text",
    ),
    market_fingerprint,
    "updated_time",
)
EVENTS: CatalogTable[EventInfo] = CatalogTable(
    "events",
    "event_ticker",
    EventInfo,
    _columns(
        ticker="text event_ticker",
        series_ticker="text",
        title="text",
        sub_title="text",
        category="text",
        collateral_return_type="text",
        mutually_exclusive="boolean",
        strike_date="timestamptz strike_date_us",
        strike_period="text",
        last_updated="timestamptz updated_us",
        exchange_index="integer",
    ),
    event_fingerprint,
    "last_updated",
)
SERIES: CatalogTable[SeriesInfo] = CatalogTable(
    "series",
    "ticker",
    SeriesInfo,
    _columns(
        ticker="text",
        title="text",
        category="text",
        frequency="text",
        fee_type="text",
        fee_multiplier="float8",
        last_updated="timestamptz updated_us",
        exchange_index="integer",
    ),
    series_fingerprint,
    "last_updated",
)


def _checked(value: Any, sql_type: str) -> Any:
    if sql_type == "timestamptz" and value is not None and not _FIRST_US <= value < _END_US:
        raise ValueError(f"{value} µs is no time between the years 1 and 9999")
    return value


def _from_sql(value: Any) -> Any:
    return us_from_datetime(value) if isinstance(value, datetime) else value
