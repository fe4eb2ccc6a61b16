"""What a batch claims: segments, book subscriptions and gaps, the same for every way to cut a stream into batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.gatherer.ingest.columns import tables_of
from kalshi_platform.gatherer.ingest.ledger import fold
from kalshi_platform.gatherer.ingest.quarantine import split_out_of_range
from kalshi_platform.market.records import BookDelta, BookSubscriptionEnded, DeadLetter, Record
from kalshi_platform_tests.fixtures.gathered import BASE_US, STEPS, Stream


@dataclass
class Tables:
    """The ledger's tables, kept as the database's statements keep them."""

    numbers: set[tuple[int, int]] = field(default_factory=set)
    times: set[tuple[int, int | None]] = field(default_factory=set)
    book_subscriptions: dict[tuple[int, str, int], tuple[int | None, str | None]] = field(default_factory=dict)
    gaps: set[tuple[int, int, int]] = field(default_factory=set)
    sessions: dict[int, str | None] = field(default_factory=dict)
    streams: dict[int, str | None] = field(default_factory=dict)

    def take(self, records: Sequence[Record]) -> None:
        ledger = fold(records)
        for session in ledger.sessions_opened:
            self.sessions.setdefault(session.session_id, None)
        for stream in ledger.streams_opened:
            self.streams.setdefault(stream.stream_id, None)
        for segment in ledger.segments:
            self.numbers |= {(segment.stream_id, seq) for seq in range(segment.seq_from, segment.seq_to + 1)}
            self.times |= {
                (segment.stream_id, time) for time in (segment.exchange_ts_min_us, segment.exchange_ts_max_us)
            }
        for member in ledger.book_subscriptions:
            key = (member.stream_id, member.ticker, member.seq_from)
            if self.book_subscriptions.get(key, (None, None))[0] is None:
                self.book_subscriptions[key] = (member.seq_to, member.end_reason)
        for ending in ledger.endings:
            for (stream_id, ticker, seq_from), (seq_to, _) in list(self.book_subscriptions.items()):
                is_open = (stream_id, ticker) == (ending.stream_id, ending.ticker) and seq_to is None
                if is_open and seq_from < ending.before:
                    self.book_subscriptions[stream_id, ticker, seq_from] = (ending.seq_to, ending.end_reason)
        self.gaps |= {(gap.stream_id, gap.seq_expected, gap.seq_seen) for gap in ledger.gaps}
        self.streams.update({end.stream_id: end.reason for end in ledger.streams_ended})
        self.sessions.update({end.session_id: end.reason for end in ledger.sessions_closed})


def streams_of(plan: list[tuple[bool, str]]) -> list[Record]:
    """Two interleaved streams, each sane: a market is followed once at a time, and left only while followed."""
    streams = (Stream(11, 1), Stream(12, 2))
    followed = {11: False, 12: False}
    records: list[Record] = []
    for which, step in plan:
        stream = streams[which]
        if step in ("again", "leave") and not followed[stream.id]:
            continue
        if step == "snapshot" and followed[stream.id]:
            continue
        if step == "gap":
            stream.gap(("A",) if followed[stream.id] else ())
        else:
            stream.step(step)
        followed[stream.id] = step == "snapshot" or (followed[stream.id] and step not in ("gap", "leave"))
        records += stream.records
        stream.records = []
    for stream in streams:
        if followed[stream.id]:
            stream.leave()
        stream.close()
        records += stream.records
    return records


plans = st.lists(st.tuples(st.booleans(), st.sampled_from(STEPS)), max_size=40)


@given(plans, st.lists(st.integers(0, 200), max_size=8))
def test_any_split_into_batches_gives_the_same_ledger_and_rows(plan: list[tuple[bool, str]], cuts: list[int]) -> None:
    records = streams_of(plan)
    whole, parts = Tables(), Tables()
    whole.take(records)
    edges = sorted({min(cut, len(records)) for cut in cuts} | {0, len(records)})
    rows: dict[str, list[dict[str, object]]] = {}
    for low, high in itertools.pairwise(edges):
        parts.take(records[low:high])
        for name, table in tables_of(records[low:high]).items():
            rows.setdefault(name, []).extend(table.to_pylist())
    assert parts.numbers == whole.numbers
    assert parts.book_subscriptions == whole.book_subscriptions
    assert (parts.gaps, parts.sessions, parts.streams) == (whole.gaps, whole.sessions, whole.streams)
    assert rows == {name: table.to_pylist() for name, table in tables_of(records).items()}


@given(plans, st.integers(0, 200), st.integers(0, 200))
def test_a_batch_written_twice_changes_nothing(plan: list[tuple[bool, str]], first: int, second: int) -> None:
    records = streams_of(plan)
    low, high = sorted((min(first, len(records)), min(second, len(records))))
    # A cut never separates what one frame gave.
    while 0 < low < len(records) and _same_frame(records[low - 1], records[low]):
        low -= 1
    while 0 < high < len(records) and _same_frame(records[high - 1], records[high]):
        high += 1
    once, twice = Tables(), Tables()
    for part in (records[:low], records[low:high], records[high:]):
        once.take(part)
    for part in (records[:low], records[low:high], records[low:high], records[high:]):
        twice.take(part)
    assert twice.book_subscriptions == once.book_subscriptions
    assert (twice.numbers, twice.gaps, twice.streams) == (once.numbers, once.gaps, once.streams)


@given(plans)
def test_a_crash_in_the_replay_of_everything_changes_nothing(plan: list[tuple[bool, str]]) -> None:
    records = streams_of(plan)
    once, again = Tables(), Tables()
    once.take(records)
    for low in range(0, len(records), 5):
        again.take(records[low : low + 5])
    again.take(records)
    assert again.book_subscriptions == once.book_subscriptions


def _same_frame(one: Record, other: Record) -> bool:
    return getattr(one, "received_at_ns", None) == getattr(other, "received_at_ns", object()) or isinstance(
        one, BookSubscriptionEnded
    )


def test_acknowledgements_and_dead_letters_keep_a_segment_whole() -> None:
    stream = Stream()
    stream.snapshot()
    stream.ack()
    stream.to_dead_letter()
    delta = stream.delta()
    (segment,) = fold(stream.records).segments
    assert (segment.seq_from, segment.seq_to) == (1, 4)
    assert segment.exchange_ts_min_us == segment.exchange_ts_max_us == delta.exchange_ts_us


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(-3, 3)), min_size=1))
def test_a_segment_has_the_first_and_last_time_of_its_deltas_in_whatever_order(plan: list[tuple[int, int]]) -> None:
    streams = {number: Stream(number, number) for number in (1, 2)}
    deltas = [streams[number].delta(exchange_ts_us=BASE_US + time) for number, time in plan]
    for segment in fold(deltas).segments:
        times = [each.exchange_ts_us for each in deltas if each.stream_id == segment.stream_id]
        assert (segment.exchange_ts_min_us, segment.exchange_ts_max_us) == (min(times), max(times))
        assert segment.seq_to - segment.seq_from + 1 == len(times)


def test_a_gap_begins_a_new_segment_and_ends_the_book_subscription_before_it() -> None:
    stream = Stream()
    stream.snapshot()
    stream.delta()
    stream.gap(lost=2)
    stream.delta()
    ledger = fold(stream.records)
    assert [(s.seq_from, s.seq_to) for s in ledger.segments] == [(1, 2), (5, 5)]
    assert [(m.seq_from, m.seq_to, m.end_reason) for m in ledger.book_subscriptions] == [(1, 2, "gap")]


def test_a_repeated_ending_by_a_snapshot_leaves_the_next_book_subscription_open() -> None:
    stream = Stream()
    stream.snapshot()
    first, stream.records = stream.records, []
    stream.again()
    tables = Tables()
    for batch in (first, stream.records, stream.records):
        tables.take(batch)
    assert tables.book_subscriptions == {(11, "A", 1): (2, "snapshot"), (11, "A", 2): (None, None)}


def test_frames_without_number_are_in_no_segment() -> None:
    stream = Stream()
    stream.ticker()
    assert fold(stream.records).segments == []


def test_a_delta_out_of_bounds_becomes_a_dead_letter_and_ends_the_claim_before_it() -> None:
    stream = Stream()
    stream.snapshot()
    stream.delta()
    far = stream.delta(exchange_ts_us=17)
    stream.delta()
    kept, out_of_range = split_out_of_range(
        stream.records, lambda row: BASE_US - 1 <= row.exchange_ts_us < BASE_US + 10**9
    )
    assert out_of_range == (far,)
    assert [record.reason for record in kept if isinstance(record, DeadLetter)] == ["out_of_bounds"]
    assert len([record for record in kept if isinstance(record, BookDelta)]) == 2
    ledger = fold(kept)
    assert [(s.seq_from, s.seq_to) for s in ledger.segments] == [(1, 4)]
    assert [(m.seq_to, m.end_reason) for m in ledger.book_subscriptions] == [(far.seq - 1, "out_of_bounds")]
