"""A small lake of two hours: a market with a hole and trades of all kinds, and one beside it."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from kalshi_platform.lake import reader
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform_tests.fixtures.lake import HOUR, at, cover, put

TICKER, OTHER = "KXRAIN-26NOV20-T0.25", "KXRAIN-26NOV20-T0.5"
START, END = at(10), at(110)
HOLE_FROM, HOLE_TO = at(30), at(40)
ONE = timedelta(hours=1)
US = timedelta(microseconds=1)


class World(NamedTuple):
    """The lake, and the exchange times of the market's changes outside the hole."""

    store: FolderStore
    moments: tuple[datetime, ...]


def make_world(folder: Path, moments: int = 300) -> World:
    """Random moments, each with one to three changes; a gatherer receives them 20 to 60 ms later."""
    store, chance = FolderStore(FolderRoot(folder)), random.Random(3)
    times = sorted(at(minutes) for minutes in (chance.uniform(0, 120) for _ in range(moments)))
    deltas: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    checkpoints: dict[int, list[dict[str, Any]]] = {-1: [], 0: [], 1: []}
    for ticker in (TICKER, OTHER):
        book: Counter[tuple[str, int]] = Counter({("yes", 4_500): 1_025, ("no", 4_200): 300})
        marks = [HOUR - US, HOLE_TO, HOUR + ONE - US]
        for moment in (*times, HOUR + 2 * ONE):
            while marks and marks[0] < moment:
                mark = marks.pop(0)
                checkpoints[(mark - HOUR) // ONE].append({"ticker": ticker, "checkpoint_ts": mark, **columns(book)})
            changes: Counter[tuple[str, int]] = Counter()
            for _ in range(chance.randrange(1, 4)):
                level = chance.choice([("yes", 5_000), ("yes", 4_900), ("no", 4_900), ("no", 4_873)])
                changes[level] = chance.choice([117, 25_000, -book[level] or 40])
            book.update(changes)
            received_at = moment + timedelta(milliseconds=chance.uniform(20, 60))
            if moment < HOUR + 2 * ONE:
                deltas[(moment - HOUR) // ONE] += [
                    {
                        "exchange_ts": moment, "ticker": ticker, "side": side, "price_e4": price, "delta_e2": delta,
                        "received_at": received_at,
                    }
                    for (side, price), delta in changes.items()
                ]  # fmt: skip
    for hour in (-1, 0, 1):
        put(store, "book_checkpoints", HOUR + hour * ONE, *checkpoints[hour])
    for hour in (0, 1):
        put(store, "orderbook_deltas", HOUR + hour * ONE, *deltas[hour], share=0.9)
    put_trades(store)
    hole = (TICKER, 0, 30), (TICKER, 40 + 1 / 60_000_000, 60)
    cover(store, HOUR, *hole, (OTHER, 0, 60))
    cover(store, HOUR + ONE, (TICKER, 0, 60), (OTHER, 0, 60))
    return World(store, tuple(each for each in times if not HOLE_FROM <= each <= HOLE_TO))


def columns(book: Counter[tuple[str, int]]) -> dict[str, list[int]]:
    sides = {
        side: sorted((price, size) for (of, price), size in book.items() if of == side and size)
        for side in ("yes", "no")
    }
    return {
        f"{side}_{name}": [level[number] for level in levels]
        for side, levels in sides.items()
        for number, name in enumerate(("price_e4", "count_e2"))
    }


def put_trades(store: FolderStore) -> None:
    def trade(minutes: float, delay_s: float, number: int, **values: Any) -> dict[str, Any]:
        moment = at(minutes).replace(microsecond=0)
        sides = {"ticker": TICKER, "exchange_ts": moment, "received_at": moment + timedelta(seconds=delay_s)}
        return {**sides, "trade_id": str(uuid.UUID(int=number)), "yes_price_e4": 5_000, "count_e2": 150} | values

    put(
        store, "trades", HOUR,
        trade(20, 0.03, 1, taker_side="yes"),
        trade(35, 0.03, 2, taker_side="no"),
        trade(45, 0.03, 3, taker_side="yes", is_block_trade=True),
        trade(50, 3_600, 4, taker_side="no", source="rest", trade_id="an old trade"),
    )  # fmt: skip
    # Received long after what followed it.
    put(store, "trades", HOUR + ONE, trade(70, 90, 5, taker_side=None, yes_price_e4=5_127))


def best_prices(store: FolderStore, moment: datetime, ticker: str = TICKER) -> tuple[int | None, int | None]:
    """Best bid and ask of yes at the end of a moment, in 1/10,000 dollar, as the reader folds them."""
    book = reader.find_book(store, ticker, moment)
    assert book.exact
    yes, no = ([price for of, price, _ in book.levels.rows() if of == side] for side in ("yes", "no"))
    return max(yes, default=None), None if not no else 10_000 - max(no)


def yes_levels(store: FolderStore, moment: datetime, ticker: str = TICKER) -> dict[tuple[str, int], int]:
    """Sizes by side (bid, ask) and price of yes at the end of a moment."""
    book = reader.find_book(store, ticker, moment)
    assert book.exact
    return {
        ("bid", price) if side == "yes" else ("ask", 10_000 - price): size for side, price, size in book.levels.rows()
    }


def times_ns(moments: Sequence[datetime]) -> list[int]:
    return [us_from_datetime(each) * 1_000 for each in moments]
