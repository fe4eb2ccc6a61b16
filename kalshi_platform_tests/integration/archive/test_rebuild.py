"""An hour decoded again from its frames gives the rows that are there; what is missing or lacks values is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.archive.archive_frames import journal_folder
from kalshi_platform.archive.rebuild import Rebuilt, rebuild_tables
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.gatherer.ingest.columns import TABLE_OF
from kalshi_platform.orchestration.jobs.rebuild_tables import make_rebuild_job
from kalshi_platform.orchestration.keys import gatherer
from kalshi_platform.orchestration.partitions import hour_key, make_running_hours
from kalshi_platform.orchestration.resources import RESOURCES
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.next_version import COLUMN, make_next_version, run_next_version
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.recorded_hour import BOUNDS, HOUR, RecordedHour, record_hour
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

ROWS = {
    "orderbook_deltas": 32,
    "trades": 2,
    "tickers": 0,
    "orderbook_snapshots": 1,
    "market_lifecycle": 0,
    "dead_letters": 1,
}
"""What was received in the hour."""


@pytest.fixture
def recorded(gatherer_settings: SettingsFactory, tmp_path: Path) -> Iterator[RecordedHour]:
    made = record_hour(gatherer_settings(), tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def database(recorded: RecordedHour) -> Iterator[Database]:
    made = Database(recorded.settings.timeseries_url, name="g1")
    yield made
    made.dispose()


def rebuild(recorded: RecordedHour, **options: Any) -> Rebuilt:
    return rebuild_tables(recorded.lake, recorded.settings, HOUR, BOUNDS, recorded.clock, **options)


def content(database: Database, *without: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    found = {}
    with database.transaction() as transaction:
        for name in TABLE_OF.values():
            rows = transaction.fetch_all(
                f"SELECT to_jsonb(t) - 'dead_letter_id' - %s::text[] FROM {name} t", ([*without],)
            )
            found[name] = sorted(rows, key=str)
    return found


def execute(database: Database, statement: str) -> int:
    with database.transaction() as transaction:
        return transaction.execute(statement)


def test_what_is_there_as_the_frames_say_stays_untouched(recorded: RecordedHour, database: Database) -> None:
    recorded.ingest(database)
    recorded.archive()
    before = content(database)
    done = rebuild(recorded)
    assert {name: each.rows for name, each in done.tables.items()} == ROWS
    assert {name: each.equal for name, each in done.tables.items()} == ROWS
    assert not any(each.filled or each.changed or each.inserted or each.unexplained for each in done.tables.values())
    assert not done.differs
    assert (done.frames, done.damages) == (36, 0)
    assert done.from_journal == 0
    assert content(database) == before


@pytest.mark.parametrize("archived", [True, False])
def test_an_empty_database_gets_the_rows_of_the_hour_as_they_were(
    recorded: RecordedHour, database: Database, archived: bool
) -> None:
    recorded.ingest(database)
    whole = content(database, "batch_no")
    if archived:
        recorded.archive()
    execute(database, "DELETE FROM dead_letters")
    for name in TABLE_OF.values():
        execute(database, f"DELETE FROM {name}")
    trial = rebuild(recorded, dry_run=True)
    assert {name: each.inserted for name, each in trial.tables.items()} == ROWS
    assert not any(content(database).values())
    done = rebuild(recorded)
    assert done.tables == trial.tables
    assert (done.from_lake > 0, done.from_journal > 0) == (archived, not archived)
    in_hour = {name: [row for row in rows if "2026-11-22T20" in row[0]["received_at"]] for name, rows in whole.items()}
    assert {name: len(rows) for name, rows in in_hour.items()} == ROWS
    assert content(database, "batch_no") == in_hour
    with database.transaction() as transaction:
        lines = transaction.fetch_all(
            "SELECT b.table_name, sum(b.rows)::int FROM batches b WHERE b.batch_no > 1 GROUP BY 1 ORDER BY 1"
        )
    assert dict(lines) == {name: rows for name, rows in ROWS.items() if rows}, "so that the merge reads them"
    again = rebuild(recorded)
    assert {name: each.equal for name, each in again.tables.items()} == ROWS


def test_values_that_are_missing_are_filled_and_others_are_told(recorded: RecordedHour, database: Database) -> None:
    recorded.ingest(database)
    recorded.archive()
    whole = content(database)
    assert execute(database, "UPDATE trades SET taker_side = NULL WHERE trade_id = 't-1'") == 1
    assert execute(database, "UPDATE orderbook_deltas SET price_e4 = 1 WHERE delta_e2 = 500") == 1
    wrong = content(database)
    trial = rebuild(recorded, dry_run=True)
    assert content(database) == wrong
    done = rebuild(recorded)
    assert done == trial
    trades, deltas = done.tables["trades"], done.tables["orderbook_deltas"]
    assert (trades.filled, trades.filled_columns, trades.equal) == (1, {"taker_side": 1}, 1)
    assert (deltas.changed, deltas.changed_columns, deltas.equal) == (1, {"price_e4": 1}, 31)
    assert done.differs, "a value that is there is not overwritten"
    assert content(database)["trades"] == whole["trades"]
    assert content(database)["orderbook_deltas"] == wrong["orderbook_deltas"]
    mended = rebuild(recorded, overwrite=True)
    assert mended.tables["orderbook_deltas"].changed == 1
    assert not mended.differs
    assert content(database) == whole


def test_rows_that_no_frame_gives_are_counted_and_stay(recorded: RecordedHour, database: Database) -> None:
    recorded.ingest(database)
    recorded.archive()
    execute(
        database,
        "INSERT INTO trades (exchange_ts, ticker, trade_id, yes_price_e4, no_price_e4, count_e2, is_block_trade,"
        " source, stream_id, seq, received_at, batch_no)"
        " SELECT exchange_ts, ticker, 'x', yes_price_e4, no_price_e4, count_e2, is_block_trade, source, 99, 1,"
        " received_at, batch_no FROM trades WHERE trade_id = 't-1'",
    )
    before = content(database)
    done = rebuild(recorded)
    assert done.tables["trades"].unexplained == 1
    assert done.differs
    assert content(database) == before
    # While the hour runs, what was received since the last frame that was read is no difference.
    moved = "UPDATE trades SET received_at = '2026-11-22T20:59:59.5Z' WHERE trade_id = 'x'"
    assert execute(database, moved) == 1
    assert rebuild(recorded).differs
    recorded.clock.step(-60)
    assert not rebuild(recorded).differs


def test_a_row_that_the_database_refuses_is_counted_and_holds_up_no_other(
    recorded: RecordedHour, database: Database
) -> None:
    recorded.ingest(database)
    recorded.archive()
    whole = content(database, "batch_no")
    execute(database, "DELETE FROM orderbook_deltas WHERE delta_e2 IN (500, 600)")
    execute(database, "ALTER TABLE orderbook_deltas ADD CONSTRAINT odd CHECK (delta_e2 <> 600)")
    done = rebuild(recorded).tables["orderbook_deltas"]
    assert (done.inserted, done.refused, done.equal, done.unexplained) == (1, 1, 30, 0)
    execute(database, "ALTER TABLE orderbook_deltas DROP CONSTRAINT odd")
    assert rebuild(recorded).tables["orderbook_deltas"].inserted == 1
    assert content(database, "batch_no") == whole


def test_frames_of_a_lost_segment_are_counted_as_damage(recorded: RecordedHour, database: Database) -> None:
    recorded.ingest(database)
    recorded.journal.close()
    (journal_folder(recorded.settings) / "000000000004.journal").unlink()
    done = rebuild(recorded)
    assert done.damages > 0
    assert done.tables["orderbook_deltas"].unexplained > 0


def test_an_hour_of_which_nothing_is_kept_gives_nothing(
    recorded: RecordedHour, database: Database, open_database: Callable[[str], Database]
) -> None:
    recorded.ingest(database)
    for path in journal_folder(recorded.settings).glob("*.journal"):
        path.unlink()
    done = rebuild(recorded)
    assert (done.frames, done.from_lake, done.from_journal) == (0, 0, 0)
    assert done.tables["trades"].unexplained == 2


NEXT_VERSION = """
import sys
import kalshi_platform
from kalshi_platform.cli.main import app
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.pool import Database
assert kalshi_platform.__file__.startswith(sys.argv[1]), kalshi_platform.__file__
for url, kind in zip(sys.argv[2:], ("timeseries", "production")):
    migrate(Database(url, name=kind), kind)
assert not app(["rebuild", "g1", "2026-11-22T20"], standalone_mode=False)
assert not app(["close-hour", "2026-11-22T20", "--fill", "--no-export"], standalone_mode=False)
"""


def test_a_column_that_a_next_version_adds_is_filled_for_the_past_hour_and_nothing_else_changes(
    recorded: RecordedHour,
    database: Database,
    database_factory: DatabaseFactory,
    migrated_template: MigratedTemplate,
    tmp_path: Path,
) -> None:
    """Today's version has recorded and archived a field that it does not know; the next one knows it."""
    recorded.ingest(database)
    recorded.archive()
    url, lake = recorded.settings.timeseries_url, recorded.lake.root
    merged = Database(database_factory(migrated_template("production")), name="production")
    merge_new(DeduplicatorSettings(merged.url, (GathererSource("g1", url, url),)), recorded.clock, BOUNDS)
    before, merged_before = content(database), content(merged)
    version = make_next_version(tmp_path / "next")
    printed = run_next_version(
        version,
        NEXT_VERSION,
        [str(version), url, merged.url],
        KALSHI_GATHERERS="g1",
        KALSHI_G1_TIMESERIES_DATABASE_URL=url,
        KALSHI_G1_CATALOG_DATABASE_URL=url,
        KALSHI_STATE_DIR=str(recorded.settings.state_dir),
        KALSHI_LAKE_ROOT=lake,
        KALSHI_PRODUCTION_DATABASE_URL=merged.url,
        KALSHI_CHECK_TRADES="no",
    )
    assert f"trades: 2 rows, 1 equal, 1 filled ({COLUMN} 1)" in printed
    assert "orderbook_deltas: 32 rows, 32 equal" in printed
    with database.transaction() as transaction:
        fees = transaction.fetch_all(f"SELECT trade_id, {COLUMN} FROM trades ORDER BY exchange_ts")
    assert "production got values that it lacked: 1 trades" in printed
    with merged.transaction() as transaction:
        assert transaction.fetch_all(f"SELECT trade_id, {COLUMN} FROM trades ORDER BY exchange_ts") == fees
    merged_after = content(merged, COLUMN)
    merged.dispose()
    assert merged_after == merged_before
    # Trades of other hours wait for theirs.
    assert fees == [("before", None), ("t-1", None), ("t-2", 123), ("after", None)]
    assert content(database, COLUMN) == before


def test_the_job_rebuilds_an_hour_and_fails_for_what_differs_and_stays(
    recorded: RecordedHour, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded.ingest(database)
    recorded.archive()
    whole = content(database)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALSHI_GATHERERS", "g1")
    monkeypatch.setenv("KALSHI_STATE_DIR", str(recorded.settings.state_dir))
    monkeypatch.setenv("KALSHI_LAKE_ROOT", recorded.lake.root)
    for kind in ("TIMESERIES", "CATALOG"):
        monkeypatch.setenv(f"KALSHI_G1_{kind}_DATABASE_URL", recorded.settings.timeseries_url)
    job = make_rebuild_job(make_running_hours(HOUR))
    execute(database, "UPDATE trades SET taker_side = NULL WHERE trade_id = 't-1'")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(instance=instance, partition_key=hour_key(HOUR), resources=RESOURCES)
        assert done.success
        (event,) = instance.fetch_materializations(gatherer("trades"), limit=10).records
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == "g1"
    assert event.asset_materialization.metadata["filled taker_side"].value == 1
    assert content(database) == whole
    execute(database, "UPDATE trades SET count_e2 = 7 WHERE trade_id = 't-1'")
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure, match="g1 trades: 1 rows have other"):
        job.execute_in_process(instance=instance, partition_key=hour_key(HOUR), resources=RESOURCES)
