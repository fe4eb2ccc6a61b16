"""The databases that tests are given."""

from __future__ import annotations

import psycopg2
import pytest

from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_each_database_is_new_and_empty(database_factory: DatabaseFactory) -> None:
    first, second = database_factory(), database_factory()
    query(first, "CREATE TABLE t (x int)")
    assert query(first, "SELECT count(*) FROM t") == [(0,)]
    assert query(second, "SELECT to_regclass('t')") == [(None,)]


def test_a_template_is_copied_and_left_alone(
    database_factory: DatabaseFactory, postgres_server: PostgresServer
) -> None:
    postgres_server.create_database("fixture_template")
    query(postgres_server.url("fixture_template"), "CREATE TABLE IF NOT EXISTS t AS SELECT 7 AS x")
    copy = database_factory("fixture_template")
    query(copy, "UPDATE t SET x = 8")
    assert query(copy, "SELECT x FROM t") == [(8,)]
    assert query(database_factory("fixture_template"), "SELECT x FROM t") == [(7,)]


def test_databases_are_gone_after_close(postgres_server: PostgresServer) -> None:
    factory = DatabaseFactory(postgres_server.url("postgres"))
    url = factory()
    still_open = psycopg2.connect(url)
    factory.close()
    still_open.close()
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(url)


@pytest.mark.timescale
def test_the_timescale_server_preloads_the_extension(timescale_database_factory: DatabaseFactory) -> None:
    assert "timescaledb" in str(query(timescale_database_factory(), "SHOW shared_preload_libraries")[0][0])
