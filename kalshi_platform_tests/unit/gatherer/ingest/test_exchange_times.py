"""Tests that a time far from its receipt is accepted only where its stream has it, too; replayed captures are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from kalshi_platform.gatherer.ingest.columns import tables_of
from kalshi_platform.gatherer.ingest.exchange_times import ExchangeTimes
from kalshi_platform.market.records import BookDelta
from kalshi_platform.storage.partitions import PartitionBounds

NOW_US = 1_795_380_000_000_000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def deltas(times_us: Iterable[int], stream: int = 1, received_us: int = NOW_US) -> list[BookDelta]:
    return [
        BookDelta("A", "yes", 5600, -200, time_us, (received_us + place) * 1_000, stream, place + 1, 0)
        for place, time_us in enumerate(times_us)
    ]


def accepted_times(times: ExchangeTimes, rows: Sequence[BookDelta]) -> list[int]:
    """The exchange times of a batch that are accepted_times."""
    if times.are_all_near(tables_of(rows)):
        return [row.exchange_ts_us for row in rows]
    return [row.exchange_ts_us for row in rows if times.accepts(row)]


def test_one_far_time_among_near_ones_is_not_accepted_nor_another_isolated_one() -> None:
    times = ExchangeTimes(PartitionBounds())
    assert accepted_times(times, deltas([NOW_US, NOW_US + 1])) == [NOW_US, NOW_US + 1]
    for far_us in (NOW_US - 1000 * DAY_US, NOW_US - 49 * HOUR_US, NOW_US + 49 * HOUR_US):
        assert accepted_times(times, deltas([NOW_US, far_us, NOW_US + 1])) == [NOW_US, NOW_US + 1]
    assert accepted_times(times, deltas([NOW_US - 47 * HOUR_US])) == [NOW_US - 47 * HOUR_US]


def test_a_far_time_at_the_end_of_a_batch_is_not_accepted_when_the_batch_is_written_again() -> None:
    times = ExchangeTimes(PartitionBounds())
    batch = deltas([NOW_US, NOW_US + 1, NOW_US - 1000 * DAY_US])
    for _ in range(3):
        assert accepted_times(times, batch) == [NOW_US, NOW_US + 1]
    assert not times.accepts(batch[-1]), "nor alone, in a part of it"


def test_scattered_far_times_create_no_partitions() -> None:
    times = ExchangeTimes(PartitionBounds())
    scattered = deltas([NOW_US - place * 100 * HOUR_US for place in range(100)])
    # The first is the receipt's.
    assert accepted_times(times, scattered) == [NOW_US]


def test_a_replayed_capture_is_accepted_from_its_first_row() -> None:
    times = ExchangeTimes(PartitionBounds())
    start_us = NOW_US - 200 * DAY_US
    played = [start_us + place * HOUR_US for place in range(300)]
    assert accepted_times(times, deltas(played[:200])) == played[:200]
    # The batches of a replay are not alone: other streams of the gatherer are as old, or not.
    assert accepted_times(times, deltas([NOW_US], stream=2)) == [NOW_US]
    assert accepted_times(times, deltas(played[200:])) == played[200:]


def test_a_clock_that_leaps_costs_at_most_one_row_of_a_stream() -> None:
    times = ExchangeTimes(PartitionBounds())
    assert accepted_times(times, deltas([NOW_US, NOW_US + 1])) == [NOW_US, NOW_US + 1]
    # Ours: the rows go on as they did, whatever the receipt says.
    after = [NOW_US + 2, NOW_US + 3]
    assert accepted_times(times, deltas(after, received_us=NOW_US + 10 * DAY_US)) == after
    # The exchange's: the first row stands alone, the others agree with it.
    leapt = [NOW_US - 3 * DAY_US + place for place in range(5)]
    assert accepted_times(times, deltas(leapt)) == leapt[1:]


def test_the_span_is_a_setting() -> None:
    times = ExchangeTimes(PartitionBounds(behind=timedelta(hours=2)))
    assert accepted_times(times, deltas([NOW_US, NOW_US - 3 * HOUR_US])) == [NOW_US]
