"""A small exchange and gatherers that lose things: the truth that merge, runs and checkpoints are checked against.

Per market every connection is sent the same deltas in the same order with the same time; a snapshot is the book at its
place in that order; `seq` counts every frame of its stream. Times of one market never go back; those of neighbouring
markets may differ by up to `SKEW_US` in either direction. Times are small integers of microseconds.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa

from kalshi_platform.market.identity import OccurrenceCounter

MARGIN_US = 8
SKEW_US = 7
Levels = dict[tuple[str, int], int]


@dataclass(frozen=True)
class TrueDelta:
    """One published change, in the order of publication."""

    ts: int
    ticker: str
    side: str
    price: int
    size: int

    @property
    def content(self) -> tuple[int, str, str, int, int]:
        return self.ts, self.ticker, self.side, self.price, self.size


@dataclass
class Stream:
    """What one stream of one gatherer recorded."""

    gatherer: str
    stream_id: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    book_subscriptions: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)


class World:
    """Everything that was published, and what the gatherers recorded of it."""

    def __init__(self, seed: int, length: int, gatherers: int, loss: float) -> None:
        self.random = random.Random(seed)
        self.index = {"A": 0, "B": 0, "C": 0, "D": 1}
        self.published = self._publish(length)
        self.streams: list[Stream] = []
        stream_id = 10
        for number in range(gatherers):
            for _ in range(self.random.randint(1, 3)):
                stream_id += 1
                self.streams.append(self._record(f"g{number + 1}", stream_id, loss))

    def book(self, ticker: str, until: int) -> Levels:
        """The true book of a market at the end of `until`."""
        return self._book_of(delta for delta in self.published if delta.ts <= until and delta.ticker == ticker)

    def true_rows(self) -> Counter[tuple[int, str, str, int, int]]:
        return Counter(delta.content for delta in self.published)

    def _publish(self, length: int) -> list[TrueDelta]:
        pick = self.random
        clock = 100
        last: dict[str, int] = defaultdict(int)
        books: dict[str, Levels] = defaultdict(dict)
        published: list[TrueDelta] = []
        weights = [4, 3, 0 if pick.random() < 0.3 else 1, 2]  # C may be quiet for ever
        while len(published) < length:
            clock += pick.choice((0, 0, 1, 1, 2, 5, 12))
            ticker = pick.choices(list(self.index), weights)[0]
            ts = last[ticker] = max(last[ticker], clock + pick.randint(0, SKEW_US))
            for _ in range(pick.choice((1, 1, 1, 2, 3))):
                side, price = pick.choice(("yes", "no")), pick.choice((4000, 5000))
                held = books[ticker].get((side, price), 0)
                size = -100 if held >= 100 and pick.random() < 0.5 else pick.choice((100, 200))
                equal = pick.choice((1, 1, 1, 2)) if held + 2 * size >= 0 else 1  # within one microsecond
                books[ticker][side, price] = held + equal * size
                published.extend([TrueDelta(ts, ticker, side, price, size)] * equal)
        return published

    def _record(self, gatherer: str, stream_id: int, loss: float) -> Stream:
        pick = self.random
        stream = Stream(gatherer, stream_id)
        begin = pick.randint(0, len(self.published) // 2)
        end = pick.randint(begin, len(self.published))
        counter = OccurrenceCounter()
        followed: dict[str, dict[str, Any]] = {}
        wanted = set(pick.sample(list(self.index), pick.randint(1, 4)))
        waiting = dict.fromkeys(wanted, begin)
        sent_until: dict[str, int] = {}
        seq = 0
        lost_before = False

        def take(kept: bool) -> bool:
            """Number a frame; a lost one is noticed at the next that comes."""
            nonlocal seq, lost_before
            seq += 1
            if not kept:
                lost_before = True
                return False
            if lost_before:
                lost_before = False
                for ticker, book_subscription in followed.items():
                    if pick.random() < 0.5:  # else only the numbers tell that something is missing
                        book_subscription["seq_to"] = seq - 1
                    waiting.setdefault(ticker, pick.randint(0, 3))
                followed.clear()
            stream.seqs.append(seq)
            return True

        for place in range(begin, end):
            for ticker in [name for name, at in waiting.items() if at <= place or pick.random() < 0.3]:
                if take(pick.random() >= loss):
                    del waiting[ticker]
                    self._snapshot(stream, ticker, place, seq, followed)
            if pick.random() < 0.05:
                take(kept=True)  # an acknowledgement takes a number
            if pick.random() < 0.03 and followed:
                # Deleted: the server goes on with it for a while, which claims nothing.
                ticker = pick.choice(sorted(followed))
                followed.pop(ticker)["seq_to"] = seq
                sent_until[ticker] = place + pick.randint(0, 6)
            delta = self.published[place]
            if delta.ticker in wanted and place < sent_until.get(delta.ticker, end) and take(pick.random() >= loss):
                stream.rows.append(
                    {
                        "exchange_ts": delta.ts, "ticker": delta.ticker, "stream_id": stream_id, "seq": seq,
                        "side": delta.side, "price_e4": delta.price, "delta_e2": delta.size,
                        "occurrence": counter.next(seq, delta.ts, delta.ticker, delta.side, delta.price, delta.size),
                        "received_at": 10_000 + place * 10 + pick.randint(0, 30),
                    }
                )  # fmt: skip
        return stream

    def _snapshot(self, stream: Stream, ticker: str, place: int, seq: int, followed: dict[str, dict[str, Any]]) -> None:
        book = self._book_of(delta for delta in self.published[:place] if delta.ticker == ticker)
        row: dict[str, Any] = {"ticker": ticker, "seq": seq}
        for side in ("yes", "no"):
            levels = sorted((price, count) for (of, price), count in book.items() if of == side)
            row[f"{side}_price_e4"] = [price for price, _ in levels]
            row[f"{side}_count_e2"] = [count for _, count in levels]
        stream.snapshots.append(row)
        if ticker in followed:
            followed[ticker]["seq_to"] = seq
        followed[ticker] = {
            "stream_id": stream.stream_id, "ticker": ticker, "exchange_index": self.index[ticker],
            "seq_from": seq, "seq_to": None,
        }  # fmt: skip
        stream.book_subscriptions.append(followed[ticker])

    @staticmethod
    def _book_of(deltas: object) -> Levels:
        book: Counter[tuple[str, int]] = Counter()
        for delta in deltas:  # type: ignore[attr-defined]
            book[delta.side, delta.price] += delta.size
        return {level: count for level, count in book.items() if count}


DELTA_SCHEMA = pa.schema(
    [
        ("exchange_ts", pa.timestamp("us", tz="UTC")),
        ("ticker", pa.string()),
        ("stream_id", pa.int64()),
        ("seq", pa.int64()),
        ("side", pa.string()),
        ("price_e4", pa.int32()),
        ("delta_e2", pa.int64()),
        ("occurrence", pa.int32()),
        ("received_at", pa.timestamp("us", tz="UTC")),
    ]
)


def delta_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a stream as a gatherer's table."""
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in DELTA_SCHEMA]
    return pa.table(columns, schema=DELTA_SCHEMA)


def segments_of(stream: Stream, pick: random.Random) -> pl.DataFrame:
    """The numbers that were recorded, cut into contiguous segments anywhere."""
    rows: list[dict[str, int]] = []
    for seq in stream.seqs:
        if rows and rows[-1]["seq_to"] == seq - 1 and pick.random() < 0.7:
            rows[-1]["seq_to"] = seq
        else:
            rows.append({"stream_id": stream.stream_id, "seq_from": seq, "seq_to": seq})
    pick.shuffle(rows)
    return pl.DataFrame(rows, schema={"stream_id": pl.Int64, "seq_from": pl.Int64, "seq_to": pl.Int64})


def book_subscriptions_of(stream: Stream) -> pl.DataFrame:
    schema = {
        "stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32,
        "seq_from": pl.Int64, "seq_to": pl.Int64,
    }  # fmt: skip
    return pl.DataFrame(stream.book_subscriptions, schema=schema, orient="row")


def feed_of(stream: Stream, world: World) -> pl.DataFrame:
    """The deltas of a stream as checkpoints want them."""
    schema = {
        "seq": pl.Int64, "exchange_us": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32,
        "side": pl.String, "price_e4": pl.Int32, "delta_e2": pl.Int64,
    }  # fmt: skip
    members = {book_subscription["ticker"] for book_subscription in stream.book_subscriptions}
    rows = [
        {**row, "exchange_us": row["exchange_ts"], "exchange_index": world.index[str(row["ticker"])]}
        for row in stream.rows
        if row["ticker"] in members
    ]
    return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema, orient="row")


def levels_of(stream: Stream) -> pl.DataFrame:
    schema: dict[str, Any] = {
        "ticker": pl.String, "seq": pl.Int64, "yes_price_e4": pl.List(pl.Int32), "yes_count_e2": pl.List(pl.Int64),
        "no_price_e4": pl.List(pl.Int32), "no_count_e2": pl.List(pl.Int64),
    }  # fmt: skip
    return pl.DataFrame(stream.snapshots, schema=schema, orient="row")
