"""The live merge between real databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.catalog.merge_catalog import CatalogMergeReport, merge_catalog
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.hours import find_active_hours, find_hours_to_close
from kalshi_platform.deduplicator.live import live_merger as live_module
from kalshi_platform.deduplicator.live.live_merger import LiveMerger
from kalshi_platform.deduplicator.live.status import CatalogMergeStatus
from kalshi_platform.deduplicator.merge import cursor as cursor_module
from kalshi_platform.deduplicator.merge import hour_activity
from kalshi_platform.deduplicator.merge.alarms import raise_alarm
from kalshi_platform.deduplicator.merge.merge_pass import Merger, MergeReport, merge_new
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.errors import ConfigurationError, SchemaMismatch, StatementRejected
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, datetime_from_us, us_from_datetime
from kalshi_platform.monitoring.settings import AlertSettings
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    GathererDatabase,
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)
from kalshi_platform_tests.fixtures.merge_world import MergeWorld, until
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.webhook import Receiver, running_receiver

T0 = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - 2 * US_PER_HOUR + 60 * US_PER_S
World = Callable[..., MergeWorld]


def catalog_status(merger: LiveMerger) -> CatalogMergeStatus:
    return merger.status().catalog or CatalogMergeStatus()


def test_one_delta_with_different_seq_in_two_gatherers_is_one_row_of_the_first_receiver(merge_world: World) -> None:
    world = merge_world(2)
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=7, received_at=T0 + 900)])
    world.gatherers["g2"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=5, received_at=T0 + 500)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_read, report.rows_inserted, report.behind) == (2, 1, False)
    assert world.rows("SELECT gatherer, seq FROM orderbook_deltas") == [("g2", 5)]
    again = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (again.rows_read, again.rows_inserted) == (0, 0)


def test_equal_deltas_of_one_timestamp_stay_apart(merge_world: World) -> None:
    world = merge_world(2)
    pair = [delta_row("A", ts_us=T0, seq=2), delta_row("A", ts_us=T0, seq=3, occurrence=1)]
    world.gatherers["g1"].commit(orderbook_deltas=pair[:1])
    merge_new(world.settings(), SYSTEM_CLOCK)
    world.gatherers["g2"].commit(orderbook_deltas=pair)
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 1
    assert world.rows("SELECT count(*), count(DISTINCT occurrence) FROM orderbook_deltas") == [(2, 2)]


def test_a_merge_killed_between_reading_and_commit_repeats_without_loss_or_doubles(
    merge_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = merge_world(2)
    for gatherer in world.gatherers.values():
        gatherer.commit(
            orderbook_deltas=[delta_row("A", ts_us=T0 + n, seq=n + 2) for n in range(50)],
            trades=[trade_row("A", "t1", ts_us=T0)],
        )

    class KilledError(BaseException):
        pass

    def killed(*_arguments: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(hour_activity, "record_activity", killed)  # after the inserts, before the cursors
        with pytest.raises(KilledError):
            merge_new(world.settings(), SYSTEM_CLOCK)
    assert world.rows("SELECT count(*) FROM orderbook_deltas") == [(0,)]
    assert world.rows("SELECT count(*) FROM merge_cursors") == [(0,)]
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 51
    assert world.rows("SELECT gatherer, batch_no, rows_read FROM merge_cursors ORDER BY 1") == [
        ("g1", 1, 51),
        ("g2", 1, 51),
    ]


def test_a_late_commit_with_a_lower_time_is_still_read(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + US_PER_S, seq=3)])
    with gatherer.begun(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)]):
        assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 1
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.sources[0].cursor) == (1, 2)


def test_passes_are_bounded_and_together_complete(merge_world: World) -> None:
    world = merge_world(2)
    for gatherer in world.gatherers.values():
        for batch in range(7):
            gatherer.commit(
                orderbook_deltas=[delta_row("A", ts_us=T0 + batch * 100 + n, seq=batch * 10 + n + 2) for n in range(10)]
            )
        gatherer.commit(book_subscriptions=[(1, "A", 1, None)])  # a batch without rows still has a number
    settings = world.settings(rows_per_pass=50)
    reports = [merge_new(settings, SYSTEM_CLOCK)]
    while reports[-1].behind:
        reports.append(merge_new(settings, SYSTEM_CLOCK))
    assert [report.rows_read for report in reports] == [40, 40, 40, 20]
    assert sum(report.rows_inserted for report in reports) == 70
    assert {source.cursor for source in reports[-1].sources} == {8}


def test_a_gatherer_that_is_away_is_skipped_recorded_and_caught_up(merge_world: World) -> None:
    world = merge_world(2)
    for gatherer in world.gatherers.values():
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    world.gatherers["g2"].commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 1, seq=3)])
    settings = world.settings()
    present, absent = settings.sources
    away = replace(absent, timeseries_url=absent.timeseries_url.rsplit("/", 1)[0] + "/no_such_database")
    merger = Merger(replace(settings, sources=(present, away)), SYSTEM_CLOCK, PartitionBounds())
    report = merger.merge_new()
    merger.dispose()
    assert (report.rows_inserted, report.missed, report.behind) == (1, ("g2",), False)
    ((error,),) = world.rows("SELECT last_error FROM merge_cursors WHERE gatherer = 'g2' AND last_error_at IS NOT NULL")
    assert "no_such_database" in error
    assert ":" + settings.production_url.split(":")[2].split("@")[0] not in error  # never a password
    assert merge_new(settings, SYSTEM_CLOCK).rows_inserted == 1
    assert world.rows("SELECT last_error FROM merge_cursors WHERE gatherer = 'g2'") == [(None,)]


def test_a_restored_gatherer_is_read_from_its_beginning(merge_world: World, caplog: pytest.LogCaptureFixture) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    for number in range(3):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + number, seq=number + 2)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    with gatherer.database.transaction() as transaction:
        transaction.execute("DELETE FROM batches WHERE batch_no > 1")
        transaction.execute("DELETE FROM orderbook_deltas WHERE batch_no > 1")
        transaction.execute("UPDATE batch_counter SET last_batch_no = 1")
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 50, seq=9)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.sources[0].restarted, report.sources[0].cursor) == (1, True, 2)
    assert "restored" in caplog.text
    assert world.rows("SELECT count(*) FROM orderbook_deltas") == [(4,)]


def test_a_restored_gatherer_that_has_overtaken_the_cursor_is_recognised(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    for number in range(3):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + number, seq=number + 2)])
    # Each line of a batch has a moment of its own; numbers without rows leave no line.
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 9, seq=7)], trades=[trade_row("A", "t1", ts_us=T0)])
    gatherer.commit(book_subscriptions=[(1, "A", 1, None)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    again = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (again.rows_read, again.sources[0].restarted) == (0, False)
    with gatherer.database.transaction() as transaction:
        transaction.execute("DELETE FROM batches WHERE batch_no > 1")
        transaction.execute("DELETE FROM orderbook_deltas WHERE batch_no > 1")
        transaction.execute("DELETE FROM trades")
        transaction.execute("UPDATE batch_counter SET last_batch_no = 1")
    for number in range(8):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 50 + number, seq=9 + number)])
    report = merge_new(world.settings(rows_per_pass=3), SYSTEM_CLOCK)
    assert (report.sources[0].restarted, report.sources[0].cursor, report.behind) == (True, 3, True)
    while report.behind:
        report = merge_new(world.settings(rows_per_pass=3), SYSTEM_CLOCK)
        assert not report.sources[0].restarted
    assert world.rows("SELECT count(*) FROM orderbook_deltas") == [(12,)]
    # Old lines are dropped by retention: the cursor stays where it is.
    with gatherer.database.transaction() as transaction:
        transaction.execute("DELETE FROM batches")
    assert not merge_new(world.settings(), SYSTEM_CLOCK).sources[0].restarted


def test_numbers_given_again_behind_a_batch_without_rows_are_recognised(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    for number in range(2):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + number, seq=number + 2)])
    for number in range(5):
        gatherer.commit(book_subscriptions=[(1, f"M{number}", 1, None)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.sources[0].cursor, report.behind) == (7, False)
    # A standby that lacked the batches without rows takes over, and the numbers behind it are given again.
    _fall_back(gatherer, to=2)
    for number in range(6):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 100 + number, seq=100 + number)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.sources[0].restarted, report.sources[0].cursor) == (6, True, 8)
    assert world.rows("SELECT kind, subject, times FROM merge_alarms") == [("gatherer_restarted", "g1", 1)]
    assert not merge_new(world.settings(), SYSTEM_CLOCK).sources[0].restarted
    # The counter stands where the cursor stands, and yet it is another batch.
    _fall_back(gatherer, to=7)
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 200, seq=200)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.sources[0].restarted, report.sources[0].cursor) == (1, True, 8)
    assert world.rows("SELECT times FROM merge_alarms") == [(2,)]


def test_a_renumbered_gatherer_whose_old_lines_are_gone_is_recognised(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    gatherer.commit(book_subscriptions=[(1, "A", 1, None)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    _fall_back(gatherer, to=1)
    for number in range(4):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 100 + number, seq=100 + number)])
    with gatherer.database.transaction() as transaction:  # retention
        transaction.execute("DELETE FROM batches WHERE batch_no <= 3")
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.sources[0].restarted, report.sources[0].cursor) == (2, True, 5)


def test_production_that_was_restored_is_filled_from_where_it_stood(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    gatherer.commit(book_subscriptions=[(1, "A", 1, None)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    before = world.rows("SELECT batch_no, token, last_commit_batch_no, last_commit_at FROM merge_cursors")[0]
    for number in range(3):
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 1 + number, seq=number + 3)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    with world.production.transaction() as transaction:
        transaction.execute("DELETE FROM orderbook_deltas WHERE exchange_ts > %s", (datetime_from_us(T0),))
        transaction.execute(
            "UPDATE merge_cursors SET batch_no = %s, token = %s, last_commit_batch_no = %s, last_commit_at = %s", before
        )
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_read, report.rows_inserted, report.sources[0].restarted) == (3, 3, False)


def test_a_cursor_that_is_older_than_tokens_goes_on_where_it_stands(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    with gatherer.database.transaction() as transaction:  # as after a migration of a database with lines
        transaction.execute("UPDATE batches SET token = NULL")
    with world.production.transaction() as transaction:
        transaction.execute("UPDATE merge_cursors SET token = NULL")
    assert not merge_new(world.settings(), SYSTEM_CLOCK).sources[0].restarted
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 1, seq=3)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_read, report.sources[0].restarted) == (1, False)
    assert world.rows("SELECT token IS NOT NULL FROM merge_cursors") == [(True,)]


def _fall_back(gatherer: GathererDatabase, to: int) -> None:
    """Take the gatherer's database back to the state after batch `to`."""
    with gatherer.database.transaction() as transaction:
        for table in ("batches", "orderbook_deltas", "book_subscriptions"):
            transaction.execute(f"DELETE FROM {table} WHERE batch_no > %s", (to,))
        transaction.execute("ALTER TABLE batch_counter DISABLE TRIGGER draw_batch_token")
        transaction.execute(
            "UPDATE batch_counter SET last_batch_no = %(to)s,"
            " last_token = coalesce((SELECT min(token::text)::uuid FROM batches WHERE batch_no = %(to)s), last_token)",
            {"to": to},
        )
        transaction.execute("ALTER TABLE batch_counter ENABLE TRIGGER draw_batch_token")


@pytest.mark.usefixtures("native_partitions")
def test_a_late_row_of_a_detached_partition_brings_the_partition_back(merge_world: World) -> None:
    world = merge_world(2)
    g1, g2 = world.gatherers.values()
    g1.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    ((partition,),) = world.rows("SELECT tableoid::regclass::text FROM orderbook_deltas")
    with world.production.transaction() as transaction:
        transaction.execute(f"ALTER TABLE orderbook_deltas DETACH PARTITION {partition}")
    g1.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 1, seq=3)])
    g2.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + US_PER_HOUR, seq=2)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.quarantined, report.missed) == (2, 0, ())
    assert world.rows("SELECT count(*) FROM orderbook_deltas") == [(3,)]


@pytest.mark.usefixtures("native_partitions")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_late_row_goes_into_the_partition_that_has_its_time_whatever_that_is_called(
    merge_world: World, is_replaced: bool
) -> None:
    world = merge_world(1)
    g1 = world.gatherers["g1"]
    g1.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    ((partition,),) = world.rows("SELECT tableoid::regclass::text FROM orderbook_deltas")
    with world.production.transaction() as transaction:
        transaction.execute(f"ALTER TABLE {partition} RENAME TO kept_by_hand")
        if is_replaced:
            transaction.execute(f"CREATE TABLE {partition} (LIKE orderbook_deltas INCLUDING ALL)")
    g1.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 1, seq=3)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.quarantined) == (1, 0)
    assert world.rows("SELECT DISTINCT tableoid::regclass::text FROM orderbook_deltas") == [("kept_by_hand",)]


@pytest.mark.usefixtures("native_partitions")
def test_rows_whose_partition_cannot_be_made_go_aside_and_the_others_are_merged(merge_world: World) -> None:
    world = merge_world(2)
    g1, g2 = world.gatherers.values()
    hour = datetime_from_us(T0 // US_PER_HOUR * US_PER_HOUR)
    with world.production.transaction() as transaction:
        transaction.execute(f"CREATE TABLE orderbook_deltas_p{hour:%Y%m%d%H} (it_is text)")
    late = [delta_row("A", ts_us=T0 + n, seq=n + 2) for n in range(3)]
    g1.commit(orderbook_deltas=[*late, delta_row("A", ts_us=T0 + US_PER_HOUR, seq=9)])
    g2.commit(orderbook_deltas=[delta_row("B", ts_us=T0 + US_PER_HOUR, seq=2)], trades=[trade_row("B", "t", ts_us=T0)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.quarantined, report.behind) == (3, 3, False)
    letters = world.rows("SELECT gatherer, table_name, reason, detail, payload::jsonb ->> 'seq' FROM dead_letters")
    assert sorted(letter[4] for letter in letters) == ["2", "3", "4"]
    assert {letter[:3] for letter in letters} == {("g1", "orderbook_deltas", "no_partition")}
    assert "cannot be attached" in letters[0][3]
    assert "drop or rename it" in letters[0][3]
    assert world.rows("SELECT kind, subject, times FROM merge_alarms") == [("rows_refused", "g1 orderbook_deltas", 1)]
    again = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (again.rows_read, again.quarantined) == (0, 0)
    assert [alarm.kind for alarm in again.alarms] == ["rows_refused"]


def test_a_row_that_production_refuses_is_quarantined_alone(merge_world: World) -> None:
    world = merge_world(2)
    g1, g2 = world.gatherers.values()
    with world.production.transaction() as transaction:
        transaction.execute("ALTER TABLE trades ADD CHECK (count_e2 <> 666)")
        transaction.execute("ALTER TABLE orderbook_deltas ADD CHECK (delta_e2 <> 666)")
    trades = [trade_row("A", f"t{n}", ts_us=T0 + n, count_e2=666 if n == 3 else 100) for n in range(10)]
    deltas = [delta_row("A", ts_us=T0 + n, seq=n + 2, delta_e2=666 if n in (4, 5) else 100) for n in range(10)]
    g1.commit(trades=trades, orderbook_deltas=deltas)
    g2.commit(trades=trades[5:], orderbook_deltas=[delta_row("B", ts_us=T0, seq=2)])
    g2.commit(tickers=[ticker_row("X" * 1_000, ts_us=T0), ticker_row("Y", ts_us=T0)])
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.quarantined, report.missed) == (9 + 8 + 1 + 1, 4, ())
    assert {source.cursor for source in report.sources} == {1, 2}
    query = "SELECT table_name, reason, payload::jsonb ->> 'trade_id', detail LIKE '%%violates%%' FROM dead_letters"
    assert world.rows(f"{query} ORDER BY 1, 2") == [
        ("orderbook_deltas", "refused", None, True),
        ("orderbook_deltas", "refused", None, True),
        ("tickers", "name_too_long", None, False),
        ("trades", "refused", "t3", True),
    ]
    with world.production.transaction() as transaction:  # everything is read again
        transaction.execute("DELETE FROM merge_cursors")
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 0
    assert world.rows("SELECT count(*) FROM dead_letters") == [(4,)], "repeats do not add up"


def test_a_refusal_that_no_row_is_to_blame_for_puts_nothing_aside(merge_world: World) -> None:
    world = merge_world(1)
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    with world.production.transaction() as transaction:
        transaction.execute("ALTER TABLE orderbook_deltas DROP COLUMN seq")
    with pytest.raises(StatementRejected, match="seq"):
        merge_new(world.settings(), SYSTEM_CLOCK)
    assert world.rows("SELECT count(*) FROM dead_letters") == [(0,)]
    assert world.rows("SELECT count(*) FROM merge_cursors") == [(0,)]


def test_a_delta_of_an_impossible_time_goes_aside_without_a_partition(merge_world: World) -> None:
    world = merge_world(1)
    years = 900 * 24 * US_PER_HOUR
    deltas = [delta_row("A", ts_us=T0 + n, seq=n + 2) for n in range(5)]
    deltas[2] |= {"exchange_ts": T0 - years}
    world.gatherers["g1"].commit(orderbook_deltas=deltas)
    report = merge_new(world.settings(), SYSTEM_CLOCK)
    assert (report.rows_inserted, report.quarantined) == (4, 1)
    assert world.rows("SELECT count(*) FROM pg_inherits WHERE inhparent = 'orderbook_deltas'::regclass") == [(1,)]
    assert world.rows("SELECT reason FROM dead_letters") == [("misdated",)]
    assert world.rows("SELECT ticker, deltas FROM misdated_deltas") == [("A", 1)]


def test_a_gatherer_that_is_added_later_or_has_nothing_is_simply_read(merge_world: World) -> None:
    world = merge_world(3)
    settings = world.settings()
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    world.gatherers["g2"].commit(
        orderbook_deltas=[delta_row("A", ts_us=T0, seq=5), delta_row("A", ts_us=T0 - 9, seq=4)]
    )
    assert merge_new(replace(settings, sources=settings.sources[:1]), SYSTEM_CLOCK).rows_inserted == 1
    added = merge_new(settings, SYSTEM_CLOCK)
    assert (added.rows_read, added.rows_inserted, added.missed) == (2, 1, ())
    assert world.rows("SELECT gatherer, batch_no FROM merge_cursors ORDER BY 1") == [("g1", 1), ("g2", 1), ("g3", 0)]


def test_a_slow_gatherer_is_left_to_a_later_pass_that_finds_its_answer(
    merge_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = merge_world(2)
    for gatherer in world.gatherers.values():
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2, stream_id=int(gatherer.name[1]))])
    world.gatherers["g2"].commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 1, seq=3)])
    go = threading.Event()
    read = cursor_module.read_new_rows

    def slow(source: GathererSource, *arguments: Any) -> cursor_module.ReadResult:
        if source.name == "g2":
            assert go.wait(60)
        return read(source, *arguments)

    monkeypatch.setattr(cursor_module, "read_new_rows", slow)
    merger = Merger(world.settings(source_timeout_s=0.2), SYSTEM_CLOCK, PartitionBounds())
    try:
        late = merger.merge_new()
        while late.missed != ("g2",):  # g1 may be slow as well on a busy machine
            late = merger.merge_new()
        go.set()
        until(lambda: merger.merge_new().rows_inserted == 1)
    finally:
        go.set()
        merger.dispose()
    assert world.rows("SELECT count(*) FROM orderbook_deltas") == [(2,)]


def test_a_trade_that_sources_date_some_milliseconds_apart_is_one(merge_world: World) -> None:
    world = merge_world(2)
    world.gatherers["g1"].commit(trades=[trade_row("A", "t1", ts_us=T0)])
    world.gatherers["g2"].commit(trades=[trade_row("A", "t1", ts_us=T0 + 2_000, source="rest", stream_id=0, seq=0)])
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 1
    world.gatherers["g2"].commit(
        trades=[
            trade_row("A", "t1", ts_us=T0 - 59 * US_PER_S),  # met only in production
            trade_row("A", "t1", ts_us=T0 + 61 * US_PER_S),
            trade_row("B", "t1", ts_us=T0),
        ]
    )
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 2
    assert world.rows("SELECT ticker, source FROM trades ORDER BY exchange_ts, ticker") == [
        ("A", "ws"),
        ("B", "ws"),
        ("A", "ws"),
    ]


def test_the_lag_of_a_merge_is_not_the_difference_of_two_hosts_clocks(merge_world: World) -> None:
    world = merge_world(1)
    world.gatherers["g1"].commit(trades=[trade_row("A", "t1", ts_us=T0)])
    behind = FakeClock(SYSTEM_CLOCK.now() - timedelta(hours=3))
    (source,) = merge_new(world.settings(), behind).sources
    assert source.lag_s is not None
    assert 0 <= source.lag_s < 60


def test_a_lifecycle_event_of_equal_content_is_kept_once(merge_world: World) -> None:
    world = merge_world(2)
    world.gatherers["g1"].commit(market_lifecycle=[lifecycle_row("A", received_us=T0 + 300)])
    world.gatherers["g2"].commit(
        market_lifecycle=[
            lifecycle_row("A", received_us=T0),
            lifecycle_row("A", received_us=T0 + 400, event_type="closed", seq=2),
        ]
    )
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 2
    world.gatherers["g1"].commit(
        market_lifecycle=[
            lifecycle_row("A", received_us=T0 + 299 * US_PER_S, seq=2),
            lifecycle_row("A", received_us=T0 + 301 * US_PER_S, seq=3),
        ]
    )
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 1
    found = world.rows("SELECT gatherer, event_type, content->>'event_type' FROM market_lifecycle ORDER BY received_at")
    assert found == [("g2", "activated", "activated"), ("g2", "closed", "closed"), ("g1", "activated", "activated")]


def test_polled_books_are_one_per_minute_and_stream_books_keep_their_observer(merge_world: World) -> None:
    world = merge_world(2)
    for gatherer in world.gatherers.values():
        gatherer.commit(
            orderbook_snapshots=[
                snapshot_row("A", received_us=T0, seq=0, stream_id=0, source="rest", yes={4000: 100, 4100: 5}),
                snapshot_row("A", received_us=T0 + 5, seq=1, yes={4000: 100}),
                snapshot_row("A", received_us=T0 + 5, seq=0, stream_id=0, source="rest_recovery"),
            ],
            tickers=[ticker_row("A", ts_us=T0), ticker_row("A", ts_us=T0, price_e4=4100)],
        )
    merge_new(world.settings(), SYSTEM_CLOCK)
    assert world.rows("SELECT source, source_gatherer FROM orderbook_snapshots ORDER BY 1, 2") == [
        ("rest", ""),
        ("rest_recovery", "g1"),
        ("rest_recovery", "g2"),
        ("ws", "g1"),
        ("ws", "g2"),
    ]
    assert world.rows("SELECT yes_price_e4, yes_count_e2 FROM orderbook_snapshots WHERE source = 'rest'") == [
        ([4000, 4100], [100, 5])
    ]
    assert world.rows("SELECT count(*) FROM tickers") == [(2,)]


def test_hours_that_get_rows_are_known_and_reopen_when_late_rows_come(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    gatherer.commit(
        orderbook_deltas=[delta_row("A", ts_us=T0, seq=2), delta_row("A", ts_us=T0 + US_PER_HOUR, seq=3)],
        trades=[trade_row("A", "t1", ts_us=T0)],
    )
    merge_new(world.settings(), SYSTEM_CLOCK)
    first = datetime_from_us(T0 // US_PER_HOUR * US_PER_HOUR)
    second = first + timedelta(hours=1)
    assert find_active_hours(world.production) == [first, second]
    assert find_hours_to_close(world.production, second + timedelta(minutes=59)) == [first]
    with world.production.transaction() as transaction:
        transaction.execute("INSERT INTO hour_closes (hour) VALUES (%s)", (first,))
    assert find_hours_to_close(world.production, second + timedelta(hours=1)) == [second]
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 5, seq=4)])
    merge_new(world.settings(), SYSTEM_CLOCK)
    assert find_hours_to_close(world.production, second + timedelta(hours=1)) == [first, second]
    assert world.rows(
        "SELECT rows_inserted FROM hour_activity WHERE table_name = 'orderbook_deltas' ORDER BY hour"
    ) == [
        (2,),
        (1,),
    ]


def test_a_second_live_merger_waits_for_the_lease(merge_world: World) -> None:
    world = merge_world(1)
    settings = world.settings(interval_s=0.05, heartbeat_interval_s=0.1)
    stops = [threading.Event(), threading.Event()]
    reports: list[list[MergeReport]] = [[], []]
    mergers = [
        LiveMerger(settings, SYSTEM_CLOCK, PartitionBounds(), run_id=f"run{n}", on_report=reports[n].append)
        for n in (0, 1)
    ]
    threads = [threading.Thread(target=merger.run, args=(stop,)) for merger, stop in zip(mergers, stops, strict=True)]
    try:
        threads[0].start()
        until(lambda: len(reports[0]) > 0)
        threads[1].start()
        until(lambda: mergers[1].status().state == "waiting")
        world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
        until(lambda: world.rows("SELECT count(*) FROM orderbook_deltas") == [(1,)])
        assert not reports[1]
        assert world.rows("SELECT run_id, state FROM heartbeats") == [("run0", "running")]
        stops[0].set()
        until(lambda: len(reports[1]) > 0)
        until(lambda: world.rows("SELECT run_id, state FROM heartbeats") == [("run1", "running")])
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join(20)
    assert reports[0][0].started_at.tzinfo is not None
    assert world.rows("SELECT run_id, state, details->'passes' IS NOT NULL FROM heartbeats") == [
        ("run1", "stopped", True)
    ]


def test_the_live_merger_stops_when_it_is_switched_off_and_survives_a_listener_that_fails(merge_world: World) -> None:
    world = merge_world(1)
    reports: list[MergeReport] = []

    def listen(report: MergeReport) -> None:
        reports.append(report)
        raise RuntimeError("nobody is listening")

    merger = LiveMerger(world.settings(interval_s=0.05), SYSTEM_CLOCK, PartitionBounds(), on_report=listen)
    stop = threading.Event()
    thread = threading.Thread(target=merger.run, args=(stop,))
    thread.start()
    try:
        until(lambda: len(reports) > 1)
        with world.production.transaction() as transaction:
            transaction.execute("INSERT INTO service_switches (service, enabled) VALUES ('deduplicator', false)")
        thread.join(20)
        assert not thread.is_alive()
    finally:
        stop.set()
        thread.join(20)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook that listens."""
    with running_receiver() as running:
        yield running


def test_the_live_merger_sends_alarms_and_survives_production_being_away(
    merge_world: World, tmp_path: Path, receiver: Receiver
) -> None:
    world = merge_world(1)
    good = world.production_url.rsplit("/", 1)[1]
    with world.gatherers["g1"].database.transaction() as transaction:
        transaction.fetch_one("SELECT 1")
    reports: list[MergeReport] = []
    with world.production.transaction() as transaction:
        raise_alarm(transaction, "rows_refused", "g1 trades", "by a merge that had no webhook")
    alerts = AlertSettings(webhook_url=receiver.url, folder=tmp_path, spacing_s=0.0)
    settings = world.settings(interval_s=0.05, retry_max_s=0.1, alerts=alerts)
    merger = LiveMerger(settings, SYSTEM_CLOCK, PartitionBounds(), on_report=reports.append)
    stop = threading.Event()
    thread = threading.Thread(target=merger.run, args=(stop,))
    thread.start()
    try:
        until(lambda: len(reports) > 0)
        receiver.wait_for(messages=1)
        assert receiver.kinds() == ["rows_refused"]
        world.production.dispose()
        _set_connections(world, good, allowed=False)
        until(lambda: merger.status().state == "production away")
        world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
        _set_connections(world, good, allowed=True)
        until(lambda: sum(report.rows_inserted for report in reports) == 1)
        assert merger.status().state == "running"
    finally:
        stop.set()
        thread.join(20)
        _set_connections(world, good, allowed=True)


def _set_connections(world: MergeWorld, name: str, *, allowed: bool) -> None:
    with world.gatherers["g1"].database.transaction() as transaction:
        transaction.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {"true" if allowed else "false"}')
        if not allowed:
            transaction.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


def test_an_unforeseen_error_of_the_catalog_merge_is_shown_and_survived(
    merge_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = merge_world(1)
    broken = threading.Event()
    broken.set()

    def flaky(*arguments: Any) -> CatalogMergeReport:
        if broken.is_set():
            raise ZeroDivisionError("nobody foresaw this")
        return merge_catalog(*arguments)

    monkeypatch.setattr(live_module, "merge_catalog", flaky)
    settings = world.settings(interval_s=0.05, catalog_interval_s=0.05)
    merger = LiveMerger(settings, SYSTEM_CLOCK, PartitionBounds())
    stop = threading.Event()
    thread = threading.Thread(target=merger.run, args=(stop,))
    thread.start()
    try:
        until(lambda: "nobody foresaw this" in str(catalog_status(merger).error))
        broken.clear()
        until(lambda: catalog_status(merger).rows_changed == 0)
        assert catalog_status(merger).error is None
    finally:
        stop.set()
        thread.join(20)
    assert "Traceback" in caplog.text


def test_production_that_is_not_migrated_stops_the_merge_with_the_remedy(
    merge_world: World, database_factory: DatabaseFactory
) -> None:
    settings = merge_world(1).settings(production_url=database_factory())
    for attempt in (
        lambda: LiveMerger(settings, SYSTEM_CLOCK, PartitionBounds()).run(threading.Event()),
        lambda: merge_new(settings, SYSTEM_CLOCK),
        lambda: merge_catalog(settings, SYSTEM_CLOCK),
    ):
        with pytest.raises(SchemaMismatch, match="production is empty; run: kalshi-platform migrate"):
            attempt()


def test_production_of_another_mode_is_refused(merge_world: World) -> None:
    world = merge_world(1)
    with world.production.transaction() as transaction:
        transaction.execute("UPDATE schema_meta SET mode = 'timescale-apache'")
    with pytest.raises(SchemaMismatch, match="was made in mode timescale-apache"):
        merge_new(world.settings(), SYSTEM_CLOCK)


def test_a_gatherer_that_is_not_migrated_is_missed_with_the_reason(
    merge_world: World, database_factory: DatabaseFactory
) -> None:
    world = merge_world(2)
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    settings = world.settings()
    here, other = settings.sources
    empty = replace(other, timeseries_url=database_factory(), catalog_url=database_factory())
    settings = replace(settings, sources=(here, empty))
    report = merge_new(settings, SYSTEM_CLOCK)
    assert (report.rows_inserted, report.missed) == (1, ("g2",))
    assert report.sources[1].error == "database g2 timeseries is empty; run: kalshi-platform migrate"
    assert world.rows("SELECT last_error FROM merge_cursors WHERE gatherer = 'g2'") == [(report.sources[1].error,)]
    assert merge_catalog(settings, SYSTEM_CLOCK).missed == {
        "g2": "database g2 catalog is empty; run: kalshi-platform migrate"
    }


def test_two_names_of_one_database_are_one_observer(merge_world: World) -> None:
    world = merge_world(1)
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=T0, seq=2)])
    (source,) = world.settings().sources
    spelled = source.timeseries_url.replace("127.0.0.1", "localhost") + "?application_name=other"
    assert spelled.count("localhost") == 1
    settings = world.settings(sources=(source, replace(source, name="g2", timeseries_url=spelled)))
    said = "gatherers g1 and g2 have one timeseries database"
    with pytest.raises(ConfigurationError, match=said):
        LiveMerger(settings, SYSTEM_CLOCK, PartitionBounds()).run(threading.Event())
    hour = datetime_from_us(T0 // US_PER_HOUR * US_PER_HOUR)
    with pytest.raises(ConfigurationError, match=said):
        close_hour(settings, hour, SYSTEM_CLOCK, PartitionBounds())
    # Where one was away at the start, it is left out when it comes.
    report = merge_new(settings, SYSTEM_CLOCK)
    (missed,) = report.missed
    assert (report.rows_read, missed in ("g1", "g2")) == (1, True)
    assert "one timeseries database" in world.rows("SELECT last_error FROM merge_cursors WHERE last_error > ''")[0][0]
