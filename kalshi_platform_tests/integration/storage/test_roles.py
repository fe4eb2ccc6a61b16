"""The roles of sql/roles: the exact matrix of privileges, what a login of each may do, and the services under them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.catalog.merge_catalog import merge_catalog
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.errors import StatementRejected
from kalshi_platform.lake.iceberg.register import register
from kalshi_platform.lake.iceberg.settings import IcebergSettings
from kalshi_platform.lake.layout import find_dataset
from kalshi_platform.lake.retention.settings import GathererDatabase
from kalshi_platform.storage.migrate import DatabaseKind, migrate
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import running_gatherer
from kalshi_platform_tests.fixtures.retention_world import HOUR, RetentionWorld
from kalshi_platform_tests.fixtures.role_logins import Logins
from kalshi_platform_tests.fixtures.storage import MakeDatabase

KINDS: tuple[DatabaseKind, ...] = ("timeseries", "catalog", "production")
ROLES = ("kalshi_capture", "kalshi_merge", "kalshi_retention", "kalshi_reader")
_LETTERS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}

Matrix = dict[str, tuple[str, str, str, str]]
"""Table → what capture, merge, retention and readers may do with it; "" stands for tables that are not named."""


def of(tables: str, *privileges: str) -> Matrix:
    capture, merge, retention, reader = privileges
    return dict.fromkeys(tables.split(), (capture, merge, retention, reader))


MATRIX: dict[DatabaseKind, Matrix] = {
    "timeseries": {
        **of("orderbook_deltas orderbook_snapshots trades tickers market_lifecycle dead_letters", "ra", "r", "r", "r"),
        **of("batches sequence_gaps unknown_frames snapshot_polls", "ra", "r", "rd", "r"),
        **of("sessions streams stream_segments book_subscriptions heartbeats", "raw", "r", "rd", "r"),
        **of("batch_counter", "rw", "r", "r", "r"),
        **of("dropped_hours", "r", "r", "rd", "r"),
        **of("schema_meta schema_migrations series_tables open_book_streams", "r", "r", "r", "r"),
        "": ("raw", "r", "r", "r"),
    },
    "catalog": {
        **of("catalog_changes", "rad", "r", "r", "r"),
        **of("catalog_counter", "rw", "r", "r", "r"),
        **of("catalog_syncs", "raw", "r", "rd", "r"),
        **of("schema_migrations", "r", "r", "r", "r"),
        "": ("raw", "r", "r", "r"),
    },
    "production": {
        **of("orderbook_deltas orderbook_snapshots trades tickers market_lifecycle", "", "ra", "r", "r"),
        **of("series events markets merge_cursors catalog_cursors hour_closes", "", "raw", "r", "r"),
        **of("hour_activity service_switches", "", "raw", "r", "r"),
        **of("merge_counter catalog_counter", "", "rw", "r", "r"),
        **of("closed_streams time_regressions misdated_deltas merge_statistics close_alarms", "", "rawd", "rd", "r"),
        **of("trade_checks trade_parity merge_alarms dead_letters heartbeats catalog_syncs", "", "rawd", "rd", "r"),
        **of("lake_verifications", "", "r", "rawd", "r"),
        **of("schema_meta schema_migrations series_tables", "", "r", "r", "r"),
        "": ("", "rawd", "r", "r"),
    },
}
_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
"""
_HELD = """
SELECT t.name, p.name FROM unnest(%s::text[]) AS t (name)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (name)
WHERE has_table_privilege(t.name, p.name)
"""


def held(url: str, tables: list[str]) -> set[tuple[str, str]]:
    """(table, privilege) that the login of the URL has."""
    database = Database(url, name="test", pool_size=1)
    try:
        with database.transaction() as transaction:
            return set(transaction.fetch_all(_HELD, (tables,)))
    finally:
        database.dispose()


def run(url: str, statement: str) -> Any:
    """The first column of the first row of a statement, by the login of the URL; committed."""
    database = Database(url, name="test", pool_size=1)
    try:
        with database.transaction() as transaction:
            row = transaction.fetch_one(statement) if "RETURNING" in statement or "SELECT" in statement else None
            if row is None and "SELECT" not in statement:
                transaction.execute(statement)
            return None if row is None else row[0]
    finally:
        database.dispose()


def refused(url: str, statement: str, *, why: str = "permission denied") -> None:
    with pytest.raises(StatementRejected, match=why):
        run(url, statement)


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_gives_each_role_exactly_its_privileges(
    make_database: MakeDatabase, logins: Logins, kind: DatabaseKind
) -> None:
    database = make_database(kind)
    with database.transaction() as transaction:
        tables = [str(name) for (name,) in transaction.fetch_all(_TABLES)]
    matrix = MATRIX[kind]
    assert set(matrix) - {""} <= set(tables)
    for number, role in enumerate(ROLES):
        expected = {(t, _LETTERS[letter]) for t in tables for letter in matrix.get(t, matrix[""])[number]}
        assert held(logins(database.url, role), tables) == expected, role
    if kind == "production":
        iceberg = ["iceberg.iceberg_tables", "iceberg.iceberg_namespace_properties"]
        verbs = {"kalshi_merge": "rawd", "kalshi_reader": "r"}
        for role, letters in verbs.items():
            expected = {(table, _LETTERS[letter]) for table in iceberg for letter in letters}
            assert held(logins(database.url, role), iceberg) == expected, role


@pytest.mark.parametrize("kind", KINDS)
def test_functions_with_the_owners_rights_are_for_one_role_each(
    make_database: MakeDatabase, kind: DatabaseKind
) -> None:
    query = """
    SELECT p.proname, p.proconfig, (SELECT array_agg(a.grantee::regrole::text) FROM aclexplode(p.proacl) a
                                    WHERE a.grantee <> p.proowner)
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    """
    with make_database(kind).transaction() as transaction:
        found = {name: (config, grantees) for name, config, grantees in transaction.fetch_all(query)}
    path = ["search_path=public, pg_temp"]
    shared = {"lock_partition": (path, ["kalshi_retention"]), "drop_partition": (path, ["kalshi_retention"])}
    capture = {
        "ensure_partitions": (path, ["kalshi_capture"]),
        "drop_old_dead_letters": (path, ["kalshi_capture"]),
    }
    expected: dict[DatabaseKind, dict[str, Any]] = {
        "timeseries": shared | capture,
        "catalog": {},
        "production": shared | {"ensure_partitions": (path, ["kalshi_merge"])},
    }
    assert found == expected[kind]


def test_a_gatherers_login_adds_and_never_changes_what_is_there(make_database: MakeDatabase, logins: Logins) -> None:
    database = make_database("timeseries")
    url = logins(database.url, "kalshi_capture")
    run(url, "SELECT ensure_partitions('tickers', '2026-11-20', '2026-11-20')")
    run(
        url,
        "INSERT INTO tickers (exchange_ts, ticker, fingerprint, stream_id, seq, received_at, batch_no)"
        " VALUES ('2026-11-20 01:00+00', 'A', 1, 1, 1, now(), 1)",
    )
    assert run(url, "SELECT count(*) FROM tickers") == 1
    for statement in ("UPDATE tickers SET price_e4 = 1", "DELETE FROM tickers", "TRUNCATE tickers"):
        refused(url, statement)
    refused(url, "SELECT drop_partition('tickers', '2026-11-20', '2026-11-21')")
    refused(url, "SELECT drop_partitions_before('tickers', '2027-01-01 00:00+00')", why="permission|must be owner")
    refused(url, "CREATE TABLE of_mine (x integer)")
    refused(url, "ALTER TABLE tickers ADD COLUMN x integer", why="must be owner")
    refused(url, "DROP TABLE batches", why="must be owner")
    refused(url, "CREATE ROLE another")


def test_a_reader_and_the_merge_only_read_a_gatherers_database(make_database: MakeDatabase, logins: Logins) -> None:
    database = make_database("timeseries")
    for role in ("kalshi_reader", "kalshi_merge"):
        url = logins(database.url, role)
        assert run(url, "SELECT count(*) FROM batches") == 0
        refused(url, "INSERT INTO heartbeats SELECT")
        refused(url, "UPDATE batch_counter SET last_batch_no = 7")
        refused(url, "SELECT ensure_partitions('tickers', '2026-11-20', '2026-11-20')")
        refused(url, "SELECT lock_partition('tickers', '2026-11-20', '2026-11-21')")


def test_the_merge_fills_in_one_column_of_a_trade_and_changes_no_other(
    make_database: MakeDatabase, logins: Logins
) -> None:
    url = logins(make_database("production").url, "kalshi_merge")
    run(url, "UPDATE trades SET created_time = NULL")
    refused(url, "UPDATE trades SET count_e2 = 0")
    refused(url, "DELETE FROM trades")


def test_retention_locks_and_drops_no_other_table(make_database: MakeDatabase, logins: Logins) -> None:
    url = logins(make_database("production").url, "kalshi_retention")
    for function in ("lock_partition", "drop_partition"):
        assert run(url, f"SELECT {function}('schema_migrations', '2026-11-20', '2026-11-21')") is False


def test_a_temporary_table_is_not_taken_for_ours(
    make_database: MakeDatabase, logins: Logins, storage_mode: str
) -> None:
    """Temporary tables come first in a search path that does not name them: the owner's rights would follow them."""
    if storage_mode != "native":
        return  # TimescaleDB makes its chunks itself
    url = logins(make_database("timeseries").url, "kalshi_capture")
    refused(
        url,
        "CREATE TEMPORARY TABLE series_tables AS VALUES ('schema_meta', 'created_at', INTERVAL '1 day');"
        " SELECT ensure_partitions('schema_meta', now(), now())",
        why="query returned no rows",
    )


def test_tables_of_later_files_get_their_privileges_with_the_next_migration(
    make_database: MakeDatabase, logins: Logins
) -> None:
    database = make_database("production")
    url = logins(database.url, "kalshi_reader")
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE of_a_later_file (x integer); GRANT ALL ON markets TO kalshi_reader")
    refused(url, "SELECT count(*) FROM of_a_later_file")
    assert migrate(database, "production").roles_missing == ()
    assert run(url, "SELECT count(*) FROM of_a_later_file") == 0
    refused(url, "DELETE FROM markets")


def test_an_owner_that_may_not_create_roles_is_told_which_are_missing(make_database: MakeDatabase) -> None:
    database = make_database("catalog")
    with database.transaction() as transaction:
        transaction.execute(
            "CREATE OR REPLACE FUNCTION grant_roles() RETURNS text[] LANGUAGE sql"
            " AS $$ SELECT ARRAY['kalshi_reader'] $$"
        )
    assert migrate(database, "catalog").roles_missing == ("kalshi_reader",)


def test_a_gatherer_records_by_the_login_of_its_role(
    gatherer_settings: SettingsFactory, logins: Logins, tmp_path: Path
) -> None:
    plain = gatherer_settings()
    settings = replace(
        plain,
        timeseries_url=logins(plain.timeseries_url, "kalshi_capture"),
        catalog_url=logins(plain.catalog_url, "kalshi_capture"),
    )
    with running_exchange(tmp_path, markets=3, rate=50) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(3)
        eventually(lambda: gatherer.value("SELECT count(*) FROM orderbook_deltas") > 20, what="deltas")
        assert gatherer.status.problems == []
    assert gatherer.value("SELECT count(*) FROM sessions WHERE closed_at IS NULL") == 0


def test_merge_close_export_tables_and_retention_work_by_the_platforms_login(
    make_database: MakeDatabase, logins: Logins, tmp_path: Path
) -> None:
    def make(kind: DatabaseKind | None) -> Database:
        of_owner = make_database(kind)
        roles = ("kalshi_capture",) if kind == "timeseries" else ("kalshi_merge", "kalshi_retention")
        return Database(logins(of_owner.url, *roles), name=str(kind))

    catalog = make_database("catalog")
    world = RetentionWorld(make, tmp_path / "lake")
    try:
        with catalog.transaction() as transaction:
            transaction.execute(
                "INSERT INTO markets (ticker, event_ticker, status, payload, fingerprint, first_seen_at, known_at)"
                " VALUES ('A', 'E', 'active', '{}', 1, now(), now())"
            )
        reading = logins(world.gatherer.url, "kalshi_merge", "kalshi_retention")
        reading_catalog = logins(catalog.url, "kalshi_merge", "kalshi_retention")
        world.merging = replace(world.merging, sources=(GathererSource("g1", reading, reading_catalog),))
        world.settings = replace(world.settings, gatherers=(GathererDatabase("g1", reading, reading_catalog),))
        world.record()
        assert merge_new(world.merging, SYSTEM_CLOCK).missed == ()
        assert merge_catalog(world.merging, SYSTEM_CLOCK).rows_changed == 1
        world.close_for_real()
        world.close_for_real()  # replaces what the first one wrote
        world.export(also=["coverage", "book_checkpoints"])
        register(world.store, IcebergSettings(production_url=world.production.url), [find_dataset("trades")])
        report = world.retain()
        assert report.unreachable == {}
        assert {each.table for each in report.gone} >= {"orderbook_deltas", "orderbook_snapshots", "tickers"}, report
        assert world.counts()["g1 orderbook_deltas"] == 0
        reader = logins(world.production.url, "kalshi_reader")
        assert run(reader, "SELECT count(*) FROM trades") == 1
        assert run(reader, f"SELECT count(*) FROM coverage_holes('A', '{HOUR}', '{HOUR}')") == 0
        assert run(reader, "SELECT count(*) FROM iceberg.iceberg_tables") > 0
    finally:
        world.gatherer.dispose()
        world.production.dispose()
