"""The wire shapes of REST answers: series, events, markets, books, trades and candles, as of autumn 2026."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from kalshi_platform.lab.simulator.engine import universe
from kalshi_platform.lab.simulator.engine.book import NO, ONE_DOLLAR_E4, SIDES, YES, Book
from kalshi_platform.lab.simulator.engine.payloads import (
    DOLLARS,
    collateral,
    count_text,
    levels,
    price_ranges,
    strike,
    time_text,
)
from kalshi_platform.lab.simulator.engine.universe import Event, Market, Series, Trade

Json = dict[str, Any]
DAY_US = 86_400_000_000


def series(item: Series, *, volume_e2: int | None = None, with_metadata: bool = False) -> Json:
    """Return one series; its volume and product metadata only where they were asked for."""
    found: Json = {
        "ticker": item.ticker,
        "frequency": item.frequency,
        "title": item.title,
        "category": item.category,
        "categories": [item.category],
        "tags": None if item.tags is None else list(item.tags),
        "settlement_sources": [{"name": "Simulated source", "url": "https://settlement.example"}],
        "contract_url": "",
        "contract_terms_url": "",
        "fee_type": item.fee_type,
        "fee_multiplier": 1,
        "additional_prohibitions": None,
        "last_updated_ts": time_text(item.updated_us),
        "exchange_index": item.exchange_index,
    }
    if with_metadata:
        found["product_metadata"] = {"cadence": item.frequency}
    if volume_e2 is not None:
        found["volume_fp"] = count_text(volume_e2)
    return found


def event(item: Event, markets: list[Market] | None = None, *, now_us: int = 0) -> Json:
    """Return one event, with nested markets when given."""
    found: Json = {
        "event_ticker": item.ticker,
        "series_ticker": item.series_ticker,
        "title": item.title,
        "sub_title": item.sub_title,
        "collateral_return_type": collateral(item),
        "mutually_exclusive": not item.is_combo,
        "strike_date": time_text(item.strike_us),
        "settlement_sources": None,
        "last_updated_ts": time_text(item.updated_us),
        "exchange_index": item.exchange_index,
    }
    if item.fee_type_override is not None:
        found["fee_type_override"] = item.fee_type_override
    if item.fee_multiplier_override is not None:
        found["fee_multiplier_override"] = item.fee_multiplier_override
    if markets is not None:
        found["markets"] = [market(each, now_us) for each in markets]
    return found


def market(item: Market, now_us: int) -> Json:
    """Return one market; an empty side shows as bid 0 or ask 1 dollar."""
    yes, yes_size, no, no_size = item.book.top()
    day_volume = _volume_since(item, now_us - DAY_US)
    expected_us = item.close_us + item.settle_after_s * 1_000_000
    found: Json = {
        "ticker": item.ticker,
        "event_ticker": item.event_ticker,
        "market_type": item.market_type,
        "title": f"{item.yes_sub_title}?",
        "subtitle": "",
        "yes_sub_title": item.yes_sub_title,
        "no_sub_title": f"Not {item.yes_sub_title.lower()}",
        "created_time": time_text(item.created_us),
        "updated_time": time_text(item.updated_us),
        "open_time": time_text(item.open_us),
        "close_time": time_text(item.close_us),
        "expected_expiration_time": time_text(expected_us),
        "expiration_time": time_text(expected_us),
        "latest_expiration_time": time_text(expected_us + 7 * DAY_US),
        "settlement_timer_seconds": item.settle_after_s,
        "status": item.status,
        "yes_bid_dollars": DOLLARS[yes],
        "yes_bid_size_fp": count_text(yes_size),
        "yes_ask_dollars": DOLLARS[ONE_DOLLAR_E4 - no],
        "yes_ask_size_fp": count_text(no_size),
        "no_bid_dollars": DOLLARS[no],
        "no_ask_dollars": DOLLARS[ONE_DOLLAR_E4 - yes],
        "last_price_dollars": DOLLARS[item.last_price_e4 or 0],
        "volume_fp": count_text(item.volume_e2),
        "volume_24h_fp": count_text(day_volume),
        "open_interest_fp": count_text(item.open_interest_e2),
        "notional_value_dollars": "1.0000",
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask_dollars": "1.0000",
        "previous_price_dollars": "0.0000",
        "result": item.result,
        "can_close_early": True,
        "settlement_bounds_type": "default",
        "expiration_value": _expiration_value(item),
        "early_close_condition": "This market closes early when the outcome is known.",
        **strike(item),
        "rules_primary": f"If the value is {item.yes_sub_title.lower()}, then the market resolves to Yes.",
        "rules_secondary": "",
        "price_level_structure": item.structure,
        "price_ranges": price_ranges(item.structure),
        "is_provisional": item.is_provisional,
        "exchange_index": item.exchange_index,
    }
    if item.settlement_e4 is not None:
        found["settlement_value_dollars"] = DOLLARS[item.settlement_e4]
    if item.status == universe.FINALIZED and item.settled_us is not None:
        found["settlement_ts"] = time_text(item.settled_us)
    if item.is_combo:
        found["mve_collection_ticker"] = f"{item.series_ticker}-COLLECTION"
        found["mve_selected_legs"] = [
            {"event_ticker": ticker.rsplit("-", 1)[0], "market_ticker": ticker, "side": side}
            for ticker, side in item.legs
        ]
    return found


def _expiration_value(item: Market) -> str:
    if item.settlement_e4 is None:
        return ""
    return DOLLARS[item.settlement_e4] if item.result == "scalar" else item.result


def _volume_since(item: Market, from_us: int) -> int:
    trades = item.trades
    if not trades or trades[0].us >= from_us:
        return sum(trade.count_e2 for trade in trades) if len(trades) < 100 else item.volume_e2
    return sum(trade.count_e2 for trade in trades[bisect_left(trades, from_us, key=lambda trade: trade.us) :])


def orderbook(book: Book, depth: int = 0) -> Json:
    """Return `orderbook_fp`; `depth` > 0 keeps that many best levels of each side, best bid last."""
    return {
        "orderbook_fp": {
            "yes_dollars": levels(book, YES)[-depth:],
            "no_dollars": levels(book, NO)[-depth:],
        }
    }


def trade(item: Trade) -> Json:
    """Return one trade; REST calls the market `ticker` and prints microseconds."""
    taker = SIDES[item.taker_side]
    return {
        "trade_id": item.trade_id,
        "ticker": item.ticker,
        "count_fp": count_text(item.count_e2),
        "yes_price_dollars": DOLLARS[item.yes_price_e4],
        "no_price_dollars": DOLLARS[ONE_DOLLAR_E4 - item.yes_price_e4],
        "taker_side": taker,
        "taker_outcome_side": taker,
        "taker_book_side": "bid" if item.taker_side == YES else "ask",
        "created_time": time_text(item.us),
        "is_block_trade": item.is_block_trade,
    }


def fee_change(
    number: int, us: int, event_ticker: str, fee_type: str | None, multiplier: float | None, series_ticker: str
) -> Json:
    """Return one change of an event's fees; nulls put it back under its series'."""
    return {
        "id": str(number + 1),
        "event_ticker": event_ticker,
        "series_ticker": series_ticker,
        "fee_type_override": fee_type,
        "fee_multiplier_override": multiplier,
        "scheduled_ts": time_text(us),
    }


def schedule() -> Json:
    """Return the weekly hours: open but for Thursday 03:00–05:00 Eastern."""
    all_day = [{"open_time": "00:00", "close_time": "00:00"}]
    days: Json = dict.fromkeys(("monday", "tuesday", "wednesday", "friday", "saturday", "sunday"), all_day)
    days["thursday"] = [{"open_time": "00:00", "close_time": "03:00"}, {"open_time": "05:00", "close_time": "00:00"}]
    hours = {"start_time": "2024-12-01T00:00:00Z", "end_time": "2200-12-01T00:00:00Z", **days}
    return {"schedule": {"standard_hours": [hours], "maintenance_windows": []}}
