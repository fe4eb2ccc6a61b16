"""Databases that are not as expected: in another language, in another encoding, behind a pooler."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.live.live_merger import LiveMerger
from kalshi_platform.deduplicator.settings import DeduplicatorSettings
from kalshi_platform.errors import ConfigurationError, DatabaseUnavailable, SchemaMismatch, StatementRejected
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.storage.migrate import DatabaseKind, check, migrate
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.read import arrow_snapshot
from kalshi_platform.storage.sqlstate import LOGIN_REFUSED
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.refusing_server import refusing_server

TITLE = "Zürich 🥂"


def refusal(url: str) -> list[DatabaseUnavailable]:
    """How each of our ways to a database is refused."""
    database = Database(url, name="t")
    errors = []
    for way in (database.transaction, lambda: database.advisory_lock("x"), lambda: arrow_snapshot(url)):
        with pytest.raises(DatabaseUnavailable) as caught, way():
            pass
        errors.append(caught.value)
    database.dispose()
    return errors


@pytest.mark.parametrize(
    ("sqlstate", "words", "kind"),
    [
        ("28P01", b'password authentication failed for user "kalshi"', "wrong password"),
        ("28P01", "Passwort-Authentifizierung für »kalshi« fehlgeschlagen".encode(), "wrong password"),
        ("28000", "кириллица".encode("koi8-r"), "login refused"),
        ("3D000", "la base de données « x » n'existe pas".encode("latin-1"), "no such database"),
        ("42501", "droit refusé pour la base de données".encode("latin-1"), "login refused"),
        ("53300", "désolé, trop de clients sont déjà connectés".encode("latin-1"), "too many connections"),
        ("57P03", "le système de bases de données se lance".encode("latin-1"), "starting or stopping"),
        ("08P01", b"unsupported startup parameter in options: tcp_keepalives_idle", "session settings refused"),
        ("0A000", b"Feature not supported: command-line options", "session settings refused"),
        ("42704", b'unrecognized configuration parameter "tcp_user_timeout"', "session settings refused"),
        ("08P01", b"server login has been failing, try again later", "unreachable"),
    ],
)
def test_a_refused_login_is_recognised_by_its_state_in_any_language_and_encoding(
    sqlstate: str, words: bytes, kind: str
) -> None:
    with refusing_server(sqlstate, words) as url:
        for error in refusal(url):
            assert error.kind == kind
            assert words.decode("utf-8", "replace") in str(error)
            assert "pw" not in str(error)
            if kind == "session settings refused":
                assert error.kind in LOGIN_REFUSED
                assert "name the PostgreSQL server itself in the settings, not a pooler" in str(error)


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def eight_bit(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """(encoding, URL) of a database as a cluster that was made under LC_ALL=C, or in an old locale, has it."""
    name = f"eight_bit_{request.param.lower()}"
    connection = psycopg2.connect(postgres_server.url("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE DATABASE {name} ENCODING '{request.param}' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
            " TEMPLATE template0"
        )
        yield request.param, postgres_server.url(name)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


@pytest.mark.parametrize("kind", ["timeseries", "catalog", "production"])
def test_a_database_that_cannot_hold_every_text_is_refused_with_the_remedy(
    eight_bit: tuple[str, str], kind: DatabaseKind
) -> None:
    encoding, url = eight_bit
    database = Database(url, name="t")
    for refuse in (migrate, check):
        with pytest.raises(SchemaMismatch, match=rf"encoding {encoding}.*ENCODING 'UTF8'.*TEMPLATE template0"):
            refuse(database, kind)
    with database.transaction() as transaction:
        assert transaction.fetch_one("SELECT to_regclass('schema_migrations')") == (None,)
    database.dispose()


@pytest.mark.parametrize("where", ["shell", "url", "role"])
def test_texts_come_back_whole_whatever_encoding_the_surroundings_ask_for(
    database_factory: DatabaseFactory, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = database_factory()
    if where == "shell":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    elif where == "role":
        database = Database(url, name="t")
        with database.transaction() as transaction:
            name = urlsplit(url).path[1:]
            transaction.execute(f"ALTER DATABASE {name} SET client_encoding = 'LATIN1'")
        database.dispose()
    asked = f"{url}?client_encoding=LATIN1" if where == "url" else url
    database = Database(asked, name="t")
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE t AS SELECT %s::text AS title", (TITLE,))
        assert transaction.fetch_one("SELECT title FROM t") == (TITLE,)
    database.dispose()
    with arrow_snapshot(asked) as snapshot:
        assert snapshot.table("SELECT title FROM t")["title"].to_pylist() == [TITLE]


def test_a_query_that_fails_while_its_rows_stream_is_rejected_whatever_the_language(
    database_factory: DatabaseFactory,
) -> None:
    # The server's word ERROR is another one elsewhere: the connection is asked, not the text.
    with arrow_snapshot(database_factory()) as snapshot:
        rows = "SELECT 1 / (50000 - x) AS y, repeat('x', 100) AS z FROM generate_series(1, 100000) AS x"
        with pytest.raises(StatementRejected, match="division by zero"):
            list(snapshot.batches(rows, batch_bytes=4_000))


def test_the_merge_does_not_wait_for_a_production_that_refuses_its_sessions() -> None:
    with refusing_server("08P01", b"unsupported startup parameter: options") as url:
        merger = LiveMerger(DeduplicatorSettings(production_url=url, sources=()), SYSTEM_CLOCK, PartitionBounds())
        with pytest.raises(ConfigurationError, match=r"KALSHI_PRODUCTION_DATABASE_URL: .* not a pooler"):
            merger.run(threading.Event())
