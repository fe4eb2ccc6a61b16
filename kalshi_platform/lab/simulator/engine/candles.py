"""Candlesticks from the simulator's own quotes and trades."""

from __future__ import annotations

from typing import Any

from kalshi_platform.lab.simulator.engine.payloads import DOLLARS, count_text
from kalshi_platform.lab.simulator.engine.universe import Market, Trade
from kalshi_platform.lab.simulator.engine.venue import MINUTE_US

Json = dict[str, Any]
PERIODS = (1, 60, 1_440)


def candles(
    market: Market, *, start_s: int, end_s: int, period_min: int, with_latest_before: bool = False
) -> list[Json]:
    """Return the candles whose inclusive end lies in [start_s, end_s], oldest first.

    Periods without a quote or trade are left out. `with_latest_before` puts one more in front, when there was anything
    before `start_s`: it ends at the first period's beginning, has no trades, and carries the quotes and price of then.
    """
    period_us = period_min * MINUTE_US
    trades: dict[int, list[Trade]] = {}
    for trade in market.trades:
        trades.setdefault(-(-trade.us // period_us), []).append(trade)
    quotes: dict[int, list[int]] = {}
    for minute in market.minutes:
        quotes.setdefault(-(-(minute + 1) * MINUTE_US // period_us), []).append(minute)
    found = []
    previous: int | None = None
    bid, ask, interest = [0] * 4, [10_000] * 4, 0
    first_end = -(-start_s * 1_000_000 // period_us) * period_us // 1_000_000
    before: Json | None = None
    for number in sorted(trades.keys() | quotes.keys()):
        inside = [market.minutes[minute] for minute in sorted(quotes.get(number, ()))]
        bid = _join([minute.bid for minute in inside]) or [bid[3]] * 4
        ask = _join([minute.ask for minute in inside]) or [ask[3]] * 4
        interest = inside[-1].open_interest_e2 if inside else interest
        own = trades.get(number, [])
        end = number * period_us // 1_000_000
        if start_s <= end <= end_s:
            found.append(_candle(end, bid, ask, own, previous, interest))
        if own:
            previous = own[-1].yes_price_e4
        if end < start_s:
            before = _candle(first_end - 60 * period_min, [bid[3]] * 4, [ask[3]] * 4, [], previous, interest)
    return [before, *found] if with_latest_before and before is not None else found


def _candle(
    end_s: int, bid: list[int], ask: list[int], trades: list[Trade], previous: int | None, interest_e2: int
) -> Json:
    return {
        "end_period_ts": end_s,
        "yes_bid": _prices(bid),
        "yes_ask": _prices(ask),
        "price": _price(trades, previous),
        "volume_fp": count_text(sum(trade.count_e2 for trade in trades)),
        "open_interest_fp": count_text(interest_e2),
    }


def historical(candle: Json) -> Json:
    """Return a candle as the historical tier prints it: the same values under names without suffixes."""
    found: Json = {}
    for name, value in candle.items():
        plain = name.removesuffix("_fp").removesuffix("_dollars")
        if plain in ("min", "max"):  # these two the historical tier never had
            continue
        found[plain] = historical(value) if isinstance(value, dict) else value
    return found


def _join(parts: list[list[int]]) -> list[int]:
    if not parts:
        return []
    return [parts[0][0], max(part[1] for part in parts), min(part[2] for part in parts), parts[-1][3]]


def _prices(candle: list[int]) -> Json:
    first, high, low, last = (DOLLARS[price] for price in candle)
    return {"open_dollars": first, "low_dollars": low, "high_dollars": high, "close_dollars": last}


def _price(trades: list[Trade], previous: int | None) -> Json:
    before = None if previous is None else DOLLARS[previous]
    names = ("open", "low", "high", "close", "mean", "min", "max")
    if not trades:
        return {**{f"{name}_dollars": None for name in names}, "previous_dollars": before}
    all_prices = [trade.yes_price_e4 for trade in trades]
    contracts = sum(trade.count_e2 for trade in trades)
    mean = sum(trade.yes_price_e4 * trade.count_e2 for trade in trades) // contracts
    low, high = min(all_prices), max(all_prices)
    values = (all_prices[0], low, high, all_prices[-1], mean, low, high)
    return {
        **{f"{name}_dollars": DOLLARS[v] for name, v in zip(names, values, strict=True)},
        "previous_dollars": before,
    }
