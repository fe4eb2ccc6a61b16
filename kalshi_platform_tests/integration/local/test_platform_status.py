"""Closed hours and heartbeats as `kalshi-platform status` shows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from kalshi_platform.cli.status import LakeStatus, print_status
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.local.platform_status import platform_status
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, datetime_from_us, us_from_datetime
from kalshi_platform.monitoring.heartbeat import Heartbeat, write_file
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.services import write_heartbeat
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, snapshot_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld


def test_a_closed_hour_with_an_alarm_is_shown_with_it(
    merge_world: Callable[..., MergeWorld], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = merge_world(1)
    before = platform_status(world.settings(), tmp_path, SYSTEM_CLOCK)
    assert before.last_closed_hour is None
    hour_us = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - 4 * US_PER_HOUR
    world.gatherers["g1"].commit(
        orderbook_deltas=[delta_row("A", ts_us=hour_us + n * 10 * US_PER_S, seq=n + 2) for n in range(1, 300)],
        orderbook_snapshots=[snapshot_row("A", received_us=hour_us, seq=1)],
        segments=[(1, 1, 301)],
        book_subscriptions=[(1, "A", 1, None)],
    )
    close_hour(world.settings(), datetime_from_us(hour_us), SYSTEM_CLOCK, PartitionBounds())
    with world.production.transaction() as transaction:
        transaction.execute(
            "INSERT INTO close_alarms (hour, kind, subject, detail) VALUES (%s, %s, 'A', 'does not come out')",
            (datetime_from_us(hour_us), "book_proof"),
        )
    found = platform_status(world.settings(), tmp_path, SYSTEM_CLOCK)
    closed = found.last_closed_hour
    assert closed is not None
    assert closed.hour == datetime_from_us(hour_us)
    # Deltas of 2,980 seconds, less a margin of a second or two.
    assert closed.coverage_share == pytest.approx(2_980 / 3_600, abs=0.01)
    assert closed.books_failed == 0
    assert closed.alarms == ["book_proof: A: does not come out"]
    print_status(found, LakeStatus([], None))
    shown = capsys.readouterr().out
    assert "last closed hour" in shown
    assert "% complete" in shown
    assert "! book_proof: A: does not come out" in shown


def test_a_heartbeat_is_aged_by_the_clock_that_dated_it_and_one_from_the_future_is_none(
    merge_world: Callable[..., MergeWorld], tmp_path: Path
) -> None:
    world = merge_world(1)
    clock = FakeClock(SYSTEM_CLOCK.now() - timedelta(hours=3))  # this host is behind the database server
    beat = Heartbeat("gatherer/g1", clock.now(), clock.now(), "running", GathererStatus())
    write_heartbeat(world.gatherers["g1"].database, beat)
    status = platform_status(world.settings(), tmp_path, clock).services["gatherer/g1"]
    assert status.alive
    assert status.age_s is not None
    assert status.age_s < 45
    with world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute("UPDATE heartbeats SET at = clock_timestamp() + interval '2 hours'")
    status = platform_status(world.settings(), tmp_path, clock).services["gatherer/g1"]
    assert not status.alive
    assert "in the future" in status.lines[0]
    write_file(tmp_path / "g1" / "heartbeat.json", beat)
    assert platform_status(world.settings(), tmp_path, clock).services["gatherer/g1"].alive


def test_markets_that_no_gatherer_records_are_a_problem(merge_world: Callable[..., MergeWorld], tmp_path: Path) -> None:
    world = merge_world(2)

    def problems(*shards: str) -> list[str]:
        for (name, gatherer), shard in zip(world.gatherers.items(), shards, strict=False):
            now = SYSTEM_CLOCK.now()
            beat = Heartbeat(f"gatherer/{name}", now, now, "running", GathererStatus(market_shard=shard))
            write_heartbeat(gatherer.database, beat)
        return list(platform_status(world.settings(), tmp_path, SYSTEM_CLOCK).problems)

    assert problems("1/2") == [], "the other one was never heard of"
    assert problems("1/2", "2/2") == []
    assert problems("1/2", "1/2") == [
        "no gatherer records the markets of shard 2/2: set KALSHI_<NAME>_MARKET_SHARD of one to it"
    ]
