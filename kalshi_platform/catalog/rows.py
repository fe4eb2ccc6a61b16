"""Catalog structs as rows of `sql/catalog` and back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from kalshi_platform.catalog.fingerprints import event_fingerprint, market_fingerprint, series_fingerprint
from kalshi_platform.market.catalog import EventInfo, MarketInfo, SeriesInfo
from kalshi_platform.market.times import datetime_from_us, us_from_datetime
from kalshi_platform.storage.texts import json_without_nul, text_without_nul

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

    def row(self, info: InfoT) -> tuple[Any, ...]:
        """Values of `columns`, then payload and fingerprint."""
        values: list[Any] = [_to_sql(getattr(info, column.attribute), column.sql_type) for column in self.columns]
        return (*values, json_without_nul(info.payload), self.fingerprint(info))

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
)


def _to_sql(value: Any, sql_type: str) -> Any:
    if value is None:
        return None
    if sql_type == "timestamptz":
        return datetime_from_us(value)
    return text_without_nul(value) if isinstance(value, str) else value


def _from_sql(value: Any) -> Any:
    return us_from_datetime(value) if isinstance(value, datetime) else value
