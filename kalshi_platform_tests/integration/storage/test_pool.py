"""Connections: leases, servers that go away and come back, and passwords that stay secret."""

from __future__ import annotations

import logging
import multiprocessing
import secrets
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg2
import pytest
from psycopg2 import sql

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import DatabaseUnavailable, StatementRejected
from kalshi_platform.local.postgres.server import PostgresServer, PostgresSettings
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.storage.pool import Database, Transaction
from kalshi_platform.storage.read import arrow_snapshot
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory, server_folder


@pytest.fixture
def database(database_factory: DatabaseFactory) -> Iterator[Database]:
    made = Database(database_factory(), name="tests")
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop and start; every test leaves it running."""
    with server_folder() as folder:
        settings = PostgresSettings(fsync=False, shared_buffers="16MB", max_connections=20, stop_timeout_s=20)
        server = PostgresServer(folder / "server", "comes and goes", settings)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert SYSTEM_CLOCK.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.02)


def one(database: Database, statement: str, params: tuple[object, ...] = ()) -> object:
    with database.transaction() as transaction:
        row = transaction.fetch_one(statement, params)
    return row[0] if row else None


def backend(transaction: Transaction) -> int:
    row = transaction.fetch_one("SELECT pg_backend_pid()")
    assert row is not None
    return int(row[0])


def terminate(database: Database, pid: int) -> None:
    assert one(database, "SELECT pg_terminate_backend(%s, 10000)", (pid,)) is True


def fails_in_transaction(database: Database, interrupt: Callable[[], None]) -> None:
    with database.transaction() as transaction:
        transaction.execute("INSERT INTO t VALUES (1)")
        interrupt()
        transaction.execute("INSERT INTO t VALUES (2)")


# -- transactions ---------------------------------------------------------------------------------------------------


def test_a_block_commits_or_rolls_back_as_a_whole(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE t (x int PRIMARY KEY)")
        assert transaction.execute_values("INSERT INTO t VALUES %s", [(n,) for n in range(2_500)]) == 2_500
        assert transaction.execute_values("INSERT INTO t VALUES %s", []) == 0
    with pytest.raises(ZeroDivisionError), database.transaction() as transaction:
        transaction.execute(f"DELETE FROM t WHERE x < {1 // 0}")
    with pytest.raises(StatementRejected, match="duplicate key") as caught:
        fails_in_transaction(database, lambda: None)
    assert caught.value.sqlstate == "23505"
    assert one(database, "SELECT count(*) FROM t") == 2_500


def test_repeatable_read_sees_one_state(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE t (x int)")
    with database.transaction(isolation="REPEATABLE READ") as reader:
        assert reader.fetch_all("SELECT x FROM t") == []
        with database.transaction() as writer:
            writer.execute("INSERT INTO t VALUES (1)")
        assert reader.fetch_all("SELECT x FROM t") == []
    assert one(database, "SELECT x FROM t") == 1


def test_times_come_back_in_utc(database: Database) -> None:
    assert str(one(database, "SELECT TIMESTAMPTZ '2026-03-29 03:30:00+02'")) == "2026-03-29 01:30:00+00:00"


def test_a_deadlock_is_transient_for_its_victim(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE t (x int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    both_hold_one = threading.Barrier(2)
    outcomes: list[str] = []

    def run(first: int, second: int) -> None:
        try:
            with database.transaction() as transaction:
                transaction.execute("SET LOCAL deadlock_timeout = '50ms'")
                transaction.execute("UPDATE t SET x = x WHERE x = %s", (first,))
                both_hold_one.wait()
                transaction.execute("UPDATE t SET x = x WHERE x = %s", (second,))
            outcomes.append("done")
        except DatabaseUnavailable as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.rsplit(": ", 1)[-1] for outcome in outcomes) == ["deadlock detected", "done"]


# -- losing the server ----------------------------------------------------------------------------------------------


def test_a_cut_transaction_is_unavailable_and_the_next_one_works(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.execute("CREATE TABLE t (x int)")
    pids: list[int] = []

    def cut_in_the_middle() -> None:
        with database.transaction() as transaction:
            pids.append(backend(transaction))
            transaction.execute("INSERT INTO t VALUES (1)")
            terminate(database, pids[-1])
            transaction.execute("INSERT INTO t VALUES (2)")

    def cut_before_commit() -> None:
        with database.transaction() as transaction:
            pids.append(backend(transaction))
            transaction.execute("INSERT INTO t VALUES (3)")
            terminate(database, pids[-1])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cut in (cut_in_the_middle, cut_before_commit):
            with pytest.raises(DatabaseUnavailable, match="database tests"):
                cut()
            with database.transaction() as transaction:
                assert backend(transaction) not in pids
                assert transaction.fetch_all("SELECT x FROM t") == []


def test_an_error_of_the_caller_on_a_cut_connection_stays_the_callers(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as transaction:
            terminate(database, backend(transaction))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert one(database, "SELECT 1") == 1


def test_idle_connections_that_died_are_replaced_without_an_error(database: Database) -> None:
    with database.transaction() as first, database.transaction() as second:
        pids = [backend(first), backend(second)]
    with psycopg2.connect(database.url) as other, other.cursor() as cursor:
        for pid in pids:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            assert cursor.fetchone() == (True,)
    other.close()
    with database.transaction() as first, database.transaction() as second:
        assert not {backend(first), backend(second)} & set(pids)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stopped_server_is_unavailable_until_it_is_back(own_server: PostgresServer, mode: str) -> None:
    database = Database(own_server.url("postgres"), name="mine")
    with database.transaction() as transaction:
        # The test server commits asynchronously, and an immediate stop would lose that.
        transaction.execute("SET LOCAL synchronous_commit = on; CREATE TABLE IF NOT EXISTS t (x int); TRUNCATE t")
    try:
        with pytest.raises(DatabaseUnavailable, match="database mine"):
            fails_in_transaction(database, lambda: own_server.stop(mode))
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="Connection refused"):
                one(database, "SELECT 1")
        with pytest.raises(DatabaseUnavailable), arrow_snapshot(database.url):
            pass
        with pytest.raises(DatabaseUnavailable), database.advisory_lock("x"):
            pass
    finally:
        own_server.start()
    assert one(database, "SELECT count(*) FROM t") == 0
    database.dispose()


def test_a_server_that_is_full_is_unavailable_until_there_is_room(own_server: PostgresServer) -> None:
    database = Database(own_server.url("postgres"), name="mine")
    held: list[Any] = []
    try:
        while len(held) < 30:
            held.append(psycopg2.connect(own_server.url("postgres")))
        pytest.fail("the server never was full")
    except psycopg2.OperationalError:
        with pytest.raises(DatabaseUnavailable, match=r"too many clients|remaining connection slots"):
            one(database, "SELECT 1")
    finally:
        for connection in held:
            connection.close()

    def answers() -> bool:
        try:
            return one(database, "SELECT 1") == 1
        except DatabaseUnavailable:
            return False

    eventually(answers)
    database.dispose()


# -- leases ---------------------------------------------------------------------------------------------------------


def hold_lease(url: str, pipe: Connection) -> None:
    with Database(url, name="holder").advisory_lock("gatherer", "g1") as lock:
        pipe.send(lock is not None)
        pipe.recv()


def lease_is_free(database: Database) -> bool:
    with database.advisory_lock("gatherer", "g1") as lock:
        return lock is not None


def test_a_lease_has_one_holder_at_a_time(database: Database) -> None:
    with database.advisory_lock("gatherer", "g1") as held:
        assert held is not None
        assert held.is_held()
        assert not lease_is_free(database)
        with database.advisory_lock("gatherer", "g2") as other:
            assert other is not None
    assert not held.is_held()
    assert lease_is_free(database)


def test_a_lease_ends_with_the_block_even_after_an_error(database: Database) -> None:
    def fail() -> None:
        with database.advisory_lock("gatherer", "g1"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    eventually(lambda: lease_is_free(database))


def test_a_killed_holder_frees_its_lease(database: Database) -> None:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=hold_lease, args=(database.url, theirs), daemon=True)
    holder.start()
    try:
        assert ours.poll(60)
        assert ours.recv() is True
        assert not lease_is_free(database)
    finally:
        holder.kill()
        holder.join()
    eventually(lambda: lease_is_free(database))


def test_a_lease_whose_connection_was_cut_knows_it(database: Database) -> None:
    with database.advisory_lock("gatherer", "g1") as held:
        assert held is not None
        terminate(database, one(database, "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"))  # type: ignore[arg-type]
        assert not held.is_held()
        assert lease_is_free(database)


# -- passwords ------------------------------------------------------------------------------------------------------

ODD = "p@ss/wo:rd #1?&%25+ü'\"\\$ "


@pytest.fixture
def odd_password_url(postgres_server: PostgresServer, database_factory: DatabaseFactory) -> Iterator[str]:
    role = f"odd {secrets.token_hex(4)}"
    parts = urlsplit(database_factory())
    connection = psycopg2.connect(postgres_server.url("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        cursor.execute(statement.format(sql.Identifier(role), sql.Literal(ODD)))
        yield f"postgresql://{quote(role)}:{quote(ODD, safe='')}@{parts.hostname}:{parts.port}{parts.path}"
        cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    connection.close()


def test_odd_passwords_open_the_database_for_every_driver(odd_password_url: str) -> None:
    database = Database(odd_password_url, name="odd")
    assert str(one(database, "SELECT current_user")).startswith("odd ")
    with database.advisory_lock("x") as lock:
        assert lock is not None
    with arrow_snapshot(odd_password_url) as snapshot:
        assert snapshot.table("SELECT current_user::text AS who")["who"].to_pylist()[0].startswith("odd ")
    database.dispose()


def test_no_message_holds_the_password(odd_password_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = odd_password_url.replace(quote(ODD, safe=""), "hunter2")
    gone = wrong.replace(f":{urlsplit(wrong).port}/", f":{free_port()}/")
    texts = []
    for url in (wrong, gone, odd_password_url):
        database = Database(url, name="mine")
        texts.append(repr(database))
        for attempt in (
            lambda: one(database, "SELECT nonsense"),  # noqa: B023
            lambda: database.advisory_lock("x").__enter__(),  # noqa: B023
            lambda: arrow_snapshot(database.url).__enter__().table("SELECT nonsense"),  # noqa: B023
        ):
            try:
                attempt()
            except (DatabaseUnavailable, StatementRejected) as error:
                texts.append("".join(traceback.format_exception(error)))
        database.dispose()
    text = "\n".join([*texts, caplog.text])
    assert "password authentication failed" in text
    assert "Connection refused" in text
    assert "nonsense" in text
    assert "hunter2" not in text
    assert ODD not in text
    assert quote(ODD, safe="") not in text


def test_a_statement_that_takes_too_long_counts_as_an_outage(database: Database) -> None:
    with database.transaction() as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7)")
        limited = Database(database.url, name="limited", statement_timeout_s=0.2)
        try:
            with pytest.raises(DatabaseUnavailable, match="statement timeout"), limited.transaction() as waiting:
                waiting.execute("SELECT pg_advisory_xact_lock(7)")
            with limited.transaction() as after:
                assert after.fetch_one("SELECT 1") == (1,)
        finally:
            limited.dispose()
