"""The close of an hour between real databases: merged again, checkpointed, idempotent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.errors import DatabaseUnavailable, SchemaMismatch
from kalshi_platform.market.times import US_PER_HOUR, US_PER_S, datetime_from_us, us_from_datetime
from kalshi_platform.storage import migrate as migrations
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    GathererDatabase,
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory

World = Callable[..., MergeWorld]
HOUR_US = us_from_datetime(SYSTEM_CLOCK.now()) // US_PER_HOUR * US_PER_HOUR - 2 * US_PER_HOUR
HOUR = datetime_from_us(HOUR_US)
MINUTE = 60 * US_PER_S


def close(world: MergeWorld, *, hours_later: int = 0, final: bool = True, **changes: object) -> HourClose:
    hour = HOUR + timedelta(hours=hours_later)
    return close_hour(world.settings(**changes), hour, SYSTEM_CLOCK, PartitionBounds(), final=final)


def fill(gatherer: GathererDatabase, stream_id: int, first_seq: int, start_us: int) -> None:
    """A stream of A (a delta every 2 s), with Q quiet: snapshots at its beginning, then twenty deltas."""
    snapshots = [
        snapshot_row("A", received_us=start_us, seq=first_seq, stream_id=stream_id, yes={5000: 1_000}),
        snapshot_row("Q", received_us=start_us, seq=first_seq + 1, stream_id=stream_id, yes={3000: 70}),
    ]
    deltas = [
        delta_row("A", ts_us=start_us + n * 2 * US_PER_S, seq=first_seq + 1 + n, stream_id=stream_id)
        for n in range(1, 21)
    ]
    gatherer.commit(
        orderbook_snapshots=snapshots,
        orderbook_deltas=deltas[:3],
        segments=[(stream_id, first_seq, first_seq + 4)],
        book_subscriptions=[(stream_id, "A", first_seq, None), (stream_id, "Q", first_seq + 1, None)],
    )
    gatherer.commit(orderbook_deltas=deltas[3:], segments=[(stream_id, first_seq + 5, first_seq + 21)])


def checkpoints(world: MergeWorld) -> list[tuple[object, ...]]:
    return world.rows(
        "SELECT gatherer, ticker, stream_id, seq, (extract(epoch FROM checkpoint_ts) * 1000000)::bigint"
        f" - {HOUR_US}, yes_price_e4, yes_count_e2, no_price_e4 FROM book_checkpoints ORDER BY 1, 2, 3, 4"
    )


def test_a_close_checkpoints_snapshots_and_a_second_one_changes_nothing(merge_world: World) -> None:
    world = merge_world(2)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    fill(world.gatherers["g2"], 2, 40, HOUR_US + MINUTE)
    first = close(world)
    # The feed's first time plus the margin of a second, for Q too, which never moved.
    at = MINUTE + 3 * US_PER_S
    expected: list[tuple[object, ...]] = [
        ("g1", "A", 1, 1, at, [5000], [1_100], []),
        ("g1", "Q", 1, 2, at, [3000], [70], []),
        ("g2", "A", 2, 40, at, [5000], [1_100], []),
        ("g2", "Q", 2, 41, at, [3000], [70], []),
    ]
    assert checkpoints(world) == expected
    assert (first.checkpoints, first.rows["orderbook_deltas"], first.rows["orderbook_snapshots"]) == (4, 20, 4)
    assert first.inserted["orderbook_deltas"] == 20
    assert (first.gatherers_read, first.gatherers_missed, first.final) == (("g1", "g2"), (), True)
    second = close(world)
    assert checkpoints(world) == expected
    assert (second.rows, second.checkpoints, sum(second.inserted.values())) == (first.rows, 4, 0)
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == []
    ((rows, count),) = world.rows("SELECT rows, checkpoints FROM hour_closes")
    assert (rows["orderbook_deltas"], count) == (20, 4)


def test_folding_from_an_checkpoint_gives_what_the_gatherers_saw_together(merge_world: World) -> None:
    world = merge_world(2)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    late = HOUR_US + MINUTE + 41 * US_PER_S
    world.gatherers["g2"].commit(orderbook_deltas=[delta_row("A", ts_us=late, seq=9, delta_e2=-300)])
    close(world)
    book: Counter[int] = Counter()
    ((prices, counts, at),) = world.rows(
        "SELECT yes_price_e4, yes_count_e2, checkpoint_ts FROM book_checkpoints WHERE ticker = 'A'"
    )
    book.update(dict(zip(prices, counts, strict=True)))
    for price, delta in world.rows(
        f"SELECT price_e4, delta_e2 FROM orderbook_deltas WHERE ticker = 'A' AND exchange_ts > '{at.isoformat()}'"
    ):
        book[price] += delta
    assert book == {5000: 1_000 + 20 * 100 - 300}


def test_an_hour_is_merged_again_whatever_the_cursor_says_in_bounded_slices(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    fill(gatherer, 1, 1, HOUR_US + 59 * MINUTE + 30 * US_PER_S)  # reaches into the next hour
    gatherer.commit(
        trades=[trade_row("A", "t1", ts_us=HOUR_US), trade_row("A", "t2", ts_us=HOUR_US + 59 * MINUTE)],
        tickers=[ticker_row("A", ts_us=HOUR_US + 5)],
        market_lifecycle=[lifecycle_row("A", received_us=HOUR_US + 6)],
    )
    with world.production.transaction() as transaction:
        transaction.execute("INSERT INTO merge_cursors (gatherer, batch_no) VALUES ('g1', 3)")
    closed = close(world, rows_per_pass=4)
    assert closed.inserted == {
        "orderbook_deltas": 14, "trades": 2, "tickers": 1, "orderbook_snapshots": 2, "market_lifecycle": 1,
    }  # fmt: skip
    assert closed.rows == closed.inserted
    assert merge_new(world.settings(), SYSTEM_CLOCK).rows_read == 0


def test_an_checkpoint_belongs_to_the_hour_of_its_exchange_time(merge_world: World) -> None:
    world = merge_world(1)
    # Received in the first hour; the first delta comes in the next one, settled by the frames after it.
    fill(world.gatherers["g1"], 1, 1, HOUR_US + US_PER_HOUR - US_PER_S)
    assert close(world).checkpoints == 0
    assert close(world, hours_later=1).checkpoints == 2
    assert [row[4] for row in checkpoints(world)] == [US_PER_HOUR + 2 * US_PER_S] * 2
    assert close(world).checkpoints == 0
    assert close(world, hours_later=1).checkpoints == 2


def test_a_snapshot_waits_hours_for_the_first_delta_of_its_feed(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    old = HOUR_US - 30 * US_PER_HOUR
    gatherer.commit(
        orderbook_snapshots=[snapshot_row("A", received_us=old, seq=1, yes={5000: 7})],
        segments=[(1, 1, 1)],
        book_subscriptions=[(1, "A", 1, None)],
    )
    deltas = [delta_row("A", ts_us=HOUR_US + n * 5 * US_PER_S, seq=1 + n) for n in range(1, 4)]
    gatherer.commit(orderbook_deltas=deltas, segments=[(1, 2, 4)])
    assert close(world).checkpoints == 1
    assert checkpoints(world)[0][4:7] == (6 * US_PER_S, [5000], [107])
    # Its next hour finds nothing new, whether or not the first checkpoint is there.
    gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=HOUR_US + US_PER_HOUR, seq=5)], segments=[(1, 5, 5)])
    assert close(world, hours_later=1).checkpoints == 0
    with world.production.transaction() as transaction:
        transaction.execute("DELETE FROM book_checkpoints")
    assert close(world, hours_later=1).checkpoints == 0


def test_a_gap_and_a_feed_of_another_index_settle_nothing(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    gatherer.commit(
        orderbook_snapshots=[
            snapshot_row("A", received_us=HOUR_US, seq=1),
            snapshot_row("Q", received_us=HOUR_US, seq=2),
        ],
        segments=[(1, 1, 2)],
        book_subscriptions=[(1, "A", 1, None)],
    )
    gatherer.commit(book_subscriptions=[(1, "Q", 2, None)], exchange_index=3)
    # Number 3 was lost: the run of the snapshots ended before these.
    rows = [delta_row("A", ts_us=HOUR_US + n * US_PER_S, seq=3 + n) for n in range(1, 30)]
    gatherer.commit(orderbook_deltas=rows, segments=[(1, 4, 32)])
    assert close(world).checkpoints == 0
    # In an unbroken stream the other index moves and A stands still: A is checkpointed by its own feed, Q never.
    gatherer.commit(
        orderbook_snapshots=[
            snapshot_row("A", received_us=HOUR_US, seq=1, stream_id=5),
            snapshot_row("Q", received_us=HOUR_US, seq=2, stream_id=5),
        ],
        segments=[(5, 1, 2)],
        book_subscriptions=[(5, "A", 1, None)],
    )
    gatherer.commit(book_subscriptions=[(5, "Q", 2, None)], exchange_index=3)
    rows = [delta_row("A", ts_us=HOUR_US + n * US_PER_S, seq=2 + n, stream_id=5) for n in range(1, 30)]
    gatherer.commit(orderbook_deltas=rows, segments=[(5, 3, 31)])
    assert close(world, rows_per_pass=5).checkpoints == 1
    assert checkpoints(world)[0][1:5] == ("A", 5, 1, 2 * US_PER_S)


def test_late_rows_reopen_a_closed_hour_and_a_missed_gatherer_keeps_its_checkpoints(merge_world: World) -> None:
    world = merge_world(2)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    fill(world.gatherers["g2"], 2, 1, HOUR_US + MINUTE)
    settings = world.settings()
    close(world)
    here, other = settings.sources
    away = replace(other, timeseries_url=other.timeseries_url.rsplit("/", 1)[0] + "/no_such_database")
    again = close(world, sources=(here, away))
    assert (again.gatherers_read, again.gatherers_missed, again.checkpoints) == (("g1",), ("g2",), 4)
    with pytest.raises(DatabaseUnavailable, match="no gatherer"):
        close(world, sources=(away,))
    merge_new(settings, SYSTEM_CLOCK)  # reads again what is there already: no reason to close again
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == []
    world.gatherers["g2"].commit(trades=[trade_row("A", "t9", ts_us=HOUR_US)])
    merge_new(settings, SYSTEM_CLOCK)
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == [HOUR]
    close(world)
    assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == []


def test_late_rows_reopen_an_hour_whatever_the_clock_of_production_says(merge_world: World) -> None:
    world = merge_world(1)
    gatherer = world.gatherers["g1"]
    fill(gatherer, 1, 1, HOUR_US + MINUTE)
    closes = []
    for minutes in (-5, 5):
        _step_clock(world, minutes)
        close(world)
        assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == []
        closes += world.rows("SELECT close_no, close_id FROM hour_closes")
        _step_clock(world, minutes - 5)
        late = [trade_row("A", f"t{minutes} {n}", ts_us=HOUR_US + n) for n in range(5)]
        gatherer.commit(trades=late)
        assert merge_new(world.settings(), SYSTEM_CLOCK).rows_inserted == 5
        assert find_hours_to_close(world.production, SYSTEM_CLOCK.now()) == [HOUR]
        assert world.rows("SELECT is_active, reopened FROM hour_states()") == [(True, True)]
    assert closes[1][0] > closes[0][0]
    assert closes[1][1] != closes[0][1]


def test_closes_and_merges_from_before_the_numbers_keep_their_order(
    database_factory: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_factory(), name="production")
    files = migrations.files_of("production")
    old = tuple(file for file in files if file.name < "production/391")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "files_of", lambda _kind: old)
        migrations.migrate(database, "production")
    with database.transaction() as transaction:
        for hours, came, closed in ((0, 1, 5), (1, 9, 5), (2, 1, None)):
            at = HOUR + timedelta(hours=hours)
            transaction.execute(
                "INSERT INTO hour_activity VALUES (%s, 'trades', 1, %s)", (at, HOUR + timedelta(minutes=came))
            )
            if closed:
                transaction.execute(
                    "INSERT INTO hour_closes (hour, closed_at) VALUES (%s, %s)", (at, HOUR + timedelta(minutes=closed))
                )
    migrations.migrate(database, "production")
    assert find_hours_to_close(database, HOUR + timedelta(hours=9)) == [
        HOUR + timedelta(hours=1),
        HOUR + timedelta(hours=2),
    ]
    with database.transaction() as transaction:
        assert transaction.fetch_one("SELECT next_merge_no()") == (3,)
    database.dispose()


def _step_clock(world: MergeWorld, minutes: int) -> None:
    """From here on new sessions of production see a clock that is wrong by so much."""
    with world.production.transaction() as transaction:
        transaction.execute(
            "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE"
            f" AS $$ SELECT pg_catalog.clock_timestamp() + INTERVAL '{minutes} minutes' $$"
        )
        transaction.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());"
            " END $$"
        )
    world.production.dispose()


def test_an_hour_that_is_not_to_be_final_is_merged_and_checkpointed_only(merge_world: World) -> None:
    world = merge_world(1)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    closed = close(world, final=False)
    assert (closed.final, closed.checkpoints) == (False, 2)
    assert world.rows("SELECT count(*) FROM hour_closes") == [(0,)]
    # It runs still, or begins meanwhile: the hour may turn while this runs.
    assert close(world, hours_later=3).final is False
    with pytest.raises(ValueError, match="whole UTC hour"):
        close_hour(world.settings(), HOUR + timedelta(minutes=1), SYSTEM_CLOCK, PartitionBounds())


def test_checkpoints_outlive_the_tables_of_the_gatherer_that_saw_them(merge_world: World) -> None:
    world = merge_world(2)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    fill(world.gatherers["g2"], 2, 40, HOUR_US + MINUTE)
    close(world)
    before = checkpoints(world)
    anew = world.gatherers["g1"]
    with anew.database.transaction() as transaction:
        transaction.execute(
            "TRUNCATE streams, stream_segments, book_subscriptions, batches, orderbook_deltas, orderbook_snapshots"
        )
        transaction.execute("UPDATE batch_counter SET last_batch_no = 0")
    fill(anew, 7, 1, HOUR_US + 10 * MINUTE)
    again = close(world)
    assert again.gatherers_missed == ()
    assert [row for row in checkpoints(world) if row[2] != 7] == before
    assert [row[:2] for row in checkpoints(world) if row[2] == 7] == [("g1", "A"), ("g1", "Q")]


def test_an_hour_closed_without_a_gatherer_is_closed_again_when_that_one_answers(merge_world: World) -> None:
    world = merge_world(2)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    fill(world.gatherers["g2"], 2, 1, HOUR_US + MINUTE)
    settings = world.settings()
    here, other = settings.sources
    away = replace(other, timeseries_url=other.timeseries_url.rsplit("/", 1)[0] + "/no_such_database")
    for gatherer in world.gatherers.values():  # streams that are over have nothing more to claim
        with gatherer.database.transaction() as transaction:
            transaction.execute("UPDATE streams SET ended_at = now()")
    now = SYSTEM_CLOCK.now()
    assert close(world, sources=(here, away)).gatherers_missed == ("g2",)
    assert merge_new(replace(settings, sources=(here, away)), SYSTEM_CLOCK).missed == ("g2",)
    assert find_hours_to_close(world.production, now) == [], "closed a moment ago"
    with world.production.transaction() as transaction:
        transaction.execute("UPDATE hour_closes SET closed_at = closed_at - interval '1 hour'")
    assert find_hours_to_close(world.production, now) == [], "g2 still does not answer"
    merge_new(settings, SYSTEM_CLOCK)
    with world.production.transaction() as transaction:  # as if it had had no rows that others lack
        transaction.execute("UPDATE hour_activity SET last_merge_no = 1")
    assert find_hours_to_close(world.production, now) == [HOUR]
    # Closed an hour ago: now and then again, the more seldom the older the hour is.
    ((closed_at,),) = world.rows("SELECT closed_at FROM hour_closes")
    with world.production.transaction() as transaction:
        transaction.execute("UPDATE hour_closes SET closed_at = closed_at + interval '4 days'")
    assert find_hours_to_close(world.production, closed_at + timedelta(days=4, hours=12)) == []
    assert find_hours_to_close(world.production, closed_at + timedelta(days=4, hours=16)) == [HOUR]
    assert find_hours_to_close(world.production, now + timedelta(days=8)) == [], "given up"
    assert close(world).gatherers_missed == ()
    assert find_hours_to_close(world.production, now + timedelta(hours=2)) == []


def test_an_unmigrated_database_is_named_with_its_remedy(
    merge_world: World, database_factory: DatabaseFactory, caplog: pytest.LogCaptureFixture
) -> None:
    world = merge_world(2)
    fill(world.gatherers["g1"], 1, 1, HOUR_US + MINUTE)
    settings = world.settings()
    with pytest.raises(SchemaMismatch, match="production is empty; run: kalshi-platform migrate"):
        close(world, production_url=database_factory())
    here, other = settings.sources
    closed = close(world, sources=(here, replace(other, timeseries_url=database_factory())))
    assert closed.gatherers_missed == ("g2",)
    assert "database g2 timeseries is empty; run: kalshi-platform migrate" in caplog.text
