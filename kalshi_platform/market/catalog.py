"""Defines what the exchange lists: series, their events, the events' markets; also its state, calendar and candles.

Fields hold what the platform uses; `payload` keeps the whole object as canonical JSON text (sorted keys), so that
nothing Kalshi sent is lost and equal objects have equal text. Times are microseconds since the epoch, None where Kalshi
sent none (it writes the year 0001, an empty string or null). Prices in `*_e4`, sizes in `*_e2`, settlement in `*_e6`.
"""

from __future__ import annotations

import msgspec

from kalshi_platform.market.records import Levels


class MarketInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one market; `status` is one of Kalshi's eight response statuses, to which legacy words are mapped."""

    ticker: str
    event_ticker: str
    series_ticker: str | None
    market_type: str | None
    status: str
    title: str | None
    open_time_us: int | None
    close_time_us: int | None
    expected_expiration_us: int | None
    created_us: int | None
    updated_us: int | None
    result: str | None
    settlement_value_e6: int | None
    settlement_ts_us: int | None
    price_level_structure: str | None
    price_ranges: str | None
    is_provisional: bool
    mve_collection_ticker: str | None
    exchange_index: int
    can_close_early: bool | None
    payload: str


class EventInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one event; its payload leaves out nested markets, which are rows of their own."""

    event_ticker: str
    series_ticker: str | None
    title: str | None
    sub_title: str | None
    category: str | None
    collateral_return_type: str | None
    mutually_exclusive: bool | None
    strike_date_us: int | None
    strike_period: str | None
    updated_us: int | None
    exchange_index: int
    payload: str


class SeriesInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one series; `fee_multiplier` is a plain factor, not money."""

    ticker: str
    title: str | None
    category: str | None
    frequency: str | None
    fee_type: str | None
    fee_multiplier: float | None
    updated_us: int | None
    exchange_index: int
    payload: str


class ShardStatus(msgspec.Struct, frozen=True):
    """Describes the state of one exchange shard (`exchange_index`); shards can pause separately."""

    exchange_index: int
    exchange_active: bool
    trading_active: bool
    description: str | None = None


class ExchangeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the state of the exchange.

    `exchange_active` false: nothing works. `trading_active` false: a trading pause, books do not change.
    """

    exchange_active: bool
    trading_active: bool
    estimated_resume_us: int | None
    shards: tuple[ShardStatus, ...]
    payload: str


class TradingHours(msgspec.Struct, frozen=True):
    """Lists the open spans of the seven weekdays, Monday first: pairs of `HH:MM` in US Eastern time."""

    start_us: int | None
    end_us: int | None
    weekdays: tuple[tuple[tuple[str, str], ...], ...]


class MaintenanceWindow(msgspec.Struct, frozen=True):
    """Describes a planned outage."""

    start_us: int
    end_us: int


class ExchangeSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the exchange's calendar."""

    standard_hours: tuple[TradingHours, ...]
    maintenance_windows: tuple[MaintenanceWindow, ...]
    payload: str


class Ohlc(msgspec.Struct, frozen=True):
    """Holds open, high, low and close of one quantity in `*_e4`; None where there was none."""

    open_e4: int | None
    high_e4: int | None
    low_e4: int | None
    close_e4: int | None


class Candlestick(msgspec.Struct, frozen=True, kw_only=True):
    """Describes one candle of one market; `end_us` is the inclusive end of its period."""

    ticker: str
    end_us: int
    yes_bid: Ohlc
    yes_ask: Ohlc
    price: Ohlc
    price_mean_e6: int | None
    price_previous_e4: int | None
    volume_e2: int | None
    open_interest_e2: int | None


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the account's read budget: tokens per second and size of the bucket (a usual request costs 10)."""

    usage_tier: str | None
    read_refill_per_s: float
    read_bucket_capacity: float
    payload: str


class EndpointCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the costs of requests in tokens: the usual cost, and the exceptions by (method, path)."""

    default_cost: float
    by_endpoint: dict[tuple[str, str], float]


class HistoricalCutoff(msgspec.Struct, frozen=True, kw_only=True):
    """Holds the times from which on the live endpoints have markets (by settlement) and trades."""

    market_settled_us: int
    trades_created_us: int
    payload: str


class BooksAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Holds books read over REST: (yes, no) by ticker, the body, and the times of request and answer by our clock.

    REST books carry neither sequence nor time: each is the book at some moment between the two.
    """

    books: dict[str, tuple[Levels, Levels]]
    requested_at_ns: int
    answered_at_ns: int
    body: bytes = b""
