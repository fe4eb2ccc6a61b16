"""A gatherer of a world: real sessions on connections that fail, commits, kills. Its router is a list of records."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kalshi_platform.exchange.protocol.session import SessionConfig
from kalshi_platform.market.identity import OccurrenceCounter
from kalshi_platform.market.records import Record, SessionOpened
from kalshi_platform_tests.fixtures.recording_session import RecordingSession
from kalshi_platform_tests.unit.worlds.server import Server
from kalshi_platform_tests.unit.worlds.tables import GathererTables
from kalshi_platform_tests.unit.worlds.venue import INDEX, Shape, Venue

MS = 1_000_000
_CONFIG = SessionConfig(
    batch_size=3,
    ack_deadline_s=0.05,
    snapshot_deadline_s=0.05,
    retry_base_s=0.01,
    proof_every_s=0.02,
    proof_again_s=0.04,
)
SessionMaker = Callable[[int, Callable[[], int], SessionConfig, OccurrenceCounter], RecordingSession]


def real_session(
    session_id: int, new_stream_id: Callable[[], int], config: SessionConfig, _gatherers: OccurrenceCounter
) -> RecordingSession:
    return RecordingSession(session_id, new_stream_id, config)


@dataclass
class Link:
    """One connection: its two ends and what is under way between them."""

    session: RecordingSession
    server: Server
    markets: tuple[str, ...]
    up: list[bytes] = field(default_factory=list)
    down: list[bytes] = field(default_factory=list)
    lives_for: int | None = None
    """Steps until the break of the connection is noticed."""


class Gatherer:
    """Follows all markets. `tables` is what it committed; everything else dies with it."""

    def __init__(
        self,
        name: str,
        venue: Venue,
        pick: random.Random,
        shape: Shape,
        stream_ids: Iterable[int],
        make_session: SessionMaker = real_session,
        key: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.tables = GathererTables(key)
        self._venue = venue
        self._pick = pick
        self._shape = shape
        self._stream_ids = iter(stream_ids)
        self._session_ids = itertools.count(1)
        self._make_session = make_session
        self._now_ns = 0
        self._links: list[Link] = []
        self._records: list[Record] = []
        self._counter = OccurrenceCounter()
        self._down_for = 0 if shape.calm else pick.choice((0, 0, 5, 20))
        markets = list(INDEX)
        pick.shuffle(markets)
        self.shards = [tuple(markets[at :: shape.shards]) for at in range(shape.shards)]
        self._to_open = list(self.shards)

    def step(self, published: int, now_ns: int) -> None:
        """Live through a moment in which the venue has published so many deltas."""
        pick, shape = self._pick, self._shape
        self._now_ns = now_ns
        if self._down_for:
            self._down_for -= 1
            return
        if pick.random() < shape.kill:
            self._kill()
            return
        for markets in self._to_open:
            self._open(markets, published)
        self._to_open.clear()
        for link in list(self._links):
            self._live(link, published)
        if self._records and pick.random() < 0.3:
            self._commit(pick.randint(1, len(self._records)))

    def settle(self, published: int, now_ns: int) -> None:
        """Nothing fails any more: receive and commit what is left."""
        self._now_ns = now_ns
        for link in self._links:
            for _ in range(4):
                self._command(link)
                link.server.go_on(published, 10_000)
                link.server.quiet()
                self._hear(link, kept=True)
        while self._records:
            self._commit(self._pick.randint(1, len(self._records)))

    # -- connections

    def _open(self, markets: tuple[str, ...], published: int) -> None:
        session_id = next(self._session_ids)
        self._records.append(SessionOpened(session_id, "books", "wss://exchange", False, self._now_ns))
        session = self._make_session(session_id, lambda: next(self._stream_ids), _CONFIG, self._counter)
        session.subscribe_books({ticker: INDEX[ticker] for ticker in markets})
        link = Link(session, Server(self._venue, self._pick, self._shape, published), markets, session.pop_commands())
        self._links.append(link)
        if self._shape.calm:
            # Subscribed, and every book there, before anything moves.
            for _ in range(4):
                self._command(link)
                self._hear(link, kept=True)

    def _live(self, link: Link, published: int) -> None:
        pick, shape = self._pick, self._shape
        if pick.random() < 0.6:
            self._command(link)
        link.server.go_on(published, pick.choice((0, 1, 2, 4, 8)))
        link.server.quiet()
        if pick.random() < shape.end:
            link.server.end()
        if pick.random() < shape.ask:
            link.session.unsubscribe_books([pick.choice(link.markets)])
        if pick.random() < 2 * shape.ask:
            link.session.subscribe_books({ticker: INDEX[ticker] for ticker in pick.sample(link.markets, 1)})
        link.up += link.session.pop_commands()
        self._hear(link, kept=False)
        if pick.random() < 0.1:
            received = link.session.tick(self._now_ns)
            self._records += received.records
            link.up += received.commands
        if link.lives_for is not None:
            link.lives_for -= 1
            if link.lives_for <= 0:
                self._records += link.session.close(self._now_ns, "cut")
                self._links.remove(link)
        elif pick.random() < shape.cut:
            # Sometimes the next connection is up before the end of this one is noticed.
            self._to_open.append(link.markets)
            link.lives_for = pick.choice((0, 0, 1, 4))

    def _command(self, link: Link) -> None:
        while link.up:
            link.server.command(link.up.pop(0))
            if self._pick.random() < 0.3:
                return

    def _hear(self, link: Link, *, kept: bool) -> None:
        pick, shape = self._pick, self._shape
        for payload, numbered in link.server.out:
            if numbered and not kept:
                if pick.random() < shape.loss:
                    continue
                if pick.random() < shape.broken:
                    payload = payload[: pick.randrange(1, len(payload))]  # noqa: PLW2901
            link.down.append(payload)
        link.server.out.clear()
        while link.down and (kept or pick.random() < 0.9):
            self._now_ns += pick.choice((0, 0, 1_000))
            received = link.session.receive(link.down.pop(0), self._now_ns)
            self._records += received.records
            link.up += received.commands

    # -- the database

    def _commit(self, count: int) -> None:
        batch, self._records = self._records[:count], self._records[count:]
        self.tables.commit(batch)
        if self._pick.random() < 0.1:
            self.tables.commit(batch)  # its outcome was unknown

    def _kill(self) -> None:
        self._records.clear()
        self._links.clear()
        self._counter = OccurrenceCounter()
        self._to_open = list(self.shards)
        self._down_for = self._pick.choice((1, 3, 10))
        if self._pick.random() < 0.7:
            self.tables.close_former()
