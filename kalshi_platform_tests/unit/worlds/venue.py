"""What the exchange of a world published: the truth that everything recorded is held against.

Times are small integers of microseconds after `START_US`. Every connection is sent the deltas of one market in one
order and with one time each; markets are interleaved by each connection in its own way, and the times of frames that
lie next to each other are never more than `MARGIN_US` apart the wrong way round.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MARGIN_US = 8
START_US = 1_795_380_241_000_000
_START_TEXT = "2026-11-22T20:44:01"
INDEX: Mapping[str, int] = {"A": 0, "B": 0, "C": 0, "D": 1, "Q": 0}
"""Markets and their exchange_index. Nothing ever happens in Q."""

Level = tuple[str, int]
Levels = dict[Level, int]
Content = tuple[int, str, str, int, int]


@dataclass(frozen=True)
class Shape:
    """What a world is made of. Probabilities are per step of a connection, a gatherer or a frame."""

    length: int = 60
    gatherers: int = 2
    shards: int = 1
    """Connections of a gatherer that share its markets."""
    lag: int = 12
    """How many deltas behind the others a server may begin."""
    loss: float = 0.02
    broken: float = 0.01
    cut: float = 0.02
    kill: float = 0.02
    end: float = 0.005
    """The exchange ends a subscription, which begins anew on the same connection."""
    ask: float = 0.02
    """A market is deleted, or added again."""
    damage: float = 0.0
    """A block of the journal cannot be read."""
    odd: float = 0.0
    """Messages of an unknown type that change nothing, per delta."""
    hidden: float = 0.0
    """Deltas that come as messages of an unknown type; only such as add, which no other can undo unseen."""
    steps_back: bool = False
    """The times of one market may go back, by no more than the margin."""

    @property
    def calm(self) -> bool:
        return not (
            self.loss
            or self.broken
            or self.cut
            or self.kill
            or self.end
            or self.ask
            or self.damage
            or self.odd
            or self.hidden
        )


@dataclass(frozen=True)
class Change:
    """One published delta. `clock`: when it was published; `ts`: its exchange time."""

    place: int
    clock: int
    ts: int
    ticker: str
    side: str
    price: int
    size: int

    @property
    def content(self) -> Content:
        return self.ts, self.ticker, self.side, self.price, self.size

    def frame(self, sid: int, seq: int) -> bytes:
        """The delta as the exchange sends it."""
        sign, size = "-" if self.size < 0 else "", abs(self.size)
        return (
            f'{{"type":"orderbook_delta","sid":{sid},"seq":{seq},"msg":{{"market_ticker":"{self.ticker}",'
            f'"market_id":"m","price_dollars":"0.{self.price:04d}","delta_fp":"{sign}{size // 100}.{size % 100:02d}",'
            f'"side":"{self.side}","ts":"{_START_TEXT}.{self.ts:06d}Z"}}}}'
        ).encode()


class Venue:
    """Everything that one world's exchange published, in the order of publication."""

    def __init__(self, pick: random.Random, shape: Shape) -> None:
        self._pick = pick
        self._jitter = pick.choice((0, MARGIN_US // 2, MARGIN_US))
        self._spread = MARGIN_US - self._jitter
        self.published = self._publish(shape)
        self.rows: Counter[Content] = Counter(change.content for change in self.published)
        self.times: dict[str, list[int]] = {ticker: [] for ticker in INDEX}
        for change in sorted(self.published, key=lambda each: each.ts):
            self.times[change.ticker].append(change.ts)

    def order(self) -> list[Change]:
        """The order in which one connection is sent everything: each market is late by an amount of its own."""
        late = {ticker: self._pick.randint(0, self._spread) for ticker in INDEX}
        return sorted(self.published, key=lambda each: (each.clock + late[each.ticker], each.place))

    def book(self, ticker: str, until: int) -> Levels:
        """The true book of a market at the end of `until`."""
        return book_of(each for each in self.published if each.ticker == ticker and each.ts <= until)

    def _publish(self, shape: Shape) -> list[Change]:
        pick = self._pick
        clock = 0
        last = dict.fromkeys(INDEX, 0)
        held: Counter[tuple[str, str, int]] = Counter()
        published: list[Change] = []
        weights = [4, 3, pick.choice((0, 1)), 2]
        while len(published) < shape.length:
            clock += pick.choice((0, 0, 1, 1, 2, 5, 12))
            ticker = pick.choices("ABCD", weights)[0]
            # Often as far apart as may be: rules go wrong at their very ends.
            ts = clock + pick.choice((0, self._jitter, pick.randint(0, self._jitter)))
            if not shape.steps_back:
                ts = max(ts, last[ticker])
            last[ticker] = ts
            # A sweep changes several levels in one microsecond, some of them in the same way.
            for _ in range(pick.choice((1, 1, 1, 2, 3))):
                level = ticker, pick.choice(("yes", "no")), pick.choice((4000, 5000))
                size = -100 if held[level] >= 100 and pick.random() < 0.5 else pick.choice((100, 250))
                equal = pick.choice((1, 1, 2)) if held[level] + 2 * size >= 0 else 1
                held[level] += equal * size
                for _ in range(equal):
                    published.append(Change(len(published), clock, ts, *level, size))
        return published


def book_of(changes: Iterable[Change]) -> Levels:
    """The sum of all changes; levels at zero vanish."""
    book: Counter[Level] = Counter()
    for change in changes:
        book[change.side, change.price] += change.size
    return {level: size for level, size in book.items() if size}
