"""Builds query parameters and checks which filters Kalshi accepts together. Pure; raises InvalidQuery.

Source: docs.kalshi.com, API reference (OpenAPI 3.28.0; official client 3.34.0; read 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias
from urllib.parse import quote

from kalshi_platform.errors import InvalidQuery

Params: TypeAlias = list[tuple[str, str]]

MAX_BOOKS = 100
"""Most tickers in one `/markets/orderbooks` request."""
MAX_CANDLE_MARKETS = 100
MAX_CANDLES = 5_000
"""Most candles of one market in one answer."""
MAX_CANDLES_BATCH = 10_000
"""Most candles of all markets in one answer."""
PERIODS_MIN = (1, 60, 1440)
MARKET_STATUSES = ("unopened", "open", "paused", "closed", "settled")
EVENT_STATUSES = ("unopened", "open", "closed", "settled")
MVE_FILTERS = ("only", "exclude")
# The statuses that go with each kind of time bound; None stands for no status filter.
_STATUSES_OF: dict[str, tuple[str | None, ...]] = {
    "created": ("unopened", "open", None),
    "close": ("closed", None),
    "settled": ("settled", None),
    "updated": (None,),
}


def params(**values: str | int | bool | None) -> Params:
    """Return the parameters that are not None, as text."""
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in values.items()
        if value is not None
    ]


def segment(ticker: str) -> str:
    """Return a ticker as one path segment."""
    if not ticker:
        raise InvalidQuery("an empty ticker")
    return quote(ticker, safe="")


def joined(tickers: Iterable[str] | None) -> str | None:
    """Return tickers as Kalshi's comma list."""
    if tickers is None:
        return None
    listed = list(tickers)
    wrong = [ticker for ticker in listed if not ticker or "," in ticker]
    if wrong or not listed:
        raise InvalidQuery(f"tickers: {wrong[:3] or 'none'} cannot stand in a comma list")
    return ",".join(listed)


def market_params(
    *,
    status: str | None,
    mve_filter: str | None,
    tickers: Iterable[str] | None,
    event_ticker: str | None,
    series_ticker: str | None,
    **bounds: int | None,
) -> Params:
    """Return the parameters of `GET /markets`.

    `bounds`: min_/max_ of created_ts, close_ts, settled_ts, updated_ts, in Unix seconds.
    """
    _one_of("status", status, MARKET_STATUSES)
    _one_of("mve_filter", mve_filter, MVE_FILTERS)
    given = {name: value for name, value in bounds.items() if value is not None}
    kinds = {name.split("_")[1] for name in given}
    for kind in sorted(kinds):
        if status not in _STATUSES_OF[kind]:
            allowed = ", ".join(each or "no status" for each in _STATUSES_OF[kind])
            raise InvalidQuery(f"{kind}_ts bounds go with {allowed}, not with status={status}")
    if len(kinds) > 1:
        raise InvalidQuery(f"bounds of one kind of time at once, not of {' and '.join(sorted(kinds))}")
    if "updated" in kinds and (mve_filter != "exclude" or tickers is not None or event_ticker is not None):
        raise InvalidQuery("updated_ts bounds need mve_filter=exclude, and go with series_ticker only")
    for kind in kinds:
        low, high = given.get(f"min_{kind}_ts"), given.get(f"max_{kind}_ts")
        if low is not None and high is not None and low > high:
            raise InvalidQuery(f"min_{kind}_ts {low} is after max_{kind}_ts {high}")
    return params(
        status=status,
        mve_filter=mve_filter,
        tickers=joined(tickers),
        event_ticker=event_ticker,
        series_ticker=series_ticker,
        limit=1000,
        **given,
    )


def event_params(
    *, status: str | None, tickers: Iterable[str] | None, series_ticker: str | None, **bounds: int | None
) -> Params:
    """Return the parameters of `GET /events`; `bounds`: min_close_ts, min_updated_ts, in Unix seconds."""
    _one_of("status", status, EVENT_STATUSES)
    return params(status=status, tickers=joined(tickers), series_ticker=series_ticker, limit=200, **bounds)


def combo_event_params(*, series_ticker: str | None, collection_ticker: str | None) -> Params:
    """Return the parameters of `GET /events/multivariate`."""
    if series_ticker is not None and collection_ticker is not None:
        raise InvalidQuery("series_ticker or collection_ticker, not both")
    return params(series_ticker=series_ticker, collection_ticker=collection_ticker, limit=200)


def historical_market_params(
    *, tickers: Iterable[str] | None, event_ticker: str | None, series_ticker: str | None, mve_filter: str | None
) -> Params:
    """Return the parameters of `GET /historical/markets`, whose filters exclude each other."""
    _one_of("mve_filter", mve_filter, MVE_FILTERS)
    filters = params(
        tickers=joined(tickers), event_ticker=event_ticker, series_ticker=series_ticker, mve_filter=mve_filter
    )
    if len(filters) > 1:
        raise InvalidQuery(f"one filter at once, not {' and '.join(name for name, _ in filters)}")
    return [*filters, ("limit", "1000")]


def trade_params(ticker: str | None, min_ts: int | None, max_ts: int | None, is_block_trade: bool | None) -> Params:
    """Return the parameters of `GET /markets/trades` and `GET /historical/trades`."""
    if min_ts is not None and max_ts is not None and min_ts > max_ts:
        raise InvalidQuery(f"min_ts {min_ts} is after max_ts {max_ts}")
    return params(ticker=ticker, min_ts=min_ts, max_ts=max_ts, is_block_trade=is_block_trade, limit=1000)


def book_params(tickers: Sequence[str]) -> Params:
    """Return the parameters of `GET /markets/orderbooks`: the tickers repeated, not joined."""
    if not 1 <= len(tickers) <= MAX_BOOKS:
        raise InvalidQuery(f"{len(tickers)} tickers, but one request takes 1 to {MAX_BOOKS}")
    return [("tickers", ticker) for ticker in tickers]


def candle_params(
    start_ts: int, end_ts: int, period_minutes: int, markets: int = 1, limit: int = MAX_CANDLES
) -> Params:
    """Return the span of candles, checked against what one answer holds."""
    if period_minutes not in PERIODS_MIN:
        raise InvalidQuery(f"a period of {period_minutes} minutes; Kalshi has {PERIODS_MIN}")
    if start_ts > end_ts:
        raise InvalidQuery(f"start_ts {start_ts} is after end_ts {end_ts}")
    count = ((end_ts - start_ts) // (60 * period_minutes) + 1) * markets
    if count > limit:
        raise InvalidQuery(f"{count} candles, but one answer holds {limit}: ask for a shorter span")
    return params(start_ts=start_ts, end_ts=end_ts, period_interval=period_minutes)


def _one_of(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise InvalidQuery(f"{name}={value}: Kalshi takes one of {', '.join(allowed)}")
