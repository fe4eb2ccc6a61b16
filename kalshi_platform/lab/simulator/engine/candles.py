"""Candlesticks of the simulator's own books and trades, as Kalshi's endpoints define them.

A candle of length p that ends at E covers (E − p, E]. It is there when the book changed or a trade came in it, so a
quiet period has none. Quotes are the best prices between microseconds, never between two messages of one: the open is
the level in force at the period's start, high and low count it too, the close is the level in force at E. An empty side
shows bid 0 or ask 1 dollar. Block trades count as trades do. What a period without a trade does not have is absent.
"""

from __future__ import annotations

from typing import Any

from kalshi_platform.lab.simulator.engine.book import NO, ONE_DOLLAR_E4, YES
from kalshi_platform.lab.simulator.engine.payloads import DOLLARS, count_text
from kalshi_platform.lab.simulator.engine.universe import Market, Minute, Trade

Json = dict[str, Any]
PERIODS = (1, 60, 1_440)
MINUTE_US = 60_000_000


def quote_of(market: Market) -> tuple[int, int]:
    """Return the best yes bid and yes ask in force."""
    best = market.book.best
    return best[YES], ONE_DOLLAR_E4 - best[NO]


def note_message(market: Market, us: int, before: tuple[int, int]) -> None:
    """Note that a message of a market has changed its book, or that a trade came; `before`: the quote until then.

    What was in force at the end of the microsecond before counts in that one's minute, and is what a minute that begins
    here opens with.
    """
    if us == market.moment_us:
        return
    _end_moment(market, before)
    market.moment_us = us
    number = -(-us // MINUTE_US)
    minute = market.minutes.get(number)
    if minute is None:
        bid, ask = before
        minute = market.minutes[number] = Minute([bid] * 4, [ask] * 4, market.open_interest_e2)
    market.minute = minute


def _end_moment(market: Market, quote: tuple[int, int]) -> None:
    """Take the quote after all messages of the last microsecond into its minute; may be done again."""
    minute = market.minute
    if minute is None:
        return
    for prices, price in ((minute.bid, quote[0]), (minute.ask, quote[1])):
        if price > prices[1]:
            prices[1] = price
        elif price < prices[2]:
            prices[2] = price
        prices[3] = price
    minute.open_interest_e2 = market.open_interest_e2


def candles(
    market: Market, *, start_s: int, end_s: int, period_min: int, with_latest_before: bool = False
) -> list[Json]:
    """Return the candles whose inclusive end lies in [start_s, end_s], oldest first.

    `with_latest_before` puts one more in front, when there was anything before `start_s`: it is dated to the first end
    of a period after `start_s`, has no trades, and carries the quotes and the price of then.
    """
    _end_moment(market, quote_of(market))
    period_us = period_min * MINUTE_US
    trades: dict[int, list[Trade]] = {}
    for trade in market.trades:
        trades.setdefault(-(-trade.us // period_us), []).append(trade)
    minutes: dict[int, list[Minute]] = {}
    for number in sorted(market.minutes):
        minutes.setdefault(-(-number // period_min), []).append(market.minutes[number])
    found = []
    previous: int | None = None
    bid, ask, interest = [0] * 4, [ONE_DOLLAR_E4] * 4, 0
    before: Json | None = None
    for number in sorted(trades.keys() | minutes.keys()):
        inside = minutes.get(number, [])
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
            first_end = (start_s // (60 * period_min) + 1) * 60 * period_min
            before = _candle(first_end, [bid[3]] * 4, [ask[3]] * 4, [], previous, interest)
    return [before, *found] if with_latest_before and before is not None else found


def historical(candle: Json) -> Json:
    """Return a candle as the historical tier prints it: the same values under names without suffixes."""
    return {
        name.removesuffix("_fp").removesuffix("_dollars"): historical(value) if isinstance(value, dict) else value
        for name, value in candle.items()
    }


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


def _join(parts: list[list[int]]) -> list[int]:
    if not parts:
        return []
    return [parts[0][0], max(part[1] for part in parts), min(part[2] for part in parts), parts[-1][3]]


def _prices(quote: list[int]) -> Json:
    first, high, low, last = (DOLLARS[price] for price in quote)
    return {"open_dollars": first, "low_dollars": low, "high_dollars": high, "close_dollars": last}


def _price(trades: list[Trade], previous: int | None) -> Json:
    found = {}
    if trades:
        prices = [trade.yes_price_e4 for trade in trades]
        contracts = sum(trade.count_e2 for trade in trades)
        paid = sum(trade.yes_price_e4 * trade.count_e2 for trade in trades)
        found = {
            "open_dollars": DOLLARS[prices[0]],
            "low_dollars": DOLLARS[min(prices)],
            "high_dollars": DOLLARS[max(prices)],
            "close_dollars": DOLLARS[prices[-1]],
            "mean_dollars": DOLLARS[(2 * paid + contracts) // (2 * contracts)],
        }
    if previous is not None:
        found["previous_dollars"] = DOLLARS[previous]
    return found
