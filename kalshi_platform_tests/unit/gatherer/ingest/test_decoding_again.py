"""Decoding goes on anywhere in a real journal, with segments that begin often: the claims stay as they were."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.journal.block_format import Block, Damage
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.journal.writer import JournalLimits, open_journal
from kalshi_platform.market.records import BookDelta, Record
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.unit.exchange.frames_of import delta
from kalshi_platform_tests.unit.gatherer.ingest.test_decoder import lost, recorder
from kalshi_platform_tests.unit.worlds.tables import GathererTables
from kalshi_platform_tests.unit.worlds.venue import Shape
from kalshi_platform_tests.unit.worlds.world import World


def journal_of_world(seed: int, folder: Path) -> list[Block | Damage]:
    """What one process of a world recorded, in segments so small that nearly every block is near the start of one."""
    world = World(seed, Shape(length=60, gatherers=1, odd=0.1, ask=0.08, end=0.02, kill=0.0, damage=0.0))
    journal = open_journal(folder, "g1", FakeClock(), limits=JournalLimits(segment_bytes=1_500, min_free_bytes=0))
    for part in world.gatherers[0].parts[1:]:
        assert isinstance(part, Block)
        journal.append(part.session_id, part.batch)
    journal.close()
    reader, items = JournalReader(folder), []
    while (item := reader.next()) is not None:
        items.append(item)
    reader.close()
    return items


def decode(decoder: Decoder, items: Iterable[Block | Damage]) -> list[Record]:
    return [record for item in items for record in decoder.decode(item).records]


def claims(tables: GathererTables) -> dict[tuple[int, str, int], int | None]:
    return {key: each.seq_to for key, each in tables.book_subscriptions.items()}


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_that_is_quiet_when_a_segment_begins_keeps_its_claims(seed: int, tmp_path: Path) -> None:
    items = journal_of_world(seed, tmp_path)
    once = GathererTables()
    once.commit(decode(Decoder(), items))
    pick = random.Random(seed)
    for _ in range(8):
        cut = pick.randint(0, len(items))
        tables, later = GathererTables(), Decoder()
        tables.commit(decode(Decoder(), items[:cut]))
        decode(later, items[max(0, cut - pick.choice((0, 1, 3, 8))) : cut])
        later.set_open(*tables.opened())
        tables.commit(decode(later, items[cut:]))
        assert claims(tables) == claims(once)


def test_a_damage_just_before_the_place_of_a_reload_is_not_reported_again() -> None:
    made, later = recorder(), Decoder()
    decode(later, [lost(made.journal.blocks[-1])])
    tables = GathererTables()
    tables.commit(decode(Decoder(), made.journal.blocks))
    later.set_open(*tables.opened())
    assert [type(each) for each in decode(later, [made.read(delta(3, "B"))])] == [BookDelta]


def test_marks_that_may_be_lost_behind_a_reload_end_the_claims_of_their_session() -> None:
    """The session had no block in what was decoded again: how many marks it had is known of no other."""
    made = recorder()
    tables, later = GathererTables(), Decoder()
    tables.commit(decode(Decoder(), made.journal.blocks))
    made.session.unsubscribe_books(["A"])
    gone = made.append(made.session.pop_batch())
    later.set_open(*tables.opened())
    tables.commit(decode(later, [lost(gone), made.read(delta(3, "B"))]))
    assert {ticker: seq_to for (_, ticker, _), seq_to in claims(tables).items()} == {"A": 1, "B": 2}
