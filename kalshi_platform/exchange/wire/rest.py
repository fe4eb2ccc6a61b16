"""Defines the REST objects that Kalshi sends, with the fields that the platform uses; other fields pass unread.

Fields are optional where production answers lacked them or had null. `exchange.parse.rest` keeps the whole object
beside these. Source: docs.kalshi.com, API reference (OpenAPI 3.28.0; official client 3.34.0; read 2026-11-22).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

ExchangeIndex: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class MarketObject(msgspec.Struct, frozen=True):
    """Describes one market; legacy `settlement_value` is in cents."""

    ticker: str
    status: str
    event_ticker: str | None = None
    series_ticker: str | None = None
    market_type: str | None = None
    title: str | None = None
    open_time: str | None = None
    close_time: str | None = None
    expected_expiration_time: str | None = None
    created_time: str | None = None
    updated_time: str | None = None
    result: str | None = None
    settlement_value_dollars: str | None = None
    settlement_value: int | None = None
    settlement_ts: str | None = None
    price_level_structure: str | None = None
    price_ranges: list[Any] | None = None
    is_provisional: bool | None = None
    mve_collection_ticker: str | None = None
    exchange_index: ExchangeIndex | None = None
    can_close_early: bool | None = None


class EventObject(msgspec.Struct, frozen=True):
    """Describes one event."""

    event_ticker: str
    series_ticker: str | None = None
    title: str | None = None
    sub_title: str | None = None
    category: str | None = None
    collateral_return_type: str | None = None
    mutually_exclusive: bool | None = None
    strike_date: str | None = None
    strike_period: str | None = None
    last_updated_ts: str | None = None
    exchange_index: ExchangeIndex | None = None


class SeriesObject(msgspec.Struct, frozen=True):
    """Describes one series."""

    ticker: str
    title: str | None = None
    category: str | None = None
    frequency: str | None = None
    fee_type: str | None = None
    fee_multiplier: float | None = None
    last_updated_ts: str | None = None
    exchange_index: ExchangeIndex | None = None


class FixedBook(msgspec.Struct, frozen=True):
    """Holds levels as pairs of strings: dollars and contracts."""

    yes_dollars: list[tuple[str, str]] | None = None
    no_dollars: list[tuple[str, str]] | None = None


class LegacyBook(msgspec.Struct, frozen=True):
    """Holds levels as cents and whole contracts, or dollars and whole contracts."""

    yes: list[tuple[int, int]] | None = None
    no: list[tuple[int, int]] | None = None
    yes_dollars: list[tuple[str, int]] | None = None
    no_dollars: list[tuple[str, int]] | None = None


class BookObject(msgspec.Struct, frozen=True):
    """Holds a book in one of the two shapes."""

    orderbook_fp: FixedBook | None = None
    orderbook: LegacyBook | None = None


class TradeObject(msgspec.Struct, frozen=True):
    """Describes one trade; the market's field is `ticker` here."""

    trade_id: str
    ticker: str
    created_time: str
    yes_price_dollars: str | None = None
    no_price_dollars: str | None = None
    count_fp: str | None = None
    taker_outcome_side: str | None = None
    taker_side: str | None = None
    is_block_trade: bool | None = None
    yes_price: int | None = None
    no_price: int | None = None
    count: int | None = None


class ShardObject(msgspec.Struct, frozen=True):
    """Describes the state of one shard."""

    exchange_index: ExchangeIndex
    exchange_active: bool
    trading_active: bool
    description: str | None = None


class StatusObject(msgspec.Struct, frozen=True):
    """Describes the exchange's state; its top level is that of shard 0."""

    exchange_active: bool
    trading_active: bool
    exchange_estimated_resume_time: str | None = None
    exchange_index_statuses: list[ShardObject] | None = None


class OpenSpan(msgspec.Struct, frozen=True):
    """Describes an open span by two `HH:MM` in US Eastern time."""

    open_time: str
    close_time: str


class HoursObject(msgspec.Struct, frozen=True):
    """Describes a weekly timetable and the span in which it is valid."""

    start_time: str | None = None
    end_time: str | None = None
    monday: list[OpenSpan] | None = None
    tuesday: list[OpenSpan] | None = None
    wednesday: list[OpenSpan] | None = None
    thursday: list[OpenSpan] | None = None
    friday: list[OpenSpan] | None = None
    saturday: list[OpenSpan] | None = None
    sunday: list[OpenSpan] | None = None


class WindowObject(msgspec.Struct, frozen=True):
    """Describes a planned outage."""

    start_datetime: str
    end_datetime: str


class ScheduleObject(msgspec.Struct, frozen=True):
    """Describes the calendar."""

    standard_hours: list[HoursObject] | None = None
    maintenance_windows: list[WindowObject] | None = None


class CandleObject(msgspec.Struct, frozen=True):
    """Describes one candle; its parts are read by name with and without the `_dollars` and `_fp` suffixes."""

    end_period_ts: int
    yes_bid: dict[str, Any] | None = None
    yes_ask: dict[str, Any] | None = None
    price: dict[str, Any] | None = None
    volume_fp: str | None = None
    open_interest_fp: str | None = None
    volume: int | str | None = None
    open_interest: int | str | None = None


class BucketObject(msgspec.Struct, frozen=True):
    """Describes a token bucket."""

    refill_rate: float
    bucket_capacity: float


class CostObject(msgspec.Struct, frozen=True):
    """Describes an endpoint whose requests have another cost than the usual one."""

    method: str
    path: str
    cost: float


class CostsObject(msgspec.Struct, frozen=True):
    """Describes the costs of requests in tokens."""

    default_cost: float
    endpoint_costs: list[CostObject] | None = None


class CutoffObject(msgspec.Struct, frozen=True):
    """Describes the cutoff between the historical and the live tier."""

    market_settled_ts: str
    trades_created_ts: str


class LimitsObject(msgspec.Struct, frozen=True):
    """Describes the account's budgets."""

    read: BucketObject
    usage_tier: str | None = None
