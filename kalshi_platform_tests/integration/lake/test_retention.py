"""Retention: nothing goes that the lake does not verifiably hold, and all that is old and held goes. In both modes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.errors import LakeArchived
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.layout import Partition, find_dataset
from kalshi_platform.lake.manifest import Manifest, encode, read_manifest, verify
from kalshi_platform.lake.retention import drop, gate
from kalshi_platform.lake.retention.apply import apply_retention
from kalshi_platform.lake.retention.report import RetentionReport
from kalshi_platform.lake.retention.settings import GathererDatabase, RetentionSettings
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform.market.times import us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    GathererDatabase as HandFilledGatherer,
)
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    delta_row,
    lifecycle_row,
    snapshot_row,
    ticker_row,
    trade_row,
)
from kalshi_platform_tests.fixtures.storage import MakeDatabase

HOUR = datetime(2026, 11, 20, 4, tzinfo=UTC)
T0 = us_from_datetime(HOUR) + 600_000_000
LATER = HOUR + timedelta(days=40)
BULK = {"orderbook_deltas", "orderbook_snapshots", "tickers"}
DELTAS = Partition(find_dataset("orderbook_deltas"), HOUR)


class World:
    """One gatherer, production, and a lake; an hour that was recorded, merged, closed and exported."""

    def __init__(self, make: MakeDatabase, folder: Path) -> None:
        self.production, timeseries = make("production"), make("timeseries")
        self.gatherer = HandFilledGatherer(timeseries.url, "g1")
        self.lake = LakeSettings(root=folder.as_uri())
        self.store = open_store(self.lake)
        self.folder = folder
        self.merging = DeduplicatorSettings(
            production_url=self.production.url,
            sources=(GathererSource("g1", timeseries.url, timeseries.url),),
        )
        self.settings = RetentionSettings(
            production_url=self.production.url,
            gatherers=(GathererDatabase("g1", timeseries.url),),
            lake=self.lake,
            lock_timeout_s=0.1,
        )

    def record(self, at: int = T0, stream: int = 1) -> None:
        rows = [delta_row("A", ts_us=at + n * 1_000_000, seq=n + 2, stream_id=stream) for n in range(100)]
        self.gatherer.commit(
            orderbook_deltas=rows,
            orderbook_snapshots=[snapshot_row("A", received_us=at, seq=1, yes={4000: 100}, stream_id=stream)],
            trades=[trade_row("A", "t1", ts_us=at)],
            tickers=[ticker_row("A", ts_us=at)],
            market_lifecycle=[lifecycle_row("A", received_us=at)],
            segments=[(stream, 1, 101)],
            book_subscriptions=[(stream, "A", 1, None)],
        )

    def close(self, hour: datetime = HOUR) -> None:
        """What retention reads of a close; a real one takes a second."""
        with self.production.transaction() as transaction:
            transaction.execute(
                "INSERT INTO hour_closes (hour, gatherers_read) VALUES (%s, '{g1}') ON CONFLICT (hour) DO UPDATE"
                " SET close_no = next_merge_no(), close_id = gen_random_uuid()",
                (hour,),
            )
            transaction.execute("DELETE FROM merge_statistics WHERE hour = %s", (hour,))
            for table in MERGED_TABLES:
                rows = self.counts()[f"g1 {table}"]
                transaction.execute(
                    "INSERT INTO merge_statistics VALUES (%s, 'g1', %s, %s, 0, 0, 0, 0, 0)", (hour, table, rows)
                )

    def close_for_real(self, hour: datetime = HOUR) -> None:
        close_hour(self.merging, hour, SYSTEM_CLOCK, PartitionBounds())

    def export(self, hour: datetime = HOUR) -> None:
        for table in RAW_TABLES:
            export_raw(self.lake, self.production.url, table, hour, "closed")

    def retain(
        self, *, dry_run: bool = False, days: float = 40, only: Collection[str] = (), **changes: Any
    ) -> RetentionReport:
        clock = FakeClock(HOUR + timedelta(days=days))
        return apply_retention(replace(self.settings, **changes), clock, dry_run, only)

    def counts(self) -> dict[str, int]:
        """Rows by "database table"."""
        found = {}
        for name, database in (("g1", self.gatherer.database), ("production", self.production)):
            with database.transaction() as transaction:
                for table in MERGED_TABLES:
                    row = transaction.fetch_one(f"SELECT count(*) FROM {table}")
                    found[f"{name} {table}"] = 0 if row is None else row[0]
        return found

    def production_execute(self, statement: str) -> None:
        with self.production.transaction() as transaction:
            transaction.execute(statement)

    def rows(self, query: str, database: Database | None = None) -> list[tuple[Any, ...]]:
        with (database or self.production).transaction() as transaction:
            return transaction.fetch_all(query)


@pytest.fixture
def world(make_database: MakeDatabase, tmp_path: Path) -> Iterator[World]:
    made = World(make_database, tmp_path / "lake")
    made.record()
    merge_new(made.merging, SYSTEM_CLOCK)
    made.close()
    made.export()
    yield made
    made.gatherer.dispose()


def reasons(report: RetentionReport) -> set[str]:
    return {str(each.refused).split(":")[0] for each in report.refused}


def test_nothing_goes_until_the_lake_verifiably_holds_it(make_database: MakeDatabase, tmp_path: Path) -> None:
    world = World(make_database, tmp_path / "lake")
    world.record()
    held = world.counts()

    def refused(why: str, *, databases: int = 2) -> None:
        for dry_run in (True, False):
            report = world.retain(dry_run=dry_run, only=["g1", "production"][:databases])
            assert not [each for each in report.gone if each.rows and each.table == "orderbook_deltas"]
            of_deltas = [each for each in report.refused if each.table == "orderbook_deltas"]
            assert len(of_deltas) == databases
            assert all(why in str(each.refused) for each in of_deltas), of_deltas
        assert {name: rows for name, rows in world.counts().items() if "deltas" in name} == {
            name: rows for name, rows in held.items() if "deltas" in name
        }

    refused("has not read this database", databases=1)
    merge_new(world.merging, SYSTEM_CLOCK)
    held = world.counts()
    refused("has not closed 2026-11-20T04")
    world.close()
    refused("is missing in the lake")
    export_raw(world.lake, world.production.url, "orderbook_deltas", HOUR, "open")
    refused("deltas 2026-11-20T04")
    export_raw(world.lake, world.production.url, "orderbook_deltas", HOUR, "closed")
    manifest = read_manifest(world.store, DELTAS.path)
    assert manifest is not None
    file = world.folder / DELTAS.path / manifest.files[0].name
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("damaged")
    file.write_bytes(whole)
    world.store.write(DELTAS.manifest_path, encode(msgspec.structs.replace(manifest, rows=99)))
    refused("damaged")
    world.store.write(DELTAS.manifest_path, encode(msgspec.structs.replace(manifest, closes={"2026-11-20T04": "x"})))
    refused("is stale")
    world.store.write(DELTAS.manifest_path, encode(manifest))
    world.gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=T0 + 5, seq=900)], segments=[(1, 900, 900)])
    held = world.counts()
    refused("production has not read all", databases=1)
    merge_new(world.merging, SYSTEM_CLOCK)
    held = world.counts()
    refused("rows came after the close")
    world.close()
    refused("is stale")
    world.export()
    assert not world.retain().refused
    assert sum(world.counts().values()) == 2, "trades and lifecycle of production stay"
    world.gatherer.dispose()


def test_a_dry_run_names_what_would_go_and_what_is_in_use_stays(world: World) -> None:
    before = world.counts()
    report = world.retain(dry_run=True)
    assert not report.refused
    assert {(each.database, each.table) for each in report.gone} == {
        *(("g1", table) for table in MERGED_TABLES),
        *(("production", table) for table in BULK),
    }
    assert not world.retain(dry_run=True, days=7).partitions, "days are whole partitions"
    assert {each.database for each in world.retain(dry_run=True, days=10).gone} == {"g1"}
    assert world.retain(enabled=False).partitions == ()
    assert world.retain(gatherer_days=0, production_days=0).partitions == ()
    assert (world.counts(), world.rows("SELECT FROM lake_verifications")) == (before, [])

    with world.production.advisory_lock("lake export", world.store.root, DELTAS.path):
        report = world.retain()
        assert [(each.database, each.table) for each in report.refused] == [
            ("g1", "orderbook_deltas"),
            ("production", "orderbook_deltas"),
        ]
        assert all("an export writes" in str(each.refused) for each in report.refused)
    with world.production.transaction() as transaction:
        transaction.fetch_all("SELECT count(*) FROM orderbook_deltas WHERE exchange_ts >= '2026-11-20 04:00+00'")
        away = GathererDatabase("g2", "postgresql://nobody@127.0.0.1:1/nowhere")
        report = world.retain(gatherers=(away, *world.settings.gatherers))
        assert [(each.database, each.refused) for each in report.refused] == [
            ("production", "its table is in use: the next run tries again")
        ]
        assert set(report.unreachable) == {"g2"}
        assert [each.database for each in report.gone] == ["g1"]
    assert not world.retain().refused
    assert sum(world.counts().values()) == 2


def test_what_is_read_back_once_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(store: ObjectStore, path: str, manifest: Manifest) -> Manifest:
        read.append(path)
        return verify(store, path, manifest)

    monkeypatch.setattr(gate, "verify", counted)
    assert {each.database for each in world.retain(days=10).gone} == {"g1"}
    assert len(read) == len(MERGED_TABLES)
    del read[:]
    assert not world.retain(days=11, dry_run=True, production_days=5).refused
    assert read == []

    def archived(*_: Any) -> None:
        raise LakeArchived("in Glacier")

    monkeypatch.setattr(gate, "verify", archived)
    assert not world.retain(days=40, dry_run=True).refused, "it was verified before it was archived"
    world.production_execute("DELETE FROM lake_verifications")
    assert reasons(world.retain(days=40)) == {
        f"raw/{table} 2026-11-20T04 is archived and was never verified" for table in BULK
    }


def test_a_run_that_was_killed_is_completed_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    left = [0]
    drop_once = drop.Dropper._drop_once

    def killed(*args: Any) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        drop_once(*args)

    monkeypatch.setattr(drop.Dropper, "_drop_once", killed)
    for survivors in (0, 3, 2):
        left[0] = survivors
        with pytest.raises(KilledError):
            world.retain()
    monkeypatch.undo()
    assert len(world.retain().gone) == 3
    assert sum(world.counts().values()) == 2
