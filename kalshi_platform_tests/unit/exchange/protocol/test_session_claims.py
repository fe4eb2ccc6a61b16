"""Whatever is lost, late or broken: a book subscription never claims a delta that was not recorded.

A small truthful server serves random sessions: markets come and go, frames are lost or broken on the way, subscriptions
fail, commands arrive late. For every book subscription the test compares what the server published for that market
between its two numbers with what was recorded.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from kalshi_platform.exchange.protocol.session import SessionConfig
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    Record,
    SequenceConsumed,
    StreamOpened,
)
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.fixtures.reference_book import Book
from kalshi_platform_tests.unit.exchange import frames_of

TICKERS = [f"M{number}" for number in range(6)]
MS = 1_000_000


@dataclass
class Server:
    """Serves one connection: one book subscription at a time, numbered per sid."""

    acks_take_numbers: bool
    books: dict[str, Book] = field(default_factory=lambda: {ticker: Book() for ticker in TICKERS})
    sid: int = 0
    alive: bool = False
    seq: int = 0
    markets: set[str] = field(default_factory=set)
    sent: list[bytes] = field(default_factory=list)
    deltas: list[tuple[int, int, str, int]] = field(default_factory=list)  # sid, seq, ticker, exchange time in ms
    book_at: dict[tuple[int, int], tuple[Any, Any]] = field(default_factory=dict)  # (sid, seq of a snapshot) → book
    now_ms: int = frames_of.TS_US // 1000

    def number(self) -> int:
        self.seq += 1
        return self.seq

    def change(self, rng: random.Random) -> None:
        """The venue moves; subscribers hear of it."""
        ticker, price = rng.choice(TICKERS), rng.randrange(1, 4) * 100
        self.now_ms += rng.choice([0, 1])
        self.books[ticker].apply("yes", price, 100)
        if self.alive and ticker in self.markets:
            seq = self.number()
            self.deltas.append((self.sid, seq, ticker, self.now_ms))
            text = f"0.{price:04d}"
            self.sent.append(
                frames_of.delta(seq, ticker, self.sid, price_dollars=text, delta_fp="1.00", ts=..., ts_ms=self.now_ms)
            )

    def snapshots(self, tickers: list[str], command_id: int | None) -> None:
        for ticker in tickers:
            seq = self.number()
            yes = self.books[ticker].yes
            self.book_at[self.sid, seq] = (yes, ())
            levels = [[f"0.{price:04d}", f"{count // 100}.00"] for price, count in yes]
            self.sent.append(frames_of.snapshot(seq, ticker, levels, sid=self.sid, command_id=command_id))

    def ack(self, command_id: int) -> None:
        self.sent.append(frames_of.ok(command_id, self.sid, self.number() if self.acks_take_numbers else None))

    def command(self, raw: bytes) -> None:
        command = json.loads(raw)
        params, command_id = command["params"], command["id"]
        tickers = params["market_tickers"]
        if command["cmd"] == "subscribe":
            fresh = [ticker for ticker in tickers if not (self.alive and ticker in self.markets)]
            if self.alive:
                self.markets.update(tickers)
                self.ack(command_id)
            else:
                self.sid, self.seq, self.alive, self.markets = self.sid + 1, 0, True, set(tickers)
                self.sent.append(frames_of.subscribed(self.sid, command_id=command_id))
            self.snapshots(fresh, None)
        elif not self.alive or params["sids"] != [self.sid]:
            self.sent.append(frames_of.error(7, command_id))
        elif params["action"] == "add_markets":
            fresh = [ticker for ticker in tickers if ticker not in self.markets]
            self.markets.update(fresh)
            self.ack(command_id)
            self.snapshots(fresh, None)
        elif params["action"] == "delete_markets":
            self.markets.difference_update(tickers)
            self.ack(command_id)
        else:
            # As met in the wild: a snapshot is given for any market requested for, subscribed or not.
            self.snapshots(tickers, command_id)

    def fail(self) -> None:
        if self.alive:
            self.sent.append(frames_of.error(25, sid=self.sid, seq=self.number()))
            self.alive, self.markets = False, set()


def live(seed: int, *, kind_of_loss: str) -> tuple[Server, list[Record]]:
    """Play one random world and return the server's truth and the session's records."""
    rng = random.Random(seed)
    server = Server(acks_take_numbers=rng.random() < 0.5)
    numbers = itertools.count(1)
    config = SessionConfig(
        batch_size=rng.choice([1, 2, 500]), ack_deadline_s=0.05, snapshot_deadline_s=0.05, retry_base_s=0.01
    )
    session = RecordingSession(1, lambda: next(numbers), config)
    session.subscribe_books(dict.fromkeys(rng.sample(TICKERS, 3), 0))
    loss = {"none": 0.0, "lost": 0.04, "broken": 0.04, "both": 0.04}[kind_of_loss]
    now_ns, records, up, down = 1_000 * MS, [], session.pop_commands(), list[bytes]()
    for _ in range(rng.randrange(50, 250)):
        now_ns += rng.randrange(1, 5) * MS
        step = rng.random()
        if step < 0.45:
            server.change(rng)
        elif step < 0.55 and up:
            server.command(up.pop(0))
        elif step < 0.60:
            session.subscribe_books({rng.choice(TICKERS): 0})
        elif step < 0.65:
            session.unsubscribe_books([rng.choice(TICKERS)])
        elif step < 0.66 and loss:
            server.fail()
        elif step < 0.76:
            received = session.tick(now_ns)
            records += received.records
            up += received.commands
        down += server.sent
        server.sent = []
        while down and rng.random() < 0.7:
            payload = down.pop(0)
            if rng.random() < loss and b'"subscribed"' not in payload:
                if kind_of_loss == "lost" or (kind_of_loss == "both" and rng.random() < 0.5):
                    continue
                payload = rng.choice([payload[: rng.randrange(len(payload))], payload.replace(b"0.", b"7.")])
            received = session.receive(payload, now_ns)
            records += received.records
            up += received.commands
        up += session.pop_commands()
    return server, [*records, *session.close(now_ns, "end")]


def check(server: Server, records: list[Record]) -> int:
    """Compare every claim with the truth; return the number of deltas inside claims."""
    sids = {record.stream_id: record.sid for record in records if isinstance(record, StreamOpened)}
    rows = [(sids[r.stream_id], r.seq, r.ticker) for r in records if isinstance(r, BookDelta)]
    assert len(rows) == len(set(rows))
    published = {(sid, seq, ticker) for sid, seq, ticker, _ in server.deltas}
    assert set(rows) <= published
    consumed = {(sids[r.stream_id], r.seq) for r in records if isinstance(r, SequenceConsumed)}
    assert not consumed & {(sid, seq) for sid, seq, _ in rows}
    books = {(sids[r.stream_id], r.seq): (r.yes, r.no) for r in records if isinstance(r, BookSnapshot)}
    assert all(server.book_at[place] == book for place, book in books.items())
    open_at: dict[tuple[int, str], int] = {}
    claimed = 0
    for record in records:
        if isinstance(record, BookSubscriptionStarted):
            assert (record.stream_id, record.ticker) not in open_at
            assert (sids[record.stream_id], record.seq_from) in books
            open_at[record.stream_id, record.ticker] = record.seq_from
        elif isinstance(record, BookSubscriptionEnded):
            seq_from = open_at.pop((record.stream_id, record.ticker))
            span = (sids[record.stream_id], record.ticker, range(seq_from, record.seq_to + 1))
            truth = {
                place for place in published if place[0] == span[0] and place[2] == span[1] and place[1] in span[2]
            }
            assert truth <= set(rows), f"a book_subscription of {record.ticker} claims a delta that was not recorded"
            claimed += len(truth)
    assert not open_at
    _whole_books(server, records, sids)
    return claimed


def _whole_books(server: Server, records: list[Record], sids: dict[int, int]) -> None:
    """Inside a book subscription: snapshot + own deltas = the next snapshot of the market, where one follows in it."""
    following: dict[tuple[int, str], Book] = {}
    last: BookSnapshot | None = None
    for record in records:
        if isinstance(record, BookSnapshot):
            book = following.get((record.stream_id, record.ticker))
            if book is not None:
                assert (book.yes, book.no) == (record.yes, record.no)
            last = record
        elif isinstance(record, BookSubscriptionStarted):
            assert last is not None
            assert (last.stream_id, last.seq, last.ticker) == (record.stream_id, record.seq_from, record.ticker)
            following[record.stream_id, record.ticker] = Book(last.yes, last.no)
        elif isinstance(record, BookSubscriptionEnded) and record.reason != "snapshot":
            following.pop((record.stream_id, record.ticker), None)
        elif isinstance(record, BookDelta) and (record.stream_id, record.ticker) in following:
            following[record.stream_id, record.ticker].apply(record.side, record.price_e4, record.delta_e2)
    assert set(sids) >= {stream_id for stream_id, _ in following}


@pytest.mark.parametrize("kind_of_loss", ["none", "lost", "broken", "both"])
def test_no_book_subscription_claims_what_was_not_recorded(kind_of_loss: str) -> None:
    claimed = 0
    for seed in range(300):
        server, records = live(seed, kind_of_loss=kind_of_loss)
        claimed += check(server, records)
    assert claimed > 3_000, "the worlds hold too few claims to prove anything"
