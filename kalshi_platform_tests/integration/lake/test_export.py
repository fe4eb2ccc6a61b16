"""Production → lake → readers, on both kinds of root."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset
import pytest
from typer.testing import CliRunner

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import (
    DatabaseUnavailable,
    FewerRows,
    HourNotClosed,
    LakeCorrupt,
    LakeUnavailable,
    PartitionBusy,
    SchemaMismatch,
    UnknownPartition,
)
from kalshi_platform.lake import reader
from kalshi_platform.lake.datasets import DAILY_DATASETS, DATASETS, RAW_TABLES
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.layout import Partition, find_dataset, partition_starting
from kalshi_platform.lake.manifest import Manifest, read_manifest, verify
from kalshi_platform.lake.settings import FolderRoot, LakeSettings
from kalshi_platform.lake.stale import stale_partitions
from kalshi_platform.lake.store import open_store
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.lake import HOUR
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.production import Production

ONE = timedelta(hours=1)
US = timedelta(microseconds=1)
DAY = date(2026, 11, 20)
TIME_COLUMNS = {name: DATASETS[f"raw/{name}"].time_column for name in RAW_TABLES}
PATH = "raw/orderbook_deltas/date=2026-11-20/hour=04"


def at(minutes: float) -> datetime:
    return HOUR + timedelta(minutes=minutes)


def local_copy(settings: LakeSettings, folder: str, target: Path) -> str:
    """The Parquet files below `folder`, copied to `target`; returns a glob for readers that know nothing of us."""
    store = open_store(settings)
    for item in store.list(f"{folder}/"):
        file = target / item.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.read(item.path) or b"")
    return str(target / folder / "**" / "*.parquet")


def fill(production: Production) -> None:
    """Three markets, rows at both edges of the hour and just outside it."""
    for table, column in TIME_COLUMNS.items():
        rows: list[dict[str, Any]] = []
        for ticker in ("KXB-2", "KXA-1", "kxa-lower", "KXÜ"):
            rows += [
                {column: moment, "ticker": ticker, "trade_id": f"{ticker}{moment}"}
                for moment in (HOUR - US, HOUR, at(30), HOUR + ONE - US, HOUR + ONE)
            ]
        names = DATASETS[f"raw/{table}"].schema.names
        production.insert(table, [{k: v for k, v in row.items() if k in names} for row in rows])


def test_an_hour_of_a_raw_table_is_exactly_the_rows_of_the_hour(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    fill(production)
    production.close_hour(HOUR)
    for table in RAW_TABLES:
        check_hour(lake_settings, production, table, tmp_path / table)


def check_hour(lake_settings: LakeSettings, production: Production, table: str, folder: Path) -> None:
    manifest = export_raw(lake_settings, production.url, table, HOUR, "closed")
    assert (manifest.state, manifest.rows) == ("closed", 12)
    assert (manifest.time_min, manifest.time_max) == (HOUR, HOUR + ONE - US)
    path = f"raw/{table}/date=2026-11-20/hour=04"
    assert verify(lake_settings, path) == manifest == read_manifest(lake_settings, path)

    files = local_copy(lake_settings, path, folder)
    column = TIME_COLUMNS[table]
    by_duckdb = duckdb.sql(f"SELECT ticker, epoch_us({column}) FROM read_parquet('{files}')").fetchall()
    by_polars = pl.read_parquet(files, hive_partitioning=False)
    assert by_polars.columns == DATASETS[f"raw/{table}"].schema.names
    assert by_polars.select("ticker", pl.col(column).dt.epoch("us")).rows() == by_duckdb
    # Sorted by bytes, whatever the collation of the server.
    assert by_duckdb == sorted(by_duckdb, key=lambda item: (item[0].encode(), item[1]))
    with production.database.transaction() as transaction:
        wanted = transaction.fetch_one(f"SELECT count(*) FROM {table} WHERE date_trunc('hour', {column}) = %s", (HOUR,))
    assert wanted == (len(by_duckdb),)


def test_every_line_of_the_documentation_reads_the_lake(production: Production, tmp_path: Path) -> None:
    rows = [{"exchange_ts": at(minute), "ticker": "KXA-1", "trade_id": f"t{minute}"} for minute in (1, 2)]
    production.insert("trades", rows)
    production.close_hour(HOUR)
    settings = LakeSettings((tmp_path / "lake").as_uri())
    export_raw(settings, production.url, "trades", HOUR, "closed")
    page = (Path(__file__).parents[3] / "docs" / "lake.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:polars|duckdb|pyarrow)\..*data/lake/raw/trades.*$", page, re.MULTILINE)
    assert len(lines) == 4
    libraries = {"polars": pl, "duckdb": duckdb, "pyarrow": pyarrow}
    for line in lines:
        found = pl.DataFrame(eval(line.replace("data/lake", str(tmp_path / "lake")), libraries))
        assert sorted(found["trade_id_text"]) == ["t1", "t2"], line
        assert {int(hour) for hour in found["hour"]} == {HOUR.hour}, line
    # The line that stands for all others to be needless is the one that fails.
    with pytest.raises(pl.exceptions.PolarsError, match=r"_manifest\.json"):
        pl.scan_parquet(tmp_path / "lake" / "raw" / "trades").collect()


def test_values_come_through_exactly(lake_settings: LakeSettings, production: Production) -> None:
    delta = {"exchange_ts": at(1), "delta_e2": -(2**62), "price_e4": 1, "side": "no", "occurrence": 3, "seq": 2**40}
    production.insert("orderbook_deltas", [delta])
    book = {"checkpoint_ts": at(2), "yes_price_e4": [1, 9_999], "yes_count_e2": [5, 2**50]}
    production.insert("book_checkpoints", [book])
    production.insert("market_lifecycle", [{"received_at": at(3), "content": '{"b":1,  "a":"ü"}'}])
    production.insert("tickers", [{"exchange_ts": at(4), "fingerprint": -5, "volume_e2": 2**60}])
    production.close_hour(HOUR)
    found = {}
    for table in ("orderbook_deltas", "book_checkpoints", "market_lifecycle", "tickers"):
        (file,) = export_raw(lake_settings, production.url, table, HOUR, "closed").files
        content = open_store(lake_settings).read(f"raw/{table}/date=2026-11-20/hour=04/{file.name}") or b""
        found[table] = pl.read_parquet(content).row(0, named=True)
    assert found["orderbook_deltas"].items() >= delta.items()
    assert found["book_checkpoints"].items() >= book.items()
    assert found["market_lifecycle"]["content"] == '{"a": "ü", "b": 1}'
    assert found["market_lifecycle"]["exchange_ts"] is None
    assert found["tickers"]["volume_e2"] == 2**60
    assert found["tickers"]["yes_bid_e4"] is None


def test_an_identifier_of_a_trade_takes_16_bytes_where_it_is_a_uuid(
    lake_settings: LakeSettings, production: Production
) -> None:
    uuid = "0aF4c2de-0b1c-4d5e-8f90-a1b2c3d4e5f6".lower()
    ids = [uuid, uuid.upper(), uuid.replace("-", ""), f"{uuid[:-1]}g", "t-1"]
    production.insert("trades", [{"exchange_ts": at(n), "trade_id": each} for n, each in enumerate(ids)])
    production.close_hour(HOUR)
    (file,) = export_raw(lake_settings, production.url, "trades", HOUR, "closed").files
    content = open_store(lake_settings).read(f"raw/trades/date=2026-11-20/hour=04/{file.name}") or b""
    found = pl.read_parquet(content).select("trade_id", "trade_id_text").rows()
    assert found == [(bytes.fromhex(ids[2]), None), *[(None, each) for each in ids[1:]]]
    assert reader.trades(lake_settings, HOUR, HOUR + ONE)["trade_id"].to_list() == ids


@pytest.mark.parametrize("name", RAW_TABLES)
def test_a_field_is_optional_exactly_where_the_column_is(production: Production, name: str) -> None:
    with production.database.transaction() as transaction:
        columns = transaction.fetch_all(
            "SELECT column_name, is_nullable = 'YES' FROM information_schema.columns WHERE table_name = %s", (name,)
        )
        key = transaction.fetch_all(
            "SELECT a.attname FROM pg_index i"
            " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
            " WHERE i.indrelid = %s::regclass AND i.indisprimary",
            (name,),
        )
    data = DATASETS[f"raw/{name}"]
    nullable = {field.name: field.nullable for field in data.schema}
    if nullable.pop("trade_id_text", False):
        nullable["trade_id"] = False  # one of the two has it
    assert dict(columns) == nullable
    assert {column for (column,) in key} == set(data.identity)


def test_two_exports_of_the_same_rows_have_the_same_bytes(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    fill(production)
    production.close_hour(HOUR)
    first = export_raw(lake_settings, production.url, "trades", HOUR, "closed", FakeClock(HOUR + ONE))
    second = export_raw(lake_settings, production.url, "trades", HOUR, "closed", FakeClock(HOUR + 9 * ONE))
    elsewhere = LakeSettings((tmp_path / "elsewhere").as_uri())
    third = export_raw(elsewhere, production.url, "trades", HOUR, "closed")
    assert first.files == third.files
    assert second == first, "nothing was written"
    assert first.exported_at != third.exported_at


def test_an_empty_hour_is_published_and_readable(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    production.close_hour(HOUR)
    manifest = export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed")
    assert (manifest.rows, manifest.time_min, len(manifest.files)) == (0, None, 1)
    assert manifest.coverage_share is None, "no market was recorded"
    files = local_copy(lake_settings, PATH, tmp_path / "copy")
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{files}')").fetchone() == (0,)
    assert reader.deltas(lake_settings, HOUR, HOUR + ONE, holes="mark").height == 0


def test_the_manifest_of_a_closed_hour_says_how_much_of_it_is_complete(
    lake_settings: LakeSettings, production: Production
) -> None:
    production.insert("orderbook_deltas", [{"exchange_ts": at(1), "ticker": name} for name in ("A", "B")])
    with production.database.transaction() as transaction:
        transaction.execute("SELECT ensure_partitions('coverage', %s, %s)", (HOUR, HOUR + ONE))
        transaction.execute(
            "INSERT INTO coverage VALUES ('A', %(hour)s, %(hour)s + interval '30 minutes', %(hour)s, '{g1}', '{1}')",
            {"hour": HOUR},
        )
        transaction.execute(
            "INSERT INTO markets"
            " (ticker, event_ticker, status, open_time, payload, fingerprint, first_seen_at, known_at)"
            " VALUES ('B', 'E', 'active', %s, '{}', 0, %s, now())",
            (HOUR + timedelta(minutes=30), HOUR),
        )
    production.close_hour(HOUR)
    manifest = export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed")
    # A was open for 60 minutes and is covered for 30; B was open for 30 and is not covered.
    assert manifest.coverage_share == pytest.approx(30 / 90)
    assert export_raw(lake_settings, production.url, "trades", HOUR, "closed").coverage_share is None
    production.insert("book_checkpoints", [{"checkpoint_ts": at(59), "ticker": "C"}])
    with production.database.transaction() as transaction:
        found = [
            transaction.fetch_all("SELECT * FROM hour_coverage(%s) ORDER BY 1", (HOUR + hours * ONE,))
            for hours in (1, 2)
        ]
        transaction.execute("UPDATE markets SET close_time = %s", (HOUR + 2 * ONE,))
        found.append(transaction.fetch_all("SELECT * FROM hour_coverage(%s)", (HOUR + 2 * ONE,)))
    # Nothing was recorded any more: what was covered or had a book before is missed, then what the catalog has open.
    assert found == [[("A", 3_600_000_000, 0), ("C", 3_600_000_000, 0)], [("B", 3_600_000_000, 0)], []]


def test_a_running_hour_is_refused_as_closed_and_taken_as_open(
    lake_settings: LakeSettings, production: Production
) -> None:
    production.insert("orderbook_deltas", [{"exchange_ts": at(1)}])
    clock = FakeClock(at(20))
    with pytest.raises(HourNotClosed, match=r"runs until 2026-11-20 05:00 UTC; .*--open"):
        export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed", clock)
    assert read_manifest(lake_settings, PATH) is None
    manifest = export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "open", clock)
    assert (manifest.state, manifest.rows, manifest.exported_at) == ("open", 1, at(20))
    with pytest.raises(HourNotClosed, match="future"):
        export_raw(lake_settings, production.url, "orderbook_deltas", HOUR + ONE, "open", clock)


def test_closed_replaces_open_and_open_never_replaces_closed(
    lake_settings: LakeSettings, production: Production
) -> None:
    production.insert("orderbook_deltas", [{"exchange_ts": at(1)}])
    opened = export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "open")
    production.insert("orderbook_deltas", [{"exchange_ts": at(2)}])
    production.close_hour(HOUR)
    closed = export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed")
    assert (opened.rows, closed.rows, closed.state) == (1, 2, "closed")
    production.insert("orderbook_deltas", [{"exchange_ts": at(3)}])
    assert export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "open") == closed
    assert verify(lake_settings, PATH) == closed
    # Closed over closed is how a late row reaches the lake.
    assert export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed").rows == 3


def test_an_hour_that_production_has_not_closed_is_refused(lake_settings: LakeSettings, production: Production) -> None:
    production.close_hour(HOUR - ONE)
    with pytest.raises(HourNotClosed, match="has not closed 2026-11-20T04; run: kalshi-platform close-hour"):
        export_raw(lake_settings, production.url, "trades", HOUR, "closed")
    assert list(open_store(lake_settings).list("")) == []


def test_an_hour_that_late_rows_reopened_is_refused_until_it_is_closed_again(
    lake_settings: LakeSettings, production: Production
) -> None:
    production.insert("trades", TRADES)
    production.active_hour(HOUR)
    production.close_hour(HOUR)
    first = export_raw(lake_settings, production.url, "trades", HOUR, "closed")
    with production.database.transaction() as transaction:
        transaction.execute("UPDATE hour_activity SET last_merge_no = next_merge_no()")
    with pytest.raises(HourNotClosed, match=r"rows came after the close of 2026-11-20T04; run: .* close-hour"):
        export_raw(lake_settings, production.url, "trades", HOUR, "closed")
    with pytest.raises(HourNotClosed, match="rows came after the close of 2026-11-20T04"):
        export_daily(lake_settings, production.url, "processed/trades", DAY, "closed")
    with production.database.transaction() as transaction:
        transaction.execute("UPDATE hour_closes SET closed_at = clock_timestamp(), close_no = next_merge_no()")
        closed_at = transaction.fetch_all("SELECT closed_at FROM hour_closes")[0][0]
    again = export_raw(lake_settings, production.url, "trades", HOUR, "closed")
    assert first.closed_at is not None
    assert first.closed_at < closed_at == again.closed_at
    assert export_daily(lake_settings, production.url, "processed/trades", DAY, "closed").closed_at == closed_at


def test_of_a_day_the_hours_with_rows_must_be_closed(lake_settings: LakeSettings, production: Production) -> None:
    production.active_hour(HOUR)
    production.active_hour(HOUR + ONE)
    production.close_hour(HOUR)
    with pytest.raises(HourNotClosed, match="has not closed 2026-11-20T05;"):
        export_daily(lake_settings, production.url, "processed/trades", DAY, "closed")
    production.close_hour(HOUR + ONE)
    assert export_daily(lake_settings, production.url, "processed/trades", DAY, "closed").state == "closed"


def test_a_corrupt_file_is_detected_and_a_new_export_repairs_it(
    lake_settings: LakeSettings, production: Production
) -> None:
    fill(production)
    production.close_hour(HOUR)
    (file,) = export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed").files
    store = open_store(lake_settings)
    content = bytearray(store.read(f"{PATH}/{file.name}") or b"")
    content[10] ^= 255
    store.write(f"{PATH}/{file.name}", bytes(content))
    with pytest.raises(LakeCorrupt, match="part-0000"):
        verify(lake_settings, PATH)
    export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed")
    assert verify(lake_settings, PATH).rows == 12


def closed_with(production: Production, rows: dict[str, int], hour: datetime = HOUR) -> None:
    production.close_hour(hour)
    production.execute("UPDATE hour_closes SET rows = %s WHERE hour = %s", json.dumps(rows), hour)


def test_rows_that_production_has_dropped_stay_in_the_lake(
    production: Production, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = LakeSettings(tmp_path.as_uri())
    production.insert("orderbook_deltas", [{"exchange_ts": at(1), "seq": n, "occurrence": n} for n in range(599)])
    closed_with(production, {"orderbook_deltas": 599})
    full = export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed")
    production.rows("SELECT drop_partitions_before('orderbook_deltas', %s)", HOUR + 100 * ONE)
    assert production.rows("SELECT count(*) FROM orderbook_deltas") == [(0,)]
    for allow in (False, True):
        assert export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed", allow_fewer_rows=allow) == full
    # What comes later to the hour reopens it: the files stay, and their manifest names the new close.
    production.execute("UPDATE hour_closes SET close_no = next_merge_no(), close_id = gen_random_uuid()")
    deltas = Partition(find_dataset("orderbook_deltas"), HOUR)
    (stale,) = stale_partitions(lake, production.url, [deltas])
    assert stale.exportable
    for allow in (True, False):
        kept = export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed", allow_fewer_rows=allow)
        assert (kept.files, kept.rows, kept.closes != full.closes) == (full.files, 599, True)
        assert verify(lake, PATH) == kept
    assert "dropped_partition_kept" in caplog.text
    assert not stale_partitions(lake, production.url, [deltas])
    # What is damaged is not replaced by nothing either.
    (tmp_path / PATH / full.files[0].name).rename(tmp_path / "aside")
    for allow in (False, True):
        with pytest.raises(FewerRows, match=r"dropped rows of it and holds 0; .* stays, with --allow-fewer-rows too"):
            export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed", allow_fewer_rows=allow)
    (tmp_path / "aside").rename(tmp_path / PATH / full.files[0].name)
    content = (tmp_path / PATH / "_manifest.json").read_bytes()
    (tmp_path / PATH / "_manifest.json").write_bytes(b"{")
    with pytest.raises(FewerRows, match=r"dropped rows of it"):
        export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed", allow_fewer_rows=True)
    (tmp_path / PATH / "_manifest.json").write_bytes(content)
    assert verify(lake, PATH) == kept
    # Nothing in production tells of them any more; the lake remembers.
    production.execute("DELETE FROM dropped_hours")
    production.execute("UPDATE hour_closes SET rows = '{}', closed_at = closed_at + INTERVAL '1 s'")
    with pytest.raises(FewerRows, match="production gives 0 rows, but the lake holds 599"):
        export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed")
    assert reader.deltas(lake, HOUR, HOUR + ONE, holes="mark").height == 599
    with caplog.at_level("WARNING"):
        left = export_raw(lake, production.url, "orderbook_deltas", HOUR, "closed", allow_fewer_rows=True)
    assert (left.state, left.rows, left.coverage_share) == ("closed", 0, None)
    assert 'fewer_rows_exported partition="raw/orderbook_deltas' in caplog.text


def test_an_open_export_takes_nothing_away_whose_manifest_cannot_be_read(
    production: Production, tmp_path: Path
) -> None:
    lake = LakeSettings(tmp_path.as_uri())
    production.insert("trades", TRADES)
    production.close_hour(HOUR)
    path = "raw/trades/date=2026-11-20/hour=04"
    export_raw(lake, production.url, "trades", HOUR, "closed")
    (tmp_path / path / "_manifest.json").write_bytes(b"{")
    before = sorted((tmp_path / path).iterdir())
    with pytest.raises(
        LakeCorrupt, match=r"may hold a closed partition .*: kalshi-platform export raw/trades 2026-11-20"
    ):
        export_raw(lake, production.url, "trades", HOUR, "open")
    assert sorted((tmp_path / path).iterdir()) == before
    assert export_raw(lake, production.url, "trades", HOUR, "closed").rows == len(TRADES)


def test_a_close_counts_for_the_first_export_of_an_hour_too(production: Production, tmp_path: Path) -> None:
    lake = LakeSettings(tmp_path.as_uri())
    production.insert("trades", TRADES[:2])
    closed_with(production, {"trades": 3})
    with pytest.raises(FewerRows, match="holds 2 rows of trades, but had 3"):
        export_raw(lake, production.url, "trades", HOUR, "closed")
    assert export_raw(lake, production.url, "trades", HOUR, "open").rows == 2, "a look at what is there"


@pytest.mark.parametrize("name", [each for each in DAILY_DATASETS if DATASETS[each].source == "trades"])
def test_a_day_made_from_dropped_hours_stays_in_the_lake(production: Production, tmp_path: Path, name: str) -> None:
    lake = LakeSettings(tmp_path.as_uri())
    production.insert("trades", [trade(1, 1, 1, 1), trade(61, 2, 1, 1), trade(61.5, 3, 1, 1)])
    closed_with(production, {"trades": 1})
    closed_with(production, {"trades": 2}, HOUR + ONE)
    full = export_daily(lake, production.url, name, DAY, "closed")
    assert set(full.closes) == {"2026-11-20T04", "2026-11-20T05"}
    production.execute("DELETE FROM trades WHERE trade_id = 't-2'")
    with pytest.raises(FewerRows, match=f"{name} 2026-11-20: production holds 2 rows of trades, but had 3"):
        export_daily(lake, production.url, name, DAY, "closed")
    production.execute("UPDATE hour_closes SET rows = '{}'")
    production.execute("DELETE FROM trades WHERE trade_id <> 't-3'")
    with pytest.raises(FewerRows, match=f"production gives 1 rows, but the lake holds {full.rows}"):
        export_daily(lake, production.url, name, DAY, "closed")
    assert read_manifest(lake, f"{name}/date=2026-11-20") == full


def test_a_close_may_find_fewer_checkpoints_but_an_older_production_may_not(
    production: Production, tmp_path: Path
) -> None:
    lake = LakeSettings(tmp_path.as_uri())
    production.insert("book_checkpoints", [{"checkpoint_ts": at(n), "seq": n} for n in range(3)])
    production.close_hour(HOUR)
    production.execute("UPDATE hour_closes SET checkpoints = 3")
    assert export_raw(lake, production.url, "book_checkpoints", HOUR, "closed").rows == 3
    production.execute("DELETE FROM book_checkpoints WHERE seq = 0")
    with pytest.raises(FewerRows, match="holds 2 rows of book_checkpoints, but had 3"):
        export_raw(lake, production.url, "book_checkpoints", HOUR, "closed")
    production.execute("UPDATE hour_closes SET checkpoints = 2, close_no = close_no - 1")
    with pytest.raises(FewerRows, match="production gives 2 rows, but the lake holds 3"):
        export_raw(lake, production.url, "book_checkpoints", HOUR, "closed")
    # Whatever production's clock says.
    production.execute("UPDATE hour_closes SET close_no = close_no + 2, closed_at = closed_at - INTERVAL '1 hour'")
    assert export_raw(lake, production.url, "book_checkpoints", HOUR, "closed").rows == 2


def test_an_export_whose_lock_is_lost_publishes_nothing(production: Production, tmp_path: Path) -> None:
    """The connection that holds the lock is ended while the export reads."""
    store = CutWhileStoring(FolderRoot(tmp_path / "lake"))
    store.database = production.database
    production.insert("trades", TRADES)
    with pytest.raises(PartitionBusy, match="has lost its lock"):
        export_raw(store, production.url, "trades", HOUR, "open")
    assert read_manifest(store, "raw/trades/date=2026-11-20/hour=04") is None
    assert export_raw(LakeSettings((tmp_path / "lake").as_uri()), production.url, "trades", HOUR, "open").rows == 8


class CutWhileStoring(FolderStore):
    """The server ends every lock when data files are about to be stored."""

    database: Any = None

    def put_files(self, files: Any) -> None:
        with self.database.transaction() as transaction:
            transaction.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE '%% lock'"
            )
        super().put_files(files)


def test_two_exports_of_one_partition_do_not_meet(lake_settings: LakeSettings, production: Production) -> None:
    production.close_hour(HOUR)
    root = open_store(lake_settings).root
    with production.database.advisory_lock("lake export", root, PATH) as lock:
        assert lock is not None
        with pytest.raises(PartitionBusy, match="try again"):
            export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed")
        export_raw(lake_settings, production.url, "trades", HOUR, "closed")
    export_raw(lake_settings, production.url, "orderbook_deltas", HOUR, "closed")


class BrokenSpool(FolderStore):
    """A folder in which no data file can be made."""

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with super().staging() as folder:
            (folder / "part-0000.unfinished").mkdir()
            yield folder


@pytest.mark.parametrize("export", [export_raw, export_daily])
def test_an_export_that_cannot_write_ends_cleanly(production: Production, tmp_path: Path, export: Any) -> None:
    fill(production)
    store = BrokenSpool(FolderRoot(tmp_path / "lake"))
    what = ("trades", HOUR) if export is export_raw else ("processed/trades", DAY)
    with pytest.raises(LakeUnavailable, match=r"cannot be written to .*Is a directory.*: nothing was replaced"):
        export(store, production.url, *what, "open")
    assert [thread.name for thread in threading.enumerate() if thread.name == "read ahead"] == []
    assert list(store.list("")) == []
    # Nothing of it holds the partition.
    assert export(LakeSettings((tmp_path / "lake").as_uri()), production.url, *what, "open").rows > 0


def trade(minute: float, number: int, price_e4: int, count_e2: int, **values: Any) -> dict[str, Any]:
    return {
        "exchange_ts": at(minute),
        "trade_id": f"t-{number}",
        "yes_price_e4": price_e4,
        "no_price_e4": 10_000 - price_e4,
        "count_e2": count_e2,
        **values,
    }


TRADES = [
    trade(1.1, 1, 5_000, 100),
    trade(1.5, 2, 6_000, 250, taker_side="yes"),
    trade(1.5, 0, 4_000, 1, created_time=at(1.5) + 5 * US),  # of one millisecond: REST's time decides
    trade(1.5, 3, 4_500, 1, created_time=at(1.5) + 9 * US),
    trade(1.9, 4, 9_900, 100_000, is_block_trade=True),
    trade(2.0, 5, 5_500, 33),
    trade(3.0, 6, 1, 1_000, is_block_trade=True),
    trade(1.2, 7, 3_333, 10, ticker="KXB-2"),
]


def test_processed_trades_are_dollars_and_contracts(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    production.insert("trades", [*TRADES, trade(20 * 60, 8, 1, 1), trade(-4 * 60 - 1, 9, 1, 1)])
    manifest = export_daily(lake_settings, production.url, "processed/trades", DAY, "closed")
    assert (manifest.rows, manifest.time_min, manifest.time_max) == (8, at(1.1), at(3))
    files = local_copy(lake_settings, "processed/trades", tmp_path / "copy")
    cheapest = duckdb.sql(
        "SELECT trade_id_text, yes_price_dollars, no_price_dollars, count_contracts"
        f" FROM read_parquet('{files}') ORDER BY yes_price_dollars LIMIT 1"
    ).fetchone()
    assert cheapest == ("t-6", Decimal("0.0001"), Decimal("0.9999"), Decimal("10.00"))
    total = sum(Decimal(row["count_e2"]).scaleb(-2) for row in TRADES)
    assert pl.read_parquet(files).get_column("count_contracts").sum() == total
    raw = reader.trades(lake_settings, at(0), at(10), layer="processed")
    assert raw.get_column("trade_id").to_list() == ["t-1", "t-0", "t-3", "t-2", "t-4", "t-5", "t-6", "t-7"]


def test_trades_of_one_millisecond_follow_each_other_as_their_stream_sent_them(
    lake_settings: LakeSettings, production: Production
) -> None:
    # Identifiers are random: here they run backwards. In the second minute REST's time says otherwise than the places.
    sent = [trade(1.5, 9 - n, 5_000 + n, 100, stream_id=4, seq=100 + n) for n in range(5)]
    dated = [trade(2.5, 19 - n, 6_000 + n, 100, seq=200 - n, created_time=at(2.5) + n * US) for n in range(5)]
    production.insert("trades", [*dated[::-1], *sent[::-1]])
    for key, partition in (("trades", HOUR), ("processed/trades", DAY)):
        if isinstance(partition, datetime):
            export_raw(lake_settings, production.url, key, partition, "open")
        else:
            export_daily(lake_settings, production.url, key, partition, "open")
    wanted = [f"t-{n}" for n in (9, 8, 7, 6, 5, 19, 18, 17, 16, 15)]
    for layer in ("raw", "processed"):
        found = reader.trades(lake_settings, at(0), at(10), layer=layer, open=True)
        assert found["trade_id"].to_list() == wanted
    hours = production.rows("SELECT first_dollars, last_dollars FROM market_hours('KXA-1', %s, %s)", at(0), at(10))
    assert hours == [tuple(dollars(5_000, 6_004))]
    last = production.rows("SELECT trade_id FROM last_trades('KXA-1', 10, %s)", at(10))
    assert [name for (name,) in last] == wanted[::-1]


def test_the_latest_quote_of_one_millisecond_is_the_one_sent_last(production: Production) -> None:
    now = SYSTEM_CLOCK.now() - timedelta(minutes=1)
    # The time of receipt, by another host's clock, is no order either.
    quotes = [
        {
            "exchange_ts": now,
            "yes_bid_e4": 100 * n,
            "fingerprint": 9 - n,
            "seq": n,
            "received_at": now - timedelta(seconds=n),
        }
        for n in (2, 3, 1)
    ]
    production.insert("tickers", quotes)
    assert production.rows("SELECT bid_dollars FROM latest_quotes('1 hour')") == [(Decimal("0.0300"),)]


def dollars(*prices_e4: int) -> list[Decimal]:
    return [Decimal(price).scaleb(-4) for price in prices_e4]


def test_a_wrong_table_or_a_database_that_is_away_says_so(
    lake_settings: LakeSettings, production: Production, database_factory: DatabaseFactory
) -> None:
    with pytest.raises(UnknownPartition, match="no table"):
        export_raw(lake_settings, production.url, "dead_letters", HOUR, "open")
    with pytest.raises(SchemaMismatch, match="run: kalshi-platform migrate"):
        export_raw(lake_settings, database_factory(), "trades", HOUR, "open")
    away = f"postgresql://u:hidden@127.0.0.1:{free_port()}/x"
    with pytest.raises(DatabaseUnavailable) as caught:
        export_raw(lake_settings, away, "trades", HOUR, "open")
    assert "hidden" not in str(caught.value)


def test_the_command_prints_where_and_how_much(
    production: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kalshi_platform.cli import export as command

    production.insert("trades", TRADES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_LAKE_ROOT", (tmp_path / "lake").as_uri())
    monkeypatch.setenv("KALSHI_GATHERERS", "g1")
    monkeypatch.setenv("KALSHI_PRODUCTION_DATABASE_URL", production.url)
    for kind in ("TIMESERIES", "CATALOG"):
        monkeypatch.setenv(f"KALSHI_G1_{kind}_DATABASE_URL", production.url)
    import typer

    app = typer.Typer()
    app.command()(command.export)
    result = CliRunner().invoke(app, ["trades", "2026-11-20T04", "--open"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"{(tmp_path / 'lake').as_uri()}/open/raw/trades/date=2026-11-20/hour=04" in result.output
    manifest: Manifest | None = read_manifest(
        LakeSettings((tmp_path / "lake").as_uri()), "open/raw/trades/date=2026-11-20/hour=04"
    )
    assert manifest is not None
    assert f"{manifest.rows} rows, {manifest.bytes:,} bytes, open" in result.output
    refused = CliRunner().invoke(app, ["trades", "2026-11-20T04"])
    assert isinstance(refused.exception, HourNotClosed)
    daily = CliRunner().invoke(app, ["processed/trades", "2026-11-20"], catch_exceptions=False)
    assert f"{len(TRADES)} rows" in daily.output
    assert partition_starting(find_dataset("processed/trades"), DAY).path in daily.output
