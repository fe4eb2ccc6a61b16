"""Databases and a lake that an earlier version made: migrated, read, merged into, closed and exported by this one."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.close.close_record import HourClose
from kalshi_platform.deduplicator.close.hours import find_hours_to_close
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake import reader
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.export import export_partition
from kalshi_platform.lake.layout import Partition, partition_at
from kalshi_platform.lake.manifest import find_manifest, published, verify
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.stale import stale_partitions
from kalshi_platform.lake.store import open_store
from kalshi_platform.local.platform_status import platform_status
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.market.times import US_PER_S, us_from_datetime
from kalshi_platform.storage.migrate import files_of, migrate
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.services import read_switch
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.hand_filled_gatherer import GathererDatabase, delta_row, trade_row
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.version_record import DATABASES, QUESTIONS, A, Q, ask, ask_lake

RECORDS = ("version_0_1",)
RENAMED = {"anchor": "checkpoint"}
"""Values in answers of a version before → today's."""
DATA = Path(__file__).parents[2] / "data"


class Record:
    """Copies of what a version left, its databases migrated."""

    def __init__(self, folder: Path, factory: DatabaseFactory, lake: Path) -> None:
        self.urls = {name: factory(_template(folder, name)) for name in DATABASES}
        self.answers: dict[str, Any] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
        for row in [row for rows in self.answers["questions"].values() for row in rows]:
            row.update(
                {name: RENAMED[value] for name, value in row.items() if isinstance(value, str) and value in RENAMED}
            )
        self.closed_hour, self.open_hour = (
            datetime.fromisoformat(self.answers[name]) for name in ("closed_hour", "open_hour")
        )
        self.clock = FakeClock(self.open_hour + timedelta(hours=9))
        shutil.copytree(folder / "lake", lake)
        self.lake = LakeSettings(lake.as_uri())
        self.production = Database(self.urls["production"], name="production")
        self.gatherers = {name: GathererDatabase(self.urls[f"{name}_timeseries"], name) for name in ("g1", "g2")}

    @property
    def settings(self) -> DeduplicatorSettings:
        return DeduplicatorSettings(
            production_url=self.urls["production"],
            sources=tuple(
                GathererSource(name, self.urls[f"{name}_timeseries"], self.urls[f"{name}_catalog"])
                for name in self.gatherers
            ),
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.production.transaction() as transaction:
            return transaction.fetch_all(query)

    def ask(self) -> dict[str, list[Any]]:
        """What production answers now."""
        return ask(self.urls["production"], QUESTIONS, self.closed_hour)

    def close(self, hour: datetime) -> HourClose:
        return close_hour(self.settings, hour, self.clock, PartitionBounds())

    def partitions(self) -> list[Partition]:
        """The partitions of the closed hour and its day, of the data sets that the version had."""
        had = [table for table in DATASETS.values() if any(published(self.lake, table))]
        return [partition_at(table, self.closed_hour) for table in had]

    def dispose(self) -> None:
        self.production.dispose()
        for gatherer in self.gatherers.values():
            gatherer.dispose()


def _template(folder: Path, name: str) -> str:
    return f"{folder.name}_{name}"


@pytest.fixture(scope="session")
def migrated_records(postgres_server: PostgresServer) -> None:
    """The dumps, loaded and migrated, as templates."""
    for record in RECORDS:
        for name, kind in DATABASES.items():
            template = _template(DATA / record, name)
            postgres_server.create_database(template)
            connection = psycopg2.connect(postgres_server.url(template))
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute(gzip.decompress((DATA / record / f"{name}.sql.gz").read_bytes()).decode())
            finally:
                connection.close()
            database = Database(postgres_server.url(template), name=name)
            migrate(database, kind)
            database.dispose()


@pytest.fixture(params=RECORDS)
def record(
    request: pytest.FixtureRequest, database_factory: DatabaseFactory, migrated_records: None, tmp_path: Path
) -> Iterator[Record]:
    made = Record(DATA / request.param, database_factory, tmp_path / "lake")
    yield made
    made.dispose()


def test_migrated_production_gives_the_answers_of_the_version_before(record: Record) -> None:
    assert record.ask() == record.answers["questions"]


def test_every_file_applied_again_by_hand_changes_no_answer(record: Record) -> None:
    for name in ("g1_timeseries", "production"):
        kind = DATABASES[name]
        database = Database(record.urls[name], name=name)
        for file in files_of(kind):
            with database.transaction() as transaction:
                transaction.execute(file.text)
        assert migrate(database, kind).applied == ()
        database.dispose()
    assert record.ask() == record.answers["questions"]
    merge_new(record.settings, record.clock)
    assert record.close(record.closed_hour).failed == ()


def test_status_of_migrated_databases_shows_what_was_merged_and_closed(record: Record, tmp_path: Path) -> None:
    found = platform_status(record.settings, tmp_path, SYSTEM_CLOCK)
    assert found.problems == []
    assert found.batches_behind == {"g1": 1, "g2": 1}
    assert found.last_closed_hour is not None
    assert found.last_closed_hour.hour == record.closed_hour
    assert found.last_closed_hour.books_proved == 2
    assert {name: service.state for name, service in found.services.items()} == {
        "gatherer/g1": "recording",
        "gatherer/g2": "recording",
        "deduplicator": "merging",
    }
    switch = read_switch(record.gatherers["g2"].database, "gatherer/g2")
    assert (switch.enabled, switch.reason) == (False, "maintenance")
    assert read_switch(record.gatherers["g1"].database, "gatherer/g1").enabled


def test_live_merge_goes_on_where_the_version_before_stopped_and_takes_late_rows(record: Record) -> None:
    before = dict(record.rows("SELECT table_name, sum(rows_inserted) FROM hour_activity GROUP BY 1"))
    report = merge_new(record.settings, record.clock)
    assert [(source.error, source.restarted, source.behind) for source in report.sources] == [(None, False, False)] * 2
    assert report.rows_inserted == 7, "six deltas and a trade, each seen by both"
    late_us = us_from_datetime(record.closed_hour) + 15 * 60 * US_PER_S + 1
    late = delta_row(A, ts_us=late_us, seq=1, stream_id=12)
    trade = trade_row(A, "late", ts_us=late_us)
    record.gatherers["g1"].commit(orderbook_deltas=[late], trades=[trade], segments=[(12, 1, 1)])
    assert merge_new(record.settings, record.clock).rows_inserted == 2
    after = dict(record.rows("SELECT table_name, sum(rows_inserted) FROM hour_activity GROUP BY 1"))
    assert after["orderbook_deltas"] - before["orderbook_deltas"] == 7
    assert find_hours_to_close(record.production, record.clock.now()) == [record.closed_hour, record.open_hour]
    catalogs = merge_catalog(record.settings, record.clock)
    assert (catalogs.rows_changed, catalogs.missed) == (0, {})


def test_the_closed_hour_closes_again_to_the_same_and_the_open_one_is_closed(record: Record) -> None:
    merge_new(record.settings, record.clock)
    again = record.close(record.closed_hour)
    assert (again.failed, again.alarms, again.dropped) == ((), (), ())
    same = {name: answer for name, answer in record.answers["questions"].items() if name != "hour_states"}
    assert {name: answer for name, answer in record.ask().items() if name in same} == same
    closed = record.close(record.open_hour)
    assert (closed.failed, closed.final, closed.gatherers_read) == ((), True, ("g1", "g2"))
    assert closed.rows["orderbook_deltas"] == 16
    assert find_hours_to_close(record.production, record.clock.now()) == []
    base, state = record.rows(
        f"SELECT base_ts, state FROM book_basis('{Q}', '{record.open_hour.isoformat()}'::timestamptz + '2 minutes')"
    )[0]
    assert (base < record.open_hour, state) == (True, "proven"), "the book of the hour before leads into this one"


def test_the_reader_reads_partitions_of_the_version_before(record: Record) -> None:
    assert json.loads(json.dumps(ask_lake(record.lake, record.closed_hour))) == record.answers["lake"]
    for partition in record.partitions():
        assert not reader.missing_partitions(record.lake, partition.dataset, record.closed_hour, record.open_hour), (
            partition
        )
    opened = reader.deltas(record.lake, record.open_hour, record.open_hour + timedelta(hours=1), open=True)
    assert opened.height == 10


def test_partitions_of_the_version_before_are_whole_and_exported_again_as_they_are(record: Record) -> None:
    store = record.lake
    partitions = [partition for partition in record.partitions() if partition.dataset.builder is None]
    rows = {}
    for partition in partitions:
        found = find_manifest(store, partition)
        assert found is not None, partition
        rows[partition] = verify(store, found[0]).rows
        assert found[1].state == "closed"
    stale = stale_partitions(store, record.urls["production"], partitions)
    assert {(each.partition.dataset.name, each.reason) for each in stale} == {
        (name, "its columns are those of another version")
        for name in ("book_checkpoints", "orderbook_snapshots", "trades")
    }
    assert all(partition in published(store, partition.dataset) for partition in partitions)
    merge_new(record.settings, record.clock)
    record.close(record.closed_hour)
    assert {each.reason for each in stale_partitions(store, record.urls["production"], partitions)} == {
        "its time was closed again since"
    }
    for partition in partitions:
        manifest = export_partition(store, record.urls["production"], partition, "closed", record.clock)
        assert manifest.rows == rows[partition], partition
        assert verify(store, partition.path) == manifest
    assert stale_partitions(store, record.urls["production"], partitions) == []
    assert all(partition in published(store, partition.dataset) for partition in partitions)
    assert not list(open_store(store).list("raw/book_anchors/")), "what lies under today's name lies there alone"
    assert json.loads(json.dumps(ask_lake(store, record.closed_hour))) == record.answers["lake"]


def test_candles_of_the_version_before_meant_something_else_and_are_made_anew(record: Record) -> None:
    (day,) = [partition for partition in record.partitions() if partition.dataset.name == "candles_1m"]
    with pytest.raises(LakeCorrupt, match="schema version 1, this reader knows 2; export it again"):
        reader.candles(record.lake, day.start, day.end)
    merge_new(record.settings, record.clock)
    record.close(record.closed_hour)
    record.close(record.open_hour)
    url = record.urls["production"]
    for table in day.dataset.inputs:
        for hour in (record.closed_hour, record.open_hour):
            export_partition(record.lake, url, partition_at(DATASETS[table], hour), "closed", record.clock)
    manifest = export_partition(record.lake, url, day, "closed", record.clock)
    assert manifest.schema_version == 2
    assert reader.candles(record.lake, day.start, day.end).height == manifest.rows > 5


def test_an_open_partition_of_the_version_before_is_replaced_once_its_hour_is_closed(record: Record) -> None:
    merge_new(record.settings, record.clock)
    record.close(record.open_hour)
    partition = partition_at(DATASETS["raw/orderbook_deltas"], record.open_hour)
    manifest = export_partition(record.lake, record.urls["production"], partition, "closed", record.clock)
    assert (manifest.state, manifest.rows) == ("closed", 16)
    assert reader.deltas(record.lake, partition.start, partition.end, holes="mark").height == 16
