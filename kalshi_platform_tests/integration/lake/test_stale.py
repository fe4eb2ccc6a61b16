"""Which partitions are to be exported again: production's closes against the lake's manifests and files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError, LakeUnavailable, Unfinished
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.index import MonthIndex
from kalshi_platform.lake.layout import Partition, find_dataset, partition_starting
from kalshi_platform.lake.manifest import encode, read_manifest
from kalshi_platform.lake.settings import FolderRoot, LakeSettings
from kalshi_platform.lake.stale import partitions_of, stale_lately, stale_partitions
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform_tests.fixtures.failing_store import FailingStore
from kalshi_platform_tests.fixtures.lake import HOUR
from kalshi_platform_tests.fixtures.production import Production

ONE = timedelta(hours=1)
TOMORROW = HOUR + timedelta(days=1)
TRADES = Partition(find_dataset("trades"), HOUR)
DAY = partition_starting(find_dataset("processed/trades"), date(2026, 11, 20))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(FolderRoot(tmp_path / "lake"))


@pytest.fixture
def exported(production: Production, store: FolderStore) -> Production:
    """An hour with a trade, closed and exported; so is its day."""
    production.insert("trades", [{"exchange_ts": HOUR, "trade_id": "t-1"}])
    production.active_hour(HOUR)
    production.close_hour(HOUR)
    export_raw(store, production.url, "trades", HOUR, "closed")
    export_daily(store, production.url, "processed/trades", DAY.start.date(), "closed")
    return production


def reasons(store: FolderStore, production: Production) -> dict[str, str]:
    return {each.partition.dataset.key: each.reason for each in stale_partitions(store, production.url, [TRADES, DAY])}


def close_again(production: Production, by: str = "1 second") -> None:
    """As a later close does, whatever production's clock says then."""
    production.execute(
        f"UPDATE hour_closes SET closed_at = closed_at + INTERVAL '{by}', close_id = gen_random_uuid(),"
        " close_no = next_merge_no()"
    )


@pytest.mark.parametrize("by", ["1 second", "-5 minutes"])
def test_another_close_makes_the_hour_and_its_day_stale(exported: Production, store: FolderStore, by: str) -> None:
    assert reasons(store, exported) == {}
    close_again(exported, by)
    assert set(reasons(store, exported)) == {"raw/trades", "processed/trades"}
    assert set(reasons(store, exported).values()) == {"its time was closed again since"}
    export_raw(store, exported.url, "trades", HOUR, "closed")
    assert set(reasons(store, exported)) == {"processed/trades"}
    export_daily(store, exported.url, "processed/trades", DAY.start.date(), "closed")
    assert reasons(store, exported) == {}


def test_the_close_of_a_further_hour_makes_the_day_stale(exported: Production, store: FolderStore) -> None:
    exported.close_hour(HOUR + ONE)
    assert set(reasons(store, exported)) == {"processed/trades"}


def test_what_is_to_be_closed_first_is_not_to_be_exported(exported: Production, store: FolderStore) -> None:
    store.delete(TRADES.manifest_path)
    assert set(reasons(store, exported)) == {"raw/trades"}
    exported.execute("UPDATE hour_activity SET last_merge_no = next_merge_no()")
    assert reasons(store, exported) == {}


def without_manifest(store: FolderStore) -> None:
    store.delete(TRADES.manifest_path)


def without_file(store: FolderStore) -> None:
    manifest = read_manifest(store, TRADES.path)
    assert manifest is not None
    store.delete(f"{TRADES.path}/{manifest.files[0].name}")


def with_another_file(store: FolderStore) -> None:
    store.write(f"{TRADES.path}/part-0000.parquet", b"of an export that was cut short")


def with_broken_manifest(store: FolderStore) -> None:
    store.write(TRADES.manifest_path, b"{")


def of_an_older_schema(store: FolderStore) -> None:
    manifest = read_manifest(store, TRADES.path)
    assert manifest is not None
    store.write(TRADES.manifest_path, encode(msgspec.structs.replace(manifest, schema_version=0)))


def not_in_the_index(store: FolderStore) -> None:
    """As an export leaves it that was killed between the manifest and the index."""
    path = "_index/raw/trades/2026-11.json"
    index = msgspec.json.decode(store.read(path) or b"", type=MonthIndex)
    store.write(path, msgspec.json.encode(msgspec.structs.replace(index, partitions=())))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (not_in_the_index, "the lake's index does not show it as it is"),
        (without_manifest, "it is not there"),
        (without_file, "files that its manifest names are missing or damaged"),
        (with_another_file, "files of an export that was cut short lie beside its own"),
        (with_broken_manifest, "its manifest cannot be read"),
        (of_an_older_schema, "its columns are those of another version"),
    ],
)
def test_what_is_not_as_its_manifest_says_is_stale_and_an_export_repairs_it(
    exported: Production, store: FolderStore, harm: Callable[[FolderStore], None], reason: str
) -> None:
    harm(store)
    assert reasons(store, exported) == {"raw/trades": reason}
    export_raw(store, exported.url, "trades", HOUR, "closed")
    assert reasons(store, exported) == {}


def test_an_open_export_of_a_closed_hour_is_stale(production: Production, store: FolderStore) -> None:
    export_raw(store, production.url, "trades", HOUR, "open")
    production.close_hour(HOUR)
    assert reasons(store, production)["raw/trades"] == "it was exported before its time was closed"


def test_a_manifest_of_version_0_1_0_is_compared_by_its_moment(exported: Production, store: FolderStore) -> None:
    fields = msgspec.json.decode(store.read(TRADES.manifest_path) or b"")
    del fields["closes"]
    store.write(TRADES.manifest_path, msgspec.json.encode(fields))
    assert reasons(store, exported) == {}
    close_again(exported)
    assert "raw/trades" in reasons(store, exported)


def test_the_last_week_is_everything_closed_in_it_and_whose_rows_are_gone_is_reported(
    exported: Production, store: FolderStore, tmp_path: Path
) -> None:
    exported.execute("UPDATE hour_closes SET closed_at = %s, rows = '{\"trades\": 1}'", HOUR + ONE)
    exported.rows("SELECT drop_partitions_before('trades', %s)", TOMORROW + timedelta(days=9))
    elsewhere = LakeSettings((tmp_path / "elsewhere").as_uri())
    assert stale_lately(elsewhere, exported.url, HOUR + timedelta(days=9)) == []
    found = {each.partition.dataset.key: each.exportable for each in stale_lately(elsewhere, exported.url, TOMORROW)}
    assert len(found) == len(partitions_of([HOUR], TOMORROW)) >= 8
    assert {key for key, exportable in found.items() if not exportable} == {
        "raw/trades",
        "processed/trades",
    }
    assert {each.dataset.kind for each in partitions_of([HOUR], HOUR + ONE)} == {"hourly"}, "the day is not over"


def test_a_store_that_is_away_is_an_error_and_not_an_empty_lake(exported: Production, store: FolderStore) -> None:
    away = FailingStore(store, 0, "for good", changes=["one", "two"])
    with pytest.raises(LakeUnavailable):
        stale_partitions(away.as_store, exported.url, [TRADES])


def test_the_shell_shows_what_is_stale_and_exports_it(
    exported: Production, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kalshi_platform.cli import export as command
    from kalshi_platform.cli.status import read_lake_status

    now = SYSTEM_CLOCK.now()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_LAKE_ROOT", (tmp_path / "lake").as_uri())
    monkeypatch.setenv("KALSHI_GATHERERS", "g1")
    monkeypatch.setenv("KALSHI_PRODUCTION_DATABASE_URL", exported.url)
    for kind in ("TIMESERIES", "CATALOG"):
        monkeypatch.setenv(f"KALSHI_G1_{kind}_DATABASE_URL", exported.url)
    app = typer.Typer()
    app.command()(command.export)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    close_again(exported)
    shown = {each.table: each.reason for each in read_lake_status(exported.url, now).stale}
    assert shown["raw/trades"] == "its time was closed again since"
    assert shown["raw/tickers"] == "it is not there"
    result = run("trades", "--stale")
    assert result.exit_code == 0
    assert "1 of 1: raw/trades 2026-11-20-04:00: its time was closed again since" in result.output
    # One that production has lost rows of does not keep the others from it.
    exported.execute("UPDATE hour_closes SET rows = '{\"trades\": 2}', close_id = gen_random_uuid()")
    result = run("--stale")
    assert isinstance(result.exception, Unfinished)
    of_trades = {key for key, data in DATASETS.items() if data.source == "trades" or "raw/trades" in data.inputs}
    assert {text.split(" ")[0] for text in result.exception.remains} == of_trades
    assert {each.table for each in read_lake_status(exported.url, now).stale} == of_trades
    assert run("trades", "2026-11-20T04", "--allow-fewer-rows").exit_code == 0
    assert isinstance(run("trades").exception, ConfigurationError)
    assert isinstance(run("--stale", "--open").exception, ConfigurationError)
