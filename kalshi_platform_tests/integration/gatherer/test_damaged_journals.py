"""Journals that were damaged before they are ingested: each costs exactly the frames concerned, and says so.

    KALSHI_DAMAGES=200 KALSHI_INGESTED_DAMAGES=20 pytest …/test_damaged_journals.py

damages a recorded journal so many times (bit flips, cuts, removed blocks, removed segments), and ingests so many of the
damaged ones into a database (the defaults are 20 and 1).
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.journal.block_format import Block, Damage
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.journal.segments import list_segments
from kalshi_platform.lab.proof.rebuilt import compare_gatherer, ingest_journal
from kalshi_platform.market.records import (
    BookDelta,
    BookSnapshot,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    LifecycleEvent,
    SequenceConsumed,
    SequenceGap,
    TickerUpdate,
    Trade,
)
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.recorded_journal import record_journal
from kalshi_platform_tests.fixtures.running_ingest import BOUNDS
from kalshi_platform_tests.fixtures.stack import rows

DAMAGES = int(os.environ.get("KALSHI_DAMAGES", "20"))
INGESTED = int(os.environ.get("KALSHI_INGESTED_DAMAGES", "1"))
KINDS = ("flip", "cut", "remove block", "remove segment")
ROWS = (BookDelta, BookSnapshot, Trade, TickerUpdate, LifecycleEvent)
STREAMS = ("orderbook_deltas", "orderbook_snapshots", "trades", "market_lifecycle")
Claim = tuple[int, str, int, int]
"""Stream, ticker, first and last number."""


@dataclass
class Decoded:
    """What a journal gives: rows without their occurrence, numbers by stream, claims, gaps, and what was said."""

    rows: Counter[Any] = field(default_factory=Counter)
    numbers: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    claims: set[Claim] = field(default_factory=set)
    gaps: set[tuple[int, int, int]] = field(default_factory=set)
    letters: list[DeadLetter] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    blocks: dict[tuple[int, int], tuple[Block, Counter[Any], set[tuple[int, int]]]] = field(default_factory=dict)
    """By segment and number: the block, its rows, and the numbers of streams that it has."""


def content(record: Any) -> Any:
    """A row as it is compared: equal deltas of a stream are counted by what the stream received."""
    if isinstance(record, BookDelta):
        return msgspec.structs.replace(record, occurrence=0)
    if isinstance(record, BookSnapshot):
        return msgspec.json.encode(record)
    return record


def decode(folder: Path) -> Decoded:
    found = Decoded()
    reader, decoder = JournalReader(folder), Decoder()
    opened: dict[tuple[int, str], int] = {}
    while (item := reader.next()) is not None:
        part = decoder.decode(item)
        rows: Counter[Any] = Counter()
        numbers = set()
        for record in part.records:
            if isinstance(record, (*ROWS, SequenceConsumed)) and record.seq > 0:
                numbers.add((record.stream_id, record.seq))
            if isinstance(record, ROWS):
                rows[content(record)] += 1
            elif isinstance(record, BookSubscriptionStarted):
                opened[record.stream_id, record.ticker] = record.seq_from
            elif isinstance(record, BookSubscriptionEnded):
                began = opened.pop((record.stream_id, record.ticker))
                found.claims.add((record.stream_id, record.ticker, began, record.seq_to))
            elif isinstance(record, SequenceGap):
                found.gaps.add((record.stream_id, record.seq_expected, record.seq_seen))
            elif isinstance(record, DeadLetter):
                found.letters.append(record)
        found.rows += rows
        for stream_id, number in numbers:
            found.numbers[stream_id].add(number)
        found.alarms += [alarm.kind for alarm in part.alarms]
        if isinstance(item, Damage):
            found.damages.append(item)
        else:
            found.blocks[item.position.segment, item.number] = item, rows, numbers
    reader.close()
    for (stream_id, ticker), began in opened.items():
        found.claims.add((stream_id, ticker, began, max(found.numbers[stream_id], default=0)))
    return found


def damage(folder: Path, clean: Decoded, chance: random.Random) -> tuple[str, set[tuple[int, int]]]:
    """Damage a journal; return how, and the blocks (segment, number) that are gone by that."""
    paths = list_segments(folder)
    kind = chance.choice(KINDS)
    blocks = clean.blocks
    segment = chance.choice(sorted(paths)[1:-1])  # of what is before the first and behind the last nothing can tell
    own = {key: block for key, (block, _, _) in blocks.items() if key[0] == segment}
    data = bytearray(paths[segment].read_bytes())
    if kind == "flip":
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        paths[segment].write_bytes(data)
        return f"{kind} at {segment}:{at}", {
            key for key, block in own.items() if block.position.offset <= at < block.end.offset
        }
    if kind == "cut":
        at = chance.randrange(len(data))
        paths[segment].write_bytes(data[:at])
        return f"{kind} at {segment}:{at}", {key for key, block in own.items() if block.end.offset > at}
    if kind == "remove block":
        key = chance.choice(sorted(own))
        block = own[key]
        del data[block.position.offset : block.end.offset]
        paths[segment].write_bytes(data)
        return f"{kind} {key}", {key}
    following = segment + chance.randrange(2)
    gone = {number for number in (segment, following) if number in sorted(paths)[1:-1]}
    for number in gone:
        paths[number].unlink()
    return f"{kind} {sorted(gone)}", {key for key in blocks if key[0] in gone}


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "journal"
    record_journal(folder)
    return folder


def test_every_damage_costs_exactly_its_frames_and_is_declared(journal: Path, tmp_path: Path) -> None:
    clean = decode(journal)
    assert len(list_segments(journal)) > 10
    assert clean.rows.total() > 800
    assert (clean.damages, clean.gaps, clean.letters) == ([], set(), [])
    lost_frames = 0
    for seed in range(DAMAGES):
        folder = tmp_path / str(seed)
        shutil.copytree(journal, folder)
        what, lost = damage(folder, clean, random.Random(seed))
        found = decode(folder)
        lost_frames += check(what, clean, lost, found)
        shutil.rmtree(folder)
    assert lost_frames > 2 * DAMAGES


def check(what: str, clean: Decoded, lost: set[tuple[int, int]], found: Decoded) -> int:
    """Compare with the clean journal; return how many numbers are gone."""
    gone_rows: Counter[Any] = Counter()
    gone: dict[int, set[int]] = defaultdict(set)
    for key in lost:
        _, rows, numbers = clean.blocks[key]
        gone_rows += rows
        for stream_id, number in numbers:
            gone[stream_id].add(number)
    assert found.rows == clean.rows - gone_rows, what
    for stream_id, received in clean.numbers.items():
        assert found.numbers[stream_id] == received - gone[stream_id], (what, stream_id)
    # The declared holes are what is gone, as far as a later number of the stream shows it.
    holes: dict[int, set[int]] = defaultdict(set)
    for stream_id, expected, seen in found.gaps:
        holes[stream_id] |= set(range(expected, seen))
    for stream_id, missing in gone.items():
        last = max(found.numbers[stream_id], default=0)
        assert holes.pop(stream_id, set()) == {number for number in missing if number < last}, (what, stream_id)
    assert not holes, what
    # No claim spans what is gone, none is new, and what is not concerned is claimed as before.
    for stream_id, ticker, began, until in found.claims:
        assert not gone[stream_id] & set(range(began, until + 1)), (what, stream_id, ticker)
        assert any(
            (stream_id, ticker) == claim[:2] and claim[2] <= began and until <= claim[3] for claim in clean.claims
        ), (what, stream_id, ticker, began, until)
    concerned = {clean.blocks[key][0].session_id for key in lost}
    streams = {
        stream.stream_id
        for block, _, _ in clean.blocks.values()
        if block.session_id not in concerned
        for stream in block.streams
    }
    assert {claim for claim in found.claims if claim[0] in streams} == {
        claim for claim in clean.claims if claim[0] in streams
    }, what
    said = found.alarms.count("journal_damaged")
    assert said == len(found.letters) == sum(not each.is_torn for each in found.damages), what
    if any(clean.blocks[key][0].batch for key in lost):
        assert found.damages, what
    return sum(map(len, gone.values()))


def test_the_database_holds_what_a_damaged_journal_gives(
    journal: Path, tmp_path: Path, gatherer_settings: SettingsFactory
) -> None:
    clean = decode(journal)
    databases: list[Stored] = []
    urls: list[str] = []
    for number in range(INGESTED + 1):
        state = tmp_path / str(number)
        shutil.copytree(journal, state / "g1" / "journal")
        lost: set[tuple[int, int]] = set()
        if number:
            _, lost = damage(state / "g1" / "journal", clean, random.Random(number))
        settings = gatherer_settings(state_dir=state)
        expected = decode(state / "g1" / "journal")
        ingest_journal(settings, BOUNDS, SYSTEM_CLOCK)
        databases.append(stored(settings.timeseries_url))
        found = databases[-1]
        assert found.numbers == {stream: numbers for stream, numbers in expected.numbers.items() if numbers}
        assert (found.claims, found.gaps) == (expected.claims, expected.gaps)
        gone = {(stream, seq) for key in lost for stream, seq in clean.blocks[key][2]}
        assert found.rows == {place: row for place, row in databases[0].rows.items() if place not in gone}
        urls.append(settings.timeseries_url)
        differing = {table.name: table for table in compare_gatherer("g1", urls[0], urls[-1])}
        assert sum(differing[name].missing for name in STREAMS) >= len(gone & databases[0].rows.keys())
        assert bool(gone) == bool(differing["stream_segments"].missing)


class Stored(NamedTuple):
    """What a database holds: rows by stream and number, and the ledger."""

    rows: dict[tuple[int, int], Any]
    numbers: dict[int, set[int]]
    claims: set[Claim]
    gaps: set[tuple[int, int, int]]


def stored(url: str) -> Stored:
    numbers: dict[int, set[int]] = defaultdict(set)
    for stream, low, high in rows(url, "SELECT stream_id, seq_from, seq_to FROM stream_segments"):
        numbers[stream] |= set(range(low, high + 1))
    queries = (
        "SELECT stream_id, seq, exchange_ts, ticker, side, price_e4, delta_e2, received_at FROM orderbook_deltas",
        "SELECT stream_id, seq, ticker, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2 FROM orderbook_snapshots",
        "SELECT stream_id, seq, exchange_ts, ticker, trade_id, yes_price_e4, count_e2 FROM trades",
        "SELECT stream_id, seq, ticker, event_type, content::text FROM market_lifecycle",
    )
    return Stored(
        {(row[0], row[1]): row[2:] for query in queries for row in rows(url, query)},
        dict(numbers),
        set(rows(url, "SELECT stream_id, ticker, seq_from, seq_to FROM book_subscriptions")),
        set(rows(url, "SELECT stream_id, seq_expected, seq_seen FROM sequence_gaps")),
    )
