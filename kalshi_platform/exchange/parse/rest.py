"""Parses REST objects (decoded JSON) into catalog entries, books and trades in the platform's units. Pure.

Every function raises UnparsableMessage for an object of an unknown shape; unknown fields pass. Fields that only
describe a market, event or series may have any shape: one that does not fit becomes None, `on_unexpected` receives its
name, and the payload keeps what was sent. Production writes the year 0001, an empty string or null where there is no
time: all become None. Source: docs.kalshi.com, API reference (OpenAPI 3.28.0; official client 3.34.0; read 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import msgspec

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.legacy_fields import (
    canonical_json,
    ladder,
    name_of,
    price_of,
    required,
    side_of,
    size_of,
)
from kalshi_platform.exchange.wire import rest
from kalshi_platform.market.catalog import (
    AccountLimits,
    Candlestick,
    EndpointCosts,
    EventInfo,
    ExchangeSchedule,
    ExchangeStatus,
    HistoricalCutoff,
    MaintenanceWindow,
    MarketInfo,
    Ohlc,
    SeriesInfo,
    ShardStatus,
    TradingHours,
)
from kalshi_platform.market.names import is_name
from kalshi_platform.market.records import Levels, Trade
from kalshi_platform.market.times import floor_ms, us_from_number, us_from_rfc3339
from kalshi_platform.market.units import money_e6, price_e4, price_e4_from_cents

_T = TypeVar("_T")
_In = TypeVar("_In")
_Described = TypeVar("_Described", bound=msgspec.Struct)
OnUnexpectedField: TypeAlias = Callable[[str], None]
"""Receives the name of each field that was left empty because its value has an unexpected shape."""
# Kalshi's filter words and older answers → the eight statuses of today's answers.
_STATUS = {"open": "active", "settled": "finalized", "unopened": "initialized", "paused": "inactive"}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _ignore(_field: str) -> None:
    return None


def parse_market(obj: object, on_unexpected: OnUnexpectedField = _ignore) -> MarketInfo:
    """Parse one market object (not its `{"market": …}` wrapper), which needs its ticker and status."""
    wire = _described(obj, rest.MarketObject, on_unexpected)

    def moment(field: str) -> int | None:
        return _fitting(_moment, getattr(wire, field), field, on_unexpected)

    def named(field: str) -> str | None:
        return _fitting(lambda text: _name(text, field), getattr(wire, field), field, on_unexpected)

    return MarketInfo(
        ticker=name_of(wire.ticker, "ticker"),
        event_ticker=named("event_ticker") or "",
        series_ticker=named("series_ticker"),
        market_type=wire.market_type or None,
        status=_name(_STATUS.get(wire.status, wire.status), "status") or "",
        title=wire.title or None,
        open_time_us=moment("open_time"),
        close_time_us=moment("close_time"),
        expected_expiration_us=moment("expected_expiration_time"),
        created_us=moment("created_time"),
        updated_us=moment("updated_time"),
        result=wire.result or None,
        settlement_value_e6=_fitting(_settlement, wire, "settlement_value", on_unexpected),
        settlement_ts_us=moment("settlement_ts"),
        price_level_structure=wire.price_level_structure or None,
        price_ranges=None if wire.price_ranges is None else canonical_json(wire.price_ranges),
        is_provisional=bool(wire.is_provisional),
        mve_collection_ticker=wire.mve_collection_ticker or None,
        exchange_index=wire.exchange_index or 0,
        can_close_early=wire.can_close_early,
        payload=canonical_json(obj),
    )


def parse_event(obj: object, on_unexpected: OnUnexpectedField = _ignore) -> EventInfo:
    """Parse one event object, which needs its ticker; nested markets are left out of the payload."""
    wire = _described(obj, rest.EventObject, on_unexpected)
    kept = {key: value for key, value in obj.items() if key != "markets"} if isinstance(obj, dict) else obj
    return EventInfo(
        event_ticker=name_of(wire.event_ticker, "event_ticker"),
        series_ticker=_fitting(
            lambda text: _name(text, "series_ticker"), wire.series_ticker, "series_ticker", on_unexpected
        ),
        title=wire.title or None,
        sub_title=wire.sub_title or None,
        category=wire.category or None,
        collateral_return_type=wire.collateral_return_type or None,
        mutually_exclusive=wire.mutually_exclusive,
        strike_date_us=_fitting(_moment, wire.strike_date, "strike_date", on_unexpected),
        strike_period=wire.strike_period or None,
        updated_us=_fitting(_moment, wire.last_updated_ts, "last_updated_ts", on_unexpected),
        exchange_index=wire.exchange_index or 0,
        payload=canonical_json(kept),
    )


def parse_series(obj: object, on_unexpected: OnUnexpectedField = _ignore) -> SeriesInfo:
    """Parse one series object, which needs its ticker."""
    wire = _described(obj, rest.SeriesObject, on_unexpected)
    return SeriesInfo(
        ticker=name_of(wire.ticker, "ticker"),
        title=wire.title or None,
        category=wire.category or None,
        frequency=wire.frequency or None,
        fee_type=wire.fee_type or None,
        fee_multiplier=wire.fee_multiplier,
        updated_us=_fitting(_moment, wire.last_updated_ts, "last_updated_ts", on_unexpected),
        exchange_index=wire.exchange_index or 0,
        payload=canonical_json(obj),
    )


def parse_rest_book(ticker: str, obj: object) -> tuple[Levels, Levels]:
    """Parse the yes and no bids of an answer with `orderbook_fp`, or the older `orderbook` with nulls and integers."""
    wire = _convert(obj, rest.BookObject)
    if wire.orderbook_fp is not None:
        book = wire.orderbook_fp
        return _fixed(book.yes_dollars), _fixed(book.no_dollars)
    if wire.orderbook is not None:
        old = wire.orderbook
        return _legacy(old.yes_dollars, old.yes), _legacy(old.no_dollars, old.no)
    raise UnparsableMessage("missing_field", f"neither orderbook_fp nor orderbook in the book of {ticker[:200]}")


def parse_rest_books(listed: Iterable[object]) -> tuple[dict[str, tuple[Levels, Levels]], list[str]]:
    """Parse the books of one answer; return their yes and no bids by market, and why others could not be read."""
    books: dict[str, tuple[Levels, Levels]] = {}
    refused: list[str] = []
    for item in listed:
        ticker = item.get("ticker") if isinstance(item, dict) else None
        if not isinstance(ticker, str) or not is_name(ticker):
            refused.append("a book that names no market")
            continue
        try:
            books[ticker] = parse_rest_book(ticker, item)
        except UnparsableMessage as error:
            refused.append(f"{ticker}: {error}")
    return books, refused


def parse_rest_trade(obj: object, received_at_ns: int) -> Trade:
    """Parse one trade; `exchange_ts_us` is floored to the millisecond, as the WebSocket sends it."""
    wire = _convert(obj, rest.TradeObject)
    created = _moment(wire.created_time)
    if created is None:
        raise UnparsableMessage("no_exchange_time", "a trade without created_time")
    yes = required(price_of(wire.yes_price_dollars, wire.yes_price), "yes_price")
    no = price_of(wire.no_price_dollars, wire.no_price)
    return Trade(
        trade_id=name_of(wire.trade_id, "trade_id"),
        ticker=name_of(wire.ticker, "ticker"),
        exchange_ts_us=floor_ms(created),
        yes_price_e4=yes,
        no_price_e4=10_000 - yes if no is None else no,
        count_e2=required(size_of(wire.count_fp, wire.count), "count"),
        taker_side=side_of(wire.taker_outcome_side, wire.taker_side),
        is_block_trade=bool(wire.is_block_trade),
        received_at_ns=received_at_ns,
        source="rest",
        created_time_us=created,
    )


def parse_exchange_status(obj: object) -> ExchangeStatus:
    """Parse the exchange's state."""
    wire = _convert(obj, rest.StatusObject)
    return ExchangeStatus(
        exchange_active=wire.exchange_active,
        trading_active=wire.trading_active,
        estimated_resume_us=_moment(wire.exchange_estimated_resume_time),
        shards=tuple(
            ShardStatus(shard.exchange_index, shard.exchange_active, shard.trading_active, shard.description)
            for shard in wire.exchange_index_statuses or ()
        ),
        payload=canonical_json(obj),
    )


def parse_schedule(obj: object) -> ExchangeSchedule:
    """Parse the calendar, with or without its `{"schedule": …}` wrapper."""
    inner = obj["schedule"] if isinstance(obj, dict) and "schedule" in obj else obj
    wire = _convert(inner, rest.ScheduleObject)
    return ExchangeSchedule(
        standard_hours=tuple(
            TradingHours(
                _moment(hours.start_time),
                _moment(hours.end_time),
                tuple(
                    tuple((span.open_time, span.close_time) for span in getattr(hours, day) or ()) for day in _WEEKDAYS
                ),
            )
            for hours in wire.standard_hours or ()
        ),
        maintenance_windows=tuple(
            MaintenanceWindow(us_from_rfc3339(window.start_datetime), us_from_rfc3339(window.end_datetime))
            for window in wire.maintenance_windows or ()
        ),
        payload=canonical_json(inner),
    )


def parse_candlesticks(obj: object, ticker: str | None = None) -> list[Candlestick]:
    """Parse the candles of one market's answer or of the batch answer, in their order."""
    if not isinstance(obj, dict):
        raise UnparsableMessage("shape", "a candle answer is an object")
    if "markets" in obj:
        return [candle for each in _convert(obj["markets"], list[Any]) for candle in parse_candlesticks(each)]
    name = obj.get("market_ticker") or obj.get("ticker") or ticker
    if not isinstance(name, str):
        raise UnparsableMessage("missing_field", "candles of no market")
    return [_candle(name, each) for each in _convert(obj.get("candlesticks") or [], list[Any])]


def parse_account_limits(obj: object) -> AccountLimits:
    """Parse the account's read budget."""
    wire = _convert(obj, rest.LimitsObject)
    if not (wire.read.refill_rate > 0 and wire.read.bucket_capacity > 0):
        raise UnparsableMessage("range", "a read budget of nothing")
    return AccountLimits(
        usage_tier=wire.usage_tier,
        read_refill_per_s=wire.read.refill_rate,
        read_bucket_capacity=wire.read.bucket_capacity,
        payload=canonical_json(obj),
    )


def parse_endpoint_costs(obj: object) -> EndpointCosts:
    """Parse the costs of requests."""
    wire = _convert(obj, rest.CostsObject)
    by_endpoint = {(each.method.upper(), each.path): each.cost for each in wire.endpoint_costs or ()}
    if not wire.default_cost > 0 or any(not cost >= 0 for cost in by_endpoint.values()):
        raise UnparsableMessage("range", "requests that cost nothing or less")
    return EndpointCosts(default_cost=wire.default_cost, by_endpoint=by_endpoint)


def parse_cutoff(obj: object) -> HistoricalCutoff:
    """Parse the cutoff between the historical and the live tier."""
    wire = _convert(obj, rest.CutoffObject)
    return HistoricalCutoff(
        market_settled_us=us_from_rfc3339(wire.market_settled_ts),
        trades_created_us=us_from_rfc3339(wire.trades_created_ts),
        payload=canonical_json(obj),
    )


def _described(obj: object, shape: type[_Described], on_unexpected: OnUnexpectedField) -> _Described:
    """Convert field by field where the whole does not fit. Raises UnparsableMessage for a required field."""
    try:
        return _convert(obj, shape)
    except UnparsableMessage:
        if not isinstance(obj, dict):
            raise
    kept = {}
    for field in msgspec.structs.fields(shape):
        name = field.encode_name
        if name not in obj:
            continue
        try:
            msgspec.convert(obj[name], field.type)
        except (msgspec.ValidationError, RecursionError):
            if not field.required:
                on_unexpected(name)
                continue
        kept[name] = obj[name]
    return _convert(kept, shape)


def _fitting(
    convert: Callable[[_In], _T | None], value: _In, field: str, on_unexpected: OnUnexpectedField
) -> _T | None:
    try:
        return convert(value)
    except UnparsableMessage:
        on_unexpected(field)
        return None


def _convert(obj: object, shape: type[_T]) -> _T:
    try:
        return msgspec.convert(obj, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        detail = str(error)[:200]
        reason = "missing_field" if "missing required field" in detail else "shape"
        raise UnparsableMessage(reason, f"{getattr(shape, '__name__', shape)}: {detail}") from error


def _name(text: str | None, field: str) -> str | None:
    return name_of(text, field) if text else None


def _moment(text: str | None) -> int | None:
    if not text or text.startswith("0001-"):
        return None
    return us_from_rfc3339(text)


def _settlement(wire: rest.MarketObject) -> int | None:
    if wire.settlement_value_dollars is not None:
        return money_e6(wire.settlement_value_dollars) if wire.settlement_value_dollars else None
    # Legacy cents; 0 together with an unsettled market means "none yet".
    if wire.settlement_value is None or not wire.result:
        return None
    return price_e4_from_cents(wire.settlement_value) * 100


def _fixed(levels: list[tuple[str, str]] | None) -> Levels:
    return ladder([(price_e4(price), required(size_of(count, None), "size")) for price, count in levels or ()])


def _legacy(dollars: list[tuple[str, int]] | None, cents: list[tuple[int, int]] | None) -> Levels:
    if dollars is not None:
        return ladder([(price_e4(price), required(size_of(None, count), "size")) for price, count in dollars])
    return ladder(
        [(price_e4_from_cents(price), required(size_of(None, count), "size")) for price, count in cents or ()]
    )


def _candle(ticker: str, obj: object) -> Candlestick:
    wire = _convert(obj, rest.CandleObject)
    price = wire.price or {}
    mean = price.get("mean_dollars", price.get("mean"))
    return Candlestick(
        ticker=ticker,
        end_us=us_from_number(wire.end_period_ts),
        yes_bid=_ohlc(wire.yes_bid or {}),
        yes_ask=_ohlc(wire.yes_ask or {}),
        price=_ohlc(price),
        price_mean_e6=_mean_e6(mean),
        price_previous_e4=_candle_price(price, "previous"),
        volume_e2=_candle_size(wire.volume_fp, wire.volume),
        open_interest_e2=_candle_size(wire.open_interest_fp, wire.open_interest),
    )


def _ohlc(part: dict[str, Any]) -> Ohlc:
    return Ohlc(*(_candle_price(part, name) for name in ("open", "high", "low", "close")))


def _candle_price(part: dict[str, Any], name: str) -> int | None:
    """Return a price of a candle; historical candles lack the suffix although the value is the same decimal text."""
    value = part.get(f"{name}_dollars", part.get(name))
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return price_e4(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return price_e4_from_cents(value)
    raise UnparsableMessage("shape", f"candle price {name} is {type(value).__name__}")


def _mean_e6(value: object) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return money_e6(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return price_e4_from_cents(value) * 100
    raise UnparsableMessage("shape", f"candle mean is {type(value).__name__}")


def _candle_size(fixed: str | None, plain: int | str | None) -> int | None:
    if fixed is None and isinstance(plain, str):
        return size_of(plain, None)
    return size_of(fixed, plain if isinstance(plain, int) else None)
