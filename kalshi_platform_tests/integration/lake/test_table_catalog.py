"""Iceberg tables of a lake: what they name, on both kinds of root, after kills, and with two registrations at once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyiceberg.table import Table

from kalshi_platform.errors import ConfigurationError, LakeUnavailable, PartitionBusy
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.iceberg.catalog import open_catalog
from kalshi_platform.lake.iceberg.register import Registered, register
from kalshi_platform.lake.iceberg.replaced import registering_replaced
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.iceberg.tables import expire, open_table
from kalshi_platform.lake.layout import MANIFEST_NAME, partition_starting
from kalshi_platform.lake.manifest import State
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.failing_store import FailingStore, Killed
from kalshi_platform_tests.fixtures.lake import HOUR, batch, put_partition, row
from kalshi_platform_tests.fixtures.production import Production

TRADES = DATASETS["raw/trades"]
LATER = HOUR + timedelta(hours=1)
KEY = "e3b0c442-98fc-1c14-9afb-f4c8996fb9"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A lake in a folder with a space and a letter beyond ASCII in its name."""
    return open_store(LakeSettings((tmp_path / "my lake ü").as_uri()))


@pytest.fixture
def settings(tmp_path: Path) -> IcebergSettings:
    """A catalog in a file."""
    return IcebergSettings(catalog_uri=f"sqlite:///{tmp_path}/catalog.db")


def put_trades(store: ObjectStore, hour: datetime, tickers: Iterable[str], state: State = "closed") -> None:
    rows = [
        row(TRADES, hour + timedelta(seconds=n), ticker=ticker, seq=n, trade_id=f"{KEY}{n:02x}")
        for n, ticker in enumerate(tickers)
    ]
    put_partition(store, partition_starting(TRADES, hour), [batch(TRADES, rows)], state)


def register_trades(store: ObjectStore, settings: IcebergSettings, **options: Any) -> Registered:
    (done,) = register(store, settings, [TRADES], **options)
    return done


def named(store: ObjectStore, settings: IcebergSettings) -> dict[str, int]:
    """The files of the table, by folder and name, with their rows."""
    with open_catalog(settings, store) as catalog:
        table = open_table(catalog, store, TRADES)
        return {"/".join(t.file.file_path.rsplit("/", 4)[1:]): t.file.record_count for t in table.scan().plan_files()}


def published(store: ObjectStore) -> dict[str, int]:
    """The files with rows of the closed partitions, as their manifests name them."""
    from kalshi_platform.lake.manifest import read_manifest

    folders = [
        each.path.removesuffix(f"/{MANIFEST_NAME}") for each in store.list("raw/trades/") if MANIFEST_NAME in each.path
    ]
    manifests = [(folder, read_manifest(store, folder)) for folder in folders]
    return {
        f"{folder.removeprefix('raw/')}/{file.name}": file.rows
        for folder, manifest in manifests
        if manifest is not None and manifest.state == "closed"
        for file in manifest.files
        if file.rows
    }


def test_closed_partitions_are_named_and_a_repetition_changes_nothing(
    lake_settings: LakeSettings, settings: IcebergSettings
) -> None:
    store = open_store(lake_settings)
    put_trades(store, HOUR, ["A", "B"])
    put_trades(store, LATER, [])
    put_trades(store, HOUR + timedelta(days=1), ["A", "B", "C"])
    first = register_trades(store, settings)
    assert (first.commits, first.files_added, first.rows, first.skipped) == (2, 2, 5, {})
    assert named(store, settings) == published(store)
    again = register_trades(store, settings)
    assert (again.commits, again.files, again.rows) == (0, 2, 5)


def test_a_partition_exported_again_replaces_its_files_in_one_commit(
    lake_settings: LakeSettings, settings: IcebergSettings
) -> None:
    store = open_store(lake_settings)
    put_trades(store, HOUR, ["A", "B"])
    put_trades(store, LATER, ["D"])
    register_trades(store, settings)
    put_trades(store, HOUR, ["A", "B", "C"])
    done = register_trades(store, settings, days=[HOUR.date()])
    assert (done.commits, done.files_added, done.files_removed, done.rows) == (1, 1, 1, 4)
    assert named(store, settings) == published(store)


def test_a_table_is_read_by_its_folder_without_a_catalog(
    store: ObjectStore, settings: IcebergSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    put_trades(store, HOUR, ["A", "B"])
    register_trades(store, settings)
    put_trades(store, HOUR, ["A", "B", "C"])
    register_trades(store, settings)
    folder = tmp_path / "my lake ü"
    frame = pl.scan_iceberg(str(folder / "_iceberg/raw/trades")).collect()
    files = pl.scan_parquet(folder / "raw/trades/**/*.parquet", hive_partitioning=False).collect()
    assert frame.select(files.columns).sort("ticker").equals(files.sort("ticker"))
    found = pl.scan_iceberg(str(folder / "_iceberg/raw/trades")).filter(pl.col("exchange_ts") < HOUR).collect()
    assert found.is_empty()


def test_open_empty_and_removed_partitions_are_not_named(store: ObjectStore, settings: IcebergSettings) -> None:
    put_trades(store, HOUR, ["A"])
    register_trades(store, settings)
    put_trades(store, LATER, ["B"], state="open")
    for stored in list(store.list(f"{partition_starting(TRADES, HOUR).path}/")):
        store.delete(stored.path)
    done = register_trades(store, settings)
    assert (done.files_removed, done.files, named(store, settings)) == (1, 0, {})


def test_an_unreadable_file_keeps_no_other_from_the_table(store: ObjectStore, settings: IcebergSettings) -> None:
    put_trades(store, HOUR, ["A"])
    put_trades(store, LATER, ["B"])
    broken = partition_starting(TRADES, HOUR).path
    (file,) = (each.path for each in store.list(f"{broken}/") if each.path.endswith(".parquet"))
    store.write(file, b"PAR1 no")
    done = register_trades(store, settings)
    assert (done.files, list(done.skipped)) == (1, [broken])


def test_files_with_columns_of_another_type_are_skipped(store: ObjectStore, settings: IcebergSettings) -> None:
    put_trades(store, HOUR, ["A"])
    broken = partition_starting(TRADES, HOUR).path
    (file,) = (each.path for each in store.list(f"{broken}/") if each.path.endswith(".parquet"))
    content = pl.DataFrame({"ticker": [1]})
    with store.staging() as folder:
        content.write_parquet(folder / "other.parquet")
        store.write(file, (folder / "other.parquet").read_bytes())
    done = register_trades(store, settings)
    assert "another version" in done.skipped[broken]


def test_a_registration_killed_anywhere_leaves_the_old_or_the_new_and_a_rerun_completes_it(
    store: ObjectStore, settings: IcebergSettings
) -> None:
    put_trades(store, HOUR, ["A", "B"])
    register_trades(store, settings)
    before = named(store, settings)
    for at in range(20):
        put_trades(store, HOUR, ["A"] * (at + 3))
        failing = FailingStore(store, at, "killed")
        try:
            register_trades(failing.as_store, settings)
        except Killed:
            assert named(store, settings) in (before, published(store))
            register_trades(store, settings)
            assert named(store, settings) == published(store)
            before = named(store, settings)
        else:
            assert at > 4, failing.changes
            return
    raise AssertionError("it never came to its end")


def test_two_registrations_at_once_name_each_file_once(store: ObjectStore, settings: IcebergSettings) -> None:
    put_trades(store, HOUR, ["A", "B"])
    register_trades(store, settings)
    put_trades(store, LATER, ["C"])
    others: list[Registered] = []

    def register_meanwhile(change: str) -> None:
        if not others:
            others.append(Registered(TRADES))
            others[0] = register_trades(store, settings)

    slow = register_trades(FailingStore(store, on_change=register_meanwhile).as_store, settings)
    assert (others[0].commits, slow.commits) == (1, 0)
    assert named(store, settings) == published(store)


def test_the_catalog_lies_in_a_schema_of_production_and_a_held_lock_is_said(
    production: Production, store: ObjectStore
) -> None:
    settings = IcebergSettings(production_url=production.url)
    put_trades(store, HOUR, ["A", "B"])
    assert register_trades(store, settings).rows == 2
    tables = production.rows(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name LIKE 'iceberg%%'"
    )
    assert sorted(tables) == [("iceberg", "iceberg_namespace_properties"), ("iceberg", "iceberg_tables")]
    with held(production.url, store, "raw/trades"), pytest.raises(PartitionBusy):
        register_trades(store, settings)
    assert register_trades(store, settings).commits == 0


@contextmanager
def held(url: str, store: ObjectStore, table: str) -> Any:
    database = Database(url, name="production")
    with database.advisory_lock("lake table", store.root, table) as lock:
        assert lock is not None
        yield
    database.dispose()


def test_a_table_of_another_lake_is_refused_until_it_is_rebuilt(
    store: ObjectStore, settings: IcebergSettings, tmp_path: Path
) -> None:
    put_trades(store, HOUR, ["A", "B"])
    register_trades(store, settings)
    (tmp_path / "my lake ü").rename(tmp_path / "moved")
    moved = open_store(LakeSettings((tmp_path / "moved").as_uri()))
    with pytest.raises(ConfigurationError, match="--rebuild"):
        register_trades(moved, settings)
    assert register_trades(moved, settings, rebuild=True).rows == 2
    assert named(moved, settings) == published(moved)


def test_an_export_that_replaces_a_partition_registers_it_and_one_that_cannot_stands(
    store: ObjectStore, settings: IcebergSettings, caplog: pytest.LogCaptureFixture
) -> None:
    partition = partition_starting(TRADES, HOUR)
    with registering_replaced(store, lambda: settings, partition):
        put_trades(store, HOUR, ["A", "B"])
    register_trades(store, settings)
    with registering_replaced(store, lambda: settings, partition):
        put_trades(store, HOUR, ["A", "B", "C"])
    assert named(store, settings) == published(store)

    def nowhere() -> IcebergSettings:
        raise ConfigurationError(["no catalog"])

    with registering_replaced(store, nowhere, partition):
        put_trades(store, HOUR, ["A"])
    assert "table_not_registered" in caplog.text
    assert named(store, settings) != published(store)


def test_old_versions_of_a_table_are_forgotten_with_their_metadata(
    store: ObjectStore, settings: IcebergSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_platform.lake.iceberg.tables._EXPIRED_TOGETHER", 2)
    for seconds in range(1, 5):
        put_trades(store, HOUR, ["A"] * seconds)
        register_trades(store, settings)
    with open_catalog(settings, store) as catalog:
        table = open_table(catalog, store, TRADES)
        before = metadata_files(store)
        now = datetime.fromtimestamp(table.metadata.last_updated_ms / 1_000, HOUR.tzinfo)
        expire(table, store, now + timedelta(days=3))
        assert [each.snapshot_id for each in table.metadata.snapshots] == [table.metadata.current_snapshot_id]
    assert metadata_files(store) < before
    assert named(store, settings) == published(store)


def metadata_files(store: ObjectStore) -> set[str]:
    return {each.path for each in store.list("_iceberg/") if each.path.endswith(".avro")}


def test_every_data_set_makes_a_table_with_its_columns(store: ObjectStore, settings: IcebergSettings) -> None:
    with open_catalog(settings, store) as catalog:
        for data in DATASETS.values():
            table: Table = open_table(catalog, store, data)
            columns = {field.name: field.doc for field in table.schema().fields}
            assert columns == {column.name: column.comment for column in data.columns}
            assert table.properties["gc.enabled"] == "false"
            ids = {field.name: field.field_id for field in table.schema().fields}
            assert ids == {name: each.column for name, each in data.field_ids.items()}


@pytest.mark.parametrize("password", ["secretpw", "sec/retpw"])
def test_a_rest_catalog_that_does_not_answer_is_named_without_its_login(store: ObjectStore, password: str) -> None:
    settings = IcebergSettings(catalog_uri=f"http://me:{password}@127.0.0.1:9/x")
    with pytest.raises((LakeUnavailable, ConfigurationError)) as refused, open_catalog(settings, store):
        pass
    assert "sec" not in str(refused.value)
    assert "retpw" not in str(refused.value)
    assert "127.0.0.1:9" in str(refused.value)
