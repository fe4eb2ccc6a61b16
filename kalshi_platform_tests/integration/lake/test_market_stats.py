"""The figures of a market's day against a walk through all messages of a simulated day."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.lab.simulator.engine.universe import Trade
from kalshi_platform.lake import reader
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.market.times import US_PER_DAY, US_PER_HOUR, datetime_from_us
from kalshi_platform_tests.fixtures.raw_lake import DAY
from kalshi_platform_tests.fixtures.simulated_day import DAY_US, HOURS, LATENCY_US, MINUTE_US, SimulatedDay

HOLE = (3 * US_PER_HOUR, 3 * US_PER_HOUR + 90_000_000)
Book = tuple[dict[int, int], dict[int, int]]


def test_figures_of_a_day_are_those_of_a_walk_through_its_messages(tmp_path: Path) -> None:
    day = SimulatedDay(tmp_path, markets=2, seed=5)
    firsts = {market.ticker: _copy(market.book.levels) for market in day.venue.quoting}
    for low in (-30_000_000, HOLE[0] - 60_000_000, HOLE[0], HOLE[1], 15 * US_PER_HOUR):
        if low == HOLE[1]:
            day.checkpoint(low)
        day.run(low + 1, low + 50_000_000, 120)
    day.record(hole=HOLE)
    data = DATASETS["aggregates/market_stats"]
    day.export(data)
    rows = reader.read(day.lake.store, data.key, DAY, datetime_from_us(DAY_US + US_PER_DAY))
    assert rows["ticker"].to_list() == sorted(firsts)
    for row in rows.iter_rows(named=True):
        wanted = _walk(day, row["ticker"], firsts[row["ticker"]])
        assert {name: row[name] for name in wanted} == wanted
        assert (row["latency_median_us"], row["latency_p99_us"]) == (LATENCY_US, LATENCY_US)
    whole = day.lake.derive(data, HOURS)
    assert whole.equals(day.lake.derive(data, HOURS, chunk_bytes=1, part_bytes=1_000))


def _walk(day: SimulatedDay, ticker: str, book: Book) -> dict[str, Any]:
    """One step per moment of a book: what was in force from then on, and for how long."""
    known = [(DAY_US, DAY_US + HOLE[0]), (DAY_US + HOLE[1], DAY_US + US_PER_DAY)]
    states: list[tuple[int, Book]] = [(0, _copy(book))]
    for us, side, price, delta in day.deltas_of(ticker):
        book[side][price] = book[side].get(price, 0) + delta
        if states[-1][0] == us:
            states.pop()
        states.append((us, _copy(book)))
    sums = dict.fromkeys(("two_sided", "spread", "bid", "ask"), 0)
    for (us, now), until in zip(states, [*(each for each, _ in states[1:]), DAY_US + US_PER_DAY], strict=True):
        spent = sum(max(0, min(until, high) - max(us, low)) for low, high in known)
        bid, no = max(now[0], default=0), max(now[1], default=0)
        if bid and no:
            sums["two_sided"] += spent
            sums["spread"] += spent * (10_000 - no - bid)
        sums["bid"] += spent * now[0].get(bid, 0)
        sums["ask"] += spent * now[1].get(no, 0)
    near = [0, 0, 0]
    for at in range(DAY_US, DAY_US + US_PER_DAY, MINUTE_US):
        if any(low <= at < high for low, high in known):
            now = [state for us, state in states if us <= at][-1]
            near[2] += 1
            for side in (0, 1):
                best = max(now[side], default=0)
                near[side] += sum(size for price, size in now[side].items() if price >= best - 500)
    total = sum(high - low for low, high in known)
    trades: list[Trade] = [
        trade for trade in day.trades_of(ticker) if 0 <= trade.us // 1_000 * 1_000 - DAY_US < US_PER_DAY
    ]
    volume = sum(trade.count_e2 for trade in trades)
    changes = [us for us, *_ in day.deltas_of(ticker) if us >= DAY_US and not HOLE[0] <= us - DAY_US <= HOLE[1]]
    return {
        "coverage_share": pytest.approx(total / US_PER_DAY),
        "two_sided_share": pytest.approx(sums["two_sided"] / total),
        "spread_mean_dollars": _rounded(sums["spread"], sums["two_sided"], 4),
        "bid_depth_mean_contracts": _rounded(sums["bid"], total, 2),
        "ask_depth_mean_contracts": _rounded(sums["ask"], total, 2),
        "bid_depth_5c_mean_contracts": _rounded(near[0], near[2], 2),
        "ask_depth_5c_mean_contracts": _rounded(near[1], near[2], 2),
        "book_changes": len(changes),
        "trades": len(trades),
        "volume_contracts": Decimal(volume).scaleb(-2),
        "vwap_dollars": _rounded(sum(trade.yes_price_e4 * trade.count_e2 for trade in trades), volume, 4),
        "high_dollars": max(Decimal(trade.yes_price_e4).scaleb(-4) for trade in trades),
    }


def _copy(levels: Any) -> Book:
    yes, no = ({price: size for price, size in side.items() if size} for side in levels)
    return yes, no


def _rounded(total: int, weight: int, digits: int) -> Decimal | None:
    if not weight:
        return None
    return (Decimal(total) / Decimal(weight)).quantize(Decimal(1), ROUND_HALF_UP).scaleb(-digits)
