"""A database that is not what the gatherer left there: older, empty, another journal's, or taken by another process."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from kalshi_platform.errors import AnotherWriter, DatabaseUnavailable
from kalshi_platform.gatherer.ingest.fence import LOST, MOVED, WENT_BACK, Fence
from kalshi_platform.gatherer.ingest.open_transactions import OpenTransactions
from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.journal.segments import list_segments
from kalshi_platform.market.records import BookDelta, Record
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gathered import STEPS, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, client_settings, running_gatherer
from kalshi_platform_tests.fixtures.past import Past
from kalshi_platform_tests.fixtures.running_ingest import RunningIngest, running_ingest
from kalshi_platform_tests.fixtures.stack import rows

OpenDatabase = Callable[[str], Database]
OPEN = (
    "SELECT count(*) FROM book_subscriptions m JOIN streams t USING (stream_id)"
    " WHERE seq_to IS NULL AND ended_at IS NULL"
)


def administer(url: str, statement: str) -> None:
    connection = psycopg2.connect(url, options="-c default_transaction_read_only=off")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


class Feed:
    """A stream whose records are put as they come, and remembered."""

    def __init__(self, stream_id: int = 11, session_id: int = 1) -> None:
        self.stream = Stream(stream_id, session_id)
        self.all: list[Record] = []

    def take(self) -> list[Record]:
        taken, self.stream.records = self.stream.records, []
        self.all += taken
        return taken

    def deltas(self, count: int) -> list[Record]:
        for _ in range(count):
            self.stream.delta()
        return self.take()

    def stored(self, url: str) -> None:
        """Everything is there once, and the ledger is one stretch without a gap."""
        wanted = sorted(each.seq for each in self.all if isinstance(each, BookDelta))
        query = f"SELECT seq FROM orderbook_deltas WHERE stream_id = {self.stream.id} ORDER BY 1"
        assert [seq for (seq,) in rows(url, query)] == wanted
        spans = rows(url, f"SELECT seq_from, seq_to FROM stream_segments WHERE stream_id = {self.stream.id} ORDER BY 1")
        reached = 0
        for low, high in spans:
            assert low <= reached + 1, spans
            reached = max(reached, high)
        assert reached == self.stream.seq
        assert rows(url, "SELECT count(*) FROM sequence_gaps") == [(0,)]


def test_a_restored_database_gets_everything_again_from_its_own_position(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    feed = Feed()
    with running_ingest(settings, open_database(url)) as running:
        feed.stream.snapshot("A")
        feed.stream.snapshot("B")
        running.put(feed.deltas(200))
        running.settled()
        past = Past(url)
        known = feed.stream.seq
        feed.stream.leave("A")
        running.put(feed.deltas(300))
        running.settled()
        past.return_to()
        running.put(feed.deltas(500))
        running.settled()
    feed.stored(url)
    assert rows(url, "SELECT ticker, seq_from, seq_to FROM book_subscriptions ORDER BY 1") == [
        ("A", 1, known),
        ("B", 2, None),
    ]
    assert (running.alarms, running.restarts, running.lost) == ([WENT_BACK], 0, [])


def test_a_database_that_went_back_while_nothing_is_received_is_seen_nevertheless(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.1)
    url = settings.timeseries_url
    feed = Feed()
    with running_ingest(settings, open_database(url)) as running:
        running.put(feed.deltas(20))
        running.settled()
        past = Past(url)
        running.put(feed.deltas(20))
        running.settled()
        past.return_to()
        eventually(lambda: running.alarms, what="the alarm")
        running.settled()
        eventually(lambda: rows(url, "SELECT count(*) FROM orderbook_deltas") == [(40,)], what="everything again")
    feed.stored(url)
    assert running.alarms == [WENT_BACK]


def test_an_empty_database_in_its_place_gets_the_whole_journal(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.1)
    url = settings.timeseries_url
    empty = Past(url)
    feed = Feed()
    with running_ingest(settings, open_database(url)) as running:
        feed.stream.snapshot("A")
        running.put(feed.deltas(200))
        running.settled()
        empty.return_to()
        running.put(feed.deltas(100))
        eventually(lambda: running.alarms, what="the alarm")
        eventually(lambda: rows(url, "SELECT count(*) FROM orderbook_deltas") == [(300,)], what="everything again")
    feed.stored(url)
    assert rows(url, "SELECT ticker, seq_from, seq_to FROM book_subscriptions") == [("A", 1, None)]
    assert (running.alarms, running.restarts) == ([WENT_BACK], 0)


def test_what_the_journal_no_longer_has_is_said_once_and_not_claimed(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings(journal_segment_bytes=4_000)
    url = settings.timeseries_url
    feed = Feed()
    with running_ingest(settings, open_database(url)) as running:
        feed.stream.snapshot("A")
        running.put(feed.deltas(10))
        running.settled()
        past, known = Past(url), feed.stream.seq
        for _ in range(10):
            running.put(feed.deltas(20))
        running.settled()
        segments = list_segments(running.journal.folder)
        for number in list(segments)[:-3]:
            segments[number].unlink()
        past.return_to()
        running.put(feed.deltas(20))
        running.settled()
        eventually(lambda: rows(url, "SELECT max(seq) FROM orderbook_deltas") == [(feed.stream.seq,)])
    assert (running.alarms, running.restarts) == ([WENT_BACK], 1)
    assert rows(url, "SELECT seq_from, seq_to, end_reason FROM book_subscriptions") == [(1, known, LOST)]
    assert rows(url, "SELECT end_reason FROM streams") == [(LOST,)]
    assert rows(url, "SELECT close_reason FROM sessions") == [(LOST,)]
    (missing,) = rows(
        url, "SELECT count(*) FROM generate_series(1, (SELECT max(seq) FROM orderbook_deltas)) AS n"
        " WHERE NOT EXISTS (SELECT FROM stream_segments WHERE n BETWEEN seq_from AND seq_to)"
    )[0]  # fmt: skip
    stored = rows(url, "SELECT count(*) FROM orderbook_deltas")[0][0]
    assert missing == feed.stream.seq - stored - 1
    assert missing > 50


def test_a_segment_that_got_the_number_of_a_lost_one_is_not_taken_for_it(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    for number in (11, 12):
        feed = Feed(number, number)
        with running_ingest(settings, open_database(url)) as running:
            began = running.journal.end.segment
            feed.stream.snapshot("A")
            running.put(feed.deltas(10), number)
            running.settled()
            committed = running.journal.end
    for number, path in list_segments(running.journal.folder).items():
        if number >= began:
            path.unlink()
    running = RunningIngest(settings, open_database(url))
    later = Feed(13, 13)
    later.stream.snapshot("A")
    running.put(later.deltas(20), 13)
    assert running.journal.end.segment == committed.segment
    assert running.journal.end.offset > committed.offset
    running.ingest.start()
    running.settled()
    running.close()
    assert (running.alarms, running.restarts) == ([LOST], 1)
    assert rows(url, "SELECT stream_id, seq_to, end_reason FROM book_subscriptions ORDER BY 1") == [
        (11, 11, "gatherer ended"),
        (12, 11, LOST),
        (13, None, None),
    ]
    assert rows(url, "SELECT count(*) FROM orderbook_deltas WHERE stream_id = 13") == [(20,)]


def test_a_database_that_another_journal_has_written_is_ended_and_goes_on_with_this_one(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    url = settings.timeseries_url
    feed = Feed()
    with running_ingest(settings, open_database(url)) as running:
        feed.stream.snapshot("A")
        running.put(feed.deltas(10))
        running.settled()
    elsewhere = gatherer_settings(timeseries_url=url, state_dir=tmp_path / "elsewhere")
    newer = Feed(12, 2)
    with running_ingest(elsewhere, open_database(url)) as running:
        newer.stream.snapshot("A")
        running.put(newer.deltas(10), 2)
        running.settled()
        assert running.alarms == [LOST]
    assert rows(url, "SELECT stream_id, seq_from, seq_to, end_reason FROM book_subscriptions ORDER BY 1") == [
        (11, 1, 11, LOST),
        (12, 1, None, None),
    ]
    feed.stored(url)
    newer.stored(url)


def test_a_process_without_the_name_changes_nothing_in_the_ledger(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, tmp_path: Path
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.2)
    url = settings.timeseries_url
    administer(url, "UPDATE batch_counter SET owner = 1")
    feed, other = Feed(11), Feed(12)
    with running_ingest(settings, open_database(url), owner=1) as running:
        feed.stream.snapshot("A")
        running.put(feed.deltas(20))
        running.settled()
        disowned: list[int] = []
        elsewhere = gatherer_settings(timeseries_url=url, state_dir=tmp_path / "second")
        with running_ingest(elsewhere, open_database(url), owner=2, on_disowned=lambda: disowned.append(1)) as second:
            other.stream.snapshot("B")
            second.put(other.deltas(20))
            eventually(lambda: len(disowned) > 1, what="the second one refused")
            running.put(feed.deltas(20))
            running.settled()
        assert not second.ingest.is_settled
    assert rows(url, "SELECT ticker, seq_to FROM book_subscriptions") == [("A", None)]
    assert rows(url, "SELECT count(*) FROM orderbook_deltas") == [(40,)]
    feed.stored(url)


def test_a_commit_on_top_of_a_position_that_is_not_known_is_refused(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    first, second = Fence(5), Fence(5)
    for fence in (first, second):
        with database.transaction() as transaction:
            fence.known = fence.read(transaction)
    with database.transaction() as transaction:
        first.next_batch(transaction, Position(1, 500))
    first.confirm()
    with pytest.raises(DatabaseUnavailable) as refused, database.transaction() as transaction:
        second.next_batch(transaction, Position(1, 900))
    assert refused.value.kind == MOVED
    with database.transaction() as transaction:
        assert second.read(transaction) == first.known == (1, 5, Position(1, 500), None)


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_ingests_leave_what_an_undisturbed_one_leaves(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase, seed: int
) -> None:
    """Reloads, restored databases and restarts of the ingest in turns, while two streams do what sessions do."""
    chance = random.Random(seed)
    sides = [_Side(Stream(11, 1), chance), _Side(Stream(12, 2), chance)]
    steps = [[side.go_on(last=number == 11) for side in sides] for number in range(12)]
    settings = gatherer_settings()
    undisturbed = gatherer_settings("calm", state_dir=settings.state_dir)
    with running_ingest(undisturbed, open_database(undisturbed.timeseries_url)) as running:
        for step in steps:
            for session_id, records in enumerate(step, 1):
                running.put(records, session_id)
        running.settled()
    url = settings.timeseries_url
    with ExitStack() as stack:
        running = stack.enter_context(running_ingest(settings, open_database(url)))
        past = None
        for number, step in enumerate(steps):
            for session_id, records in enumerate(step, 1):
                running.put(records, session_id)
                what = chance.randrange(6)
                if what == 0:
                    running.settled()
                elif what == 1:
                    running.ingest._is_certain = False
                elif what == 2:
                    running.ingest._reader.forget()
                    running.ingest._is_certain = False
            if number == 3:
                past = Past(url)
            elif number == 8:
                assert past is not None
                past.return_to()
        running.settled()
    for query in (
        "SELECT stream_id, seq, ticker, occurrence FROM orderbook_deltas ORDER BY 1, 2",
        "SELECT stream_id, seq, ticker FROM orderbook_snapshots ORDER BY 1, 2",
        "SELECT stream_id, seq, reason FROM dead_letters ORDER BY 1, 2",
        "SELECT stream_id, ticker, seq_from, seq_to, end_reason FROM book_subscriptions ORDER BY 1, 2, 3",
        "SELECT stream_id, seq_expected, seq_seen FROM sequence_gaps ORDER BY 1, 2",
        "SELECT session_id, close_reason FROM sessions ORDER BY 1",
        "SELECT stream_id, end_reason FROM streams ORDER BY 1",
        "SELECT DISTINCT stream_id, n FROM stream_segments, generate_series(seq_from, seq_to) AS n ORDER BY 1, 2",
    ):
        assert rows(url, query) == rows(undisturbed.timeseries_url, query), query


class _Side:
    """A stream that does what a session does, by chance."""

    def __init__(self, stream: Stream, chance: random.Random) -> None:
        self._stream = stream
        self._chance = chance
        self._followed: set[str] = set()
        self._is_over = False

    def go_on(self, *, last: bool) -> list[Record]:
        stream, followed = self._stream, self._followed
        for _ in range(0 if self._is_over else self._chance.randrange(15)):
            step, ticker = self._chance.choice(STEPS), self._chance.choice("ABC")
            if step in ("snapshot", "again"):
                (stream.again if ticker in followed else stream.snapshot)(ticker)
                followed.add(ticker)
            elif step == "leave":
                if ticker in followed:
                    stream.leave(ticker)
                    followed.discard(ticker)
            elif step == "gap":
                stream.gap(sorted(followed))
                followed.clear()
            else:
                stream.step(step)
        if last:
            for ticker in sorted(followed):
                stream.leave(ticker)
            stream.close()
            self._is_over = True
        taken, stream.records = stream.records, []
        return taken


def test_a_transaction_left_open_makes_no_batch_number_dearer(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    database = open_database(gatherer_settings().timeseries_url)
    with database.transaction() as transaction:
        # New statistics may let the planner read the whole table while that is the cheaper way.
        for name in ("batch_counter", "journal_position"):
            transaction.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = off)")
    fence = Fence(5)
    lock, update = queries.load("gatherer")["next_own_batch"].split(";")

    def pages() -> list[int]:
        """What the statements of one batch read; nothing is changed by it."""
        told = []
        with database.transaction() as transaction:
            known = fence.known
            values: dict[str, Any] = {
                "owner": None, "known": known.batch_no, "known_id": known.journal_id,
                "known_segment": known.position.segment, "known_offset": known.position.offset,
                "journal_id": 5, "segment": 1, "segment_created_ns": 1, "block_offset": 1,
            }  # fmt: skip
            for statement in (lock, update, "SELECT batch_token()"):
                ((plan,),) = transaction.fetch_all(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
                told.append(int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]))
            transaction.connection.rollback()
        return told

    def commit(times: int) -> None:
        for _ in range(times):
            with database.transaction() as transaction:
                transaction.execute("SET LOCAL synchronous_commit = off")
                fence.next_batch(transaction, Position(1, fence.known.batch_no))
            fence.confirm()

    with database.transaction(isolation="REPEATABLE READ") as left_open:
        left_open.fetch_one("SELECT count(*) FROM batches")
        commit(300)
        before = pages()
        commit(2_000)
        after = pages()
    assert all(later <= earlier + 8 for earlier, later in zip(before, after, strict=True)), (before, after)


def test_a_gatherer_whose_database_fell_back_holds_everything_again(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings(ledger_compare_interval_s=0.5)
    past = Past(settings.timeseries_url)
    with (
        running_exchange(tmp_path, markets=10, rate=100) as exchange,
        running_gatherer(settings, exchange) as gatherer,
    ):
        gatherer.follows(10)
        eventually(lambda: gatherer.value(OPEN) == 10, what="ten subscriptions in the ledger")
        past.return_to()
        eventually(
            lambda: gatherer.status.alarms.get(WENT_BACK) == 1, within_s=60, what="the alarm"
        )  # fmt: skip
        eventually(
            lambda: gatherer.status.followed_markets == 10 and gatherer.value(OPEN) == 10,
            within_s=60, what="ten subscriptions in the ledger again",
        )  # fmt: skip
        told = gatherer.status
        assert (told.health, told.reasons) == ("degraded", [])
        assert any(WENT_BACK in text for text in told.troubles), told.troubles
        assert told.ledger is not None
        assert told.ledger.subscriptions == 10
        assert gatherer.value("SELECT count(*) FROM sessions") == 2


def test_a_second_process_cut_off_at_its_start_leaves_the_ledger_of_the_first_alone(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    parts = urlsplit(settings.timeseries_url)
    administer(settings.timeseries_url, "CREATE ROLE cut_off LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
    try:
        administer(settings.timeseries_url, f"GRANT {parts.username} TO cut_off")
        second_url = parts._replace(netloc=f"cut_off:x@{parts.hostname}:{parts.port}").geturl()
        second_settings = gatherer_settings(
            timeseries_url=second_url, catalog_url=settings.catalog_url, state_dir=tmp_path / "second"
        )
        with (
            running_exchange(tmp_path, markets=5, rate=50) as exchange,
            running_gatherer(settings, exchange) as gatherer,
        ):
            gatherer.follows(5)
            eventually(lambda: gatherer.value(OPEN) == 5, what="five subscriptions in the ledger")
            second = RunningGatherer(second_settings, client_settings(exchange))
            second.follows(5)
            eventually(lambda: second.ingest.behind_bytes, what="the second one recording to its journal")
            administer(settings.timeseries_url, "ALTER ROLE cut_off CONNECTION LIMIT -1")
            second.join(60)
            assert isinstance(second.error, AnotherWriter)
            assert gatherer.value(OPEN) == 5
            assert gatherer.value("SELECT count(DISTINCT session_id) FROM sessions WHERE closed_at IS NOT NULL") == 0
            assert not gatherer.status.alarms.get(WENT_BACK)
    finally:
        administer(settings.timeseries_url, "DROP ROLE cut_off")


def test_two_gatherers_on_one_database_are_not_two_observers(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    settings = gatherer_settings()
    with (
        running_exchange(tmp_path, markets=2, rate=0) as exchange,
        running_gatherer(settings, exchange) as gatherer,
    ):
        gatherer.follows(2)
        second = RunningGatherer(
            gatherer_settings("g2", timeseries_url=settings.timeseries_url), client_settings(exchange)
        )
        second.join(60)
        with pytest.raises(AnotherWriter, match="gatherer g1 writes into"):
            raise second.error or AssertionError("it went on")
        assert gatherer.value("SELECT count(*) FROM heartbeats WHERE service = 'gatherer/g2'") == 0


def kinds_into(kinds: list[str]) -> Callable[[str, str], None]:
    """A callback that keeps the kinds of alarms."""
    return lambda kind, _: kinds.append(kind)


def test_an_open_transaction_is_reported_with_the_remedy(
    gatherer_settings: SettingsFactory, open_database: OpenDatabase
) -> None:
    settings, alarms = gatherer_settings(), list[str]()
    database, clock = open_database(settings.timeseries_url), FakeClock()
    watch = OpenTransactions("g1", database, clock, kinds_into(alarms), open_for_s=0.0)
    watch.check()
    assert watch.problems() == []
    forgotten = psycopg2.connect(settings.timeseries_url, application_name="psql of somebody")
    try:
        with forgotten.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), txid_current()")
            (pid, _) = cursor.fetchone() or (0, 0)
        watch.check()
        assert watch.problems() == [], "asked once a minute"
        for _ in range(2):
            clock.step(60.0)
            watch.check()
        (told,) = watch.problems()
        assert told.startswith(f"pid {pid} (psql of somebody, idle in transaction) keeps a transaction open for")
        assert told.endswith(f"End it: SELECT pg_terminate_backend({pid})")
        assert alarms == ["open_transaction"]
    finally:
        forgotten.close()
    clock.step(60.0)
    eventually(lambda: not rows(settings.timeseries_url, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))
    watch.check()
    assert watch.problems() == []
