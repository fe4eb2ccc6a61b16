"""Migrations: repeatable, checked, and honest about whose database this is."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from kalshi_platform.errors import SchemaMismatch
from kalshi_platform.storage import migrate as migrations
from kalshi_platform.storage.migrate import DatabaseKind, SqlFile, check, files_of, migrate
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.storage import MakeDatabase

KINDS: tuple[DatabaseKind, ...] = ("timeseries", "catalog", "production")


def dump(database: Database) -> list[tuple[object, ...]]:
    with database.transaction() as transaction:
        return transaction.fetch_all(
            "SELECT c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull"
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, a.attnum"
        )


def change(monkeypatch: pytest.MonkeyPatch, kind: DatabaseKind, name: str, text: str) -> None:
    files = tuple(replace(file, text=text) if file.name == name else file for file in files_of(kind))
    monkeypatch.setattr(migrations, "files_of", lambda _kind: files)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_time_does_nothing(make_database: MakeDatabase, kind: DatabaseKind, storage_mode: str) -> None:
    database = make_database(None)
    first = migrate(database, kind)
    before = dump(database)
    assert first.applied == tuple(file.name for file in files_of(kind))
    assert first.mode == ("" if kind == "catalog" else storage_mode)
    assert migrate(database, kind).applied == ()
    assert dump(database) == before


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_may_be_applied_again_by_hand(make_database: MakeDatabase, kind: DatabaseKind) -> None:
    database = make_database(kind)
    before = dump(database)
    for file in files_of(kind):
        with database.transaction() as transaction:
            transaction.execute(file.text)
    assert dump(database) == before
    check(database, kind)


NAMES = ("common/080_names.sql", "timeseries/193_names.sql", "production/420_names.sql")
BEFORE: dict[DatabaseKind, tuple[str, ...]] = {
    "timeseries": (
        "INSERT INTO memberships VALUES (1, 'A', 2, NULL, NULL, 0, 3)",
        "INSERT INTO streams VALUES (1, 1, 1, 'orderbook_delta', now())",
        "INSERT INTO desired_services VALUES ('gatherer/g1', false, 'why')",
    ),
    "production": (
        "SELECT ensure_partitions('book_anchors', '2026-11-20 04:00+00', '2026-11-20 04:00+00'),"
        " ensure_partitions('orderbook_snapshots', '2026-11-20 04:00+00', '2026-11-20 04:00+00')",
        "INSERT INTO book_anchors VALUES ('2026-11-20 04:30+00', 'A', 'g1', 1, 2, '{1}', '{5}', '{}', '{}')",
        "INSERT INTO orderbook_snapshots VALUES ('2026-11-20 04:30+00', 'A', 'ws', 'g1', 1, 2, 'g1', '{1}', '{5}',"
        " '{}', '{}', NULL, '2026-11-20 04:30+00')",
        "INSERT INTO hour_closes (hour, anchors, unsettled) VALUES ('2026-11-20 04:00+00', 1, true)",
    ),
}
AFTER: dict[DatabaseKind, tuple[tuple[str, object], ...]] = {
    "timeseries": (
        ("SELECT ticker, seq_to FROM book_subscriptions", ("A", None)),
        ("SELECT stream_id, session_id FROM open_book_streams", (1, 1)),
        ("SELECT service, enabled, reason FROM service_switches", ("gatherer/g1", False, "why")),
    ),
    "production": (
        ("SELECT ticker, checkpoint_ts::text FROM book_checkpoints", ("A", "2026-11-20 04:30:00+00")),
        ("SELECT source_gatherer FROM orderbook_snapshots", ("g1",)),
        ("SELECT checkpoints, may_grow FROM hour_closes", (1, True)),
        ("SELECT rows, is_gone FROM closed_rows('book_checkpoints', '2026-11-20', '2026-11-21')", (1, False)),
        ("SELECT base, state FROM book_basis('A', '2026-11-20 04:40+00')", ("checkpoint", "approximate")),
        ("SELECT drop_partitions_before('book_checkpoints', '2026-11-22 00:00+00')", (1,)),
        ("SELECT table_name FROM dropped_hours WHERE hour = '2026-11-20 04:00+00'", ("book_checkpoints",)),
    ),
}


@pytest.mark.parametrize("kind", BEFORE)
def test_rows_of_the_tables_before_are_there_under_the_names_of_the_glossary(
    make_database: MakeDatabase, kind: DatabaseKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(None)
    # Files that speak of the new names come after those that give them.
    later = {file.name for file in files_of(kind) if "column_comments" in file.name}
    with monkeypatch.context() as patch:
        former = tuple(file for file in files_of(kind) if file.name not in {*NAMES, *later})
        patch.setattr(migrations, "files_of", lambda _kind: former)
        migrate(database, kind)
    with database.transaction() as transaction:
        for statement in BEFORE[kind]:
            transaction.execute(statement)
    renames = {name for name in NAMES if name.split("/")[0] in ("common", kind)}
    assert set(migrate(database, kind).applied) == renames | later
    for query, expected in AFTER[kind]:
        with database.transaction() as transaction:
            transaction.execute("SET LOCAL TIME ZONE 'UTC'")
            assert transaction.fetch_one(query) == expected, query
    with database.transaction() as transaction:
        left = transaction.fetch_all(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relname ~ 'anchor|membership|desired|witness|owed|steps_back'"
        )
    assert left == []


def test_two_processes_may_migrate_at_once(make_database: MakeDatabase) -> None:
    database = make_database(None)
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(migrate(database, "production"))
        except Exception as error:  # noqa: BLE001 - the assertion shows it
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    applied = [name for outcome in outcomes if isinstance(outcome, migrations.Migrated) for name in outcome.applied]
    assert sorted(applied) == sorted(file.name for file in files_of("production")), outcomes


def test_a_changed_file_is_refused(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    database = make_database("catalog")
    change(monkeypatch, "catalog", "catalog/200_catalog.sql", "SELECT 1")
    for refuse in (migrate, check):
        with pytest.raises(SchemaMismatch, match=r"200_catalog\.sql was changed after it had been applied"):
            refuse(database, "catalog")


def test_a_file_that_fails_leaves_nothing_and_is_named(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_database(None)
    change(monkeypatch, "catalog", "catalog/200_catalog.sql", "CREATE TABLE half (x int); SELECT nonsense;")
    with pytest.raises(SchemaMismatch, match=r'200_catalog\.sql: column "nonsense" does not exist'):
        migrate(database, "catalog")
    with database.transaction() as transaction:
        assert transaction.fetch_one("SELECT to_regclass('half')") == (None,)
        assert transaction.fetch_all("SELECT name FROM schema_migrations") == []


def test_a_database_that_lacks_files_is_refused(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SchemaMismatch, match="is empty"):
        check(make_database(None), "catalog")
    database = make_database("catalog")
    files = (*files_of("catalog"), SqlFile("catalog/299_new.sql", "SELECT 1"))
    monkeypatch.setattr(migrations, "files_of", lambda _kind: files)
    with pytest.raises(SchemaMismatch, match=r"lacks catalog/299_new\.sql; run: kalshi-platform migrate"):
        check(database, "catalog")
    assert migrate(database, "catalog").applied == ("catalog/299_new.sql",)


def test_a_database_made_in_another_mode_is_refused(timeseries_database: Database) -> None:
    with timeseries_database.transaction() as transaction:
        transaction.execute("UPDATE schema_meta SET mode = 'timescale-apache'")
    for refuse in (migrate, check):
        with pytest.raises(SchemaMismatch, match="was made in mode timescale-apache"):
            refuse(timeseries_database, "timeseries")


@pytest.mark.parametrize(("first", "second"), [("timeseries", "production"), ("production", "timeseries")])
def test_a_database_of_another_kind_is_refused(
    make_database: MakeDatabase, first: DatabaseKind, second: DatabaseKind
) -> None:
    database = make_database(first)
    before = dump(database)
    for refuse in (migrate, check):
        with pytest.raises(SchemaMismatch, match=f"is a {first} database"):
            refuse(database, second)
    assert dump(database) == before


@pytest.mark.timescale
def test_native_partitions_can_be_chosen_on_a_timescale_server(timescale_database_factory) -> None:  # type: ignore[no-untyped-def]
    database = Database(timescale_database_factory(), name="native by choice")
    assert migrate(database, "timeseries", use_timescale=False).mode == "native"
    assert check(database, "timeseries") == "native"
    database.dispose()
