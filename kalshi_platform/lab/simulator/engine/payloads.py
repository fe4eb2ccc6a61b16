"""The wire shapes of WebSocket messages, as of autumn 2026: each `msg` body, encoded once for all.

Prices go out as dollar strings with four decimals, counts with two, times as the message type has them: deltas with a
microsecond `ts` whose trailing zeros are trimmed and a `ts_ms`; tickers with `ts` (s), `ts_ms` and `time`; trades with
`ts` and `ts_ms`; lifecycle events in seconds.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from kalshi_platform.lab.simulator.engine.book import NO, ONE_DOLLAR_E4, SIDES, YES, Book
from kalshi_platform.lab.simulator.engine.grids import GRIDS
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Series, Trade

DOLLARS: tuple[str, ...] = tuple(f"{e4 // 10_000}.{e4 % 10_000:04d}" for e4 in range(ONE_DOLLAR_E4 + 1))
Json = dict[str, Any]
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def encode(value: object) -> bytes:
    """Return compact JSON."""
    return _COMPACT.encode(value).encode()


@lru_cache(maxsize=65_536)
def count_text(count_e2: int) -> str:
    """Return 1/100 contracts as the exchange prints them: 1250 → "12.50", −313 → "-3.13"."""
    sign = "-" if count_e2 < 0 else ""
    return f"{sign}{abs(count_e2) // 100}.{abs(count_e2) % 100:02d}"


@lru_cache(maxsize=4_096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=64)
def time_text(us: int) -> str:
    """Return RFC 3339 with up to six decimals, trailing zeros trimmed as the exchange does."""
    second, fraction = divmod(us, 1_000_000)
    if not fraction:
        return _second_text(second) + "Z"
    return f"{_second_text(second)}.{fraction:06d}".rstrip("0") + "Z"


def delta(market: Market, us: int, side: int, price_e4: int, delta_e2: int, *, use_yes_price: bool = False) -> bytes:
    """Return the body of `orderbook_delta`."""
    if use_yes_price and side == NO:
        price_e4 = ONE_DOLLAR_E4 - price_e4
    head = market.delta_head
    if not head:
        head = market.delta_head = delta_head(market.ticker, market.market_id)
    return delta_body(head, us, side, price_e4, delta_e2)


def delta_head(ticker: str, market_id: str) -> str:
    """Return the beginning of every delta's body of a market."""
    return f'{{"market_ticker":"{ticker}","market_id":"{market_id}","price_dollars":"'


def delta_body(head: str, us: int, side: int, price_e4: int, delta_e2: int) -> bytes:
    """Return the body of `orderbook_delta` with a head of `delta_head`."""
    return (
        f'{head}{DOLLARS[price_e4]}","delta_fp":"{count_text(delta_e2)}","side":"{SIDES[side]}",'
        f'"ts":"{time_text(us)}","ts_ms":{us // 1000}}}'
    ).encode()


def levels(book: Book, side: int, *, use_yes_price: bool = False) -> list[list[str]]:
    """Return one side as string pairs, best bid last."""
    flip = use_yes_price and side == NO
    return [
        [DOLLARS[ONE_DOLLAR_E4 - price if flip else price], count_text(size)]
        for price, size in book.sorted_levels(side)
    ]


def snapshot(market: Market, *, use_yes_price: bool = False) -> bytes:
    """Return the body of `orderbook_snapshot`; the key of an empty side is absent, and there is no time in it."""
    body: Json = {"market_ticker": market.ticker, "market_id": market.market_id}
    if market.book.levels[YES]:
        body["yes_dollars_fp"] = levels(market.book, YES)
    if market.book.levels[NO]:
        body["no_dollars_fp"] = levels(market.book, NO, use_yes_price=use_yes_price)
    return encode(body)


def ticker(market: Market, us: int) -> bytes:
    """Return the body of `ticker`; before the first trade `price_dollars` is zero."""
    yes, yes_size, no, no_size = market.book.top()
    price = DOLLARS[market.last_price_e4 or 0]
    return (
        f'{{"market_id":"{market.market_id}","market_ticker":"{market.ticker}","price_dollars":"{price}",'
        f'"yes_bid_dollars":"{DOLLARS[yes]}","yes_ask_dollars":"{DOLLARS[ONE_DOLLAR_E4 - no]}",'
        f'"volume_fp":"{count_text(market.volume_e2)}","open_interest_fp":"{count_text(market.open_interest_e2)}",'
        f'"dollar_volume":{market.dollar_volume_e6 // 1_000_000},'
        f'"dollar_open_interest":{market.open_interest_e2 * (market.last_price_e4 or 0) // 1_000_000},'
        f'"yes_bid_size_fp":"{count_text(yes_size)}","yes_ask_size_fp":"{count_text(no_size)}",'
        f'"last_trade_size_fp":"{count_text(market.last_size_e2)}",'
        f'"ts":{us // 1_000_000},"ts_ms":{us // 1000},"time":"{time_text(us)}"}}'
    ).encode()


def trade(item: Trade) -> bytes:
    """Return the body of `trade`; the bid side of the book is the yes side."""
    taker = SIDES[item.taker_side]
    return (
        f'{{"trade_id":"{item.trade_id}","market_ticker":"{item.ticker}",'
        f'"yes_price_dollars":"{DOLLARS[item.yes_price_e4]}",'
        f'"no_price_dollars":"{DOLLARS[ONE_DOLLAR_E4 - item.yes_price_e4]}",'
        f'"count_fp":"{count_text(item.count_e2)}","taker_side":"{taker}","taker_outcome_side":"{taker}",'
        f'"taker_book_side":"{"bid" if item.taker_side == YES else "ask"}",'
        f'"is_block_trade":{"true" if item.is_block_trade else "false"},'
        f'"ts":{item.us // 1_000_000},"ts_ms":{item.us // 1000}}}'
    ).encode()


def price_ranges(structure: str) -> list[dict[str, str]]:
    """Return the grid as the exchange prints it."""
    return [
        {"start": DOLLARS[start], "end": DOLLARS[end], "step": DOLLARS[step]} for start, end, step in GRIDS[structure]
    ]


def strike(market: Market) -> Json:
    """Return the members that say when the market resolves to yes; `strike_type` tells which of them there are."""
    found: Json = {"strike_type": market.strike_type}
    if market.strike_type in ("greater", "greater_or_equal", "between"):
        found["floor_strike"] = market.strike
    if market.strike_type in ("less", "less_or_equal", "between"):
        found["cap_strike"] = round(market.strike + 0.5, 2)
    if market.strike_type == "custom":
        found["custom_strike"] = {"value": f"{market.strike:.2f}"}
    return found


def created(market: Market, event: Event) -> Json:
    """Return the `msg` of a `created` lifecycle event; the event's ticker is only inside `additional_metadata`."""
    return {
        "market_ticker": market.ticker,
        "event_type": "created",
        "exchange_index": market.exchange_index,
        "open_ts": market.open_us // 1_000_000,
        "close_ts": market.close_us // 1_000_000,
        "price_level_structure": market.structure,
        "price_ranges": price_ranges(market.structure),
        "additional_metadata": {
            "name": event.title,
            "title": event.title,
            "yes_sub_title": market.yes_sub_title,
            "no_sub_title": f"Not {market.yes_sub_title.lower()}",
            "rules_primary": f"Resolves to yes by the value for {event.sub_title}.",
            "rules_secondary": "",
            "can_close_early": True,
            "event_ticker": market.event_ticker,
            "expected_expiration_ts": market.close_us // 1_000_000 + market.settle_after_s,
            **strike(market),
        },
    }


def collateral(event: Event) -> str:
    """Return how collateral is netted: markets that exclude each other, or (combos) not at all."""
    return "" if event.is_combo else "MECNET"


def event_created(event: Event, series: Series) -> Json:
    """Return the `msg` of `event_lifecycle`."""
    return {
        "event_ticker": event.ticker,
        "exchange_index": event.exchange_index,
        "title": event.title,
        "subtitle": event.sub_title,
        "collateral_return_type": collateral(event),
        "series_ticker": series.ticker,
        "strike_date": event.strike_us // 1_000_000,
    }
