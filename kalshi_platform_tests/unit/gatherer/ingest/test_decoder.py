"""Blocks of a journal become records: the same ones however often and from where, and no false claim."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from kalshi_platform.exchange.protocol.session import Session
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.journal.block_format import Block, Damage
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.journal.writer import JournalLimits, open_journal
from kalshi_platform.market.frames import FrameBatch, FrameKind, GathererStarted, RestBooksReceived
from kalshi_platform.market.parts import MarketPart
from kalshi_platform.market.records import (
    NO_STREAM,
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    LifecycleEvent,
    Record,
    SequenceConsumed,
    SequenceGap,
    SessionClosed,
    SessionOpened,
    StreamEnded,
    StreamOpened,
    TickerUpdate,
    Trade,
)
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.recording_session import MemoryJournal
from kalshi_platform_tests.unit.exchange.frames_of import delta, frame, ok, snapshot, subscribed
from kalshi_platform_tests.unit.exchange.parse.test_messages import TICKER, TRADE
from kalshi_platform_tests.unit.worlds.tables import GathererTables
from kalshi_platform_tests.unit.worlds.venue import Shape
from kalshi_platform_tests.unit.worlds.world import World

T0 = 1_795_380_241_000_000_000
SESSION = 7
R = TypeVar("R", bound=Record)


class Recorder:
    """A session whose reads are blocks of a journal."""

    def __init__(self, *tickers: str) -> None:
        numbers = itertools.count(100)
        self.session = Session(SESSION, lambda: next(numbers))
        self.journal = MemoryJournal()
        opened = FrameBatch()
        opened.mark(SessionOpened(SESSION, "books", "wss://exchange", False, T0))
        self.append(opened)
        self.session.subscribe_books(dict.fromkeys(tickers, 0))

    def append(self, batch: FrameBatch, session_id: int = SESSION) -> Block:
        return self.journal.append(session_id, batch, T0)

    def read(self, *payloads: bytes) -> Block:
        return self.append(self.session.receive_all([(each, T0) for each in payloads], T0).batch)

    def close(self) -> Block:
        closed = self.session.close(T0, "end")
        closed.mark(SessionClosed(SESSION, T0, "end"))
        return self.append(closed)

    def following(self) -> Recorder:
        """Two books, from numbers 1 and 2."""
        self.read(subscribed(), snapshot(1, "A"), snapshot(2, "B"))
        return self


def recorder() -> Recorder:
    return Recorder("A", "B").following()


def decoded(parts: Sequence[Block | Damage], decoder: Decoder | None = None) -> list[Record]:
    decoder = decoder or Decoder()
    return [record for part in parts for record in decoder.decode(part).records]


def only(kind: type[R], records: Sequence[Record]) -> list[R]:
    return [record for record in records if isinstance(record, kind)]


def lost(block: Block) -> Damage:
    return Damage(block.position, block.end, 1, 100, "missing", blocks=1)


def ends(records: Sequence[Record]) -> list[tuple[str, int, str]]:
    return [(each.ticker, each.seq_to, each.reason) for each in only(BookSubscriptionEnded, records)]


# -- from anywhere the same


def worlds(count: int, **shape: Any) -> list[World]:
    return [World(seed, Shape(length=80, gatherers=1, **shape)) for seed in range(count)]


FAULTS: dict[str, Any] = {"damage": 0.05, "odd": 0.1, "broken": 0.03, "ask": 0.05, "end": 0.01}


def test_decoding_again_gives_the_same_records() -> None:
    for world in worlds(10, **FAULTS):
        parts = world.gatherers[0].parts
        assert decoded(parts) == decoded(parts)


def test_decoding_from_any_block_gives_what_decoding_at_once_gives() -> None:
    """State comes from the ledger, and from the blocks before that are decoded for what is in no ledger."""
    pick, found = random.Random(0), 0
    for world in worlds(25, **FAULTS):
        parts = world.gatherers[0].parts
        cut = pick.randint(0, len(parts))
        whole = Decoder()
        before, after = decoded(parts[:cut], whole), decoded(parts[cut:], whole)
        tables = GathererTables()
        tables.commit(before, cut)
        later = Decoder()
        decoded(parts[:cut], later)
        later.set_open(*tables.opened())
        assert decoded(parts[cut:], later) == after
        found += len(after)
    assert found > 1_000


def test_what_was_open_before_the_first_block_that_is_decoded_comes_from_the_ledger() -> None:
    pick, ledger = random.Random(1), (BookSubscriptionStarted, BookSubscriptionEnded, SequenceGap, StreamEnded)
    found = 0
    for world in worlds(25, **{**FAULTS, "damage": 0.0}):
        parts = world.gatherers[0].parts
        cut = pick.randint(0, len(parts))
        whole, later, tables = Decoder(), Decoder(), GathererTables()
        tables.commit(decoded(parts[:cut], whole), cut)
        decoded(parts[pick.randint(max(0, cut - 3), cut) : cut], later)
        later.set_open(*tables.opened())
        expected = [each for each in decoded(parts[cut:], whole) if isinstance(each, ledger)]
        assert [each for each in decoded(parts[cut:], later) if isinstance(each, ledger)] == expected
        found += len(expected)
    assert found > 100


@pytest.mark.parametrize("damage", [0.0, 0.05])
def test_a_batch_of_which_a_part_was_committed_is_decoded_and_committed_again(damage: float) -> None:
    pick = random.Random(2)
    for world in worlds(25, **{**FAULTS, "damage": damage}):
        parts = world.gatherers[0].parts
        cut = pick.randint(0, len(parts) - 1)
        first, once, twice = Decoder(), GathererTables(), GathererTables()
        before, after = decoded(parts[:cut], first), decoded(parts[cut:], first)
        for tables, several in ((once, [before, after]), (twice, [before, after[: pick.randint(0, len(after))]])):
            for records in several:
                tables.commit(records)
        again = Decoder()
        decoded(parts[:cut], again)
        again.set_open(*twice.opened())
        twice.commit(decoded(parts[cut:], again))
        assert [row for row, _ in twice.deltas.values()] == [row for row, _ in once.deltas.values()]
        if not damage:
            assert twice.opened() == once.opened()
        assert twice.book_subscriptions.keys() == once.book_subscriptions.keys()
        for key, claim in twice.book_subscriptions.items():
            # Where a block is missing, a claim of the part may end earlier, and none later.
            found, expected = (each.seq_to or 10**9 for each in (claim, once.book_subscriptions[key]))
            assert found == expected or (damage and found < expected)


def test_every_number_of_the_journal_is_in_the_ledger_once() -> None:
    for world in worlds(10, odd=0.1, broken=0.05, ask=0.05):
        parts = [part for part in world.gatherers[0].parts if isinstance(part, Block)]
        counted = Counter(
            (each.stream_id, each.seq)
            for each in decoded(parts)
            if isinstance(each, BookDelta | BookSnapshot | SequenceConsumed)
        )
        journal = Counter(
            key for part in parts for key in zip(part.batch.stream_ids, part.batch.numbers, strict=True) if key[1] > 0
        )
        assert counted == Counter(dict.fromkeys(journal, 1))


# -- lost blocks


def test_a_lost_block_is_a_gap_that_ends_the_claims_before_it() -> None:
    made = recorder()
    made.read(delta(3))
    gone = made.read(delta(4), delta(5, "B"))
    made.read(delta(6))
    decoder = Decoder()
    parts = [lost(each) if each is gone else each for each in made.journal.blocks]
    *outputs, last = [decoder.decode(part) for part in parts]
    records = [record for output in [*outputs, last] for record in output.records]
    assert ends(records) == [("A", 3, "journal damaged"), ("B", 3, "journal damaged")]
    assert only(SequenceGap, records) == [SequenceGap(100, 4, 6, T0)]
    assert [row.seq for row in only(BookDelta, records)] == [3, 6]
    assert last.lost_claims == ("A", "B")
    [letter] = only(DeadLetter, records)
    assert (letter.reason, letter.stream_id) == ("journal_damaged", NO_STREAM)
    assert [alarm.kind for output in outputs for alarm in output.alarms] == ["journal_damaged", "dead_letter"]


def test_lost_marks_end_the_claims_of_their_session_and_name_it() -> None:
    made = recorder()
    made.session.unsubscribe_books(["A"])
    gone = made.append(made.session.pop_batch())
    assert (gone.batch.payloads, len(gone.batch.marks)) == ([], 1)
    last = made.read(delta(3, "B"))
    decoder = Decoder()
    decoded([each for each in made.journal.blocks if each not in (gone, last)], decoder)
    output = decoder.decode(last)
    assert ends(output.records) == [("A", 2, "journal damaged"), ("B", 2, "journal damaged")]
    assert (set(output.lost_claims), output.damaged_sessions) == ({"A", "B"}, frozenset({SESSION}))


def test_a_stream_whose_opening_is_lost_is_opened_from_the_block() -> None:
    made = Recorder("A")
    gone = made.read(subscribed(), snapshot(1, "A"))
    last = made.read(delta(2), delta(3))
    output = Decoder().decode(last)
    opened, closed = only(StreamOpened, output.records), only(SessionOpened, output.records)
    assert [(each.stream_id, each.session_id, each.channel) for each in opened] == [(100, SESSION, "orderbook_delta")]
    assert [each.session_id for each in closed] == [SESSION]
    assert only(SequenceGap, output.records) == [SequenceGap(100, 1, 2, T0)]
    assert output.damaged_sessions == {SESSION}
    assert gone.number == 1
    # Its books are not claimed, until a snapshot comes.
    assert only(BookSubscriptionStarted, decoded([made.read(delta(4)), made.read(snapshot(5, "A"))])) != []


def test_what_shares_its_number_with_a_response_may_be_in_the_lost_block() -> None:
    made = recorder()
    made.read(ok(5, 1, 3))
    gone = made.read(delta(3))
    made.read(delta(4))
    records = decoded([lost(each) if each is gone else each for each in made.journal.blocks])
    assert ends(records) == [("A", 2, "journal damaged"), ("B", 2, "journal damaged")]
    # Without damage the number of the response is enough.
    whole = recorder()
    whole.read(ok(5, 1, 3))
    whole.read(delta(4))
    assert ends(decoded(whole.journal.blocks)) == []


def test_a_gap_of_the_session_after_a_lost_block_is_recorded_from_where_the_journal_ends() -> None:
    made = recorder()
    gone = made.read(delta(3), delta(4))
    made.read(delta(9))
    records = decoded([lost(each) if each is gone else each for each in made.journal.blocks])
    assert only(SequenceGap, records) == [SequenceGap(100, 3, 9, T0)]
    assert ends(records) == [("A", 2, "journal damaged"), ("B", 2, "journal damaged")]


def test_an_end_after_a_lost_block_claims_only_what_is_there() -> None:
    made = recorder()
    gone = made.read(delta(3), delta(4))
    made.close()
    records = decoded([lost(each) if each is gone else each for each in made.journal.blocks])
    assert ends(records) == [("A", 2, "journal damaged"), ("B", 2, "journal damaged")]
    assert [type(each) for each in records[-2:]] == [StreamEnded, SessionClosed]


def test_the_torn_end_of_a_killed_process_raises_nothing() -> None:
    made = recorder()
    torn = msgspec.structs.replace(lost(made.journal.blocks[-1]), is_torn=True, blocks=None)
    decoder = Decoder()
    decoded(made.journal.blocks, decoder)
    output = decoder.decode(torn)
    assert (output.records, output.alarms) == ([], [])


def test_a_new_process_ends_what_the_former_one_left_open() -> None:
    made = recorder()
    made.read(delta(3), frame("a_type_to_come"))
    started = FrameBatch()
    started.mark(GathererStarted(T0 + 5, "g1", "1"))
    made.append(started, 0)
    decoder = Decoder()
    records = decoded(made.journal.blocks, decoder)
    assert records[-4:] == [
        BookSubscriptionEnded(100, "A", 3, "gatherer ended"),
        BookSubscriptionEnded(100, "B", 3, "gatherer ended"),
        StreamEnded(100, T0 + 5, "gatherer ended"),
        SessionClosed(SESSION, T0 + 5, "gatherer ended"),
    ]
    assert decoder.dead_letters == 1
    assert decoder._limits == {}


def test_the_segments_of_a_real_journal_give_what_its_blocks_give(tmp_path: Path) -> None:
    made = recorder()
    made.read(delta(3))
    made.read(delta(4, "B"), ok(9, 1, 5))
    made.session.unsubscribe_books(["A"])
    made.read(delta(6, "B"))
    made.close()
    journal = open_journal(tmp_path, "g1", FakeClock(), limits=JournalLimits(segment_bytes=300, min_free_bytes=0))
    for block in made.journal.blocks:
        journal.append(block.session_id, block.batch)
    journal.close()
    assert len(list(tmp_path.iterdir())) > 3
    reader, decoder = JournalReader(tmp_path), Decoder()
    outputs = []
    while (part := reader.next()) is not None:
        outputs.append(decoder.decode(part))
    reader.close()
    assert [record for output in outputs for record in output.records] == decoded(made.journal.blocks)
    assert not any(output.lost_claims or output.damaged_sessions for output in outputs)


def test_restated_marks_count_only_where_they_are_not_known() -> None:
    made = recorder()
    restated = FrameBatch()
    restated.mark(SessionOpened(SESSION, "books", "wss://exchange", False, T0))
    restated.mark(StreamOpened(100, SESSION, 1, "orderbook_delta", T0))
    before = made.journal.blocks[-1]
    marks = sum(len(each.batch.marks) for each in made.journal.blocks)
    block = Block(before.end, before.end, 0, SESSION, marks, T0, True, (), restated)
    decoder = Decoder()
    decoded(made.journal.blocks, decoder)
    assert decoder.decode(block).records == []
    assert [type(each) for each in decoder.decode(made.read(delta(3))).records] == [BookDelta]
    # Where reading begins there, the books are not known.
    fresh = Decoder()
    output = fresh.decode(block)
    assert output.records == [mark for _, mark in restated.marks]
    assert output.damaged_sessions == {SESSION}
    assert [type(each) for each in fresh.decode(made.read(delta(4))).records] == [SequenceGap, BookDelta]


# -- content


def test_a_snapshot_that_cannot_be_decoded_starts_no_claim() -> None:
    made = recorder()
    block = made.read(snapshot(3, "A", yes=[["9", "1"]]), delta(4))
    decoder = Decoder()
    decoded(made.journal.blocks[:-1], decoder)
    output = decoder.decode(block)
    assert ends(output.records) == [("A", 2, "dead_letter")]
    assert only(BookSubscriptionStarted, output.records) == []
    assert output.lost_claims == ("A",)
    assert [type(each) for each in output.records] == [SequenceConsumed, DeadLetter, BookSubscriptionEnded, BookDelta]


def test_books_of_an_answer_have_the_time_of_their_request() -> None:
    def answer(*books: dict[str, Any]) -> bytes:
        return json.dumps({"orderbooks": books}).encode()

    fp = {"yes_dollars": [["0.5600", "1.00"]], "no_dollars": []}
    journal = MemoryJournal()
    for mark, body in (
        (RestBooksReceived("rest", T0 - 9, 60_000_000), answer({"ticker": "A", "orderbook_fp": fp})),
        (RestBooksReceived("rest_recovery", T0 - 9), answer({"ticker": "B", "orderbook_fp": fp}, {"ticker": "C"})),
    ):
        batch = FrameBatch([body], [T0], [NO_STREAM], [0], [int(FrameKind.REST_BOOKS)], [(0, mark)])
        journal.append(0, batch, T0)
    polled, recovered, letter = decoded(journal.blocks)
    yes = ((5600, 100),)
    assert polled == BookSnapshot("A", "rest", 60_000_000, T0, yes, (), requested_at_ns=T0 - 9)
    assert recovered == BookSnapshot("B", "rest_recovery", T0 // 1_000, T0, yes, (), requested_at_ns=T0 - 9)
    assert isinstance(letter, DeadLetter)
    assert letter.reason == "rest_book"


@pytest.mark.parametrize("total", [1, 2, 3])
def test_shards_keep_every_trade_and_ticker_once_and_every_number(total: int) -> None:
    made = Recorder()
    made.session.subscribe_channels(["trade", "ticker", "market_lifecycle_v2"])
    channels = enumerate(("trade", "ticker", "market_lifecycle_v2"), 1)
    made.read(*(subscribed(sid, channel) for sid, channel in channels))
    tickers = [f"M{number}" for number in range(12)]
    for seq, ticker in enumerate(tickers, 1):
        made.read(
            frame("trade", sid=1, seq=seq, msg={**TRADE, "market_ticker": ticker, "trade_id": ticker}),
            frame("ticker", sid=2, msg={**TICKER, "market_ticker": ticker}),
            frame("market_lifecycle_v2", sid=3, seq=seq, msg={"market_ticker": ticker, "event_type": "created"}),
        )
    shards = [decoded(made.journal.blocks, Decoder(MarketPart(number, total))) for number in range(1, total + 1)]
    assert sorted(row.ticker for kept in shards for row in only(Trade, kept)) == sorted(tickers)
    assert sorted(row.ticker for kept in shards for row in only(TickerUpdate, kept)) == sorted(tickers)
    for kept in shards:
        assert [row.ticker for row in only(LifecycleEvent, kept)] == tickers
        numbers = [each.seq for each in kept if isinstance(each, Trade | SequenceConsumed)]
        assert numbers == list(range(1, len(tickers) + 1)), "numbers left out would be a gap"
