"""Retention: nothing goes that the lake does not verifiably hold, and all that is old and held goes. In both modes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.errors import LakeArchived, LakeUnavailable
from kalshi_platform.lake.export import export_raw
from kalshi_platform.lake.layout import Partition, find_dataset
from kalshi_platform.lake.manifest import Manifest, encode, read_manifest, verify
from kalshi_platform.lake.retention import drop, gate
from kalshi_platform.lake.retention.report import RetentionReport
from kalshi_platform.lake.retention.settings import GathererDatabase
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.tables import MERGED_TABLES
from kalshi_platform_tests.fixtures.hand_filled_gatherer import (
    delta_row,
    ticker_row,
    trade_row,
)
from kalshi_platform_tests.fixtures.retention_world import HOUR, T0, RetentionWorld
from kalshi_platform_tests.fixtures.storage import MakeDatabase

BULK = {"orderbook_deltas", "orderbook_snapshots", "tickers"}
DELTAS = Partition(find_dataset("orderbook_deltas"), HOUR)


@pytest.fixture
def world(make_database: MakeDatabase, tmp_path: Path) -> Iterator[RetentionWorld]:
    made = RetentionWorld(make_database, tmp_path / "lake")
    made.record()
    merge_new(made.merging, SYSTEM_CLOCK)
    made.close()
    made.export()
    yield made
    made.gatherer.dispose()


def reasons(report: RetentionReport) -> set[str]:
    return {str(each.refused).split(":")[0] for each in report.refused}


def test_nothing_goes_until_the_lake_verifiably_holds_it(make_database: MakeDatabase, tmp_path: Path) -> None:
    world = RetentionWorld(make_database, tmp_path / "lake")
    world.record()
    held = world.counts()

    def refused(why: str, *, databases: int = 2) -> None:
        report = world.retain(only=["g1", "production"][:databases])
        of_deltas = [each.refused for each in report.partitions if each.table == "orderbook_deltas"]
        assert len(of_deltas) == databases
        assert all(why in str(each) for each in of_deltas), of_deltas
        now = world.counts()
        assert all(now[f"{name} orderbook_deltas"] == held[f"{name} orderbook_deltas"] for name in ("g1", "production"))

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


def test_a_dry_run_names_what_would_go_and_what_is_in_use_stays(world: RetentionWorld, storage_mode: str) -> None:
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
        if storage_mode == "timescale":  # as a policy's job does, which has not come to its end
            transaction.fetch_all("SELECT compress_chunk(c) FROM show_chunks('orderbook_deltas') c")
        else:
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


def test_what_is_read_back_once_is_not_read_again(world: RetentionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_run_that_was_killed_is_completed_by_the_next(
    world: RetentionWorld, storage_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if storage_mode == "timescale":  # as the policies have long done with old chunks
        for database in (world.production, world.gatherer.database):
            world.rows("SELECT compress_chunk(c) FROM show_chunks('orderbook_deltas') c", database)

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


def test_what_comes_to_a_dropped_hour_reaches_the_lake_or_stays_in_production(world: RetentionWorld) -> None:
    world.close_for_real()
    world.export(also=("coverage", "book_checkpoints"))
    assert not world.retain().refused
    before = read_manifest(world.store, DELTAS.path)
    assert before is not None
    world.gatherer.commit(
        orderbook_deltas=[delta_row("A", ts_us=T0 + 5, seq=900, stream_id=2)],
        trades=[trade_row("A", "t2", ts_us=T0 + 5)],
        segments=[(2, 900, 900)],
    )
    merge_new(world.merging, SYSTEM_CLOCK)
    world.close_for_real()
    world.export(also=("coverage", "book_checkpoints"))
    manifests = {
        table: read_manifest(world.store, Partition(find_dataset(table), HOUR).path)
        for table in (*MERGED_TABLES, "coverage", "book_checkpoints")
    }
    deltas, trades = manifests["orderbook_deltas"], manifests["trades"]
    assert deltas is not None
    assert trades is not None
    assert (deltas.files, deltas.closes != before.closes) == (before.files, True)
    assert trades.rows == 2
    assert all(each is not None and each.closes == deltas.closes for each in manifests.values()), "of one close"
    # The gatherer's copies may go, production's one delta stays: nothing else holds it.
    report = world.retain()
    assert [(each.database, each.table) for each in report.refused] == [("production", "orderbook_deltas")]
    assert "came after that was dropped" in str(report.refused[0].refused)
    assert (world.counts()["g1 orderbook_deltas"], world.counts()["production orderbook_deltas"]) == (0, 1)


def test_rows_that_come_to_an_empty_hour_of_a_day_while_it_is_checked_are_not_dropped(
    world: RetentionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = gate.LakeGate.check

    def late(*args: Any) -> Any:
        found = check(*args)
        if args[1] == "tickers" and not world.rows("SELECT FROM hour_activity WHERE hour = '2026-11-20 05:00+00'"):
            world.gatherer.commit(tickers=[ticker_row("A", ts_us=T0 + 3_600_000_000)])
            merge_new(world.merging, SYSTEM_CLOCK)
        return found

    monkeypatch.setattr(gate.LakeGate, "check", late)
    report = world.retain(only=["production"])
    assert [(each.table, str(each.refused).split(" meanwhile")[0]) for each in report.refused] == [
        ("tickers", "2026-11-20T05 got rows or was closed again")
    ]
    assert world.counts()["production tickers"] == 2


def test_a_lake_that_is_away_for_one_database_stops_no_other(
    world: RetentionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [1]

    def away(store: ObjectStore, path: str, manifest: Manifest) -> Manifest:
        left[0] -= 1
        if left[0] == -1:
            raise LakeUnavailable("HTTP 503")
        return verify(store, path, manifest)

    monkeypatch.setattr(gate, "verify", away)
    report = world.retain()
    assert report.unreachable == {"g1": "HTTP 503"}
    assert [each.database for each in report.gone] == ["g1", *["production"] * len(BULK)]
