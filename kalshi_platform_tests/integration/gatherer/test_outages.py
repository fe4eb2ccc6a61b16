"""A database that is slow, down, read-only, full or locked; a disk that is full or cannot be written."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.gatherer.journal.block_format import SegmentInfo, encode_segment_header
from kalshi_platform.gatherer.journal.segments import segment_name
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.heartbeat import read_file
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, client_settings, running_gatherer
from kalshi_platform_tests.fixtures.running_ingest import running_ingest
from kalshi_platform_tests.integration.gatherer.test_ledger import Feed, administer

OpenDatabase = Callable[[str], Database]


def drop_connections(url: str) -> None:
    administer(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


# -- a database that takes no writes


def read_only(url: str) -> Callable[[], None]:
    name = url.rsplit("/", 1)[1]
    administer(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    drop_connections(url)

    def end() -> None:
        administer(url, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        drop_connections(url)

    return end


def locked(url: str) -> Callable[[], None]:
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE batch_counter")
    return connection.close


def disk_of_the_server_full(url: str) -> Callable[[], None]:
    _refuse(url, "53100", 'could not extend file "base/5/16384": No space left on device')
    return lambda: administer(url, "DROP TRIGGER refuse ON batch_counter")


def right_taken_away(url: str) -> Callable[[], None]:
    _refuse(url, "42501", "permission denied for table batch_counter")
    return lambda: administer(url, "DROP TRIGGER refuse ON batch_counter")


def _refuse(url: str, state: str, words: str) -> None:
    administer(
        url,
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = '{words}'; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE ON batch_counter EXECUTE FUNCTION refuse()",
    )


@pytest.mark.parametrize(
    ("begin", "kind", "words"),
    [
        (read_only, "read only", "name the primary, or allow writes"),
        (locked, "statement timeout", "overloaded, or a lock is held"),
        (disk_of_the_server_full, "server's disk full", "make room on the server's disk"),
        (right_taken_away, "refused", "permission denied"),
    ],
    ids=["read-only", "locked", "full", "without rights"],
)
def test_what_the_database_does_not_take_waits_in_the_journal_and_arrives_in_order(
    begin: Callable[[str], Callable[[], None]],
    kind: str,
    words: str,
    gatherer_settings: SettingsFactory,
    open_database: OpenDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    timeout_s = 1.0 if begin is locked else 30.0
    settings = gatherer_settings(statement_timeout_s=timeout_s)
    url = settings.timeseries_url
    database = Database(url, name="g1 timeseries", statement_timeout_s=timeout_s)
    feed = Feed()
    feed.stream.snapshot()
    try:
        with caplog.at_level(logging.INFO), running_ingest(settings, database) as running:
            running.put(feed.take())
            running.settled()
            end = begin(url)
            try:
                for _ in range(3):
                    running.put(feed.deltas(3))
                eventually(lambda: running.ingest.failures >= 2, within_s=30, what="several attempts")
                assert running.counters.database_failure == kind
                assert words in str(running.counters.database_error)
                assert running.ingest.status().behind_bytes > 500
            finally:
                end()
            running.settled(within_s=60)
            assert running.counters.database_error is None
            assert (running.counters.unwritable, running.alarms) == (0, [])
    finally:
        database.dispose()
    feed.stored(url)
    # One message when it begins, whatever the attempts, and one when it is over.
    said = [record.message for record in caplog.records if "frames wait in the journal" in record.message]
    assert len(said) == 1, said
    assert said[0].startswith("writes_failing gatherer=g1 kind=")
    assert kind in said[0]
    assert sum("writes_resumed" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("ALTER ROLE {role} PASSWORD 'another'", "wrong password"),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "too many connections"),
    ],
    ids=["another password", "no connection left"],
)
def test_a_login_that_is_refused_after_a_restart_is_an_outage_too(
    change: str, kind: str, gatherer_settings: SettingsFactory, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings()
    admin = settings.timeseries_url
    # A member of the owner's role: superusers are not counted by connection limits.
    role = f"writer_{admin.rsplit('_', 1)[1]}"
    administer(admin, f"CREATE ROLE {role} LOGIN PASSWORD 'first secret' IN ROLE kalshi")
    administer(admin, f"ALTER ROLE {role} SET role = kalshi")
    url = admin.replace(admin.split("//")[1].split("@")[0], f"{role}:first%20secret")
    database = Database(url, name="g1 timeseries")
    feed = Feed()
    feed.stream.snapshot()
    try:
        with running_ingest(settings, database) as running:
            running.put(feed.take())
            running.settled()
            administer(admin, change.format(role=role))
            drop_connections(admin)
            running.put(feed.deltas(5))
            eventually(lambda: running.ingest.failures >= 3, what="several attempts")
            assert running.counters.database_failure == kind
            administer(admin, f"ALTER ROLE {role} CONNECTION LIMIT -1 PASSWORD 'first secret'")
            running.settled()
    finally:
        database.dispose()
        drop_connections(admin)
        administer(admin, f"DROP ROLE {role}")
    feed.stored(admin)
    assert "secret" not in caplog.text


# -- a disk that takes nothing


@pytest.mark.parametrize(
    ("error", "words"),
    [(errno.ENOSPC, "make room on its disk"), (errno.EROFS, "is its disk mounted read-only?")],
    ids=["full", "read-only"],
)
def test_with_a_journal_that_takes_nothing_sessions_end_and_begin_again_when_it_does(
    error: int,
    words: str,
    gatherer_settings: SettingsFactory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = gatherer_settings()

    def state() -> str | None:
        beat = read_file(settings.heartbeat_file, GathererStatus)
        return None if beat is None else beat.state

    write = os.writev

    def refuse(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    with running_exchange(tmp_path, markets=5, rate=0) as exchange:
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(5)
            eventually(lambda: gatherer.value("SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == 5)
            monkeypatch.setattr(os, "writev", refuse)
            exchange.rate(500)
            eventually(lambda: state() == "stalled", within_s=60, what="a stall")
            exchange.rate(0)
            told = gatherer.status
            assert words in told.note
            assert told.health == "not recording"
            eventually(
                lambda: {each.state for each in gatherer.status.connections.values()} == {"stalled"},
                what="all connections ended",
            )
            assert exchange.state()["connections"] == []
            monkeypatch.setattr(os, "writev", write)
            eventually(lambda: state() == "running", within_s=60, what="the end of the stall")
            gatherer.follows(5, within_s=60)
            query = "SELECT connection, close_reason FROM sessions ORDER BY connection, opened_at"
            eventually(
                lambda: (
                    gatherer.rows(query)
                    == [("books-0", "stalled"), ("books-0", None), ("feed", "stalled"), ("feed", None)]
                ),
                what="both sessions ended and begun again",
            )
            assert gatherer.journal.stalls == 1
        # What was received is stored, and nothing more is claimed.
        (last,) = gatherer.rows(
            "SELECT max(seq_to) FROM stream_segments JOIN streams USING (stream_id)"
            " WHERE channel = 'orderbook_delta' AND end_reason = 'stalled'"
        )
        beyond = (
            "SELECT count(*) FROM book_subscriptions m JOIN streams t USING (stream_id)"
            f" WHERE t.end_reason = 'stalled' AND (m.seq_to IS NULL OR m.seq_to > {last[0]})"
        )
        assert gatherer.value(beyond) == 0
    assert sum("recording_stalled" in record.message for record in caplog.records) == 1
    assert sum("recording_resumed" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("gatherer", "version", "words"),
    [
        ("g2", 1, "is that of gatherer g2"),
        ("g1", 7, "has format version 7, this program has 1"),
    ],
    ids=["another gatherer's", "a newer version's"],
)
def test_a_journal_that_is_not_ours_is_refused_before_anything_starts(
    gatherer: str, version: int, words: str, gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    folder = settings.folder / "journal"
    folder.mkdir(parents=True)
    header = encode_segment_header(SegmentInfo(5, gatherer, 1, 0, 0, "1.0"), version=version)
    (folder / segment_name(1)).write_bytes(header)
    with running_exchange(tmp_path, markets=2, rate=0) as exchange:
        running = RunningGatherer(settings, client_settings(exchange))
        running.join()
    assert isinstance(running.error, ConfigurationError)
    (problem,) = running.error.problems
    assert words in problem
    assert (folder / segment_name(1)).read_bytes() == header


def test_a_spool_of_a_version_before_is_left_alone_and_said(
    gatherer_settings: SettingsFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings()
    spool = settings.folder / "spool"
    spool.mkdir(parents=True)
    (spool / "7.spool").write_bytes(b"KSPOOL02 and more")
    with running_exchange(tmp_path, markets=2, rate=0) as exchange, running_gatherer(settings, exchange) as gatherer:
        gatherer.follows(2)
    assert "start the version before this one once" in caplog.text
    assert (spool / "7.spool").exists()
