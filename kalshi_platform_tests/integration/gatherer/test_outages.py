"""A database that is slow, down, read-only, full or locked; a disk that is full, too; a spool that was damaged."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import psycopg2
import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.coverage.claims import claim_intervals
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.journal.spool import Spool
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.market.records import BookDelta, BookSnapshot, Record
from kalshi_platform.monitoring.heartbeat import read_file
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gathered import BASE_US, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import running_gatherer
from kalshi_platform_tests.fixtures.stack import rows
from kalshi_platform_tests.integration.gatherer.test_writer import BOUNDS

OpenDatabase = Callable[[str], Database]


@contextmanager
def running_writer(
    settings: GathererSettings, database: Database, spool: Spool | None = None, **options: Any
) -> Iterator[Writer]:
    spool = spool or Spool(settings.folder / "spool", settings.spool_segment_bytes, max_bytes=settings.spool_max_bytes)
    writer = Writer(settings, database, BOUNDS, SYSTEM_CLOCK, spool, **options)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop(10)


def settled(writer: Writer) -> None:
    eventually(writer.is_settled, within_s=60, what="everything written")


class Feed:
    """A stream whose records are put as they come, and remembered."""

    def __init__(self, stream_id: int = 11) -> None:
        self.stream = Stream(stream_id)
        self.all: list[Record] = []

    def take(self) -> list[Record]:
        taken, self.stream.records = self.stream.records, []
        self.all += taken
        return taken

    def deltas(self, count: int, *, equal: bool = False) -> list[Record]:
        for number in range(count):
            if equal:
                self.stream.delta(exchange_ts_us=BASE_US + 5, occurrence=number)
            else:
                self.stream.delta()
        return self.take()

    def stored(self, url: str) -> None:
        """Everything is there with its stream, number and occurrence, once, and the ledger is one stretch."""
        wanted = sorted((each.seq, each.occurrence) for each in self.all if isinstance(each, BookDelta))
        assert (
            rows(url, f"SELECT seq, occurrence FROM orderbook_deltas WHERE stream_id = {self.stream.id} ORDER BY 1")
            == wanted
        )
        spans = rows(url, "SELECT seq_from, seq_to FROM stream_segments ORDER BY 1")
        assert all(after[0] <= before[1] + 1 for before, after in itertools.pairwise(spans))
        assert (spans[0][0], max(high for _, high in spans)) == (1, self.stream.seq)


def administer(url: str, statement: str) -> None:
    connection = psycopg2.connect(url, options="-c default_transaction_read_only=off")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


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
def test_what_the_database_does_not_take_is_spooled_and_arrives_in_order(
    begin: Callable[[str], Callable[[], None]],
    kind: str,
    words: str,
    gatherer_settings: SettingsFactory,
    open_database: OpenDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = gatherer_settings(statement_timeout_s=0.3)
    url = settings.timeseries_url
    database = Database(url, name="g1 timeseries", statement_timeout_s=0.3)
    feed = Feed()
    feed.stream.snapshot()
    try:
        with caplog.at_level(logging.INFO), running_writer(settings, database) as writer:
            writer.put(feed.take())
            settled(writer)
            end = begin(url)
            try:
                writer.put(feed.deltas(3))
                eventually(lambda: writer.counters.spooled >= 3, what="records on disk")
                # Equal rows: what tells them apart was decided before they were spooled.
                writer.put(feed.deltas(3, equal=True))
                eventually(lambda: writer.failures >= 3 and writer.counters.spooled >= 6, within_s=30)
                assert writer.counters.database_failure == kind
                assert words in str(writer.counters.database_error)
            finally:
                end()
            settled(writer)
            assert writer.counters.database_error is None
            assert writer.counters.unwritable == 0
    finally:
        database.dispose()
    feed.stored(url)
    # One message when it begins, whatever the attempts, and one when it is over.
    said = [record.message for record in caplog.records if "records go to the spool" in record.message]
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
        with running_writer(settings, database) as writer:
            writer.put(feed.take())
            settled(writer)
            administer(admin, change.format(role=role))
            drop_connections(admin)
            writer.put(feed.deltas(5))
            eventually(lambda: writer.failures >= 3, what="several attempts")
            assert writer.counters.database_failure == kind
            administer(admin, f"ALTER ROLE {role} CONNECTION LIMIT -1 PASSWORD 'first secret'")
            settled(writer)
    finally:
        database.dispose()
        drop_connections(admin)
        administer(admin, f"DROP ROLE {role}")
    feed.stored(admin)
    assert "secret" not in caplog.text


# -- memory


def test_memory_stays_bounded_however_long_the_database_is_away(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(flush_rows=500, queue_rows=2_000, spool_segment_bytes=200_000)
    feed = Feed()
    feed.stream.snapshot()
    database = open_database(settings.timeseries_url)
    at_once = 100
    with running_writer(settings, database) as writer:
        writer.put(feed.take())
        settled(writer)
        end = locked(settings.timeseries_url)
        try:
            # One batch hangs in the database; all the rest goes through memory to disk.
            for _ in range(400):
                writer.put(feed.deltas(at_once))
            assert writer.queued() <= settings.queue_rows
        finally:
            end()
        settled(writer)
    counters = writer.counters
    assert counters.records_put > 40_000
    assert counters.spooled >= counters.records_put - settings.queue_rows - at_once - 10
    # In the queue, in the commit that hangs, and read back from disk.
    assert counters.most_held <= 3 * (settings.queue_rows + at_once)
    feed.stored(settings.timeseries_url)


def test_large_books_are_counted_by_their_bytes_on_every_way(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    mib = 1024**2
    settings = gatherer_settings(flush_bytes=mib, queue_bytes=4 * mib, spool_segment_bytes=mib)
    levels = tuple((price, 100) for price in range(1, 2_001))
    database = open_database(settings.timeseries_url)
    with running_writer(settings, database) as writer:
        end = locked(settings.timeseries_url)
        try:
            for number in range(400):
                writer.put([BookSnapshot(f"M{number}", "rest", BASE_US, BASE_US * 1_000, levels, levels)])
            assert writer.held_bytes() <= 3 * settings.queue_bytes
        finally:
            end()
        settled(writer)
        eventually(lambda: writer.held_bytes() == 0, what="nothing held")
    counters = writer.counters
    # In the queue, in the commit that hangs, and read back from disk; each with one book more than fits.
    assert 4 * mib < counters.most_held_bytes <= 3 * (settings.queue_bytes + mib)
    assert counters.spooled > 300
    assert rows(settings.timeseries_url, "SELECT count(*) FROM orderbook_snapshots") == [(400,)]
    told = rows(settings.timeseries_url, "SELECT sum(rows), max(bytes), min(bytes / rows) FROM batches")
    (count, most, of_a_book) = map(int, told[0])
    assert count == 400
    assert most < 2 * mib
    assert 30_000 < of_a_book < 70_000


# -- the spool is full


def test_with_the_spool_at_its_limit_the_gatherer_ends_its_sessions_and_begins_again_when_there_is_room(
    gatherer_settings: SettingsFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings(
        flush_rows=50, queue_rows=200, spool_segment_bytes=4_000, spool_max_bytes=20_000, statement_timeout_s=0.3
    )

    def state() -> str | None:
        beat = read_file(settings.heartbeat_file, GathererStatus)
        return None if beat is None else beat.state

    with running_exchange(tmp_path, markets=5, rate=0) as exchange:
        with running_gatherer(settings, exchange) as gatherer:
            gatherer.follows(5)
            eventually(lambda: gatherer.value("SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == 5)
            end = locked(settings.timeseries_url)
            try:
                exchange.rate(2_000)
                eventually(lambda: state() == "stalled", within_s=60, what="a stall")
                exchange.rate(0)
                status = gatherer.status
                assert "KALSHI_SPOOL_MAX_GIB" in status.note
                assert "may hold" in status.note
                eventually(
                    lambda: {each.state for each in gatherer.status.connections.values()} == {"stalled"},
                    what="all connections ended",
                )
                assert exchange.state()["connections"] == []
                assert gatherer.writer.queued < 2 * settings.queue_rows
            finally:
                end()
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
        # What was received is stored, and nothing more is claimed.
        (last,) = gatherer.rows(
            "SELECT max(seq_to) FROM stream_segments JOIN streams USING (stream_id)"
            " WHERE channel = 'orderbook_delta' AND end_reason = 'stalled'"
        )
        ended = (
            "SELECT DISTINCT m.end_reason, m.seq_to FROM book_subscriptions m JOIN streams t USING (stream_id)"
            " WHERE t.end_reason = 'stalled'"
        )
        assert gatherer.rows(ended) == [("stalled", last[0])]
        assert gatherer.value("SELECT count(*) FROM sequence_gaps") == 0
    assert sum("recording_stalled" in record.message for record in caplog.records) == 1
    assert not list((settings.folder / "spool").iterdir())


# -- a spool that was damaged


def spool_of(folder: Path, puts: Sequence[Sequence[Record]]) -> Path:
    spool = Spool(folder)
    for records in puts:
        spool.append(records)
    spool.close()
    (path,) = folder.glob("*.spool")
    return path


def spoil_block(path: Path, place: int, blocks: Sequence[Sequence[Record]]) -> None:
    """Flip a bit in the payload of one block."""
    sizes = []
    for count in (place, place + 1):
        folder = path.parent.parent / f"measure-{count}"
        sizes.append(spool_of(folder, blocks[:count]).stat().st_size if count else 8)
    content = bytearray(path.read_bytes())
    content[(sizes[0] + sizes[1]) // 2 + 8] ^= 16
    path.write_bytes(content)


def test_a_damaged_block_costs_its_records_and_no_claim_covers_it(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    stream = Stream()
    stream.snapshot("A")
    stream.snapshot("B")
    blocks = []
    for market in ("A", "B", "A"):
        for _ in range(30):
            stream.delta(market)
        blocks.append(stream.records)
        stream.records = []
    spoil_block(spool_of(settings.folder / "spool", blocks), 1, blocks)
    lost: list[Sequence[str]] = []
    with running_writer(settings, open_database(url), own_sessions=lambda: [1], on_lost_claim=lost.append) as writer:
        settled(writer)
    assert rows(url, "SELECT min(seq), max(seq), count(*) FROM orderbook_deltas") == [(3, 92, 60)]
    assert rows(url, "SELECT seq_from, seq_to FROM stream_segments ORDER BY 1") == [(1, 32), (63, 92)]
    assert rows(url, "SELECT ticker, seq_from, seq_to, end_reason FROM book_subscriptions ORDER BY 1") == [
        ("A", 1, 32, "spool damaged"),
        ("B", 2, 32, "spool damaged"),
    ]
    ((reason, detail, size),) = rows(url, "SELECT reason, detail, length(payload) FROM dead_letters")
    assert reason == "spool_damaged"
    assert "cannot be read" in detail
    assert size > 100
    # Both are asked for again: they are followed by a session of this process.
    assert lost == [["A", "B"]]
    assert "records_lost" in caplog.text
    _no_claim_beyond(url, 32)


def test_an_end_that_was_lost_with_a_damaged_block_is_not_forgotten(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    """No number is missing: only the end of a book subscription was in the block."""
    settings = gatherer_settings()
    url = settings.timeseries_url
    stream = Stream()
    stream.snapshot("A")
    stream.delta("A")
    blocks = [stream.records]
    stream.records = []
    stream.leave("A")
    blocks.append(stream.records)
    stream.records = []
    # From here on the exchange sends nothing of A any more.
    for _ in range(30):
        stream.delta("B")
    blocks.append(stream.records)
    spoil_block(spool_of(settings.folder / "spool", blocks), 1, blocks)
    with running_writer(settings, open_database(url), own_sessions=lambda: [1]) as writer:
        settled(writer)
    assert rows(url, "SELECT min(seq_from), max(seq_to) FROM stream_segments") == [(1, 32)]
    assert rows(url, "SELECT ticker, seq_to, end_reason FROM book_subscriptions") == [("A", 2, "spool damaged")]
    _no_claim_beyond(url, 2)


def test_beginnings_that_were_lost_with_a_damaged_spool_are_made_again(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    """Sessions, streams and book subscriptions began while the database was away, and the disk lost their blocks."""
    settings = gatherer_settings()
    folder = settings.folder / "spool"
    known = (
        "SELECT count(DISTINCT ticker) FROM book_subscriptions m JOIN streams t USING (stream_id) JOIN sessions USING"
        " (session_id) WHERE m.seq_to IS NULL AND t.ended_at IS NULL AND closed_at IS NULL"
    )
    with (
        running_exchange(tmp_path, markets=5, rate=100) as exchange,
        running_gatherer(settings, exchange) as gatherer,
    ):
        gatherer.follows(5)
        end = read_only(settings.timeseries_url)
        try:
            # The first file is in the writer's hands then.
            eventually(lambda: len(list(folder.glob("*.spool"))) > 1)
            exchange.fault("cut")
            eventually(lambda: all(each.reconnects for each in gatherer.status.connections.values()))
            gatherer.follows(5)
            exchange.rate(0)
            eventually(lambda: gatherer.writer.queued == 0)
            for path in folder.glob("*.spool"):
                content = path.read_bytes()
                with path.open("r+b") as file:
                    # No block of it survives.
                    for at in range(0, len(content), 64):
                        file.seek(at)
                        file.write(bytes([content[at] ^ 1]))
        finally:
            end()
        eventually(lambda: gatherer.writer.spool_damages > 0, what="a damage")
        eventually(lambda: gatherer.value(known) == 5, what="book_subscriptions of sessions that the ledger knows")
        assert list(folder.glob("*.damaged"))


def test_what_is_in_flight_goes_to_disk_before_anything_newer(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    """So a process that is killed now has lost nothing that stands before something it kept."""
    settings = gatherer_settings(flush_rows=10, queue_rows=20)
    feed = Feed()
    feed.stream.snapshot()
    folder = settings.folder / "spool"
    with running_writer(settings, open_database(settings.timeseries_url)) as writer:
        settled(writer)
        end = locked(settings.timeseries_url)
        try:
            writer.put(feed.take())
            eventually(lambda: writer.queued() == 4 and not writer.is_settled(), what="a batch in flight")
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            eventually(lambda: rows(settings.timeseries_url, waiting) == [(1,)], what="a commit under way")
            writer.put(feed.deltas(25))
            kept = Spool(_copied(folder))
            found: list[Record] = []
            while (block := kept.next_block()) is not None:
                assert isinstance(block, list)
                found += block
            assert found == feed.all
        finally:
            end()
        settled(writer)
    feed.stored(settings.timeseries_url)


def _copied(folder: Path) -> Path:
    target = folder.parent / "copied"
    target.mkdir()
    for path in folder.glob("*.spool"):
        (target / path.name).write_bytes(path.read_bytes())
    return target


def _no_claim_beyond(url: str, last_seq: int) -> None:
    """Nothing after the exchange time of `last_seq` is claimed of any market."""

    def frame(query: str) -> pl.DataFrame:
        return pl.DataFrame(rows(url, query), schema=COLUMNS[query], orient="row")

    found = claim_intervals(frame(BOOK_SUBSCRIPTIONS), frame(SEGMENTS), frame(DELTAS), 1_000)
    (latest,) = rows(
        url,
        "SELECT (extract(epoch FROM max(exchange_ts)) * 1000000)::bigint FROM orderbook_deltas"
        f" WHERE seq <= {last_seq}",
    )[0]
    assert all(high <= latest for intervals in found.values() for _, high in intervals), found


BOOK_SUBSCRIPTIONS = "SELECT stream_id, ticker, exchange_index, seq_from, seq_to FROM book_subscriptions"
SEGMENTS = "SELECT stream_id, seq_from, seq_to FROM stream_segments"
DELTAS = "SELECT seq, (extract(epoch FROM exchange_ts) * 1000000)::bigint, ticker, 0 FROM orderbook_deltas"
COLUMNS: dict[str, list[str]] = {
    BOOK_SUBSCRIPTIONS: ["stream_id", "ticker", "exchange_index", "seq_from", "seq_to"],
    SEGMENTS: ["stream_id", "seq_from", "seq_to"],
    DELTAS: ["seq", "exchange_us", "ticker", "exchange_index"],
}


def test_a_stop_waits_for_the_last_commit_and_says_so(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_platform.gatherer.ingest.writer.WAIT_REPORT_S", 0.1)
    settings = gatherer_settings()
    feed, told = Feed(), threading.Event()
    said: list[str] = []

    def hear(what: str) -> None:
        said.append(what)
        told.set()

    spool = Spool(settings.folder / "spool")
    writer = Writer(settings, open_database(settings.timeseries_url), BOUNDS, SYSTEM_CLOCK, spool)
    writer.start()
    settled(writer)
    let_go = locked(settings.timeseries_url)
    feed.stream.snapshot("A")
    writer.put(feed.deltas(10))
    release = threading.Thread(target=lambda: (told.wait(60), let_go()), daemon=True)
    release.start()
    assert writer.stop(120, hear)
    assert said[0] == "the last commit (14 records in memory, 0 bytes on disk)", said
    feed.stored(settings.timeseries_url)
