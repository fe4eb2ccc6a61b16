"""A gatherer of a world: real sessions on connections that fail, a journal that outlives it, a decoder, commits, kills.

What one process received and did not commit is decoded by the next one, from the journal.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kalshi_platform.errors import UnparsableMessage
from kalshi_platform.exchange.parse.messages import DeltaBody, parse_frame
from kalshi_platform.exchange.protocol.session import Session, SessionConfig
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.journal.block_format import Block, Damage
from kalshi_platform.market.frames import FrameBatch, FrameKind, GathererStarted
from kalshi_platform.market.identity import OccurrenceCounter
from kalshi_platform.market.records import Record, SessionClosed, SessionOpened
from kalshi_platform_tests.fixtures.recording_session import MemoryJournal
from kalshi_platform_tests.unit.worlds.server import Server
from kalshi_platform_tests.unit.worlds.tables import GathererTables
from kalshi_platform_tests.unit.worlds.venue import INDEX, Shape, Venue

MS = 1_000_000
PROCESS = 0
_CONFIG = SessionConfig(
    batch_size=3,
    ack_deadline_s=0.05,
    snapshot_deadline_s=0.05,
    retry_base_s=0.01,
    proof_every_s=0.02,
    proof_again_s=0.04,
)
SessionMaker = Callable[[int, Callable[[], int], SessionConfig], Session]
DecoderMaker = Callable[[OccurrenceCounter], Decoder]


def real_decoder(_gatherers: OccurrenceCounter) -> Decoder:
    return Decoder()


@dataclass
class Link:
    """One connection: its two ends and what is under way between them."""

    session: Session
    server: Server
    markets: tuple[str, ...]
    up: list[bytes] = field(default_factory=list)
    down: list[bytes] = field(default_factory=list)
    lives_for: int | None = None
    """Steps until the break of the connection is noticed."""


class Gatherer:
    """Follows all markets. `tables` is what it committed, `parts` its journal; everything else dies with it."""

    def __init__(
        self,
        name: str,
        venue: Venue,
        pick: random.Random,
        shape: Shape,
        stream_ids: Iterable[int],
        make_session: SessionMaker = Session,
        make_decoder: DecoderMaker = real_decoder,
        key: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name
        self.tables = GathererTables(key)
        self.parts: list[Block | Damage] = []
        """What a reader of the journal gives."""
        self._journal = MemoryJournal()
        self._venue = venue
        self._pick = pick
        self._shape = shape
        self._stream_ids = iter(stream_ids)
        self._session_ids = itertools.count(1)
        self._make_session = make_session
        self._make_decoder = make_decoder
        self._now_ns = 0
        self._links: list[Link] = []
        self._down_for = 0 if shape.calm else pick.choice((0, 0, 5, 20))
        markets = list(INDEX)
        pick.shuffle(markets)
        self.shards = [tuple(markets[at :: shape.shards]) for at in range(shape.shards)]
        self._to_open = list(self.shards)
        self._start()

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
        if self._at < len(self.parts) and pick.random() < 0.3:
            self._ingest(pick.randint(1, len(self.parts) - self._at))

    def settle(self, published: int, now_ns: int) -> None:
        """Nothing fails any more: receive and commit what is left."""
        self._now_ns = now_ns
        for link in self._links:
            for _ in range(4):
                self._command(link)
                link.server.go_on(published, 10_000)
                link.server.quiet()
                self._hear(link, kept=True)
        while self._at < len(self.parts):
            self._ingest(self._pick.randint(1, len(self.parts) - self._at), calm=True)

    def unrecorded(self) -> list[bytes]:
        """Deltas of the journal before the position of the tables that are not in the tables."""
        rows = {(row.stream_id, row.seq) for row, _ in self.tables.deltas.values()}
        missing = []
        for part in self.parts[: self.tables.position]:
            if isinstance(part, Block):
                batch = part.batch
                frames = zip(batch.payloads, batch.stream_ids, batch.numbers, batch.kinds, strict=True)
                for payload, stream_id, number, kind in frames:
                    if kind == FrameKind.DATA and (stream_id, number) not in rows and _is_delta(payload):
                        missing.append(payload)
        return missing

    # -- connections

    def _open(self, markets: tuple[str, ...], published: int) -> None:
        session_id = next(self._session_ids)
        opened = FrameBatch()
        opened.mark(SessionOpened(session_id, "books", "wss://exchange", False, self._now_ns))
        self._append(session_id, opened)
        session = self._make_session(session_id, lambda: next(self._stream_ids), _CONFIG)
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
            ticked = link.session.tick(self._now_ns)
            self._append(link.session.session_id, ticked.batch)
            link.up += ticked.commands
        if link.lives_for is not None:
            link.lives_for -= 1
            if link.lives_for <= 0:
                self._close(link, "cut")
        elif pick.random() < shape.cut:
            # Sometimes the next connection is up before the end of this one is noticed.
            self._to_open.append(link.markets)
            link.lives_for = pick.choice((0, 0, 1, 4))

    def _close(self, link: Link, reason: str) -> None:
        closed = link.session.close(self._now_ns, reason)
        closed.mark(SessionClosed(link.session.session_id, self._now_ns, reason))
        self._append(link.session.session_id, closed)
        self._links.remove(link)

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
                    payload = pick.choice((payload[: pick.randrange(1, len(payload))], payload.replace(b"0.", b"7.")))  # noqa: PLW2901
            link.down.append(payload)
        link.server.out.clear()
        while link.down and (kept or pick.random() < 0.9):
            read: list[tuple[bytes, int]] = []
            for _ in range(min(len(link.down), pick.choice((1, 1, 2, 5)))):
                self._now_ns += pick.choice((0, 0, 1_000))
                read.append((link.down.pop(0), self._now_ns))
            received = link.session.receive_all(read, self._now_ns)
            self._append(link.session.session_id, received.batch)
            link.up += received.commands

    # -- the journal

    def _start(self) -> None:
        """A process begins: it says so in the journal, and goes on where the tables are."""
        started = FrameBatch()
        started.mark(GathererStarted(self._now_ns, self.name, "1"))
        self._append(PROCESS, started)
        self._reload()

    def _append(self, session_id: int, batch: FrameBatch) -> None:
        """Append a block, which may vanish from the disk."""
        if not batch:
            return
        block = self._journal.append(session_id, batch, self._now_ns)
        if self._pick.random() < self._shape.damage:
            self.parts.append(Damage(block.position, block.end, 1, 100, "missing", blocks=1))
        else:
            self.parts.append(block)

    # -- the database

    def _reload(self) -> None:
        self._decoder = self._make_decoder(OccurrenceCounter())
        for part in self.parts[: self.tables.position]:
            self._decoder.decode(part)
        self._decoder.set_open(*self.tables.opened())
        self._at = self.tables.position

    def _ingest(self, count: int, *, calm: bool = False) -> None:
        """Decode the next parts of the journal, and commit what they give, in one transaction or two."""
        pick = self._pick
        records: list[Record] = []
        for part in self.parts[self._at : self._at + count]:
            decoded = self._decoder.decode(part)
            records += decoded.records
            if isinstance(part, Block):
                self._receive_again(part.session_id, decoded.lost_claims, decoded.damaged_sessions)
        cut = pick.randint(0, len(records)) if pick.random() < 0.2 else 0
        if cut:
            self.tables.commit(records[:cut])
            if not calm and self._shape.kill and pick.random() < 0.3:
                self._kill()
                return
        is_lost = not calm and pick.random() < 0.05
        if not is_lost:
            self._at += count
            self.tables.commit(records[cut:], self._at)
        if is_lost or (not calm and pick.random() < 0.1):
            self._reload()  # it failed, or its outcome was unknown

    def _receive_again(self, session_id: int, lost: tuple[str, ...], damaged: frozenset[int]) -> None:
        for link in [each for each in self._links if each.session.session_id == session_id]:
            if lost:
                link.session.books_lost(lost)
                link.up += link.session.pop_commands()
            if session_id in damaged:
                self._close(link, "journal damaged")
                self._to_open.append(link.markets)

    def _kill(self) -> None:
        self._links.clear()
        self._to_open = list(self.shards)
        self._down_for = self._pick.choice((1, 3, 10))
        self._start()


def _is_delta(payload: bytes) -> bool:
    try:
        return isinstance(parse_frame(payload).body, DeltaBody)
    except UnparsableMessage:
        return False
