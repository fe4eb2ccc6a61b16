"""Partitions: there before the rows, for any hour within the bounds, without stopping anybody."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from kalshi_platform.clock import SystemClock
from kalshi_platform.errors import OutOfPartitionBounds, StatementRejected
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database

NOW = datetime(2026, 11, 22, 20, 44, 1, 5, tzinfo=UTC)
DELTAS = GATHERER_TABLES["orderbook_deltas"]


class FixedClock(SystemClock):
    def __init__(self, now: datetime = NOW) -> None:
        self.moment = now

    def now(self) -> datetime:
        return self.moment


def us(moment: datetime) -> int:
    return us_from_datetime(moment)


def keeper(database: Database, clock: FixedClock | None = None) -> PartitionKeeper:
    return PartitionKeeper(database, PartitionBounds(), clock or FixedClock())


def delta(moment: datetime, seq: int = 1) -> pa.Table:
    row = {
        "exchange_ts": moment,
        "ticker": "KXA-1",
        "stream_id": 1,
        "seq": seq,
        "side": "yes",
        "price_e4": 5600,
        "delta_e2": -2000,
        "occurrence": 0,
        "received_at": moment,
        "batch_no": 1,
    }
    return pa.Table.from_pylist([row], schema=arrow_schema(DELTAS))


def insert(database: Database, moment: datetime, seq: int = 1) -> int:
    with database.transaction() as transaction:
        return transaction.insert_new(DELTAS, delta(moment, seq))


def drop_before(database: Database, moment: datetime) -> int:
    with database.transaction() as transaction:
        row = transaction.fetch_one("SELECT drop_partitions_before('orderbook_deltas', %s)", (moment,))
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2021, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC),
        NOW,
        NOW + timedelta(hours=47, minutes=59),
    ],
)
def test_any_moment_within_the_bounds_gets_its_partition(
    timeseries_database: Database, storage_mode: str, moment: datetime
) -> None:
    for table in GATHERER_TABLES:
        made = keeper(timeseries_database).ensure_hours(table, [us(moment), us(moment)])
        assert made == (1 if storage_mode == "native" else 0)
        assert keeper(timeseries_database).ensure_hours(table, [us(moment)]) == 0
    assert insert(timeseries_database, moment) == 1


@pytest.mark.parametrize(
    "moment_us",
    [us(datetime(2021, 1, 1, tzinfo=UTC)) - 1, us(NOW + timedelta(hours=48)), 10**17, 10**30],
)
def test_moments_outside_the_bounds_are_refused(timeseries_database: Database, moment_us: int) -> None:
    with pytest.raises(OutOfPartitionBounds, match="orderbook_deltas"):
        keeper(timeseries_database).ensure_hours("orderbook_deltas", [us(NOW), moment_us])


def test_the_bounds_admit_their_first_moment_and_not_their_last(timeseries_database: Database) -> None:
    low, high = keeper(timeseries_database).bounds_us()
    keeper(timeseries_database).ensure_hours("trades", [low, high - 1])
    with pytest.raises(OutOfPartitionBounds):
        keeper(timeseries_database).ensure_hours("trades", [high])


def test_hours_to_come_are_made_once(timeseries_database: Database, storage_mode: str) -> None:
    ours = keeper(timeseries_database)
    made = ours.ensure_ahead(["orderbook_deltas", "trades"])
    # Hours 19 … 23 of the day; trades have one partition a day.
    assert made == (5 + 1 if storage_mode == "native" else 0)
    assert ours.ensure_ahead(["orderbook_deltas", "trades"]) == 0
    for hours in range(-1, 4):
        assert insert(timeseries_database, NOW + timedelta(hours=hours)) == 1


def test_rows_without_a_partition_are_rejected_and_nothing_stays(make_database) -> None:  # type: ignore[no-untyped-def]
    database: Database = make_database("timeseries")
    with database.transaction() as transaction:
        if transaction.fetch_one("SELECT server_mode()") != ("native",):
            pytest.skip("TimescaleDB makes chunks by itself")
    with pytest.raises(StatementRejected, match="no partition of relation") as caught:
        insert(database, NOW)
    assert caught.value.sqlstate == "23514"
    keeper(database).ensure_ahead(["orderbook_deltas"])
    assert insert(database, NOW) == 1


def test_several_connections_make_the_same_hours_at_once(timeseries_database: Database, storage_mode: str) -> None:
    moments = [us(NOW - timedelta(hours=hour)) for hour in range(40)]
    start = threading.Barrier(4)
    made: list[int] = []
    errors: list[BaseException] = []

    def run(order: int) -> None:
        try:
            start.wait()
            ours = keeper(timeseries_database)
            made.append(sum(ours.ensure_hours("orderbook_deltas", [moment]) for moment in moments[::order]))
        except BaseException as error:  # noqa: BLE001 - the assertion shows it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(made) == (40 if storage_mode == "native" else 0)


def test_a_reader_and_a_writer_do_not_wait_for_new_partitions(timeseries_database: Database) -> None:
    keeper(timeseries_database).ensure_ahead(["orderbook_deltas"])
    # TimescaleDB makes the hour of a first row with that row, and one hour at a time.
    insert(timeseries_database, NOW, seq=9)
    with timeseries_database.transaction() as reader, timeseries_database.transaction() as writer:
        reader.fetch_all("SELECT count(*) FROM orderbook_deltas")
        writer.insert_new(DELTAS, delta(NOW))
        with timeseries_database.transaction() as maker:
            maker.execute("SET LOCAL lock_timeout = '3s'")
            maker.fetch_one("SELECT ensure_partitions('orderbook_deltas', %(at)s, %(at)s)", {"at": NOW - timedelta(9)})
        assert insert(timeseries_database, NOW - timedelta(9), seq=2) == 1
        assert reader.fetch_all("SELECT count(*) FROM orderbook_deltas") == [(2,)]


def test_only_whole_partitions_before_the_limit_are_dropped(timeseries_database: Database) -> None:
    for seq, hours in enumerate((0, 1, 2, 30)):
        moment = NOW - timedelta(hours=hours)
        keeper(timeseries_database).ensure_hours("orderbook_deltas", [us(moment)])
        insert(timeseries_database, moment, seq)
    assert drop_before(timeseries_database, NOW - timedelta(hours=1)) == 2
    with timeseries_database.transaction() as transaction:
        assert transaction.fetch_all("SELECT seq FROM orderbook_deltas ORDER BY 1") == [(0,), (1,)]
    assert drop_before(timeseries_database, NOW - timedelta(hours=1)) == 0


def test_a_partition_in_use_is_left_for_the_next_time(timeseries_database: Database, storage_mode: str) -> None:
    if storage_mode != "native":
        pytest.skip("TimescaleDB drops chunks its own way")
    old = NOW - timedelta(hours=30)
    keeper(timeseries_database).ensure_hours("orderbook_deltas", [us(old)])
    insert(timeseries_database, old)
    with timeseries_database.transaction() as reader:
        reader.fetch_all("SELECT count(*) FROM orderbook_deltas")
        assert drop_before(timeseries_database, NOW) == 0
    assert drop_before(timeseries_database, NOW) == 1


def test_an_old_partition_that_retention_dropped_is_made_again(timeseries_database: Database) -> None:
    ours = keeper(timeseries_database)
    old = NOW - timedelta(days=3)
    for seq in (1, 2):
        ours.ensure_hours("orderbook_deltas", [us(old)])
        assert insert(timeseries_database, old, seq) == 1
        assert drop_before(timeseries_database, NOW - timedelta(days=1)) == 1
