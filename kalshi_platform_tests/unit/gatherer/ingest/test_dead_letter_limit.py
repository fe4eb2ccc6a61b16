"""Tests that a flood of unreadable frames is a sample and a count, whatever it contains."""

from __future__ import annotations

from kalshi_platform.gatherer.ingest.dead_letter_limit import BYTES_PER_MINUTE, DeadLetterLimit
from kalshi_platform.market.records import DeadLetter, DeadLettersCounted, SequenceConsumed
from kalshi_platform_tests.unit.exchange.frames_of import frame
from kalshi_platform_tests.unit.exchange.protocol.test_session import T0, S, following, only

MINUTE_US = T0 // 60_000_000_000 * 60_000_000


def test_each_minute_and_reason_has_its_own_sample() -> None:
    limit = DeadLetterLimit(7, 3)
    kept = [limit.admits(T0 + minute * 60 * S, reason, 9) for minute in (0, 1) for reason in "ab" for _ in range(5)]
    assert kept == [True, True, True, False, False] * 4
    assert limit.counts() == [
        DeadLettersCounted(MINUTE_US + minute * 60_000_000, reason, 7, 2) for minute in (0, 1) for reason in "ab"
    ]
    assert limit.counts() == []
    limit.admits(T0 + 60 * S, "a", 9)
    assert limit.counts() == [DeadLettersCounted(MINUTE_US + 60_000_000, "a", 7, 3)]


def test_a_clock_that_was_ahead_for_a_moment_makes_no_sample_larger() -> None:
    limit = DeadLetterLimit(7, 3)
    assert limit.admits(T0 + 3_600 * S, "a", 9)
    kept = 0
    for _ in range(5):
        kept += sum(limit.admits(T0, "a", 9) for _ in range(5))
        counted = limit.counts()
    assert (kept, counted) == (3, [DeadLettersCounted(MINUTE_US, "a", 7, 22)])


def test_large_letters_are_kept_as_long_as_they_are_few() -> None:
    limit = DeadLetterLimit(7, 100)
    assert limit.admits(T0, "a", 2 * BYTES_PER_MINUTE)
    assert not limit.admits(T0, "a", 1)
    assert [limit.admits(T0, "b", BYTES_PER_MINUTE // 2) for _ in range(3)] == [True, True, False]


def test_counts_of_a_copy_do_not_change_the_original() -> None:
    limit = DeadLetterLimit(7, 1)
    limit.admits(T0, "a", 1)
    tried, again = limit.copy(), limit.copy()
    for each in (tried, again):
        each.admits(T0, "a", 1)
        assert each.counts() == [DeadLettersCounted(MINUTE_US, "a", 7, 1)]
    assert limit.counts() == []


def test_a_flood_of_unknown_frames_costs_a_sample_and_a_count_and_no_number() -> None:
    session = following("A", dead_letters_per_minute=5)
    records, alarms = [], []
    for seq in range(2, 1_002):
        received = session.receive(frame("news", sid=1, seq=seq, msg={"text": "x" * 400}), T0)
        records += received.records
        alarms += received.alarms
    assert len(only(DeadLetter, records)) == 5
    # Every block brings the count up to date.
    counts = [DeadLettersCounted(MINUTE_US, "unknown_type", 7, letters) for letters in range(1, 996)]
    assert only(DeadLettersCounted, records) == counts
    assert [record.seq for record in only(SequenceConsumed, records)] == list(range(2, 1_002))
    assert [alarm.kind for alarm in alarms] == ["dead_letter"] * 5 + ["dead_letters_counted"]
    assert session.counters.dead_letters == 1_000
