"""REST queries over the venue: filters, their allowed combinations, and paging. Pure; raises `BadQuery` (HTTP 400)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from kalshi_platform.errors import PermanentError
from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Trade
from kalshi_platform.lab.simulator.engine.venue import Venue

T = TypeVar("T")
Query = Mapping[str, str]
SECOND_US = 1_000_000

STATUSES: dict[str, frozenset[str]] = {
    "unopened": frozenset({universe.INITIALIZED}),
    # Paused markets count as open too (since November 2025).
    "open": frozenset({universe.ACTIVE, universe.INACTIVE}),
    "paused": frozenset({universe.INACTIVE}),
    "closed": frozenset({universe.CLOSED, universe.DETERMINED, universe.DISPUTED, universe.AMENDED}),
    "settled": frozenset({universe.FINALIZED}),
}
# Which statuses may be asked together with which time filter (None = no status).
COMBINATIONS: dict[str, frozenset[str | None]] = {
    "created": frozenset({"unopened", "open", None}),
    "close": frozenset({"closed", None}),
    "settled": frozenset({"settled", None}),
    "updated": frozenset({None}),
}
TIMES: dict[str, Callable[[Market], int | None]] = {
    "created": lambda market: market.created_us,
    "close": lambda market: market.close_us,
    "settled": lambda market: market.settled_us,
    "updated": lambda market: market.updated_us,
}


class BadQuery(PermanentError):
    """A query the exchange answers with HTTP 400."""


def number(query: Query, name: str, *, default: int, low: int | None = None, high: int | None = None) -> int:
    """Return a whole number from the query."""
    text = query.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise BadQuery(f"{name} must be a whole number") from None
    if (low is not None and value < low) or (high is not None and value > high):
        raise BadQuery(f"{name} must be in {low}…{high}")
    return value


def flag(query: Query, name: str) -> bool:
    """Return a true/false parameter."""
    text = query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise BadQuery(f"{name} must be true or false")
    return text in ("true", "1")


def page(items: Sequence[T], wanted: Callable[[T], bool], query: Query, *, limit: int) -> tuple[list[T], str]:
    """Return one page and the next cursor ("" at the end).

    `items` only ever grows at its end, so positions stay valid.
    """
    position = _position(query.get("cursor", ""))
    found: list[T] = []
    for index in range(position, len(items)):
        if wanted(items[index]):
            if len(found) == limit:
                return found, _cursor(index)
            found.append(items[index])
    return found, ""


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(f"p{position}".encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        return max(0, int(text.removeprefix("p")))
    except (ValueError, binascii.Error):
        raise BadQuery("invalid cursor") from None


def market_filter(query: Query, now_us: int) -> Callable[[Market], bool]:
    """Return the test for `GET /markets`; raises `BadQuery` for a combination that the exchange refuses."""
    status = query.get("status") or None
    if status is not None and status not in STATUSES:
        raise BadQuery("status must be one of unopened, open, paused, closed, settled")
    mve = query.get("mve_filter") or None
    if mve not in (None, "only", "exclude"):
        raise BadQuery("mve_filter must be only or exclude")
    ranges = _time_ranges(query, status)
    if "updated" in ranges and (mve != "exclude" or query.get("tickers") or query.get("event_ticker")):
        raise BadQuery("min_updated_ts goes with mve_filter=exclude, and with series_ticker only")
    tickers = _list(query.get("tickers", ""))
    event, series = query.get("event_ticker"), query.get("series_ticker")

    def wanted(market: Market) -> bool:
        if not market.is_visible(now_us) or (status is not None and market.status not in STATUSES[status]):
            return False
        if (tickers and market.ticker not in tickers) or (event and market.event_ticker != event):
            return False
        if (series and market.series_ticker != series) or (mve is not None and market.is_combo != (mve == "only")):
            return False
        for name, (low, high) in ranges.items():
            time_us = TIMES[name](market)
            if time_us is None or not low <= time_us < high:
                return False
        return True

    return wanted


def _time_ranges(query: Query, status: str | None) -> dict[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    for name, allowed in COMBINATIONS.items():
        low = number(query, f"min_{name}_ts", default=-1)
        high = number(query, f"max_{name}_ts", default=-1)
        if low < 0 and high < 0:
            continue
        if status not in allowed:
            raise BadQuery(f"{name} timestamp filters do not go with status={status}")
        ranges[name] = (low * SECOND_US if low >= 0 else 0, (high + 1) * SECOND_US if high >= 0 else 1 << 62)
    if len(ranges) > 1:
        raise BadQuery("only one kind of timestamp filter is allowed")
    return ranges


def historical_filter(query: Query, now_us: int) -> Callable[[Market], bool]:
    """Return the test for `GET /historical/markets`, which takes one filter at a time."""
    names = ("tickers", "event_ticker", "series_ticker", "mve_filter")
    given = {name: query[name] for name in names if query.get(name)}
    if len(given) > 1:
        raise BadQuery(f"{' and '.join(given)} do not go together")
    return market_filter(given, now_us)


def event_filter(venue: Venue, query: Query, now_us: int, *, combos: bool) -> Callable[[Event], bool]:
    """Return the test for `GET /events` (never combos) and `GET /events/multivariate` (only combos)."""
    status = query.get("status") or None
    if status is not None and status not in ("unopened", "open", "closed", "settled"):
        raise BadQuery("status must be one of unopened, open, closed, settled")
    tickers = _list(query.get("tickers", ""))
    series = query.get("series_ticker")
    collection = query.get("collection_ticker")
    if collection:
        if series or not combos:
            raise BadQuery("collection_ticker goes alone, and with multivariate events only")
        series = collection.removesuffix("-COLLECTION")
    min_updated = number(query, "min_updated_ts", default=0) * SECOND_US
    min_close = number(query, "min_close_ts", default=0) * SECOND_US

    def wanted(event: Event) -> bool:
        if event.is_combo != combos or (series and event.series_ticker != series):
            return False
        if (tickers and event.ticker not in tickers) or event.updated_us < min_updated:
            return False
        if status is None and not min_close:
            return True
        return any(
            (status is None or market.status in STATUSES[status]) and market.close_us >= min_close
            for market in nested(venue, event, now_us)
        )

    return wanted


def nested(venue: Venue, event: Event, now_us: int) -> list[Market]:
    """Return the event's markets that REST shows now."""
    found = (venue.visible(ticker, now_us) for ticker in event.market_tickers)
    return [market for market in found if market is not None]


def trade_page(trades: Sequence[Trade], query: Query) -> tuple[list[Trade], str]:
    """Return one page of trades, newest first. The cursor counts from the oldest, so that new trades shift nothing."""
    limit = number(query, "limit", default=100, low=0, high=1_000) or 100
    low = number(query, "min_ts", default=0) * SECOND_US
    high = number(query, "max_ts", default=(1 << 40)) * SECOND_US
    only_blocks = flag(query, "is_block_trade") if "is_block_trade" in query else None
    cursor = query.get("cursor", "")
    position = min(_position(cursor), len(trades)) if cursor else len(trades)
    found: list[Trade] = []
    for index in range(position - 1, -1, -1):
        trade = trades[index]
        if trade.us < low:
            break
        if trade.us > high or (only_blocks is not None and trade.is_block_trade != only_blocks):
            continue
        if len(found) == limit:
            return found, _cursor(index + 1)
        found.append(trade)
    return found, ""


def fee_change_page(
    changes: Sequence[tuple[int, str, str | None, float | None]], query: Query
) -> tuple[list[int], str]:
    """Return the positions of one page of fee changes, and the next cursor."""
    limit = number(query, "limit", default=100, low=0, high=1_000) or 100
    event = query.get("event_ticker")
    indices = range(len(changes))
    return page(indices, lambda index: not event or changes[index][1] == event, query, limit=limit)


def _list(text: str) -> frozenset[str]:
    return frozenset(part for part in text.split(",") if part)
