"""Defines which rows of different gatherers are the same message.

`seq` is in no identity across gatherers: it counts the frames of one subscription on one connection. `occurrence`,
which counts within one stream, distinguishes equal deltas (same exchange time, ticker, side, price and size). Every
stream is a subsequence of what the exchange published, so its j-th equal row is at most the true j-th: the union over
streams never contains a row too many, and contains all of them wherever one stream received the timestamp whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

DELTA_KEY = ("exchange_ts", "ticker", "side", "price_e4", "delta_e2", "occurrence")
TRADE_KEY = ("exchange_ts", "ticker", "trade_id")
TICKER_KEY = ("exchange_ts", "ticker", "fingerprint")
TRADE_WINDOW_US = 60 * 1_000_000
"""A trade_id identifies one trade within ± this span, even where two sources disagree on its millisecond."""
LIFECYCLE_WINDOW_US = 5 * 60 * 1_000_000
"""Equal lifecycle content within this span is one event (most of them carry no time of their own)."""


class DeltaContent(msgspec.Struct, frozen=True, gc=False):
    """Holds what distinguishes deltas of one time.

    Two thirds of a tuple's memory, and the collector never looks at it: many are kept.
    """

    ticker: str
    side: str
    price_e4: int
    delta_e2: int


class OccurrenceCounter:
    """Counts equal deltas of one stream.

    Counts are kept by slots of `slot_size` numbers: a count is of the delta's own slot and of the one before. So memory
    is bounded, a timestamp that comes back a little later (exchange times of one market may step back) still has its
    counts, and a count depends on what the stream carried alone, not on where counting began further back. Most
    timestamps have one delta only: it alone is stored, and counts are made when there is a second one.
    """

    def __init__(self, slot_size: int = 65_536) -> None:
        self._slot_size = slot_size
        self._slot = 0
        self._young: dict[int, DeltaContent | dict[DeltaContent, int]] = {}
        self._old: dict[int, DeltaContent | dict[DeltaContent, int]] = {}

    def next(self, number: int, exchange_ts_us: int, ticker: str, side: str, price_e4: int, delta_e2: int) -> int:
        """Count a delta with its number in the stream, which never falls; return how many equal ones came before."""
        slot = number // self._slot_size
        if slot != self._slot:
            self._old = self._young if slot == self._slot + 1 else {}
            self._young, self._slot = {}, slot
        delta = DeltaContent(ticker, side, price_e4, delta_e2)
        # Nearly every time is a new one: that costs no call.
        if exchange_ts_us in self._young or exchange_ts_us in self._old:
            return self._count(exchange_ts_us, delta)
        self._young[exchange_ts_us] = delta
        return 0

    def next_all(self, numbers: Sequence[int], times_us: Sequence[int], deltas: Iterable[DeltaContent]) -> list[int]:
        """Return what `next` returns for each of these deltas, whose numbers follow one another; at least one."""
        first, last = numbers[0] // self._slot_size, numbers[-1] // self._slot_size
        if first != self._slot or last != first:
            return [
                self.next(number, time_us, delta.ticker, delta.side, delta.price_e4, delta.delta_e2)
                for number, time_us, delta in zip(numbers, times_us, deltas, strict=True)
            ]
        young, old = self._young, self._old
        counts = [0] * len(numbers)
        for place, (time_us, delta) in enumerate(zip(times_us, deltas, strict=True)):
            if time_us in young or time_us in old:
                counts[place] = self._count(time_us, delta)
            else:
                young[time_us] = delta
        return counts

    def _count(self, exchange_ts_us: int, delta: DeltaContent) -> int:
        seen = self._young.get(exchange_ts_us)
        if seen is None:
            self._young[exchange_ts_us] = delta
            count = 0
        else:
            if type(seen) is DeltaContent:
                seen = self._young[exchange_ts_us] = {seen: 1}
            assert type(seen) is dict  # noqa: S101 - it is one or the other
            count = seen.get(delta, 0)
            seen[delta] = count + 1
        older = self._old.get(exchange_ts_us)
        if older is None:
            return count
        return count + (older == delta if type(older) is DeltaContent else older.get(delta, 0))  # type: ignore[union-attr]


def fingerprint(*parts: object) -> int:
    """Return a signed 64-bit hash of `parts` that is the same in every process and on every machine."""
    text = "\x1f".join(["\x00" if part is None else str(part) for part in parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
