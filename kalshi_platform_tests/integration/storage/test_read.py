"""Arrow reads: one state, small batches, exact values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pyarrow as pa
import pytest

from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.read import arrow_snapshot
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory

ROWS = 18_000


@pytest.fixture
def database(database_factory: DatabaseFactory) -> Iterator[Database]:
    made = Database(database_factory(), name="tests")
    with made.transaction() as transaction:
        transaction.execute(
            "CREATE TABLE t AS SELECT n, 'ticker ' || n AS ticker, TIMESTAMPTZ '2026-11-22 20:44:01.123456Z'"
            " + n * INTERVAL '1 microsecond' AS at, ARRAY[n, n + 1] AS levels, ARRAY[n::bigint] AS counts,"
            " jsonb_build_object('n', n) AS content, n % 2 = 0 AS even, NULLIF(n % 3, 0) AS third,"
            " convert_to('b' || n, 'UTF8') AS payload"
            f" FROM generate_series(1, {ROWS}) n"
        )
    yield made
    made.dispose()


def test_types_and_nulls_arrive_exactly(database: Database) -> None:
    with arrow_snapshot(database.url) as snapshot:
        table = snapshot.table("SELECT *, content::text AS text FROM t WHERE n <= 3 ORDER BY n")
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("levels").type.value_type == pa.int32()
    assert table.schema.field("counts").type.value_type == pa.int64()
    assert table["at"].to_pylist()[0] == datetime(2026, 11, 22, 20, 44, 1, 123_457, tzinfo=UTC)
    assert table["levels"].to_pylist() == [[1, 2], [2, 3], [3, 4]]
    assert table["third"].to_pylist() == [1, 2, None]
    assert table["even"].to_pylist() == [False, True, False]
    assert table["payload"].to_pylist() == [b"b1", b"b2", b"b3"]
    assert table["text"].to_pylist()[0] == '{"n": 1}'
    assert table["content"].cast(pa.string()).to_pylist()[0] == '{"n": 1}'


@pytest.mark.parametrize(
    ("condition", "value", "count"),
    [
        ("n <= $1", 5, 5),
        ("n >= $1", -(2**63), ROWS),
        ("ticker = $1", "ticker 7", 1),
        ("ticker = $1", "' OR true --\\", 0),
        ("at <= $1", datetime(2026, 11, 22, 20, 44, 1, 123_458, tzinfo=UTC), 2),
        ("ticker = ANY($1)", ["ticker 7", "it's", "\\"], 1),
        ("n = ANY($1)", [1, 2, 3, -1], 3),
        ("n = ANY($1::int[])", [], 0),
        ("even = $1", True, ROWS // 2),
        ("third IS NOT DISTINCT FROM $1", None, ROWS // 3),
    ],
)
def test_parameters_keep_their_types(database: Database, condition: str, value: object, count: int) -> None:
    with arrow_snapshot(database.url) as snapshot:
        table = snapshot.table(f"SELECT count(*) AS n FROM t WHERE {condition}", [value])
    assert table["n"].to_pylist() == [count]


def test_texts_come_back_as_they_went(database: Database) -> None:
    text = "it's \\n \\' \"x\" $1 %s 🌧\n"
    with arrow_snapshot(database.url) as snapshot:
        assert snapshot.table("SELECT $1 AS a, $2 AS b", [text, 1])["a"].to_pylist() == [text]


@pytest.mark.parametrize("params", [[], [0]])
def test_batches_are_small_and_complete(database: Database, params: list[int]) -> None:
    query = "SELECT n, ticker FROM t" + (" WHERE n > $1" if params else "")
    with arrow_snapshot(database.url) as snapshot:
        batches = list(snapshot.batches(query, params, batch_bytes=16 * 1024))
    assert sum(batch.num_rows for batch in batches) == ROWS
    assert max(batch.nbytes for batch in batches) < 64 * 1024
    assert len(batches) > 10


def test_all_queries_see_the_state_at_the_opening(database: Database) -> None:
    with arrow_snapshot(database.url) as snapshot:
        with database.transaction() as transaction:
            transaction.execute("DELETE FROM t WHERE n > 10")
        batches = snapshot.batches("SELECT n FROM t", batch_bytes=64 * 1024)
        next(batches)
        cast(Any, batches).close()
        assert snapshot.table("SELECT count(*) AS n FROM t")["n"].to_pylist() == [ROWS]
    with arrow_snapshot(database.url) as snapshot:
        assert snapshot.table("SELECT count(*) AS n FROM t")["n"].to_pylist() == [10]


def test_a_snapshot_cannot_write(database: Database) -> None:
    with arrow_snapshot(database.url) as snapshot, pytest.raises(DatabaseUnavailable, match="read-only transaction"):
        snapshot.table("INSERT INTO t (n) VALUES (1) RETURNING n")


def test_a_wrong_query_is_rejected_with_its_state(database: Database) -> None:
    with arrow_snapshot(database.url) as snapshot, pytest.raises(StatementRejected, match="does not exist") as caught:
        snapshot.table("SELECT nonsense FROM t")
    assert caught.value.sqlstate == "42703"
    with arrow_snapshot(database.url) as snapshot, pytest.raises(StatementRejected):
        list(snapshot.batches("SELECT 1 / (n - 5) AS x FROM t"))


def test_a_reader_that_stops_early_leaves_no_connection(database: Database) -> None:
    with arrow_snapshot(database.url) as snapshot:
        next(snapshot.batches("SELECT n, ticker FROM t", batch_bytes=4096))
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'kalshi-platform reader' AND state <> 'idle'"
        )
    assert rows in ([], [(True,)])


def cut(database: Database) -> None:
    with database.transaction() as transaction:
        rows = transaction.fetch_all(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'kalshi-platform reader'"
        )
    assert rows == [(True,)]


def test_a_connection_cut_between_queries_is_unavailable(database: Database) -> None:
    with arrow_snapshot(database.url) as snapshot:
        cut(database)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                snapshot.table("SELECT count(*) FROM t")


def test_a_stream_cut_in_the_middle_is_unavailable_and_never_looks_complete(database: Database) -> None:
    query = "SELECT n, repeat(ticker, 100) AS long FROM t"
    with arrow_snapshot(database.url) as snapshot:
        batches = snapshot.batches(query, batch_bytes=64 * 1024)
        next(batches)
        cut(database)
        with pytest.raises(DatabaseUnavailable):
            list(batches)


def test_an_error_of_the_caller_stays_the_callers(database: Database) -> None:
    with pytest.raises(FileNotFoundError), arrow_snapshot(database.url):
        raise FileNotFoundError("disk")


def test_what_was_made_since_an_earlier_snapshot_is_read(database: Database) -> None:
    """The driver's knowledge of a database is kept from the first snapshot on."""
    with arrow_snapshot(database.url) as snapshot:
        snapshot.table("SELECT 1")
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE later AS SELECT n, ARRAY[n] AS levels FROM t WHERE n <= 2")
    with arrow_snapshot(database.url) as snapshot:
        table = snapshot.table("SELECT n, levels FROM later ORDER BY n")
    assert table["levels"].to_pylist() == [[1], [2]]
